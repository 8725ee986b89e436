"""Attention of packed rows: each row gives what it gives alone, unpadded.

Where a row is much longer than the others, these are computed apart from it.
"""

from unittest import mock

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src.masking import packing
from keras.src.testing.masked import testing_utils as u
from keras.src.utils import set_random_seed

MaskedTensor = backend.MaskedTensor
BATCH, TIME, FEATURES = 7, 24, 4


def skewed(kind, seed=0):
    """A mask of one long row, many short ones, and one without a step."""
    lengths = np.array([3, TIME, 0, 6, 2, 11, 5])
    mask = np.arange(TIME) < lengths[:, None]
    if kind == "left padding":
        return mask[:, ::-1].copy()
    if kind == "holes":
        mask &= np.random.default_rng(seed).uniform(size=mask.shape) < 0.7
        mask[1, -1] = True
    return mask


def values_like(mask, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*mask.shape, FEATURES)).astype("float32")


def layer_of(kind):
    set_random_seed(1)
    if kind == "multi head":
        return layers.MultiHeadAttention(2, 3)
    return layers.GroupedQueryAttention(3, 4, 2)


def seen_by_attention(run):
    """The lengths with which attention itself is computed."""
    found = []
    plain = ops.dot_product_attention

    def noting(query, *args, **kwargs):
        found.append(tuple(query.shape)[:2])
        return plain(query, *args, **kwargs)

    with mock.patch.object(ops, "dot_product_attention", noting):
        run()
    return found


class PackedAttentionTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        # As if these rows were long enough to pay.
        worth = mock.patch.object(packing, "_WORTH_A_CALL", 0)
        self.enterContext(worth)

    @parameterized.product(
        kind=("multi head", "grouped query"),
        padding=("right padding", "left padding", "holes"),
        capacity=(None, 80),
        seen=(None, "causal", "a query and a key", "heads", "one for all"),
    )
    def test_each_row_by_itself(self, kind, padding, capacity, seen):
        mask = skewed(padding)
        values = values_like(mask)
        layer = layer_of(kind)
        rng = np.random.default_rng(2)
        options, given = {"use_causal_mask": seen == "causal"}, None
        shapes = {
            "a query and a key": (BATCH, 1, TIME, TIME),
            "heads": (BATCH, 1 if kind[0] == "g" else 2, TIME, TIME),
            "one for all": (1, 1, TIME, TIME),
        }
        if seen in shapes:
            given = rng.uniform(size=shapes[seen]) < 0.7
            given |= np.eye(TIME, dtype=bool)
        outer = given
        if seen in ("a query and a key", "one for all"):
            outer = given[:, 0]
        x = MaskedTensor(values, mask).packed(capacity)
        found = layer(x, x, attention_mask=outer, **options)
        self.assertTrue(found.is_packed)
        found = backend.convert_to_numpy(found.values)
        for b in range(BATCH):
            valid = np.flatnonzero(mask[b])
            if not len(valid):
                continue
            row = values[b][None, valid]
            own = None
            if given is not None:
                own = given[b if len(given) > 1 else 0]
                own = own[:, valid][:, :, valid]
                own = own[None] if seen == "heads" else own[:1]
            wanted = layer(row, row, attention_mask=own, **options)
            self.assertAllClose(found[b, valid], wanted[0], 1e-5, 1e-5)

    @parameterized.product(
        kind=("multi head", "grouped query"),
        padding=("right padding", "left padding"),
    )
    def test_rows_of_about_one_length_at_a_time(self, kind, padding):
        """Where nothing is compiled for the number of them."""
        layer = layer_of(kind)
        mask = skewed(padding)
        x = MaskedTensor(values_like(mask), mask).packed()
        layer(x, x)
        found = seen_by_attention(lambda: layer(x, x))
        if backend.backend() == "jax":
            self.assertEqual(found, [(BATCH, TIME)])
            return
        # Longer than 12, than 6, than 3, and the others.
        self.assertEqual(found, [(1, TIME), (1, 11), (2, 6), (3, 3)])
        even = np.ones((BATCH, TIME), bool)
        y = MaskedTensor(values_like(even), even).packed()
        found = seen_by_attention(lambda: layer(y, y))
        self.assertEqual(found, [(BATCH, TIME)])
        with mock.patch.object(packing, "_WORTH_A_CALL", 2**15):
            found = seen_by_attention(lambda: layer(x, x))
        self.assertEqual(found, [(BATCH, TIME)])

    @parameterized.parameters((0, 5), (3, 0), (3, 5))
    def test_nothing_valid(self, *shape):
        if backend.backend() == "numpy" and not shape[1]:
            self.skipTest("NumPy has no softmax of nothing.")
        mask = np.zeros(shape, bool)
        for capacity in (None, 2):
            if capacity and not mask.size:
                continue
            x = MaskedTensor(values_like(mask), mask).packed(capacity)
            found = layer_of("multi head")(x, x)
            self.assertEqual(tuple(found.shape), (*shape, FEATURES))
            self.assertAllEqual(found.mask, mask)

    def test_what_needs_all_times_gets_them(self):
        """Scores have a length, and what is dropped depends on it."""
        mask = skewed("right padding")
        x = MaskedTensor(values_like(mask), mask)
        set_random_seed(1)
        layer = layers.MultiHeadAttention(2, 3, dropout=0.5)
        for options in ({"return_attention_scores": True}, {"training": True}):
            results = []
            for y in (x, x.packed()):
                layer(y, y)
                # Not all engines draw by the layer's own generator.
                layer._dropout_layer.seed_generator.state.assign([1, 2])
                set_random_seed(2)
                result = layer(y, y, **options)
                results.append(
                    result if isinstance(result, tuple) else (result,)
                )
            for wanted, found in zip(*results):
                self.assertAllClose(ops.filled(found), ops.filled(wanted), 1e-5)

    def test_a_mask_of_queries_and_keys_is_for_all_rows(self):
        """However many rows there are: as many as times, here."""
        mask = np.arange(BATCH) < np.array([[7], [2], [1], [1], [2], [1], [1]])
        x = MaskedTensor(values_like(mask), mask).packed()
        layer = layer_of("multi head")
        layer(x, x)
        query, key, value = (
            dense(x)
            for dense in (
                layer._query_dense,
                layer._key_dense,
                layer._value_dense,
            )
        )
        seen = np.tril(np.ones((BATCH, BATCH), bool))
        found, _ = layer._compute_attention(query, key, value, seen)
        wanted, _ = layer._compute_attention(query, key, value, seen[None])
        self.assertAllClose(found.values, wanted.values)
        with mock.patch.object(packing, "by_length", lambda x: None):
            wanted, _ = layer._compute_attention(query, key, value, seen)
        self.assertAllClose(found.values[:, 0], wanted.values[:, 0], 1e-5)

    def test_keys_of_another_layout(self):
        masks = skewed("right padding"), skewed("left padding")
        query, value = (
            MaskedTensor(values_like(m, seed), m)
            for seed, m in enumerate(masks)
        )
        layer = layer_of("multi head")
        found = layer(query.packed(), value.packed())
        wanted = layer(query, value)
        self.assertAllClose(ops.filled(found), ops.filled(wanted), 1e-5)

    @parameterized.parameters("multi head", "grouped query")
    def test_gradients(self, kind):
        if backend.backend() == "numpy":
            self.skipTest("NumPy has no gradients.")
        mask = skewed("holes")
        weights = values_like(mask, 1)
        layer = layer_of(kind)
        layer.build((None, None, FEATURES), (None, None, FEATURES))

        def loss(values, mask, weights, pack):
            x = MaskedTensor(values, mask)
            x = x.packed() if pack else x
            return ops.sum(ops.filled(layer(x, x) * weights, 0))

        poisoned = np.where(mask[..., None], values_like(mask), np.nan)
        found = u.gradients(
            lambda a: loss(a[0], mask, weights, True), [poisoned]
        )[0]
        found = backend.convert_to_numpy(found)
        self.assertAllEqual(found[~mask], np.zeros_like(found[~mask]))
        for b in range(BATCH):
            valid = np.flatnonzero(mask[b])
            if not len(valid):
                continue
            rows = slice(b, b + 1), valid
            ones = np.ones((1, len(valid)), bool)
            wanted = u.gradients(
                lambda a, own=weights[rows], ones=ones: loss(
                    a[0], ones, own, False
                ),
                [poisoned[rows]],
            )[0]
            self.assertAllClose(found[b, valid], wanted[0], 1e-4, 1e-4)

    def test_groups_cover_each_step_once(self):
        """Also of a layout that was turned round, or that lost steps."""
        if backend.backend() == "jax":
            self.skipTest("It would compile for each number of rows.")
        mask = skewed("holes")
        x = MaskedTensor(values_like(mask), mask)
        kept = np.random.default_rng(3).uniform(size=mask.sum()) < 0.7
        packed = packing.pack(x)
        if packed.there is not None:
            kept = np.pad(kept, (0, packed.flat.shape[0] - len(kept)))
        for y in (
            packed,
            ops.flip(packed, axis=1),
            packing.with_steps(packed, backend.convert_to_tensor(kept)),
            x.packed(mask.size),
        ):
            groups = packing.by_length(y)
            places = backend.convert_to_numpy(groups.index)
            inside = places[places < groups.size]
            self.assertEqual(len(set(inside)), len(inside))
            self.assertEqual(
                len(inside), int(backend.convert_to_numpy(y.mask).sum())
            )
            self.assertAllEqual(
                np.sort(np.concatenate(groups.rows)), range(BATCH)
            )
            layer = layer_of("multi head")
            with mock.patch.object(packing, "by_length", lambda x: None):
                wanted = layer(y, y)
            self.assertAllClose(
                ops.filled(layer(y, y)), ops.filled(wanted), 1e-5
            )
