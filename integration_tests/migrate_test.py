"""Tests of `python -m keras.src.migration`.

A comment `#: a, b` in a source names the patterns to be found in its line.
"""

import ast
import collections
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
import warnings

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import keras
from keras.src.migration import __main__ as migrate
from keras.src.migration import patch
from keras.src.migration import search
from keras.src.migration import sources
from keras.src.migration.patterns import PATTERNS


def dedent(text):
    return textwrap.dedent(text).lstrip("\n")


def write(folder, text, name="code.py"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
    return path


def findings_in(*paths):
    project = sources.Project(list(map(str, paths)))
    found = [
        finding
        for source in project.sources()
        for finding in search.findings(source, project)
    ]
    assert project.problems == {}
    return found


def by_line(findings):
    lines = collections.defaultdict(list)
    for finding in findings:
        lines[finding.line].append(finding.name)
    return {line: sorted(names) for line, names in lines.items()}


def expected_in(text):
    return {
        number: sorted(comment.group(1).split(", "))
        for number, line in enumerate(text.splitlines(), 1)
        if (comment := re.search(r"#: (.+)$", line))
    }


def patched(path):
    """The file after its patch, as text."""
    project = sources.Project([str(path)])
    (source,) = project.sources()
    return patch.patched(source, search.findings(source, project)).decode()


IMPORTS = """
import jax
import jax.numpy as jnp
import keras
import numpy as np
import tensorflow as tf
import torch
from keras import backend as K
from keras import layers as L
from keras import ops
from keras.src import backend
"""

FOUND = {
    "flags": """
        class A(L.Layer):
            supports_masking = True  #: supports_masking

            def __init__(self, layer):
                super().__init__()
                self.supports_masking = layer.a()  #: supports_masking
                if layer.supports_masking:  #: supports_masking
                    self.supports_masking = False  #: supports_masking

        class B(tf.keras.Model):
            supports_masking: bool = True  #: supports_masking

        class C(keras.layers.Dense):
            @property
            def supports_masking(self):  #: supports_masking
                return True
    """,
    "compute_mask": """
        class A(L.Layer):
            def compute_mask(self, x, old=None):  #: compute_mask_identity
                "Keeps it."
                return old

        class B(L.Layer):
            def compute_mask(self, inputs, mask=None):  #: compute_mask_none
                return None

        class C(L.Layer):
            def compute_mask(self, inputs, mask=None):  #: compute_mask
                return mask[:, 1:]

        class D(L.Layer):
            def compute_mask(self, inputs, mask=None):  #: compute_mask
                return self.layer.compute_mask(inputs, mask)

        class E(L.Wrapper):
            def call(self, x):
                m = self.layer.compute_mask(x, None)  #: compute_mask_call
                return self.layer(x)

        class F(L.Layer):
            def compute_mask(self, mask, inputs):  #: compute_mask
                return mask
    """,
    "mask_argument": """
        class A(L.Layer):
            def call(self, x, mask=None):  #: mask_argument
                return ops.sum(x * ops.cast(mask, x.dtype), axis=1)

        class B(keras.Model):
            def call(self, x, a=None, mask=None):  #: unused_mask_argument
                return self.dense(x)

        class C(L.Layer):
            def call(
                self,
                query,
                value,
                *,
                query_mask=None,  #: unused_mask_argument
                value_mask=None,  #: mask_argument
            ):
                return self.attention(query, value, mask=value_mask)

        class MakesAMask(L.Layer):
            def call(self, x, mask=None):
                return keras.MaskedTensor(ops.relu(x), mask)

        class HasItsOwn(L.Layer):
            def call(self, x, padding_mask=None, attention_mask=None):
                return self.attention(x, attention_mask=attention_mask)
    """,
    "raw_backend_call": """
        class A(L.Layer):
            def call(self, x, training=False):
                size = np.sqrt(x.shape[-1]) * np.prod(ops.shape(x)[1:])
                y, *rest = ops.split(x, 2)
                z = y = y + 1
                z = jnp.tanh(z)  #: raw_backend_call
                z = z + jax.nn.relu(rest[0])  #: raw_backend_call
                z = tf.reduce_mean(z, axis=1)  #: raw_backend_call
                z = torch.cat([z, z]).contiguous()  #: raw_backend_call
                z = K.dot(z, z) if z else K.epsilon()  #: raw_backend_call
                z = backend.nn.relu(z)  #: raw_backend_call
                z = tf.linalg.matvec(z, z)  #: raw_backend_call_without_op
                z = [np.sin(t) for t in z]  #: raw_backend_call
                for t in z:
                    jax.lax.scan(  #: raw_backend_call
                        lambda a, b: (jnp.sin(a), b), t, t  #: raw_backend_call
                    )
                self.pos = np.arange(10)
                return tf.keras.ops.relu(z)

            def build(self, shape):
                self.w = np.ones(shape)

        class Named(L.Layer):
            def call(self, x, mask):  #: mask_argument
                return jnp.where(mask, x, 0)
    """,
    "last_step": """
        class Last(L.Layer):
            def call(self, x, state):
                y = self.lstm(x)
                a = y[:, -1]  #: last_step
                b = ops.tanh(x)[:, -1, :]  #: last_step
                c = x[:, -1, ...]  #: last_step
                return a, b, c, x[:, 1], x[:, -2], x[:-1], x[:, -1:]

            def of_shape(self, x):
                return np.ones(3)[:, -1], self.call(x, x)[:, 0]

        ids = keras.Input((None,))
        x = L.Embedding(9, 3, mask_zero=True)(ids)
        h = L.LSTM(3, return_sequences=True)(x)
        labels = np.zeros((3, 4))
        out = L.Dense(2)(h[:, -1])  #: last_step
        out = L.GRU(3, return_sequences=True)(x)[:, -1, :]  #: last_step
        last_labels = labels[:, -1]
    """,
    "keras_mask": """
        class A(L.Layer):
            def call(self, x):
                mask = x._keras_mask  #: keras_mask
                y = self.layer(x)
                y._keras_mask = mask  #: keras_mask_set
                del y._keras_mask  #: keras_mask_set
                return y

        def f(x, m):
            a = getattr(x, "_keras_mask", None)  #: keras_mask
            if hasattr(x, "_keras_mask"):  #: keras_mask
                setattr(x, "_keras_mask", m)  #: keras_mask_set
            backend.set_keras_mask(x, m)  #: keras_mask_set
            return backend.get_keras_mask(x)  #: keras_mask
    """,
    "metric_mask": """
        class A(keras.metrics.Mean):
            def update_state(self, y_true, y_pred, sample_weight=None):
                mask = y_pred._keras_mask  #: metric_mask
                return super().update_state(y_true, sample_weight=mask)

        class B(keras.Loss):
            def call(self, y, prediction):
                return getattr(prediction, "_keras_mask", None)  #: metric_mask

        def accuracy(y_true, y_pred):
            return backend.get_keras_mask(y_pred)  #: metric_mask
    """,
    "training": """
        def build():
            inputs = keras.Input((None,))
            x = L.Embedding(5, 4, mask_zero=True)(inputs)
            model = keras.Model(inputs, x)
            model.compile(loss="mse", metrics=["mae"])  #: unweighted_metrics
            return model

        def train(x, y, data):
            model = build()
            model.fit(x, y, epochs=2)  #: unweighted_fit
            model.fit(data)  #: unweighted_fit
            model.fit(x, y, sample_weight=x != 0)
            model.fit(x, y, **options)
            model.evaluate(x, y)  #: unweighted_fit
            model.predict(x)

        def train_with_weights(data):
            other = build()
            other.compile(loss="mse", weighted_metrics=["mae"])
            other.fit(data)
            other.fit(data, data)  #: unweighted_fit

        def no_masks(x, y):
            model = keras.Sequential([L.Embedding(5, 4, mask_zero=False)])
            model.compile(loss="mse", metrics=["mae"])
            model.fit(x, y)
            scaler.fit(x)

        class Tagger(keras.Model):
            def __init__(self):
                super().__init__()
                self.masking = L.Masking()

            def fit_twice(self, x, y):
                self.compile(loss="mse", metrics=[])
                self.fit(x, y)  #: unweighted_fit

        tagger = Tagger()
        tagger.fit(1, 2)  #: unweighted_fit
    """,
}

CLEAN = """
class ByType(L.Layer):
    def call(self, x):
        return ops.relu(x)

class Config:
    supports_masking = True

    def __init__(self, mask):
        self.mask = mask
        self.supports_masking = True

    def call(self, x, mask=None):
        return jnp.sin(x)

    def compute_mask(self, x):
        return self.compute_mask(x)

class Layer:
    def call(self, mask):
        self.supports_masking = mask

def call(x, mask):
    return torch.sin(x)

class Runs(L.Layer):
    def call(self, x):
        def f(x):
            return x

        return f(self.norm(x))

class Selector(sklearn.Model):
    supports_masking = True

text = "x._keras_mask and supports_masking"
"""


@pytest.mark.parametrize("case", FOUND)
def test_each_pattern_is_found_in_its_lines(tmp_path, case):
    text = dedent(IMPORTS) + dedent(FOUND[case])
    assert expected_in(text)
    assert by_line(findings_in(write(tmp_path, text))) == expected_in(text)


def test_the_cases_have_every_pattern():
    names = {
        name
        for text in FOUND.values()
        for names in expected_in(text).values()
        for name in names
    }
    assert names == set(PATTERNS)


def test_nothing_is_found_in_clean_code(tmp_path):
    assert findings_in(write(tmp_path, dedent(IMPORTS) + CLEAN)) == []


@pytest.mark.parametrize(
    "header",
    [
        "from keras import layers\nclass A(layers.Layer)",
        "from tensorflow.keras.layers import Layer as Base\nclass A(Base)",
        "from tensorflow import keras as k\nclass A(k.Model)",
        "import tensorflow as tf\nclass A(tf.keras.layers.Dense)",
        "import keras.src.layers as x\nclass A(x.core.dense.Dense)",
        "from keras import Layer\nclass B(Layer): pass\nclass A(B)",
        "import keras_hub\nclass A(object, keras_hub.layers.RotaryEmbedding)",
        "from .base import Base\nclass A(Base)",
        "from pack.middle.base import Base as Other\nclass A(Other)",
        "from . import base as b\nclass A(b.Base)",
        "from ..top import Top\nclass A(Top)",
    ],
)
def test_layers_are_known_by_imports_and_files(tmp_path, header):
    folder = tmp_path / "pack"
    for name in ("__init__", "middle/__init__"):
        write(folder, "", f"{name}.py")
    write(folder, "import keras\nclass Top(keras.Layer): pass\n", "top.py")
    base = "from pack.top import Top\nclass Base(Top): pass\n"
    write(folder, base, "middle/base.py")
    text = f"{header}:\n    supports_masking = True\n"
    write(folder, text, "middle/code.py")
    (finding,) = findings_in(folder)
    assert finding.name == "supports_masking"
    assert finding.path == str(folder / "middle" / "code.py")


def test_relative_import_beyond_the_top(tmp_path):
    text = "from ... import x\nclass A(x.Layer):\n    supports_masking = True\n"
    assert findings_in(write(tmp_path, text)) == []


def test_texts_name_the_code_and_what_to_write(tmp_path):
    text = dedent(IMPORTS) + dedent(
        """
        class Old(L.Layer):
            def call(self, x):
                return tf.reduce_sum(jax.random.normal(x))
        """
    )
    inner, outer = sorted(findings_in(write(tmp_path, text)), key=str)
    texts = [f.text for f in (inner, outer)]
    assert any("`tf.reduce_sum` in `Old.call`" in t for t in texts)
    assert any("Use `keras.ops.sum`." in t for t in texts)
    assert any("Use `keras.random.normal`." in t for t in texts)
    assert all("{" not in t for t in texts)


# The patch.

OLD = '''
"""Old layers."""
import keras
from keras import ops


class Scale(keras.layers.Layer):
    """Scales."""

    # Class comment.

    def __init__( self,by , **kwargs ):
        super().__init__(**kwargs)
        self.by = by   # the factor
        # Masks pass through.
        self.supports_masking = True  # really

    def call(self, inputs):
        # A comment that stays.
        return ops.relu(inputs)*self.by

    def compute_mask(self, inputs, mask=None):
        return mask

    def get_config(self):
        return {**super().get_config(), 'by': self.by}


class Counts(keras.layers.Layer):
    supports_masking = True

    def call(self, x):
        x = self.before(x)
        mask = (x
                ._keras_mask)
        old = getattr( x , '_keras_mask', None )
        if mask is None or old is None:
            return x
        return x + ops.cast(ops.sum(mask, axis=1), x.dtype)[:, None, None]

    def before(self, x):
        return x


class Kept(keras.layers.Layer):
    supports_masking = True

    def call(self, x):
        import numpy as np

        return np.tanh(x) * ops.cast(x._keras_mask, x.dtype)[..., None]
'''

NEW = '''
"""Old layers."""
import keras
from keras import ops


class Scale(keras.layers.Layer):
    """Scales."""

    # Class comment.

    def __init__( self,by , **kwargs ):
        super().__init__(**kwargs)
        self.by = by   # the factor

    def call(self, inputs):
        # A comment that stays.
        return ops.relu(inputs)*self.by

    def get_config(self):
        return {**super().get_config(), 'by': self.by}


class Counts(keras.layers.Layer):
    def call(self, x):
        x = self.before(x)
        mask = (getattr(x, "mask", None))
        old = getattr( x , 'mask', None )
        if mask is None or old is None:
            return x
        return x + ops.cast(ops.sum(mask, axis=1), x.dtype)[:, None, None]

    def before(self, x):
        return x


class Kept(keras.layers.Layer):
    supports_masking = True

    def call(self, x):
        import numpy as np

        return np.tanh(x) * ops.cast(x._keras_mask, x.dtype)[..., None]
'''


def test_a_patch_keeps_formatting_and_comments(tmp_path):
    assert patched(write(tmp_path, OLD)) == dedent(NEW)


@pytest.mark.parametrize(
    "command", ["patch -p0 -s", "patch -p1 -s", "git apply"]
)
def test_a_patch_applies(tmp_path, monkeypatch, capsysbinary, command):
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"`{command.split()[0]}` is not installed")
    monkeypatch.chdir(tmp_path)
    write(tmp_path, OLD, "a/old.py")
    windows = dedent(OLD).replace("\n", "\r\n").rstrip("\r\n").encode()
    write(tmp_path, windows, "a/windows.py")
    latin = dedent(OLD).replace("Scales", "Größe")
    latin = f"# -*- coding: latin-1 -*-\n{latin}".encode("latin-1")
    write(tmp_path, latin, "a/latin.py")
    assert migrate.main(["--diff", "a"]) == 1
    diff = capsysbinary.readouterr().out
    subprocess.run(command.split(), input=diff, check=True, cwd=tmp_path)
    assert (tmp_path / "a/old.py").read_text() == dedent(NEW)
    new = dedent(NEW).replace("\n", "\r\n").rstrip("\r\n").encode()
    assert (tmp_path / "a/windows.py").read_bytes() == new
    assert "Größe" in (tmp_path / "a/latin.py").read_text("latin-1")
    assert migrate.main(["--diff", "a"]) == 1
    assert capsysbinary.readouterr().out == b""


def load(path, text):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_patched_layers_do_what_the_old_ones_did(tmp_path):
    old = load(tmp_path / "old.py", dedent(OLD))
    new = load(tmp_path / "new.py", patched(tmp_path / "old.py"))
    mask = np.array([[True, True, False], [True, False, False]])
    values = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    x = keras.MaskedTensor(values, mask)
    with pytest.warns(DeprecationWarning, match="Scale"):
        before = old.Scale(3.0)(x)
    with warnings.catch_warnings(action="error"):
        after = new.Scale(3.0)(x)
        counted = new.Counts()(x)
    for y in (before, after, counted):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(y.mask), mask)
    before, after, counted = (
        keras.ops.convert_to_numpy(y.values)[mask]
        for y in (before, after, counted)
    )
    np.testing.assert_array_equal(after, before)
    # Arrays of NumPy and JAX have no attributes, so that the old one fails.
    expected = values + mask.sum(axis=1)[:, None, None]
    np.testing.assert_allclose(counted, expected[mask], rtol=1e-6)


NOT_MECHANICAL = {
    "raw call": "def call(self, x):\n        return jnp.sin(x)",
    "raw call in a helper": (
        "def call(self, x):\n        return self.f(x)\n\n"
        "    def f(self, x):\n        return jnp.sin(x)"
    ),
    "function that is not seen": "def call(self, x):\n        return f(x)",
    "method of a tensor": "def call(self, x):\n        return x.sum()",
    "raw function that is held": (
        "def __init__(self):\n        self.f = jnp.sin\n\n"
        "    def call(self, x):\n        return self.f(x)"
    ),
    "mask is asked for": (
        "def call(self, x):\n        self.compute_mask(x)\n        return x"
    ),
    "mask is computed elsewhere": (
        "compute_mask = f\n\n    def call(self, x):\n        return x"
    ),
    "mask argument": "def call(self, x, mask=None):\n        return x",
    "no call": "pass",
    "mask changes": (
        "def call(self, x):\n        return x\n\n"
        "    def compute_mask(self, x, mask=None):\n        return ~mask"
    ),
}


@pytest.mark.parametrize("case", NOT_MECHANICAL)
def test_what_could_change_a_result_is_not_patched(tmp_path, case):
    text = (
        f"{dedent(IMPORTS)}\nclass A(L.Layer):\n    supports_masking = True\n"
        f"\n    {NOT_MECHANICAL[case]}\n"
    )
    path = write(tmp_path, text)
    found = [f for f in findings_in(path) if f.name == "supports_masking"]
    assert len(found) == 1
    assert patched(path) == text


def test_a_layer_that_others_build_on_is_not_patched(tmp_path):
    base = (
        "import keras\n\nclass Base(keras.Layer):\n    supports_masking = True"
        "\n\n    def call(self, x):\n        return x\n"
    )
    path = write(tmp_path, base, "base.py")
    assert [f.is_mechanical for f in findings_in(path)] == [True]
    write(tmp_path, "import base\nclass B(base.Base):\n    pass\n", "other.py")
    assert [f.is_mechanical for f in findings_in(tmp_path)] == [False]
    inherits = base.replace("keras.Layer", "keras.layers.Embedding")
    assert [
        f.is_mechanical for f in findings_in(write(tmp_path, inherits))
    ] == [False]


def test_a_mask_that_a_caller_may_have_hung_is_not_patched(tmp_path):
    text = dedent(
        """
        def f(x):
            return x._keras_mask

        y = model(x)
        print(y._keras_mask)
        """
    )
    after = patched(write(tmp_path, text))
    expected = text.replace(
        "print(y._keras_mask)", 'print(getattr(y, "mask", None))'
    )
    assert after == expected


# The command.


def run(capsys, *arguments):
    status = migrate.main(list(map(str, arguments)))
    return status, *capsys.readouterr()


def test_lines_that_editors_can_jump_to(tmp_path, capsys):
    path = write(tmp_path, OLD)
    status, out, err = run(capsys, path)
    assert status == 1
    pattern = re.compile(r"(.+\.py):(\d+): (\w+): .+\.")
    places = [pattern.fullmatch(line).groups() for line in out.splitlines()]
    assert places[0] == (str(path), "15", "supports_masking")
    assert [int(line) for _, line, _ in places] == sorted(
        f.line for f in findings_in(path)
    )
    assert "1 files read, 8 places found, 5 of them can be patched" in err


def test_exit_status(tmp_path, capsys):
    clean = write(tmp_path, "x = 1\n", "clean.py")
    found = write(tmp_path, OLD, "found.py")
    missing = tmp_path / "missing.py"
    assert run(capsys, clean)[0] == 0
    assert run(capsys, found)[0] == 1
    assert run(capsys, clean, found)[0] == 1
    assert run(capsys, "--diff", found)[0] == 1
    assert run(capsys, clean, missing)[0] == 2
    assert run(capsys, found, missing)[0] == 1
    with pytest.raises(SystemExit) as info:
        run(capsys, "--ignore", "nonsense", found)
    assert info.value.code == 2


def test_ignore(tmp_path, capsys):
    path = write(tmp_path, OLD)
    names = {f.name for f in findings_in(path)}
    kept = names.pop()
    ignore = [word for name in names for word in ("--ignore", name)]
    status, out, _ = run(capsys, path, *ignore)
    assert status == 1
    assert {line.split(": ")[1] for line in out.splitlines()} == {kept}
    assert run(capsys, path, *ignore, "--ignore", kept)[0] == 0


BAD = {
    "syntax.py": (b"x = 1\nclass A(\n", "line 2: '(' was never closed"),
    "bytes.py": (b"x = '\xe9'\n", "utf-8"),
    "null.py": (b"x = 1\0\n", "null bytes"),
    "encoding.py": (b"# coding: nonsense\n", "nonsense"),
    "brackets.py": (b"(" * 5000 + b")" * 5000, "nested"),
    "deep.py": (b"supports_masking = " + b"-" * 900 + b"1\n", "nested"),
    "tabs.py": (b"if x:\n        y\n\tz\n", "tabs"),
}


def test_bad_files_are_named_and_do_not_stop_the_rest(tmp_path, capsys):
    for name, (content, _) in BAD.items():
        write(tmp_path, content, name)
    write(tmp_path, OLD, "z.py")
    missing = tmp_path / "missing.py"
    status, out, err = run(capsys, missing, tmp_path)
    assert status == 1
    assert {line.split(":")[0] for line in out.splitlines()} == {
        str(tmp_path / "z.py")
    }
    told = dict(re.findall(r"^(.+?): not read: (.+)$", err, re.MULTILINE))
    assert told.keys() == {str(missing), *(str(tmp_path / n) for n in BAD)}
    for name, (_, words) in BAD.items():
        assert words in told[str(tmp_path / name)]
    assert "No such file" in told[str(missing)]


def test_files_that_are_no_utf8_by_their_own_word(tmp_path):
    text = f"# -*- coding: latin-1 -*-\n# é\n{dedent(OLD)}".encode("latin-1")
    marked = b"\xef\xbb\xbf" + dedent(OLD).encode()
    for data in (text, marked):
        path = write(tmp_path, data)
        assert len(findings_in(path)) == 8


def test_directories_are_walked(tmp_path, capsys):
    for name in ("b/c/x.py", "b/a.py", "b/.venv/x.py", "b/x.txt", "given.txt"):
        write(tmp_path, OLD, name)
    os.symlink(tmp_path / "b", tmp_path / "b" / "loop")
    arguments = (
        tmp_path / "b",
        tmp_path / "b" / "a.py",
        tmp_path / "given.txt",
    )
    _, out, err = run(capsys, *arguments)
    paths = list(dict.fromkeys(line.split(":")[0] for line in out.splitlines()))
    expected = ["b/a.py", "b/c/x.py", "given.txt"]
    assert paths == [str(tmp_path / p) for p in expected]
    assert "3 files read, 24 places" in err


def test_an_empty_directory(tmp_path, capsys):
    assert run(capsys, tmp_path)[0] == 0


def test_without_libcst(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "libcst", None)
    for name in list(sys.modules):
        if name.startswith("keras.src.migration."):
            if not name.endswith("patterns"):
                monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("keras.src.migration.search")
    monkeypatch.delattr("keras.src.migration.sources")
    status, out, err = run(capsys, write(tmp_path, OLD))
    assert (status, out) == (2, "")
    assert "pip install libcst" in err


def test_a_terminal_gets_colours_and_the_same_text(
    tmp_path, capsys, monkeypatch
):
    path = write(tmp_path, OLD)
    _, plain, _ = run(capsys, path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    _, coloured, _ = run(capsys, path)
    assert "\x1b[" in coloured and "\x1b[" not in plain
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_as_a_command(tmp_path):
    built = os.path.dirname(os.path.dirname(keras.__file__))
    done = subprocess.run(
        [sys.executable, "-m", "keras.src.migration", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": built},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith("0 files read, 0 places found")


def test_help_tells_what_is_found_and_the_exit_status(capsys):
    with pytest.raises(SystemExit):
        migrate.main(["--help"])
    text = capsys.readouterr().out
    for word in ("exit status", "--diff", *PATTERNS):
        assert word in text


# Any file.

BLANKS = st.sampled_from(["", "\n", "\n\n"])
COMMENTS = st.sampled_from(["", "# One.\n", "# Of masks.\n", "# Two.\n\n"])
LINES = st.sampled_from(
    [
        "self.supports_masking = True",
        "self.supports_masking = False  # why",
        "self.a = 1",
        "if a:\n    self.supports_masking = True",
        "if a:\n    pass\nelse:\n    # Then.\n    self.supports_masking = True",
        "b = 1; self.supports_masking = True",
        "self.c = self.supports_masking = True",
        "def f(self):\n    return self.supports_masking",
    ]
)
RETURNS = st.sampled_from(
    [
        "x",
        "x._keras_mask",
        "(x + 1)._keras_mask",
        "f'{x._keras_mask}'",
        "getattr(x, r'_keras_mask')",
        "ops.relu(getattr(y(x)._keras_mask, '''_keras_mask''', 1))",
        "[x._keras_mask for x in x]",
        "jnp.sin(x)",
    ]
)
METHODS = st.sampled_from(
    [
        "supports_masking = True",
        "supports_masking = True  # one",
        "def compute_mask(self, inputs, mask=None):\n    return mask",
        "def compute_mask(self, x, mask): return mask",
        "def compute_mask(self, inputs, mask=None):\n    return ~mask",
        "name = 'x'",
    ]
)


@st.composite
def modules(draw):
    by = draw(st.sampled_from(["    ", "\t", " "]))

    def commented(text):
        return draw(BLANKS) + draw(COMMENTS) + text + "\n"

    text = "import keras\nfrom keras import ops\nimport jax.numpy as jnp\n"
    for name in draw(st.sampled_from(["A", "AB"])):
        lines = draw(st.lists(LINES, min_size=1, max_size=4))
        init = "".join(map(commented, lines))
        members = [
            "def __init__(self):\n" + textwrap.indent(init, "    "),
            f"def call(self, x):\n    return {draw(RETURNS)}",
            *draw(st.lists(METHODS, max_size=3)),
        ]
        body = "".join(map(commented, draw(st.permutations(members))))
        base = draw(st.sampled_from(["keras.Layer", "A", "object"]))
        text += f"\nclass {name}({base}):\n{textwrap.indent(body, '    ')}"
    text += draw(st.sampled_from(["", "y = f(x)._keras_mask", "# End\n"]))
    text = text.replace("    ", by)
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


def comments_of(text):
    return [
        comment
        for comment in re.findall(r"# \w+.*", text)
        if not re.search("mask|why|one", comment)
    ]


# Shrinking takes minutes.
@hypothesis.settings(
    deadline=None, max_examples=25, phases=[hypothesis.Phase.generate]
)
@hypothesis.given(modules())
def test_any_patch_parses_and_leaves_nothing_to_be_patched(
    tmp_path_factory, text
):
    path = tmp_path_factory.mktemp("any") / "code.py"
    path.write_bytes(text.encode())
    ast.parse(text)
    before = findings_in(path)
    after = patched(path) if before else text
    ast.parse(after)
    assert comments_of(after) == comments_of(text)
    assert ("\r\n" in after) == ("\r\n" in text)
    path.write_bytes(after.encode())
    left = findings_in(path)
    assert not any(f.is_mechanical for f in left)
    assert len(left) == sum(not f.is_mechanical for f in before)
    changed = any(f.is_mechanical for f in before)
    assert (after != text) == changed
