"""What is recorded of one release of upstream's: `locks/VERSION.json`."""

import dataclasses
import json
import pathlib

from patchset.pieces import PatchError


@dataclasses.dataclass
class Lock:
    """A release: which file it is, and what of it the overlay changes.

    Attributes:
        version: Upstream's version.
        distribution: "keras" or "keras-nightly".
        wheel_sha256: Hash of its wheel.
        tree_sha256: Hash over the source files in it.
        tests: "wheel" if the wheel ships upstream's tests, else "none": the
            overlay's files of such tests are left out.
        moved: {file of the overlay: the file that it changes}, where they
            differ.
        renamed: {dotted name in the overlay: what it is called there}. A name
            after "FILE::" is renamed in that file alone.
        files: Upstream's files that the overlay changes without changing a
            definition: it adds to them, or they are tests that are left out.
        definitions: {definition: hash of upstream's text of it}.
        open: {definition: why somebody has yet to look at it}.
        seen: What else somebody looked at and found harmless: methods that
            call the backend, public names without a row.
    """

    version: str
    distribution: str = "keras"
    wheel_sha256: str = ""
    tree_sha256: str = ""
    tests: str = "none"
    moved: dict = dataclasses.field(default_factory=dict)
    renamed: dict = dataclasses.field(default_factory=dict)
    files: list = dataclasses.field(default_factory=list)
    definitions: dict = dataclasses.field(default_factory=dict)
    open: dict = dataclasses.field(default_factory=dict)
    seen: list = dataclasses.field(default_factory=list)

    @property
    def wheel(self):
        """The name of the wheel's file."""
        name = self.distribution.replace("-", "_")
        return f"{name}-{self.version}-py3-none-any.whl"

    @property
    def file(self):
        return f"locks/{self.version}.json"

    def overlaid(self):
        """Returns the overlay's files that upstream has a counterpart of."""
        keys = [*self.definitions, *self.open]
        return {*self.files, *(key.partition("::")[0] for key in keys)}

    def unlocked(self):
        """Returns the release, with nothing to compare it with."""
        return dataclasses.replace(self, definitions={}, open={})


# What stands under "upstream"; the rest is ours.
PIN = ("distribution", "version", "wheel_sha256", "tree_sha256", "tests")


def known(folder):
    """Returns the releases that have a lock, oldest first."""
    from patchset.when import version_of

    found = [path.stem for path in pathlib.Path(folder).glob("*.json")]
    return sorted(found, key=version_of)


def read(folder, version):
    path = pathlib.Path(folder) / f"{version}.json"
    if not path.is_file():
        raise PatchError(
            f"Keras {version} has no lock here; these have one: "
            f"{', '.join(known(folder))}. What it would take: python "
            f"pip_build.py --against {version}; to begin: --rebase {version}"
        )
    data = json.loads(path.read_text("utf-8"))
    return Lock(**data.pop("upstream"), **data)


def write(folder, lock):
    data = dataclasses.asdict(lock)
    text = {"upstream": {name: data.pop(name) for name in PIN}}
    # In the order of the fields above.
    for name, value in data.items():
        if isinstance(value, dict):
            text[name] = dict(sorted(value.items()))
        else:
            text[name] = sorted(value)
    text = {name: value for name, value in text.items() if value}
    path = pathlib.Path(folder) / f"{lock.version}.json"
    path.write_text(json.dumps(text, indent=2) + "\n")
