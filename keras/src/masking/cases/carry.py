"""Control flow, scatters and random draws."""

EXAMPLES = {}
NAMES = {}
ORACLES = {}
