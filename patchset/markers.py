"""What an overlay file says of its definitions; the build strips it."""

# The module that overlay files import them from.
MODULE = __name__


def new(definition):
    """Marks a definition of an overlay file that upstream does not have."""
    return definition


def keeps(name):
    """Marks a definition that replaces upstream's, which stays as `name`."""
    del name
    return lambda definition: definition


def when(releases):
    """Marks what is only for some releases of upstream's, as in "<3.16"."""
    del releases
    return lambda definition: definition
