"""What moves, joins and makes entries, and what is elementwise."""

EXAMPLES = {}
NAMES = {}
ORACLES = {}
