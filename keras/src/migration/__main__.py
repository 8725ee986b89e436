"""Points at code that handles masks the old way, and says what to write.

python -m keras.src.migration PATH...
"""

import argparse
import collections
import os
import sys
import typing

import rich.console
from rich.markup import escape

from keras.src.migration.patterns import PATTERNS

DESCRIPTION = """\
Reads Python files, and directories of them, and prints each place where masks
are handled the old way: file, line, name of the pattern, and what to write
instead. Nothing is run. In directories, those whose names begin with a dot are
left out."""

EPILOG = """\
A class counts as a layer if one of its bases is one, by its import or by its
definition in one of the files.

exit status:
  0  nothing was found
  1  something was found
  2  nothing was found, but not everything could be read; or libcst is
     missing, or the arguments are wrong

Importing Keras takes most of the time for a few files; KERAS_BACKEND=numpy in
the environment makes it faster.

patterns:
  {patterns}"""


def main(arguments: typing.Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: List of arguments. Defaults to those of the process.

    Returns:
        The exit status: 0 if nothing was found, 1 if anything was, 2 if
        nothing was but a file could not be read.
    """
    options = _parser().parse_args(arguments)
    try:
        # Late: `libcst` may be missing.
        from keras.src.migration import search
        from keras.src.migration import sources
    except ModuleNotFoundError as error:
        if error.name != "libcst":
            raise
        print(
            "This command reads sources with the package `libcst`, which is "
            "not installed. Install it with: pip install libcst",
            file=sys.stderr,
        )
        return 2
    project = sources.Project(options.paths)
    counts, mechanical = collections.Counter(), 0
    show = _show_patch if options.diff else _printer()
    for source in project.sources():
        try:
            found = [
                finding
                for finding in search.findings(source, project)
                if finding.name not in options.ignore
            ]
        except RecursionError:
            project.problems[source.path] = sources.TOO_DEEP
            continue
        counts.update(finding.name for finding in found)
        mechanical += sum(finding.is_mechanical for finding in found)
        show(source, found)
    sys.stdout.flush()
    for path, problem in project.problems.items():
        print(f"{path}: not read: {problem}", file=sys.stderr)
    total = counts.total()
    print(
        f"{len(project)} files read, {total} places found, {mechanical} of "
        f"them {'are in the patch' if options.diff else 'can be patched'}",
        file=sys.stderr,
    )
    for name, count in counts.most_common():
        print(f"{count:6}  {name}", file=sys.stderr)
    return 1 if total else 2 if project.problems else 0


def _parser():
    width = max(map(len, PATTERNS))
    patterns = "\n  ".join(
        f"{p.name:{width}}  {p.what.format_map(_Names())}"
        for p in PATTERNS.values()
    )
    parser = argparse.ArgumentParser(
        prog="python -m keras.src.migration",
        description=DESCRIPTION,
        epilog=EPILOG.format(patterns=patterns),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="file or directory"
    )
    parser.add_argument(
        "--diff",
        action="store_true",
        help="print a patch of what is mechanical instead; it applies here, "
        "with `git apply` or `patch -p0`",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        choices=PATTERNS,
        metavar="PATTERN",
        help="leave out a pattern; may be given several times",
    )
    return parser


class _Names(dict):
    """Shows names in braces as they are."""

    def __missing__(self, name):
        return name.upper()


def _show_patch(source, found):
    # Late: `libcst` may be missing.
    from keras.src.migration import patch

    if any(finding.is_mechanical for finding in found):
        before, after = source.tree.bytes, patch.patched(source, found)
        # As bytes: a file may be in another encoding than the terminal.
        sys.stdout.buffer.write(patch.unified_diff(source.path, before, after))


def _printer():
    """Lines that editors can jump to, or colours if a terminal reads them."""
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:

        def show(source, found):
            for f in found:
                print(f"{f.path}:{f.line}: {f.name}: {f.text}")

        return show

    def show(source, found):
        for f in found:
            console.print(
                f"[bold]{escape(f.path)}[/]:[cyan]{f.line}[/]: "
                f"[yellow]{f.name}[/]: {escape(f.text)}",
                soft_wrap=True,
            )

    return show


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # As in `... | head`; so something was found.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
