"""The rule families: each a few functions of a `Call`, one idea a file."""
