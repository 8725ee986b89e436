"""The examples of the guide of ops: padding changes no result, no gradient."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import keras
from keras import ops
from keras.src.testing.masked import testing_utils

REPO = pathlib.Path(__file__).resolve().parents[1]
BACKEND = keras.backend.backend()


def load(name):
    """A script of `guides/` as a module."""
    spec = importlib.util.spec_from_file_location(
        f"guide_{name}", REPO / f"guides/{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guide = load("ops")

# Lengths of the sequences of each operand, and the shape of a step.
STEPS = [((4, 2, 3), (2,))]
OPERANDS = {
    "attend": [((2, 4, 1), (3,)), ((4, 2, 3), (3,)), ((4, 2, 3), (2,))],
    "pool": STEPS,
    "standardize": STEPS,
    "running_sum": STEPS,
    "steps": STEPS,
    "two_best": [((4, 2, 3), ())],
    "distances": STEPS,
    "products_of_steps": STEPS,
    "gram": STEPS,
    "running_state": STEPS,
    "start_with_zeros": STEPS,
    "LastStep": STEPS,
}
every_example = pytest.mark.parametrize("name", OPERANDS)
every_padding = pytest.mark.parametrize("padding", ["nan", "garbage"])
some_lengths = pytest.mark.parametrize("added", [1, 5])


def function_of(name):
    found = getattr(guide, name)
    return found() if isinstance(found, type) else found


def draw(name):
    """The sequences of each operand, and weights of the entries of a result."""
    rng = np.random.default_rng(len(name))
    return [
        [rng.normal(size=(n, *step)).astype("float32") for n in lengths]
        for lengths, step in OPERANDS[name]
    ]


def weights_of(shape):
    weights = np.random.default_rng(7).normal(size=shape)
    return ops.convert_to_tensor(weights, "float32")


def padded(rows, added, value):
    """An array with the sequences, and the mask of what is there."""
    length = max(map(len, rows)) + added
    values = np.full((len(rows), length, *rows[0].shape[1:]), value, "float32")
    mask = np.zeros(values.shape[:2], "bool")
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
        mask[i, : len(row)] = True
    return values, mask


def masked(values, mask, padding):
    """A masked tensor; garbage is put under its mask once it is made."""
    x = keras.MaskedTensor(values, mask)
    if padding == "garbage":
        rng = np.random.default_rng(3)
        garbage = rng.uniform(-500, 500, mask.shape).astype("float32")
        garbage = np.where(mask, 0, garbage).astype("float32")
        shape = mask.shape + (1,) * (len(x.shape) - 2)
        x = x + garbage.reshape(shape)
    return x


def inputs(name, added, padding):
    value = np.nan if padding == "nan" else 0.0
    pairs = [padded(rows, added, value) for rows in draw(name)]
    return [values for values, _ in pairs], [mask for _, mask in pairs]


def as_numpy(x):
    return testing_utils.array(x)


def one_by_one(name):
    """What the function gives for each sequence alone, with plain tensors."""
    for alone in zip(*draw(name)):
        tensors = (ops.convert_to_tensor(x[None]) for x in alone)
        yield as_numpy(function_of(name)(*tensors))[0]


@every_example
@every_padding
@some_lengths
def test_a_padded_batch_gives_what_its_sequences_give(name, padding, added):
    arrays, masks = inputs(name, added, padding)
    xs = [masked(x, m, padding) for x, m in zip(arrays, masks)]
    result = function_of(name)(*xs)
    values = as_numpy(ops.filled(result, 0))
    assert np.all(np.isfinite(values))
    expected, valid = np.zeros_like(values), np.zeros(values.shape, "bool")
    for i, own in enumerate(one_by_one(name)):
        place = (i, *(slice(n) for n in own.shape))
        expected[place], valid[place] = own, True
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    if ops.is_masked(result):
        mask = as_numpy(result.mask)
        mask = testing_utils.over_all_axes(mask, values.shape)
        np.testing.assert_array_equal(mask, valid)
    else:
        assert np.all(valid)


@pytest.mark.skipif(BACKEND == "numpy", reason="NumPy has no gradients")
@every_example
@every_padding
@some_lengths
def test_its_gradient_is_that_of_its_sequences(name, padding, added):
    if (BACKEND, name) == ("tensorflow", "start_with_zeros"):
        pytest.skip("TensorFlow has no gradient of a plain `slice_update`")
    arrays, masks = inputs(name, added, padding)

    def loss(values):
        xs = [masked(x, m, padding) for x, m in zip(values, masks)]
        result = ops.filled(function_of(name)(*xs), 0)
        return ops.sum(result * weights_of(tuple(result.shape)))

    def shape_of_result():
        xs = [masked(x, m, padding) for x, m in zip(arrays, masks)]
        return tuple(function_of(name)(*xs).shape)

    found = testing_utils.gradients(loss, arrays)
    weights = weights_of(shape_of_result())
    expected = [np.zeros_like(x) for x in arrays]
    for i, alone in enumerate(zip(*draw(name))):

        def loss_alone(values, i=i):
            (result,) = function_of(name)(*(x[None] for x in values))
            own = (i, *(slice(n) for n in result.shape))
            return ops.sum(result * weights[own])

        for total, own in zip(
            expected, testing_utils.gradients(loss_alone, alone)
        ):
            own = as_numpy(own)
            total[(i, *(slice(n) for n in own.shape))] = own
    for own, wanted, mask in zip(found, expected, masks):
        own = np.broadcast_to(as_numpy(own), wanted.shape)
        np.testing.assert_allclose(own, wanted, rtol=1e-3, atol=1e-5)
        assert not np.any(own[~mask])
        assert np.any(own[mask])


def test_what_each_family_gives():
    e = np.exp(3.0)
    expected = {
        "merge": ([9, 0, 0], [True, False, False]),
        "guarded merge": ([8, 0, 2], [True, False, True]),
        "reduce": (2.5, None),
        "layout": (
            [1, 0, 4, 8, 5, 0],
            [True, False, True] + [True, True, False],
        ),
        "contract": (8, None),
        "normalize": ([1 / (1 + e), 0, e / (1 + e)], [True, False, True]),
    }
    found = guide.seven_families()
    _, error = found.pop("refuse")
    assert set(found) == set(expected)
    for family, (_, result) in found.items():
        values, mask = expected[family]
        filled = as_numpy(ops.filled(result, 0))
        np.testing.assert_allclose(filled, values, rtol=1e-6)
        if mask is None:
            assert not ops.is_masked(result)
        else:
            np.testing.assert_array_equal(as_numpy(result.mask), mask)
    for part in ("`unique`", "shape (3,)", "depends on the data", "filled"):
        assert part in str(error)


def test_a_sequence_of_one_step_has_a_standard_form():
    x = np.array([[[3.0], [np.nan]]], "float32")
    mask = np.array([[True, False]])

    def loss(values):
        result = guide.standardize(keras.MaskedTensor(values[0], mask))
        return ops.sum(ops.filled(result, 0) * weights_of((1, 2, 1)))

    assert float(as_numpy(loss([x]))) == 0
    if BACKEND != "numpy":
        (gradient,) = testing_utils.gradients(loss, [x])
        assert np.all(np.isfinite(as_numpy(gradient)))


def test_less_than_two_have_no_second_best():
    x = keras.MaskedTensor.from_ragged([[3.0, 5.0, 2.0], [7.0], []])
    best = guide.two_best(x)
    np.testing.assert_array_equal(
        as_numpy(best.mask), [[True, True], [True, False], [False, False]]
    )
    values = as_numpy(ops.filled(best, 0))
    np.testing.assert_array_equal(values, [[5, 3], [7, 0], [0, 0]])


def test_what_is_written_is_valid_where_it_comes_from():
    # Of one dtype, as TensorFlow asks for.
    rows = [np.array(row, "float32") for row in ([3, 1, 2], [5])]
    x = keras.MaskedTensor.from_ragged(rows)
    numbers = keras.MaskedTensor([9.0, 8.0], [True, False])
    result = guide.write(x, [[1, 1], [0, 0]], numbers)
    np.testing.assert_array_equal(
        as_numpy(result.mask), [[False, True, True], [True, True, False]]
    )
    values = as_numpy(ops.filled(result, 0))
    np.testing.assert_array_equal(values, [[0, 1, 2], [5, 9, 0]])
    # The one that was written to is as it was.
    np.testing.assert_array_equal(as_numpy(x.mask)[0], [True] * 3)
    np.testing.assert_array_equal(as_numpy(ops.filled(x, 0))[0], [3, 1, 2])


def test_masked_ids_look_up_the_first_entry_under_the_mask():
    table = np.array([5.0, 10.0, 20.0], "float32")
    ids = keras.MaskedTensor(np.array([2, 1], "int32"), [True, False])
    found = guide.look_up(table, ids)
    np.testing.assert_array_equal(as_numpy(found.values), [20, 5])
    np.testing.assert_array_equal(as_numpy(found.mask), [True, False])


def test_the_way_out_of_a_refusal():
    x = keras.MaskedTensor.from_ragged([[3.0, 1.0, 2.0], [5.0]])
    error = guide.refusal(ops.rfft, x)
    assert "last axis as a whole" in str(error)
    power = np.abs(np.fft.rfft([[3.0, 1.0, 2.0], [5.0, 0, 0]])) ** 2
    found = as_numpy(guide.spectrum(x))
    np.testing.assert_allclose(found, np.sqrt(power + 1e-3), rtol=1e-5)


def test_a_script_that_cannot_be_changed_goes_on_with_a_warning():
    x = keras.MaskedTensor.from_ragged([[3.0, 1.0, 2.0], [5.0]])
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        found = guide.numbers_that_occur(x)
    np.testing.assert_array_equal(as_numpy(found), [0, 1, 2, 3, 5])
    (warning,) = given
    assert warning.category is keras.masking.UnsupportedMaskWarning
    assert warning.filename == guide.__file__
    line = pathlib.Path(guide.__file__).read_text().splitlines()
    assert line[warning.lineno - 1].strip() == "return ops.unique(x)"
    assert keras.config.unsupported_mask() == "raise"


def test_the_rule_of_an_operation_holds_in_a_model():
    inputs = keras.Input((None, 2), mask_shape=(None,))
    outputs = guide.LastStep()(inputs)
    assert outputs.shape == (None, 2)
    assert not ops.is_masked(outputs)
    rows = draw("LastStep")[0]
    x = keras.MaskedTensor.from_ragged(rows, length=6)
    found = as_numpy(keras.Model(inputs, outputs)(x))
    np.testing.assert_allclose(found, [row[-1] for row in rows])


def test_a_sequence_without_a_step_has_a_last_step_of_0():
    values = np.full((1, 2, 3), 7.0, "float32")
    x = keras.MaskedTensor(values, [[False, False]]) + values
    np.testing.assert_array_equal(as_numpy(guide.LastStep()(x)), [[0] * 3])


def test_the_guide_runs(tmp_path):
    run = subprocess.run(
        [sys.executable, str(REPO / "guides/ops.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPO / "build"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # A line of it; the console breaks the rest where it likes.
    assert re.search(r"^ops\.py:\d+: `unique` cannot take", run.stdout, re.M)
    assert ">>> two_best(x)\n[[3.0 2.0]\n [5.0 --]]\n" in run.stdout
    changes = re.findall(r"^│ (\w+) +│ (\d\.\de[+-]\d\d) +│$", run.stdout, re.M)
    assert {name for name, _ in changes} == set(OPERANDS) - {"two_best"}
    assert all(float(change) < 1e-5 for _, change in changes)
