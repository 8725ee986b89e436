"""Tests of the build: made-up trees for each rule, then the real one."""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile

import pytest

import pip_build
from patchset import report
from patchset import tree
from patchset import upstream
from patchset.locks import Lock
from patchset.pieces import PatchError
from patchset.splice import splice

MODULE = "keras/src/m.py"
INITS = {"keras/__init__.py": "", "keras/src/__init__.py": ""}


def dedent(text):
    return textwrap.dedent(text).lstrip("\n")


def spliced(theirs, ours, path=MODULE):
    return splice(dedent(theirs), dedent(ours), path).text


def run(text):
    """Returns the names that composed text defines when it is run."""
    names = {}
    exec(compile(text, "composed", "exec"), names)
    return names


def error_of(theirs, ours, path=MODULE):
    with pytest.raises(PatchError) as caught:
        spliced(theirs, ours, path)
    return str(caught.value)


def write_tree(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(dedent(text))


def lock_with(definitions, **more):
    more = {"version": "3.15.1", "tests": "wheel", **more}
    return Lock(definitions=definitions, **more)


class Trees:
    """An upstream tree, an overlay and a place to compose them to."""

    def __init__(self, root):
        self.upstream, self.overlay = root / "upstream", root / "overlay"
        self.out = root / "out"

    def compose(self, theirs, ours, lock=None, **more):
        shutil.rmtree(self.overlay, ignore_errors=True)
        write_tree(self.upstream, {**INITS, **theirs})
        write_tree(self.overlay, ours)
        lock = lock_with(lock or {}, **more)
        return tree.compose(self.upstream, self.overlay, self.out, lock)

    def check(self, composed, lock):
        lock = lock_with(lock, files=composed.others)
        return report.check(composed, self.upstream, self.overlay, lock)

    def text(self, path):
        return (self.out / path).read_text()


@pytest.fixture
def trees(tmp_path):
    return Trees(tmp_path)


# Replacing, adding, removing.

ODD = '''
"""Doc."""
import os,sys   # crooked, kept
x   =  1
\x0c
def f( a,b ):   return a+b


class C( object ):
    # First.
    y = 2


    def g(self):
        return "\u2028"
        # trailing
# end
'''


def test_upstreams_text_stays_to_the_byte():
    assert spliced(ODD, '"""Nothing changes."""\n') == dedent(ODD)


def test_only_the_replaced_definition_differs():
    composed = spliced(ODD, "x = 3\n")
    assert composed == dedent(ODD).replace("x   =  1", "x = 3")


def test_a_function_is_replaced_with_its_comments_and_decorators():
    theirs = """
        import functools

        # Theirs.
        @functools.cache
        def f():
            return 1
            # trailing


        def g():
            return 2
        """
    ours = """
        # Ours.
        def f():
            return 3
        """
    assert spliced(theirs, ours) == dedent("""
        import functools

        # Ours.
        def f():
            return 3


        def g():
            return 2
        """)


def test_an_assignment_keeps_upstreams_comment_unless_it_has_its_own():
    theirs = "# Theirs.\nx = 1\n# Theirs too.\ny: int = 2\n"
    ours = "x = 3\n\n# Ours.\ny: int = 4\n"
    composed = "# Theirs.\nx = 3\n# Ours.\ny: int = 4\n"
    assert spliced(theirs, ours) == composed


CLASS = '''
class C(Base):
    """Theirs."""

    size = 1

    class Inner:
        a = 1

    def f(self):
        return 1

    @property
    def p(self):
        return self._p

    @p.setter
    def p(self, value):
        self._p = value

    def g(self):
        return 2


z = 1
'''


def test_a_class_is_merged_member_by_member():
    ours = """
        class C:
            size = 2

            class Inner:
                b = 1

            def g(self):
                return 3
        """
    composed = dedent(CLASS).replace("size = 1", "size = 2")
    composed = composed.replace("a = 1", "b = 1")
    composed = composed.replace("return 2", "return 3")
    assert spliced(CLASS, ours) == composed


def test_a_property_is_replaced_with_its_setter():
    ours = """
        class C:
            @property
            def p(self):
                return 5
        """
    composed = spliced(CLASS, ours)
    assert "p.setter" not in composed and "return self._p" not in composed
    assert "        return 5\n\n    def g(self):" in composed


def test_a_setter_of_ours_follows_its_property():
    ours = """
        class C:
            @property
            def p(self):
                return self._q

            @p.setter
            def p(self, value):
                self._q = value + 1
        """
    names = run("class Base: pass\n\n\n" + spliced(CLASS, ours))
    instance = names["C"]()
    instance.p = 1
    assert instance.p == 2


@pytest.mark.parametrize(
    "ours, header",
    [
        ("class C:", "class C(Base):"),
        ("class C(Base):", "class C(Base):"),
        ("class C(Other, Base):", "class C(Other, Base):"),
        ("class C(Base, metaclass=M):", "class C(Base, metaclass=M):"),
        ("@deco\nclass C:", "@deco\nclass C(Base):"),
    ],
)
def test_the_class_header_changes_only_if_the_overlay_says_so(ours, header):
    composed = spliced(CLASS, f"{ours}\n    pass\n")
    assert composed == dedent(CLASS).replace("class C(Base):", header)


def test_upstreams_class_decorators_stay():
    composed = spliced(
        "@a\n@b(1)\nclass C:\n    x = 1\n", "class C:\n    x = 2"
    )
    assert composed == "@a\n@b(1)\nclass C:\n    x = 2\n"


def test_a_class_docstring_is_replaced_or_added():
    ours = 'class C:\n    """Ours."""\n'
    assert spliced(CLASS, ours) == dedent(CLASS).replace("Theirs.", "Ours.")
    composed = spliced("class C:\n    x = 1\n", ours)
    assert composed == 'class C:\n    """Ours."""\n\n    x = 1\n'


def test_new_definitions_stand_before_the_next_replaced_one_or_at_the_end():
    theirs = """
        import a

        x = 1


        def f():
            return 1


        def g():
            return 2
        """
    ours = """
        from patchset.markers import new

        __added__ = ("LIMIT",)

        # Why three.
        LIMIT = 3


        @new
        def before_g():
            return LIMIT


        def g():
            return before_g()


        @new
        def last():
            return 4
        """
    assert spliced(theirs, ours) == dedent("""
        import a

        x = 1


        def f():
            return 1


        # Why three.
        LIMIT = 3


        def before_g():
            return LIMIT


        def g():
            return before_g()


        def last():
            return 4
        """)


def test_new_members_are_placed_alike():
    ours = """
        class C:
            __added__ = ("first",)

            first = 0

            def f(self):
                return 1.5

            @new
            @property
            def last(self):
                return 4
        """
    composed = spliced(CLASS, ours)
    assert "    first = 0\n\n    def f(self):\n        return 1.5\n" in composed
    end = "    @property\n    def last(self):\n        return 4\n\n\nz = 1\n"
    assert composed.endswith(f"        return 2\n\n{end}")


def test_other_statements_are_appended_in_order():
    ours = """
        if True:
            w = 1
        for w in (2, 3):
            pass


        def f():
            return w


        print(f())
        """
    composed = spliced("def f():\n    return 0\n", ours)
    assert run(composed)["w"] == 3
    assert composed.endswith("    return w\n\n\nprint(f())\n")


def test_definitions_are_deleted():
    head = "from a import b\nimport c\n\n\ndef f():\n    pass\n\n\n"
    ours = "del b, f\ndel C.g\ndel C.p\ndel z\n"
    left = dedent(CLASS).partition("\n    @property")[0]
    assert spliced(head + dedent(CLASS), ours) == f"import c\n\n\n{left}"


def test_a_class_may_be_merged_and_deleted_from():
    for ours in (
        "del C.f\nclass C:\n    size = 2\n",
        "class C:\n    size = 2\ndel C.f\n",
    ):
        composed = spliced(CLASS, ours)
        assert "size = 2" in composed and "def f" not in composed


# Keeping upstream's definition.


def test_a_kept_function_can_be_wrapped():
    theirs = """
        def keras_export(name):
            return lambda x: x


        def twice(x):
            return lambda: 2 * x()


        # Theirs.
        @keras_export(
            "keras.f"
        )
        @twice
        def f():
            return 10
        """
    ours = """
        from patchset.markers import keeps


        # Ours.
        @keeps("_plain_f")
        @keras_export("keras.f")
        def f():
            return _plain_f() + 1
        """
    composed = spliced(theirs, ours)
    assert composed.endswith(
        dedent("""
        # Theirs.
        @twice
        def _plain_f():
            return 10


        # Ours.
        @keras_export("keras.f")
        def f():
            return _plain_f() + 1
        """)
    )
    assert run(composed)["f"]() == 21


def test_a_wrapper_that_passes_its_arguments_on_is_signed():
    """Unless what it wraps takes any arguments, too."""
    theirs = """
        import os


        class C:
            def f(self, x, y=1):
                return x + y

            def g(self, *args, **kwargs):
                return args
        """
    ours = """
        from patchset.markers import keeps


        class C:
            @keeps("_plain_f")
            @staticmethod
            def f(*args, **kwargs):
                return -self._plain_f(*args, **kwargs)

            @keeps("_plain_g")
            def g(self, *args, **kwargs):
                return self._plain_g(*args, **kwargs)
        """
    text = spliced(theirs, ours)
    assert "import os\nfrom keras.src.signatures import as_kept\n" in text
    assert "    @staticmethod\n    @as_kept(_plain_f)\n    def f(*a" in text
    assert text.count("@as_kept") == 1


def test_a_kept_property_keeps_its_setter():
    ours = """
        class C:
            @keeps("_plain_p")
            @property
            def p(self):
                return self._plain_p + 1

            @p.setter
            def p(self, value):
                self._plain_p = value * 10
        """
    composed = spliced(CLASS, ours)
    instance = run("class Base: pass\n\n\n" + composed)["C"]()
    instance.p = 2
    assert instance.p == 21


def test_a_kept_class_can_be_derived_from():
    theirs = "@deco\nclass C:\n    x = 1\n"
    ours = '@keeps("PlainC")\nclass C(PlainC):\n    y = 2\n'
    assert spliced(theirs, ours) == (
        "@deco\nclass PlainC:\n    x = 1\n\n\nclass C(PlainC):\n    y = 2\n"
    )


# Imports.


def test_imports_join_upstreams():
    theirs = '''
        """Doc."""

        import a
        from b import c

        if a.x:
            import d

        from e import f

        Y = 1
        import late
        '''
    ours = '''
        """Why."""

        from __future__ import annotations

        from b import c
        from g import h
        import p
        from patchset.markers import keeps
        from patchset.markers import new

        Y = 2
        '''
    assert spliced(theirs, ours) == dedent('''
        """Doc."""

        from __future__ import annotations

        import a
        from b import c

        if a.x:
            import d

        from e import f
        from g import h
        import p

        Y = 2
        import late
        ''')


@pytest.mark.parametrize(
    "theirs, composed",
    [
        ("x = 1\n", "import a\n\nx = 1\n"),
        ('"""D."""\n\nx = 1\n', '"""D."""\n\nimport a\n\nx = 1\n'),
        ("", "import a\n"),
    ],
)
def test_imports_come_first_where_upstream_has_none(theirs, composed):
    assert splice(theirs, "import a\n", MODULE).text == composed


# What is refused.


@pytest.mark.parametrize(
    "ours, message",
    [
        ("def q():\n    pass\n", "m.py:1: upstream has no `q`"),
        ("# Why.\nQ = 1\n", "m.py:2: upstream has no `Q`"),
        ("class C:\n    q = 1\n", "m.py:2: upstream has no `C.q`"),
        ("@new\nclass C:\n    pass\n", "`C` is declared new, but"),
        ('__added__ = ("z",)\nz = 1\n', "`z` is declared new, but"),
        ('@new\n@keeps("a")\ndef q(): pass\n', "nothing to keep"),
        ('@keeps("z")\nclass C: pass\n', "`C` cannot be kept as `z`"),
        ("@keeps\nclass C: pass\n", "`@keeps` takes one name"),
        ('@keeps("no name")\nclass C: pass\n', "`@keeps` takes one name"),
        ('@keeps("_z")\ndef z(): pass\n', "upstream's `z` is an assignment"),
        ("# Why.\ndel q\n", "m.py:2: upstream has no `q` to delete"),
        ("del C.q\n", "upstream has no `C.q` to delete"),
        ("del D.q\n", "upstream has no class `D`"),
        ("z = 1; z = 2\n", "m.py:1: two statements share this line"),
        ("x = (\n\n", "m.py:1: this file does not parse"),
        (
            "@new\nclass D:\n    @new\n    def f(self):\n        pass\n",
            "`@new` on `f` has no meaning",
        ),
    ],
)
def test_a_wrong_overlay_is_named(ours, message):
    assert message in error_of(CLASS, ours)


TEST_PATH = "keras/src/m_test.py"
TESTS = "class T:\n    def test_a(self):\n        assert 1\n"


def test_a_test_is_replaced_or_deleted_only_with_a_reason(trees):
    replaced = "class T:\n    def test_a(self):\n        {}assert 2\n"
    message = error_of(TESTS, replaced.format(""), TEST_PATH)
    assert "`T.test_a` is replaced without a reason" in message
    message = error_of(TESTS, "del T.test_a\n", TEST_PATH)
    assert "`T.test_a` is deleted without a reason" in message

    reason = '"""Masks\n        differ.\n\n        More."""\n        '
    composed = trees.compose(
        {TEST_PATH: TESTS, "keras/src/n_test.py": "def test_b(): pass\n"},
        {
            TEST_PATH: replaced.format(reason),
            "keras/src/n_test.py": "# No such\n# thing.\ndel test_b\n",
        },
    )
    assert list(report.replaced_tests(composed)) == [
        ("keras/src/m_test.py::T::test_a", "Masks differ."),
        ("keras/src/n_test.py::test_b (deleted)", "No such thing."),
    ]


def test_a_new_test_needs_no_reason():
    ours = "class T:\n    @new\n    def test_b(self):\n        assert 2\n"
    assert "def test_b" in spliced(TESTS, ours, TEST_PATH)


def test_a_new_file_needs_no_markers_and_a_package(trees):
    with pytest.raises(PatchError) as caught:
        trees.compose(
            {},
            {
                "keras/src/marked.py": "import a\n"
                "from patchset.markers import new\n",
                "keras/src/lonely/n.py": "x = 1\n",
            },
        )
    assert "keras/src/marked.py:2: upstream has no file" in str(caught.value)
    assert "keras/src/lonely: this new directory has no __init__.py" in str(
        caught.value
    )


# Trees.


def test_changed_files_say_so_and_others_do_not(trees):
    theirs = '"""Doc."""\nfrom __future__ import annotations\nx = 1\n'
    trees.compose(
        {MODULE: theirs, "keras/src/n.py": "y = 1\n"},
        {
            MODULE: '"""Because of\nmasks.\n\nMore."""\nx = 2\n',
            "keras/src/new.py": "z = 1\n",
        },
    )
    text = trees.text(MODULE)
    assert text.startswith("# Changed from Keras 3.15.1 by ")
    assert "section 4b). Because of masks.\n" in text.replace("\n# ", " ")
    assert run(text)["__doc__"] == "Doc."
    assert trees.text("keras/src/n.py") == "y = 1\n"
    assert trees.text("keras/src/new.py") == "z = 1\n"


API = {
    f"keras/{root}__init__.py": "from keras.src.z import zed as zed\n"
    for root in ("", "_tf_keras/keras/")
}
EXPORT = "from keras.src.api_export import keras_export\n\n\n"


@pytest.mark.parametrize("root", ["", "_tf_keras/keras/"])
def test_names_are_exported(trees, root):
    long = "a_name_that_is_so_long_that_its_line_has_to_be_broken"
    trees.compose(
        {**API, MODULE: "import a\n"},
        {
            MODULE: '@new\n@keras_export("keras.zed")\ndef f(): pass\n',
            "keras/src/new.py": EXPORT
            + '@keras_export(["keras.N", "keras.x.y.M"])\nclass N: pass\n'
            + f'@keras_export("keras.{long}")\ndef {long}(): pass\n',
        },
    )
    text = trees.text(f"keras/{root}__init__.py")
    assert text.startswith("# Changed from Keras")
    assert text.partition(").\n")[2] == (
        "from keras import x as x\n"
        "from keras.src.new import N as N\n"
        f"from keras.src.new import (\n    {long} as {long},\n)\n"
        "from keras.src.z import zed as zed\n"  # was exported already: stays
    )
    package = trees.text(f"keras/{root}x/__init__.py")
    assert package.endswith("from keras.x import y as y\n")
    package = trees.text(f"keras/{root}x/y/__init__.py")
    assert package.endswith("from keras.src.new import N as M\n")
    assert package.startswith('"""DO NOT EDIT.')


def test_a_deleted_name_is_no_longer_exported(trees):
    theirs = '@keras_export("keras.zed")\ndef zed(): pass\n'
    trees.compose(
        {**API, "keras/src/z.py": theirs}, {"keras/src/z.py": "del zed"}
    )
    assert "zed" not in trees.text("keras/__init__.py")
    assert "zed" not in trees.text("keras/_tf_keras/keras/__init__.py")


def test_a_change_upstream_stops_the_build_and_leaves_the_old_tree(trees):
    ours = {MODULE: "class C:\n    def f(self):\n        return 5\n"}
    composed = trees.compose({MODULE: CLASS}, ours)
    lock = tree.lock_of(composed.changes)
    assert list(lock) == [f"{MODULE}::C.f"]
    trees.compose({MODULE: CLASS.replace("return 2", "return 7")}, ours, lock)

    before = trees.text(MODULE)
    with pytest.raises(PatchError, match="has changed since the lock") as e:
        trees.compose(
            {MODULE: CLASS.replace("return 1", "return 8")}, ours, lock
        )
    assert f"--for 3.15.1 --show {MODULE}::C.f" in str(e.value)
    with pytest.raises(PatchError, match="upstream has no `C.f`") as e:
        trees.compose({MODULE: CLASS.replace("def f", "def ff")}, ours, lock)
    assert f"python pip_build.py --show {MODULE}::C.f" in str(e.value)
    assert trees.text(MODULE) == before
    assert [path.name for path in trees.out.iterdir()] == ["keras"]


def test_all_problems_are_reported_at_once(trees):
    with pytest.raises(PatchError) as caught:
        trees.compose(
            {MODULE: "x = 1\n", "keras/src/n.py": "y = 1\n"},
            {MODULE: "z = 1\n", "keras/src/n.py": "def\n"},
        )
    assert "m.py:1: upstream has no `z`" in str(caught.value)
    assert "n.py:1: this file does not parse" in str(caught.value)


def test_composing_again_touches_only_what_changed(trees):
    theirs = {MODULE: "x = 1\n", "keras/src/n.py": "y = 1\n"}
    trees.compose(theirs, {MODULE: "x = 2\n"})
    cache = trees.out / "keras/src/__pycache__/n.cpython-311.pyc"
    cache.parent.mkdir()
    cache.write_bytes(b"code")
    before = (trees.out / "keras/src/n.py").stat().st_mtime_ns
    time.sleep(0.02)
    trees.compose(theirs, {MODULE: "x = 3\n"})
    assert (trees.out / "keras/src/n.py").stat().st_mtime_ns == before
    assert cache.read_bytes() == b"code"
    assert trees.text(MODULE).endswith("x = 3\n")
    trees.compose(theirs, {})
    assert trees.text(MODULE) == "x = 1\n"


# Reports.


def test_check_names_an_incomplete_lock_and_a_lost_export(trees):
    theirs = '@keras_export("keras.f")\ndef f():\n    return 1\n'
    composed = trees.compose({MODULE: theirs}, {MODULE: "def f(): return 2\n"})
    missing, stale, export = trees.check(composed, {"keras/a.py::b": "0"})
    assert missing.startswith(f"{MODULE}::f: not in locks/3.15.1.json")
    assert stale.startswith("keras/a.py::b: in locks/3.15.1.json, but")
    assert export.startswith(f"{MODULE}::f: upstream exports it")


LINES = [f"    a{i} = {i}" for i in range(9)]


@pytest.mark.parametrize("count, copied", [(5, False), (6, True)])
def test_check_finds_six_lines_that_are_upstreams(trees, count, copied):
    theirs = "\n".join(["import a", "def f(", "    x,", "):", *LINES])
    ours = "\n".join(
        ["import a", "def f(", "    x,", "):", "    # y", "", *LINES[:count]]
    )
    composed = trees.compose({MODULE: theirs + "\n"}, {MODULE: ours + "\n"})
    lock = tree.lock_of(composed.changes)
    problems = trees.check(composed, lock)
    assert [p.split(": ")[0] for p in problems] == [f"{MODULE}:7"] * copied


def test_what_is_left_out_of_an_overlay_is_not_copied(trees):
    """A fix of ours may be what upstream wrote later."""
    lines = "".join(f"    x = {i}\n" for i in range(8))
    theirs = f"def f():\n{lines}\n\ndef g():\n    pass\n"
    ours = (
        "from patchset.markers import new, when\n\n\n"
        f'@when("<3.15")\ndef f():\n{lines}\n\n@new\ndef h(): pass\n'
    )
    composed = trees.compose({MODULE: theirs}, {MODULE: ours})
    assert trees.check(composed, {}) == []


def test_the_diff_shows_changed_and_new_files(trees):
    composed = trees.compose(
        {MODULE: "x = 1\n"}, {MODULE: "x = 2\n", "keras/src/new.py": "y = 1\n"}
    )
    text = "".join(report.diff(composed, trees.upstream))
    assert f"--- a/{MODULE}\n+++ b/{MODULE}\n" in text
    assert "\n-x = 1\n+# Changed from" in text and "\n+x = 2\n" in text
    assert "--- /dev/null\n+++ b/keras/src/new.py\n" in text


def test_show_prints_both_definitions(trees):
    trees.compose({MODULE: CLASS}, {MODULE: "class C:\n    size = 2\n"})
    text = report.show(f"{MODULE}::C.size", trees.upstream, trees.overlay)
    assert "size = 1\n" in text and "size = 2\n" in text
    text = report.show(f"{MODULE}::C.nothing", trees.upstream, trees.overlay)
    assert "# upstream has no such definition." in text


def test_sizes_count_lines(trees):
    ours = "class C:\n    def f(self):\n        return 5\n"
    composed = trees.compose({MODULE: CLASS}, {MODULE: ours})
    rows = list(report.sizes(composed, trees.upstream, trees.overlay))
    assert rows == [(MODULE, 3, 2)]


# Finding upstream.


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A made-up release: its wheel, and its entry of the lock."""
    monkeypatch.delenv("KERAS_UPSTREAM_WHEEL", raising=False)
    monkeypatch.setattr(upstream, "_installed", lambda pin: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    write_tree(tmp_path / "site", {"keras/a.py": "x = 1\n"})
    wheel = tmp_path / ".cache/keras-9.9-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("keras/a.py", "x = 1\n")
    return Lock(
        "9.9",
        wheel_sha256=pip_build._hash(wheel),
        tree_sha256=tree.tree_hash(tmp_path / "site"),
    )


def unpack(tmp_path, pin, wheel=None):
    upstream.unpack(pin, tmp_path / ".cache", tmp_path / "up", wheel)
    return (tmp_path / "up/keras/a.py").read_text()


def test_the_cached_wheel_is_used_and_mended_when_damaged(tmp_path, release):
    assert unpack(tmp_path, release) == "x = 1\n"
    (tmp_path / "up/keras/a.py").write_text("damaged")
    assert unpack(tmp_path, release) == "x = 1\n"


def test_the_wheel_is_named_by_option_or_environment(
    tmp_path, release, monkeypatch
):
    wheel = tmp_path / "elsewhere.whl"
    (tmp_path / ".cache/keras-9.9-py3-none-any.whl").rename(wheel)
    assert unpack(tmp_path, release, wheel) == "x = 1\n"
    shutil.rmtree(tmp_path / "up")
    monkeypatch.setenv("KERAS_UPSTREAM_WHEEL", str(wheel))
    assert unpack(tmp_path, release) == "x = 1\n"


def test_an_installed_release_is_found_and_checked(
    tmp_path, release, monkeypatch
):
    shutil.rmtree(tmp_path / ".cache")
    site = tmp_path / "site"
    monkeypatch.setattr(upstream, "_installed", lambda pin: site)
    assert unpack(tmp_path, release) == "x = 1\n"
    shutil.rmtree(tmp_path / "up")
    (site / "keras/a.py").write_text("x = 2\n")
    with pytest.raises(PatchError, match="is not the released one"):
        unpack(tmp_path, release)
    assert not (tmp_path / "up").exists()


def test_a_wrong_or_missing_wheel_is_refused(tmp_path, release):
    with pytest.raises(PatchError, match="is not at nowhere.whl"):
        unpack(tmp_path, release, "nowhere.whl")
    wrong = dataclasses.replace(release, wheel_sha256="0")
    with pytest.raises(PatchError, match="its SHA-256 is .*Delete or replace"):
        unpack(tmp_path, wrong)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".cache", "site"]


def test_without_a_network_the_error_says_what_to_fetch(tmp_path, release):
    shutil.rmtree(tmp_path / ".cache")
    with pytest.raises(PatchError) as caught:
        unpack(tmp_path, release)
    assert "the download failed: ERROR: No matching distribution" in str(
        caught.value
    )
    assert "pip download --no-deps keras==9.9" in str(caught.value)


# The real one.


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of this project, with upstream unpacked but nothing composed."""
    root = tmp_path_factory.mktemp("project")
    for name in (
        *("pip_build.py", "setup.py", "pyproject.toml", "README.md"),
        *("LICENSE", "NOTICE", "patchset", "locks"),
    ):
        source = pip_build.ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, root / name)
    for folder in ("keras", "build/upstream"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(pip_build.ROOT / folder, root / folder, ignore=ignored)
    return root


def build(project, *options):
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "pip_build.py", *options],
        cwd=project,
        capture_output=True,
        text=True,
    )
    result.seconds = time.perf_counter() - started
    return result


def test_the_real_tree_composes_in_time(project):
    first = build(project)
    assert first.returncode == 0, first.stderr
    assert first.seconds < 10
    again = build(project)
    assert again.stdout.startswith("up to date")
    assert again.seconds < 1
    paths = tree.files_of(project / "build")
    assert set(paths) >= set(tree.files_of(project / "build/upstream"))
    lock = pip_build.read_lock()
    ours = tree.files_of(project)
    # Some are for other releases.
    for_this = {p for p in ours if tree.overlay_text(project, p, lock)[0]}
    assert set(paths) >= for_this and len(for_this) > 0.9 * len(ours)
    for path in paths:
        text = (project / "build" / path).read_text("utf-8")
        compile(text, path, "exec", dont_inherit=True)
        original = project / "build/upstream" / path
        if original.exists() and original.read_text("utf-8") != text:
            assert text.startswith("# Changed from Keras 3.15.1"), path


def test_a_lost_or_edited_composed_file_is_composed_again(project):
    build(project)
    file = project / "build/keras/src/version.py"
    text = file.read_text()
    file.write_text("damaged")
    assert build(project).stdout.startswith("composed")
    file.unlink()
    assert build(project).stdout.startswith("composed")
    shutil.rmtree(project / "build/keras")
    assert build(project).stdout.startswith("composed")
    assert file.read_text() == text


def test_errors_have_no_traceback_and_leave_the_old_tree(project):
    build(project)
    file = project / "keras/src/version.py"
    text, composed = file.read_text(), project / "build/keras/src/version.py"
    before = composed.read_text()
    file.write_text(text + "def broken(:\n")
    result = build(project)
    line = text.count("\n") + 1
    file.write_text(text)
    assert result.returncode == 1 and not result.stdout
    assert result.stderr.startswith(f"error: keras/src/version.py:{line}: ")
    assert composed.read_text() == before
    result = build(project, "--wheel", "nowhere.whl")
    assert result.returncode == 1
    assert result.stderr.startswith("error: Upstream's wheel is not at nowhere")


def test_several_processes_may_compose_at_once(project):
    shutil.rmtree(project / "build/keras", ignore_errors=True)
    command = [sys.executable, "pip_build.py"]
    builds = [
        subprocess.Popen(
            command, cwd=project, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    printed = sorted(b.communicate()[0].partition(" ")[0] for b in builds)
    assert printed == ["composed", "up", "up", "up"]


def test_the_wheel_is_a_keras(project, tmp_path):
    setuptools = pytest.importorskip("setuptools", minversion="77")
    del setuptools
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    command += ["--no-build-isolation", "-w", str(tmp_path), str(project)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.iterdir()
    version = pip_build.fork_version()
    assert wheel.name == f"keras-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        folder = f"keras-{version}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode()
        sources = {n: archive.read(n) for n in names if n.startswith("keras/")}
    assert {f"{folder}/licenses/{n}" for n in ("LICENSE", "NOTICE")} <= {*names}
    # Upstream's tests are in its wheel; ours, and what they share, in none.
    upstream = {*tree.files_of(project / "build/upstream")}
    ours = [p for p in tree.files_of(project / "build") if p not in upstream]
    installed = upstream | {
        path
        for path in ours
        if not path.endswith("_test.py")
        and not path.startswith("keras/src/testing/masked/")
    }
    assert {*sources} == installed
    assert "keras/src/masking/dispatch.py" in sources
    assert len(ours) > len(installed - upstream)
    for path in sources:
        assert sources[path] == (project / "build" / path).read_bytes()
    required = set(re.findall(r"^Requires-Dist: (\S+)$", metadata, re.M))
    assert required == {
        *("absl-py", "numpy", "rich", "namex", "h5py", "optree"),
        *("ml-dtypes", "packaging"),
    }


def test_the_environment_is_made_once(tmp_path, monkeypatch):
    commands = []

    def fake_run(command):
        commands.append(command[2:])
        (tmp_path / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bin/python").touch()

    monkeypatch.setattr(pip_build, "VENV", tmp_path)
    monkeypatch.setattr(pip_build, "_run", fake_run)
    pip_build.environment()
    install = ["pip", "install", "-q"]
    requirements = [*install, "-r", str(pip_build.ROOT / "requirements.txt")]
    data = [*install, "--no-deps", "aeon==1.6.0"]
    assert commands == [["venv", str(tmp_path)], requirements, data]
    assert pip_build.environment() == str(pathlib.Path(tmp_path, "bin/python"))
    assert len(commands) == 3
    (tmp_path / "requirements.stamp").write_text("of an older list")
    pip_build.environment()
    (tmp_path / "data.stamp").write_text("of an older release")
    pip_build.environment()
    assert commands[3:] == [requirements, data]
