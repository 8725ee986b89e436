"""Gives the names in an overlay file what upstream calls them elsewhere."""

import re

from patchset.pieces import parse


def renamed(text, path, names):
    """Returns the text with its dotted names replaced, all at once.

    Args:
        text: Text of an overlay file.
        path: Its path.
        names: {dotted name: new name}; "FILE::name" is for that file alone.

    Returns:
        The text, and {new name: old name} of its top-level definitions.
    """
    table = {}
    for old, new in names.items():
        file, _, name = old.rpartition("::")
        if file in ("", path):
            table[name] = new
    if not table or not any(name in text for name in table):
        return text, {}
    # The longest first: a name may begin another.
    ordered = sorted(table, key=len, reverse=True)
    pattern = "|".join(re.escape(name) for name in ordered)
    changed = re.sub(
        rf"(?<![\w.])({pattern})(?!\w)", lambda m: table[m[1]], text
    )
    before, after = parse(text, path).body, parse(changed, path).body
    return changed, {
        new.name: old.name
        for old, new in zip(before, after, strict=True)
        if hasattr(old, "name") and old.name != new.name
    }


def back(name, names):
    """Returns the name in the overlay of `Class.f` as it was composed."""
    owner, dot, member = name.partition(".")
    return names.get(owner, owner) + dot + member
