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
from patchset.when import version_of


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
    requirement = f"{pin.distribution}=={pin.version}"
    reason = _pip_download(requirement, cached.parent)
    if reason or not cached.exists():
        raise PatchError(
            f"Upstream's wheel is neither in {cached.parent} nor installed, "
            f"and the download failed: {reason or 'pip gave no reason'}\n"
            f"Fetch it where there is a network (pip download --no-deps "
            f"{requirement}), then: python pip_build.py --wheel PATH"
        )


def _pip_download(requirement, folder):
    """Downloads a wheel; returns the reason if that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run(
        [*command, requirement], capture_output=True, text=True
    )
    lines = (done.stderr or done.stdout).strip().splitlines()
    lines = [n for n in lines if n.startswith("ERROR")] or lines
    return (lines or ["pip gave no reason"])[-1] if done.returncode else None


def fetch(version, cache):
    """Returns the wheel of any release, downloaded unless it is in the cache.

    A development version is one of keras-nightly.
    """
    name = "keras-nightly" if version_of(version).is_prerelease else "keras"
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    cached = pathlib.Path(cache) / file
    if not cached.exists():
        reason = _pip_download(f"{name}=={version}", cached.parent)
        if reason or not cached.exists():
            raise PatchError(
                f"{name} {version} is not in {cached.parent}, and the download "
                f"failed: {reason or 'pip brought another file'}\nIs there "
                f"such a release? `pip index versions {name} --pre` lists "
                "them. A wheel that is here can be named by its path."
            )
    return cached
