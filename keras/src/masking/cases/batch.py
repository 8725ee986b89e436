"""Ops whose masks may cover batch axes only, windows and losses."""

EXAMPLES = {}
NAMES = {}
ORACLES = {}
