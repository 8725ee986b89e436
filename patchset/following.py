"""Follows upstream to another release: looks, and takes over by name."""


def relock(lock, found, default):
    """Writes into a lock what the overlay changes now.

    What was locked stays as it was: upstream's changes are accepted by name
    alone. What is new here is open if upstream's text is not that of the
    default release, which somebody saw as he wrote the overlay.

    Args:
        lock: The `Lock`, which is changed.
        found: {definition: hash} of what the overlay changes.
        default: The `Lock` of the default release.
    """
    locked, opened = {}, {}
    for key, value in found.items():
        known = default.definitions.get(key, value)
        if key in lock.open:
            opened[key] = lock.open[key]
        elif key in lock.definitions or known == value:
            locked[key] = lock.definitions.get(key, value)
        else:
            opened[key] = "changed"
    lock.definitions, lock.open = locked, opened
