"""Sorting, ranks and running results."""

EXAMPLES = {}
NAMES = {}
ORACLES = {}
