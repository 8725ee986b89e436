"""Builds the fork: composes upstream's Keras with the overlay in `keras/`.

Run `python pip_build.py --help` for the options; `guides/overlay.md` explains
them.
KERAS_FORK_FOR in the environment is what `--for` sets: upstream's release.
"""

import argparse
import contextlib
import gc
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent
# The release that is composed with unless another is named.
DEFAULT = "3.15.1"
RELEASE = os.environ.get("KERAS_FORK_FOR", DEFAULT)


def folder_of(version):
    """Each release has its own, so that what is built for one stays."""
    build = ROOT / "build"
    return build if version == DEFAULT else build / "for" / version


BUILD = folder_of(RELEASE)
UPSTREAM = BUILD / "upstream"
CACHE = ROOT / ".cache"
LOCKS = ROOT / "locks"
VENV = ROOT / ".venv"
# For the data of a guide alone: what it requires, nothing here does.
DATA = "aeon==1.6.0"

# A file that is run by its path, or loaded by setuptools, finds `patchset` too.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from patchset import audit  # noqa: E402
from patchset import compare  # noqa: E402
from patchset import following  # noqa: E402
from patchset import locks  # noqa: E402
from patchset import report  # noqa: E402
from patchset import tree  # noqa: E402
from patchset import upstream  # noqa: E402
from patchset.pieces import PatchError  # noqa: E402


def read_lock():
    return locks.read(LOCKS, RELEASE)


def aim(version):
    """Makes all that follows, here and in other processes, be for a release."""
    global RELEASE, BUILD, UPSTREAM
    os.environ["KERAS_FORK_FOR"] = RELEASE = version
    BUILD = folder_of(version)
    UPSTREAM = BUILD / "upstream"


def fork_version():
    """Returns the fork's version: upstream's and what `version.py` adds."""
    text, _ = tree.overlay_text(ROOT, tree.VERSION_FILE, read_lock())
    return re.search(r'^__version__ = "(.+)"', text, re.MULTILINE).group(1)


def compose(wheel=None):
    """Composes `build/keras`, unless it is up to date.

    Returns:
        Whether anything was composed.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with _only_one():
        if wheel is None and _is_current():
            return False
        lock = read_lock()
        # Before composing: an edit meanwhile must not count as composed.
        sources = _sources_digest()
        upstream.unpack(lock, CACHE, UPSTREAM, wheel)
        tree.compose(UPSTREAM, ROOT, BUILD, lock)
        stamp = {"sources": sources, "tree": _tree_digest()}
        (BUILD / "stamp.json").write_text(json.dumps(stamp))
        return True


@contextlib.contextmanager
def _only_one():
    """Keeps test workers from composing at the same time."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(BUILD / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_current():
    try:
        stamp = json.loads((BUILD / "stamp.json").read_text())
    except (OSError, ValueError):
        return False
    return (
        stamp == {"sources": _sources_digest(), "tree": _tree_digest()}
        and UPSTREAM.exists()
    )


def _sources_digest():
    """Returns a digest over everything that decides what is composed."""
    digest = hashlib.sha256()
    lock = LOCKS / f"{RELEASE}.json"
    own = [pathlib.Path(__file__), lock, *(ROOT / "patchset").glob("*.py")]
    for path in [*sorted(own), *(ROOT / p for p in tree.files_of(ROOT))]:
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _tree_digest():
    """Returns a digest that changes if a composed file goes or is edited."""
    digest = hashlib.sha256()
    for path in tree.files_of(BUILD):
        stat = (BUILD / path).stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def plan():
    """Returns the composed tree in memory, whatever the lock holds."""
    compose_upstream()
    return tree.plan(UPSTREAM, ROOT, read_lock().unlocked())


def compose_upstream():
    BUILD.mkdir(parents=True, exist_ok=True)
    with _only_one():
        upstream.unpack(read_lock(), CACHE, UPSTREAM)


def write_lock():
    """Locks what the overlay began to change, and frees what it left."""
    composed, lock = plan(), read_lock()
    found = tree.lock_of(composed.changes)
    following.relock(lock, found, locks.read(LOCKS, DEFAULT))
    lock.files = composed.others
    locks.write(LOCKS, lock)
    print(f"{lock.file}: {len(lock.definitions)} definitions")
    if lock.open:
        print(f"{len(lock.open)} of them are open: {', '.join(lock.open)}")


def check():
    """Composes, and reports what a build alone lets pass."""
    compose()
    lock = read_lock()
    problems = report.check(plan(), UPSTREAM, ROOT, lock)
    if problems:
        raise PatchError("\n".join(problems))
    count = len(lock.definitions)
    print(f"check: {count} definitions as locked, nothing copied")


def print_diff():
    sys.stdout.writelines(report.diff(plan(), UPSTREAM))


def list_overlaid_tests():
    for test, reason in report.replaced_tests(plan()):
        print(f"{test}\n    {reason}")


def print_lines():
    rows = list(report.sizes(plan(), UPSTREAM, ROOT))
    print(" lines  replaced  file")
    for path, lines, replaced in rows:
        print(f"{lines:6}  {replaced:8}  {path}")
    for label, is_test in (("sources", False), ("tests", True)):
        part = [r for r in rows if r[0].endswith("_test.py") == is_test]
        lines, replaced = sum(r[1] for r in part), sum(r[2] for r in part)
        print(f"{lines:6}  {replaced:8}  all {label} ({len(part)} files)")
    total = report.count_lines(UPSTREAM)
    share = sum(r[2] for r in rows) / total
    print(f"upstream: {total} lines, of which {share:.2%} are replaced")


def show(key, name):
    """Prints a definition; beside another release's, if one is named."""
    if name is None:
        compose_upstream()
        print(report.show(key, UPSTREAM, ROOT))
        return
    with other_release(name) as (comparison, _):
        found = {f.key: f for f in comparison.found}
        if key not in found:
            near = following.nearest(key, found)
            raise PatchError(
                f"{key}: the overlay changes no such definition. {near}"
            )
        print(following.show(found[key], ROOT, comparison.lock), end="")


@contextlib.contextmanager
def other_release(name, tests=None):
    """Compares the default release with another, which need have no lock.

    Args:
        name: Its version, or the path of its wheel.
        tests: A directory that holds upstream's tests of it, if the wheel
            does not.

    Yields:
        A `Comparison`, and the lock that there is, or an empty one.
    """
    aim(DEFAULT)
    compose_upstream()
    with tempfile.TemporaryDirectory() as folder:
        pin = following.open_wheel(name, folder, CACHE)
        if tests:
            following.add_tests(tests, folder)
        lock = pin
        if pin.version in locks.known(LOCKS):
            lock = locks.read(LOCKS, pin.version)
        yield (
            following.examine(
                compare.Tree(UPSTREAM),
                locks.read(LOCKS, DEFAULT),
                compare.Tree(folder),
                lock,
                ROOT,
                audit.find_ruff(VENV),
            ),
            lock,
        )


def against(name, tests, verbose, keys):
    """Prints what another release would change.

    Returns:
        The exit status: 0 if all composes as it is, 1 if anything is open, 2
        if that could not be told.
    """
    started = time.perf_counter()
    try:
        with other_release(name, tests) as (comparison, _):
            seconds = time.perf_counter() - started
            for line in following.summary(
                comparison, DEFAULT, seconds, verbose
            ):
                print(line)
            found = {f.key: f for f in comparison.found}
            for key in keys:
                if key not in found:
                    raise PatchError(following.nearest(key, found))
                print(following.show(found[key], ROOT, comparison.lock))
            return comparison.status
    except (PatchError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


def rebase(name):
    """Writes the lock of another release, with all that differs open."""
    with other_release(name) as (comparison, _):
        lock = following.rebased(comparison)
    if lock.version == DEFAULT:
        raise PatchError(
            f"Keras {DEFAULT} is the release that others are compared with. "
            "Name another one."
        )
    locks.write(LOCKS, lock)
    print(
        f"{lock.file}: {len(lock.definitions)} definitions as they were, "
        f"{len(lock.open)} open"
    )
    for key, state in lock.open.items():
        print(f"    {key} ({state})")
    if lock.open:
        print(
            f"Look at each: python pip_build.py --for {lock.version} --show "
            "KEY; then: --accept KEY..., or --accept --renamed"
        )


def accept(keys, renamed, name):
    """Takes open definitions over into the lock of a release, by name."""
    if not keys and not renamed:
        raise PatchError(
            "--accept takes the definitions that you looked at, or --renamed "
            "for those that differ by names alone. Nothing takes all."
        )
    name = name or _release_with_open()
    with other_release(name) as (comparison, lock):
        if lock.version not in locks.known(LOCKS):
            raise PatchError(
                f"Keras {lock.version} has no lock yet. Begin it: python "
                f"pip_build.py --rebase {name}"
            )
        for line in following.accept(lock, comparison, keys, renamed):
            print(f"accepted {line}")
        locks.write(LOCKS, lock)
    print(f"{lock.file}: {len(lock.open)} open")


def _release_with_open():
    found = [v for v in locks.known(LOCKS) if locks.read(LOCKS, v).open]
    if len(found) != 1:
        some = f"Open are {', '.join(found)}" if found else "No lock is open"
        raise PatchError(f"{some}. Name the release: --for VERSION")
    return found[0]


def install(python=sys.executable):
    """Builds the fork's wheel and installs it for one Python."""
    compose()
    pip = [python, "-m", "pip"]
    with tempfile.TemporaryDirectory() as folder:
        print("building the wheel", flush=True)
        _run([*pip, "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)])
        (wheel,) = map(str, pathlib.Path(folder).glob("keras-*.whl"))
        # It has the same files, and pip would not know whose they are.
        _run([*pip, "uninstall", "-qq", "-y", "keras-nightly"])
        # Twice: the first takes the place of any keras, of the same version
        # too; the second adds those of its requirements that are missing.
        _run([*pip, "install", "-q", "--no-deps", "--force-reinstall", wheel])
        _run([*pip, "install", "-q", wheel])
    print(f"installed keras {fork_version()} for {python}")


def environment():
    """Returns the Python of `.venv`, made and filled when needed."""
    folder = "Scripts" if os.name == "nt" else "bin"
    python = str(VENV / folder / "python")
    if not os.path.exists(python):
        print("making .venv", flush=True)
        _run([sys.executable, "-m", "venv", str(VENV)])
    requirements = ROOT / "requirements.txt"
    if _stamp("requirements", _hash(requirements)):
        print("installing requirements (minutes, the first time)", flush=True)
        _run([python, "-m", "pip", "install", "-q", "-r", str(requirements)])
        _stamp("requirements", _hash(requirements), write=True)
    if _stamp("data", DATA):
        _run([python, "-m", "pip", "install", "-q", "--no-deps", DATA])
        _stamp("data", DATA, write=True)
    return python


def demo(arguments):
    """Installs the fork into `.venv` and runs the guide with it."""
    python = environment()
    compose()
    if _stamp("fork", _sources_digest()):
        install(python)
        _stamp("fork", _sources_digest(), write=True)
    # Where this runs, and on this path, the overlay's `keras/` must not be
    # found: it is no package by itself.
    folder = BUILD / "demo"
    folder.mkdir(exist_ok=True)
    guide = ROOT / "guides/masked_tensors.py"
    return _call([python, str(guide), *arguments], folder)


def test(arguments):
    """Runs the tests with the Python of `.venv`."""
    script = ROOT / "integration_tests/run_all.py"
    return _call([environment(), str(script), *arguments], ROOT)


def _call(command, folder):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=env).returncode


def _run(command):
    if subprocess.run(command).returncode:
        raise PatchError(
            f"this command failed: {shlex.join(command)}\n"
            "Its own message is above; when that is mended, run again."
        )


def _hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stamp(name, value, write=False):
    """Returns whether `.venv` lacks this stamp; writes it if asked to."""
    file = VENV / f"{name}.stamp"
    if write:
        file.write_text(value)
    return not file.exists() or file.read_text() != value


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument(
        "--wheel", help="upstream's wheel; else it is looked for, or downloaded"
    )
    parser.add_argument(
        "--for",
        dest="release",
        metavar="VERSION",
        help=f"the release of upstream's; by default {DEFAULT}",
    )
    parser.add_argument(
        "--tests",
        metavar="DIR",
        help="with --against: upstream's tests, if its wheel has none",
    )
    parser.add_argument(
        "--renamed",
        action="store_true",
        help="with --accept: what differs by names alone, all of it",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="with --against: by name"
    )
    jobs = parser.add_mutually_exclusive_group()
    for name, text in (
        ("install", "install the fork into the running environment"),
        ("diff", "print the fork as a unified diff against upstream"),
        ("check", "check the lock, the names and that nothing is copied"),
        ("lock", "lock what the overlay changes since the lock was written"),
        ("list-overlaid-tests", "print upstream's tests that are replaced"),
        ("lines", "print the size of the overlay, by file"),
        ("demo", "run the guide in .venv; arguments are passed on"),
        ("test", "run all tests in .venv; arguments are passed on"),
        ("accept", "take open definitions over: KEY..., or --renamed"),
    ):
        jobs.add_argument(f"--{name}", action="store_true", help=text)
    for name, metavar, text in (
        (
            "against",
            "VERSION|WHEEL",
            "say what another release changes; KEY... may follow. Exits with "
            "0 if it composes as it is, 1 if not, 2 if that cannot be told",
        ),
        ("rebase", "VERSION|WHEEL", "begin the lock of another release"),
        (
            "show",
            "FILE::NAME",
            "print a definition, upstream's and the overlay's; with --for "
            "also what another release, or wheel, made of it",
        ),
    ):
        jobs.add_argument(f"--{name}", metavar=metavar, help=text)
    return parser


def _dispatch(options, arguments):
    release = options.release
    if options.against:
        return against(
            options.against, options.tests, options.verbose, arguments
        )
    if options.rebase:
        return rebase(options.rebase)
    if options.accept:
        return accept(arguments, options.renamed, release)
    if options.show:
        other = None if release in (None, DEFAULT) else release
        return show(options.show, other)
    if release:
        aim(release)
    done = compose(options.wheel) if options.wheel else False
    if options.demo:
        return demo(arguments)
    if options.test:
        return test(arguments)
    for name, job in (
        ("install", install),
        ("diff", print_diff),
        ("check", check),
        ("lock", write_lock),
        ("list_overlaid_tests", list_overlaid_tests),
        ("lines", print_lines),
    ):
        if getattr(options, name):
            return job()
    done = compose() or done
    print("composed" if done else "up to date:", os.path.relpath(BUILD))


TAKE_ARGUMENTS = ("demo", "test", "accept", "against")


def main():
    if sys.version_info < (3, 11):  # noqa: UP036  this runs before any pip
        print("error: Keras needs Python 3.11 or newer.", file=sys.stderr)
        return 1
    # Syntax trees of a thousand files: to count them again takes most time.
    gc.disable()
    parser = _parser()
    options, arguments = parser.parse_known_args()
    takes = any(getattr(options, name) for name in TAKE_ARGUMENTS)
    if arguments and not takes:
        parser.error(f"unknown arguments: {shlex.join(arguments)}")
    try:
        return _dispatch(options, arguments) or 0
    except BrokenPipeError:  # as in `--diff | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PatchError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
