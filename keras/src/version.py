"""The fork has its own version number, which satisfies `keras>=3`."""

__version__ = "3.15.1+masked.1"
