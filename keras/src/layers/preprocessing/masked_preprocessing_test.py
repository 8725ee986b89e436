"""What preprocessing layers make of masked inputs, and learn of masked data.

That every one of them keeps what lies under a mask out of its results is
tested with all other layers.
"""

import warnings

import numpy as np
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.testing.masked.cases.preprocessing import IMAGES
from keras.src.testing.masked.cases.preprocessing import REFUSALS
from keras.src.testing.masked.testing_utils import draw
from keras.src.testing.masked.testing_utils import masked
from keras.src.testing.masked.testing_utils import over_all_axes
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDataset

ON_TENSORFLOW = backend.backend() == "tensorflow"


def entries(shape, seed=0, low=0, high=255):
    return np.random.default_rng(seed).uniform(low, high, shape)


def drawn_mask(shape, share=0.6):
    return np.random.default_rng(7).uniform(size=shape) < share


def numpy_ma(values, mask):
    values = np.asarray(values)
    return np.ma.MaskedArray(values, ~over_all_axes(mask, values.shape))


def moments_of(values, mask, axis):
    """Mean and variance over all axes but `axis`, of what is valid."""
    values = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
    mask = np.moveaxis(mask, axis, -1).reshape(values.shape)
    columns = [values[:, i][mask[:, i]] for i in range(values.shape[1])]
    return [[f(c) for c in columns] for f in (np.mean, np.var)]


class NormalizationTest(testing.TestCase):
    def assert_learned(self, layer, mean, variance):
        self.assertAllClose(layer.adapt_mean, mean, atol=1e-4, rtol=1e-4)
        self.assertAllClose(layer.adapt_variance, variance, atol=1e-3)

    @parameterized.product(
        make=(keras.MaskedTensor, numpy_ma), axis=(-1, 1), rank=(1, 2, 3)
    )
    def test_adapt_learns_of_valid_entries(self, make, axis, rank):
        values = entries((6, 5, 4), low=-3, high=9).astype("float32")
        mask = drawn_mask(values.shape[:rank])
        cells = over_all_axes(mask, values.shape)
        wanted = moments_of(values, cells, axis)
        for poison in (0, np.nan, np.inf, 1e30):
            layer = layers.Normalization(axis=axis)
            layer.adapt(make(np.where(cells, values, poison), mask))
            self.assert_learned(layer, *wanted)

    def test_adapt_to_all_of_it_at_once(self):
        x = keras.MaskedTensor([1.0, 9.0, 3.0], [True, False, True])
        layer = layers.Normalization(axis=None)
        layer.adapt(x + np.array([0, 500, 0], "float32"))
        self.assert_learned(layer, 2, 1)
        result = layer(x)
        self.assertAllEqual(result.mask, [True, False, True])
        self.assertAllClose(result.values[0], -1)
        self.assertAllClose(result.values[2], 1)

    @parameterized.parameters("list", "tuples", "generator", "PyDataset")
    def test_adapt_to_batches(self, kind):
        values = entries((7, 4), low=5, high=9).astype("float32")
        mask = drawn_mask(values.shape)
        mask[2:4] = False  # A batch in which nothing is valid.
        cuts = ((0, 2), (2, 4), (4, 7))
        batches = [
            make(np.where(mask, values, np.nan)[a:b], mask[a:b])
            for (a, b), make in zip(cuts, (numpy_ma, *[keras.MaskedTensor] * 2))
        ]

        class Data(PyDataset):
            def __getitem__(self, index):
                return batches[index]

            @property
            def num_batches(self):
                return len(batches)

        data = {
            "list": batches,
            "tuples": [(batch, np.zeros(2)) for batch in batches],
            "generator": (batch for batch in batches),
            "PyDataset": Data(),
        }[kind]
        layer = layers.Normalization()
        layer.adapt(data)
        self.assert_learned(layer, *moments_of(values, mask, -1))

    def test_plain_batches_among_masked_ones_are_valid(self):
        plain, values = entries((2, 3)), entries((4, 3), 1)
        mask = drawn_mask((4, 3))
        wanted = moments_of(
            np.concatenate([plain, values]),
            np.concatenate([np.ones((2, 3), "bool"), mask]),
            -1,
        )
        layer = layers.Normalization()
        layer.adapt([plain, numpy_ma(values, mask)])
        self.assertAllClose(layer.adapt_mean, wanted[0], rtol=1e-4)
        self.assertAllClose(layer.adapt_variance, wanted[1], rtol=1e-3)

    def test_a_generator_that_begins_plain_stays_so(self):
        batches = [entries((2, 3)), numpy_ma(entries((2, 3)), drawn_mask((2,)))]
        with self.assertRaisesRegex(ValueError, r"\(2, 3\) after plain ones"):
            layers.Normalization().adapt(x for x in batches)

    def test_a_feature_without_a_valid_entry_is_left_as_it_is(self):
        mask = np.array([[True, False], [True, False]])
        layer = layers.Normalization()
        with self.assertWarnsRegex(UserWarning, r"features \[1\] of 2 have no"):
            layer.adapt(keras.MaskedTensor([[1.0, 7.0], [3.0, 9.0]], mask))
        self.assert_learned(layer, [2, 0], [1, 1])
        self.assertAllClose(layer(np.array([[1.0, 5.0]])), [[-1, 5]])
        # What was learned before stays.
        with self.assertWarnsRegex(UserWarning, r"features \[0\] of 2 have no"):
            layer.adapt(keras.MaskedTensor([[5.0, 9.0], [9.0, 3.0]], ~mask))
        self.assert_learned(layer, [2, 6], [1, 9])

    def test_batches_have_to_agree(self):
        mask = np.ones((2, 3), "bool")
        layer = layers.Normalization()
        batches = [numpy_ma(entries((2, n)), mask[:, :n]) for n in (3, 2)]
        with self.assertRaisesRegex(
            ValueError, r"input_shape=\(2, 3\).*batch of shape \(2, 2\)"
        ):
            layer.adapt(batches)


class LearnedTest(testing.TestCase):
    """`adapt` of the layers that learn bins or tokens."""

    @parameterized.parameters(keras.MaskedTensor, numpy_ma)
    def test_bins_are_those_of_valid_entries(self, make):
        values = entries((20, 3), low=-3, high=3).astype("float32")
        mask = drawn_mask(values.shape)
        wanted = layers.Discretization(num_bins=4)
        wanted.adapt(values[mask])
        layer = layers.Discretization(num_bins=4)
        for poison in (1e6, np.nan):
            poisoned = np.where(mask, values, poison)
            layer.adapt(make(poisoned, mask))
            self.assertEqual(layer.bin_boundaries, wanted.bin_boundaries)
            layer.adapt([make(poisoned, mask)])
            self.assertEqual(layer.bin_boundaries, wanted.bin_boundaries)

    @parameterized.parameters(keras.MaskedTensor, numpy_ma)
    def test_masked_tokens_are_not_learned(self, make):
        values = np.array([[5, 5, 9], [5, 7, 9], [9, 9, 9]])
        mask = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], "bool")
        layer = layers.IntegerLookup()
        for data in (make(values, mask), [make(values, mask)]):
            layer.adapt(data)
            self.assertEqual(layer.get_vocabulary(), [-1, 5, 7])

    def test_masked_documents_do_not_count(self):
        values = np.array([[5, 5, 9], [5, 7, 9], [9, 9, 9]])
        mask = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], "bool")
        layer = layers.IntegerLookup(output_mode="tf_idf")
        layer.adapt(keras.MaskedTensor(values, mask))
        self.assertEqual(layer.get_vocabulary(), [-1, 5, 7])
        # Of two documents one token is in both, the other in one.
        weights = np.log1p(2 / (1 + np.array([2, 1])))
        self.assertAllClose(layer.idf_weights_const[1:], weights)

    def test_masked_strings_are_not_learned(self):
        words = np.ma.MaskedArray(["a", "b", "c", "a"], [0, 1, 0, 0])
        layer = layers.StringLookup()
        layer.adapt(words)
        self.assertEqual(layer.get_vocabulary(), ["[UNK]", "a", "c"])
        layer = layers.TextVectorization()
        layer.adapt(np.ma.MaskedArray(["a b", "x y", "a"], [0, 1, 0]))
        self.assertEqual(layer.get_vocabulary(), ["", "[UNK]", "a", "b"])

    @parameterized.parameters(
        (lambda: layers.Normalization(), [[1.0, 2.0], [3.0, 6.0]]),
        (lambda: layers.Discretization(num_bins=3), [[1.0, 2.0], [3.0, 6.0]]),
        (lambda: layers.IntegerLookup(), [[1, 2], [3, 3]]),
        (lambda: layers.IntegerLookup(output_mode="tf_idf"), [[1, 2], [3, 3]]),
        (lambda: layers.StringLookup(), [["a", "b"]]),
        (lambda: layers.TextVectorization(), ["a b", "c"]),
    )
    def test_nothing_is_learned_of_no_valid_entry(self, make, data):
        layer, data = make(), np.array(data)
        layer.adapt(data)
        before = learned(layer)
        none = np.ma.MaskedArray(data, mask=np.ones(data.shape, "bool"))
        for batches in (none, [none], [none, none]):
            with warnings.catch_warnings():
                # A list of tokens is read once, and not looked into before.
                warnings.simplefilter("ignore", UserWarning)
                layer.adapt(batches)
            for one, other in zip(learned(layer), before, strict=True):
                self.assertAllEqual(one, other)


def learned(layer):
    """What a layer learns in `adapt`, as arrays."""
    if isinstance(layer, layers.Normalization):
        return layer.get_weights()
    if isinstance(layer, layers.Discretization):
        return [np.array(layer.bin_boundaries)]
    found = [np.array(layer.get_vocabulary())]
    if getattr(layer, "output_mode", None) == "tf_idf":
        found.append(layer.idf_weights_const.numpy())
    return found


class TokensTest(testing.TestCase):
    VALUES = np.array([[1, 2, 2], [3, 1, 0], [2, 2, 2]])
    MASK = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]], "bool")

    def setUp(self):
        super().setUp()
        self.x = keras.MaskedTensor(self.VALUES, self.MASK)

    def assert_counts(self, result, wanted):
        """A count for each row, the last of which is masked."""
        self.assertAllEqual(result.mask, [True, True, False])
        self.assertAllClose(result.values, wanted)

    @parameterized.parameters("int", "one_hot", "multi_hot", "count")
    def test_what_is_valid_is_as_it_is_of_plain_input(self, mode):
        makes = (
            lambda: layers.Hashing(4, output_mode=mode),
            lambda: layers.IntegerLookup(vocabulary=[2, 3], output_mode=mode),
            lambda: layers.Discretization([1.5, 2.5], output_mode=mode),
        )
        all_valid = np.ones_like(self.MASK)
        for make in makes:
            layer = make()
            plain = backend.convert_to_numpy(layer(self.VALUES))
            for x in (
                keras.MaskedTensor(self.VALUES, all_valid),
                numpy_ma(self.VALUES, all_valid),
            ):
                result = layer(x)
                self.assertTrue(ops.is_masked(result))
                self.assertTrue(ops.all(result.mask))
                self.assertAllClose(result.values, plain)

    def test_masked_tokens_have_no_index(self):
        layer = layers.IntegerLookup(vocabulary=[2, 3])
        result = layer(self.x)
        self.assertAllEqual(result.mask, self.MASK)
        indices = np.array([[0, 1, 1], [2, 0, 0], [1, 1, 1]])
        self.assertAllEqual(
            ops.filled(result, 9), np.where(self.MASK, indices, 9)
        )

    def test_masked_tokens_count_as_nothing(self):
        counts = [[1, 1, 0], [2, 0, 0], [0, 0, 0]]
        for mode, wanted in (
            ("count", counts),
            ("multi_hot", np.minimum(counts, 1)),
            ("tf_idf", np.multiply(counts, [0.5, 2, 4])),
        ):
            weights = [0.5, 2, 4] if mode == "tf_idf" else None
            layer = layers.IntegerLookup(
                vocabulary=[-1, 2, 3], output_mode=mode, idf_weights=weights
            )
            self.assert_counts(layer(self.x), wanted)
        layer = layers.CategoryEncoding(4, output_mode="count")
        self.assert_counts(
            layer(self.x), [[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
        )
        weights = np.array([[5, 6, 7], [7, 8, 9], [7, 7, 7]], "float32")
        self.assert_counts(
            layer(self.x, count_weights=weights),
            [[0, 5, 6, 0], [9, 8, 0, 0], [0, 0, 0, 0]],
        )

    def test_a_masked_token_is_a_row_of_zeros(self):
        for layer in (
            layers.CategoryEncoding(4, output_mode="one_hot"),
            layers.IntegerLookup(
                vocabulary=[1, 2, 3], output_mode="one_hot", num_oov_indices=1
            ),
        ):
            result = layer(self.x)
            self.assertAllEqual(result.mask, self.MASK)
            wanted = np.eye(4)[self.VALUES] * self.MASK[..., None]
            self.assertAllClose(result.values, wanted)

    def test_a_table_takes_no_masked_token_for_an_unknown_one(self):
        layer = layers.IntegerLookup(vocabulary=[1, 2], num_oov_indices=0)
        x = keras.MaskedTensor([1, 7, 2], [True, False, True])
        result = layer(x)
        self.assertAllEqual(result.mask, [True, False, True])
        self.assertAllEqual(ops.filled(result, 9), [0, 9, 1])

    def test_indices_back_to_tokens(self):
        layer = layers.IntegerLookup(vocabulary=[20, 30], invert=True)
        result = layer(self.x)
        self.assertAllEqual(result.mask, self.MASK)
        tokens = np.array([-1, 20, 30, -1])[self.VALUES]
        self.assertAllEqual(
            ops.filled(result, 9), np.where(self.MASK, tokens, 9)
        )

    @parameterized.parameters("int", "one_hot")
    def test_a_cross_is_valid_where_both_features_are(self, mode):
        one = np.array([[1], [2], [3], [4]])
        other = np.array([["a"], ["b"], ["c"], ["d"]])
        mask = np.array([True, False, True, True])
        layer = layers.HashedCrossing(5, output_mode=mode)
        plain = backend.convert_to_numpy(layer([one, other]))
        for x in (
            [numpy_ma(one, mask), other],
            [one, numpy_ma(other, mask)],
        ):
            result = layer(x)
            found = ops.convert_to_numpy(result)
            cells = over_all_axes(mask, found.shape)
            self.assertAllEqual(~np.ma.getmaskarray(found), cells)
            self.assertAllEqual(found.data[cells], plain[cells])

    def test_masked_strings(self):
        words = np.ma.MaskedArray([["a", "b"], ["z", "a"]], [[0, 0], [1, 0]])
        layer = layers.StringLookup(vocabulary=["a", "b"])
        result = layer(words)
        self.assertAllEqual(result.mask, [[True, True], [False, True]])
        self.assertAllEqual(ops.filled(result, 9), [[1, 2], [9, 1]])
        layer = layers.StringLookup(vocabulary=["a", "b"], output_mode="count")
        result = layer(words)
        self.assertAllEqual(result.mask, [True, True])
        self.assertAllEqual(result.values, [[0, 1, 1], [0, 1, 0]])
        result = layers.Hashing(3)(words)
        self.assertAllEqual(result.mask, [[True, True], [False, True]])

    def test_a_masked_text_is_an_empty_one(self):
        texts = np.ma.MaskedArray(["a b", "b", "a"], [0, 1, 0])
        layer = layers.TextVectorization(vocabulary=["a", "b"])
        result = layer(texts)
        self.assertAllEqual(result.mask, [True, False, True])
        self.assertAllEqual(result.values, [[2, 3], [0, 0], [2, 0]])
        layer = layers.TextVectorization(
            vocabulary=["a", "b"], output_mode="count"
        )
        self.assertAllEqual(
            layer(texts).values, [[0, 1, 1], [0, 0, 0], [0, 1, 0]]
        )


def pictures(count=3):
    return entries((count, 6, 5, 3)).astype("float32")


VALID = np.array([True, False, True])
# Pixels are counted over all images, at times: masked ones are not.
OVER_ALL = ("AugMix", "Equalization", "RandAugment")
# JAX compiles for each layer anew.
DRAWN = [
    (name, cases[0])
    for name, cases in IMAGES.items()
    if name not in OVER_ALL
    and (backend.backend() != "jax" or name in ("RandomHue", "RandomRotation"))
]


class ImagesTest(testing.TestCase):
    @parameterized.named_parameters(DRAWN)
    def test_random_numbers_are_those_of_plain_images(self, case):
        images = pictures()
        results = []
        for x in (images, keras.MaskedTensor(images, VALID)):
            keras.utils.set_random_seed(1)
            results.append(case.make()(x, training=True))
        plain, result = results
        mask = backend.convert_to_numpy(result.mask)
        self.assertAllClose(
            backend.convert_to_numpy(result.values)[mask],
            backend.convert_to_numpy(plain)[mask],
            atol=1e-3,
        )

    def test_masked_images_are_not_among_those_equalized(self):
        images = pictures()
        layer = layers.Equalization(bins=4)
        result = layer(keras.MaskedTensor(images, VALID))
        self.assertAllClose(
            backend.convert_to_numpy(result.values)[VALID],
            layer(images[VALID]),
        )

    @parameterized.named_parameters(REFUSALS.items())
    def test_what_is_refused(self, case):
        args = masked(draw(case.args, seed=1, share=0.6))
        layer = case.make()
        kwargs = {"training": True} if layer._call_has_training_arg else {}
        with self.assertRaisesRegex(UnsupportedMaskError, case.reason):
            layer(*args, **kwargs)

    def test_valid_pixels_alone_make_the_contrast(self):
        images = pictures()
        mask = drawn_mask(images.shape[:3])
        layer = layers.AutoContrast()
        result = layer(keras.MaskedTensor(images, mask))
        self.assertAllEqual(result.mask, mask)
        values = backend.convert_to_numpy(result.values)
        for one, found, valid in zip(images, values, mask):
            pixels = one[valid]
            low, high = pixels.min(0), pixels.max(0)
            self.assertAllClose(
                found[valid], (pixels - low) / (high - low) * 255, atol=1e-2
            )

    def test_masked_labels_of_mixed_images(self):
        layer = layers.MixUp(seed=1)
        labels = np.eye(3, dtype="float32")
        data = {
            "images": pictures(),
            "labels": keras.MaskedTensor(labels, VALID),
        }
        order = np.asarray(
            layers.MixUp(seed=1).get_random_transformation(pictures())[
                "permutation_order"
            ]
        )
        result = layer(data, training=True)
        self.assertFalse(ops.is_masked(result["images"]))
        self.assertAllEqual(result["labels"].mask, VALID & VALID[order])

    def test_masked_boxes_stay_masked(self):
        boxes = np.tile(np.array([0.0, 0, 2, 2], "float32"), (3, 2, 1))
        mask = np.array([[True, False], [True, True], [False, False]])
        for layer in (
            layers.RandomFlip(seed=1, bounding_box_format="xyxy"),
            layers.MaxNumBoundingBoxes(2, bounding_box_format="xyxy"),
        ):
            found = layer(
                {
                    "images": ops.convert_to_tensor(pictures()),
                    "bounding_boxes": {
                        "boxes": keras.MaskedTensor(boxes, mask),
                        "labels": ops.ones((3, 2), "int32"),
                    },
                },
                training=True,
            )["bounding_boxes"]["boxes"]
            cells = ops.convert_to_numpy(ops.any(found, axis=-1))
            self.assertAllEqual(~np.ma.getmaskarray(cells), mask)

    def test_a_numpy_array_is_masked_too(self):
        images = numpy_ma(pictures(), VALID)
        for layer in (
            layers.Rescaling(2.0),
            layers.RandomFlip(seed=1),
            layers.RandomCrop(4, 4, seed=1),
        ):
            self.assertTrue(ops.is_masked(layer(images)))

    def test_graphs_have_the_masks(self):
        x = layers.Input((6, 5, 3), mask_shape=())
        y = layers.RandomCrop(4, 4, seed=1)(x)
        y = layers.RandomElasticTransform(seed=1)(y)
        self.assertEqual(y.shape, (None, 4, 4, 3))
        model = keras.Model(x, layers.RandomRotation(0.1, seed=1)(y))
        result = model(keras.MaskedTensor(pictures(), VALID))
        self.assertAllEqual(result.mask, VALID)


class AddTest(testing.TestCase):
    def test_one_number_for_each_image_is_no_bias(self):
        """Upstream adds it to the channels on TensorFlow, if they are as many.

        So it would be for any masked sum, which goes through `ops.add`.
        """
        for shape, other in (
            ((3, 2, 2, 3), (3, 1, 1, 1)),
            ((2, 3, 2, 3), (1, 3, 1, 1)),
            ((2, 3, 2, 1), (3,)),
            ((2, 3, 3), (3,)),
            ((2, 3, 4), (3, 1)),
        ):
            x, y = entries(shape), entries(other, 1)
            result = ops.add(ops.convert_to_tensor(x), ops.convert_to_tensor(y))
            self.assertAllClose(result, x + y, rtol=1e-5)


class PipelinesTest(testing.TestCase):
    def test_in_a_data_pipeline(self):
        if not ON_TENSORFLOW:
            self.skipTest("Others have no masked tensors of TensorFlow.")
        import tensorflow as tf

        normalize = layers.Normalization()
        values = entries((4, 3)).astype("float32")
        mask = drawn_mask((4, 3))
        x = keras.MaskedTensor(values, mask)
        data = tf.data.Dataset.from_tensor_slices(x).batch(2)
        normalize.adapt(data)
        wanted = moments_of(values, mask, -1)
        self.assertAllClose(normalize.adapt_mean, wanted[0], rtol=1e-4)
        self.assertAllClose(normalize.adapt_variance, wanted[1], rtol=1e-3)
        for layer in (
            normalize,
            layers.Rescaling(2.0),
            layers.Discretization([50.0, 99.0]),
        ):
            found = list(data.map(layer))
            self.assertAllEqual(found[0].mask, mask[:2])
            self.assertAllClose(
                ops.filled(found[0]), ops.filled(layer(x[:2])), atol=1e-4
            )
        ids = keras.MaskedTensor([[1, 2], [3, 3]], [[True, False], [True] * 2])
        data = tf.data.Dataset.from_tensor_slices(ids).batch(2)
        for layer in (
            layers.IntegerLookup(vocabulary=[1, 3], num_oov_indices=0),
            layers.Hashing(3, output_mode="count"),
        ):
            (found,) = data.map(layer)
            self.assertAllEqual(found.mask, layer(ids).mask)
            self.assertAllEqual(ops.filled(found), ops.filled(layer(ids)))

    def test_in_a_pipeline_of_another_backend(self):
        if ON_TENSORFLOW:
            self.skipTest("TensorFlow's own pipelines have masks.")
        import tensorflow as tf

        x = keras.MaskedTensor(np.ones((2, 3), "float32"), [True, False])
        data = tf.data.Dataset.from_tensors(0)
        with self.assertRaisesRegex(
            UnsupportedMaskError, f"this one is {backend.backend()}"
        ):
            data.map(lambda _: layers.Rescaling(2.0)(x))

    def test_in_a_graph_that_jax_exports(self):
        """There JAX traces inside of TensorFlow, which is no pipeline."""
        if backend.backend() != "jax":
            self.skipTest("Only JAX traces inside of TensorFlow.")
        import tensorflow as tf

        x = keras.Input((3,))
        mask = keras.Input((), dtype="bool")
        normalize = layers.Normalization(mean=[1.0, 2, 3], variance=[4.0, 9, 1])
        y = layers.Rescaling(2.0)(normalize(keras.MaskedTensor(x, mask)))
        model = keras.Model([x, mask], ops.sum(y, axis=0))
        folder = self.get_temp_dir()
        model.export(folder, verbose=False)
        values = np.array([[np.nan, 1, np.inf], [5, 8, 4], [3, 5, 2]])
        found = tf.saved_model.load(folder).serve(
            [values.astype("float32"), np.array([False, True, True])]
        )
        self.assertAllClose(found, [6.0, 6.0, 0.0])
