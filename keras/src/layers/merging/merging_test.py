"""Merge layers follow the mask rule of their ops: AND, plain ones neutral."""

import numpy as np

from keras.src import backend
from keras.src import layers
from keras.src import ops
from patchset.markers import new


class MergingLayersTest:
    @new
    def check_masks(self, layer, plain, union, sign=1):
        """Checks a merge of a masked tensor with a plain and a masked one.

        Args:
            layer: Class of the merge layer.
            plain: Values of merging the plain tensors.
            union: Values with masked entries as the identity of the op.
            sign: Factor of the inputs.
        """
        masking = layers.Masking()
        a = sign * np.array([[[0, 0], [1, 2], [0, 0], [3, 4]]], "float32")
        b = sign * np.array([[[0, 0], [0, 0], [1, 2], [3, 4]]], "float32")
        x1, x2 = masking(a), masking(b)

        output = layer()([x1, backend.convert_to_tensor(b)])
        self.assertMaskedClose(output, [plain], [[0, 1, 0, 1]])
        output = layer()([x1, x2])
        self.assertMaskedClose(output, [plain], [[0, 0, 0, 1]])

        output = layer(mask_mode="union")([x1, x2])
        self.assertMaskedClose(output, [union], [[0, 1, 1, 1]])
        output = layer(mask_mode="union")([x1, backend.convert_to_tensor(b)])
        self.assertFalse(ops.is_masked(output))

    def test_add_with_mask(self):
        """Masks are joined by AND and a plain operand is neutral (upstream:
        OR, and a plain operand drops the mask), as for the operator. Upstream's
        rule is `mask_mode="union"`.
        """
        self.check_masks(
            layers.Add,
            plain=[[0, 0], [1, 2], [1, 2], [6, 8]],
            union=[[0, 0], [1, 2], [1, 2], [6, 8]],
        )

    def test_subtract_with_mask(self):
        """Masks are joined by AND and a plain operand is neutral (upstream:
        OR, and a plain operand drops the mask), as for the operator. Upstream's
        rule is `mask_mode="union"`.
        """
        self.check_masks(
            layers.Subtract,
            plain=[[0, 0], [1, 2], [-1, -2], [0, 0]],
            union=[[0, 0], [1, 2], [-1, -2], [0, 0]],
        )

    def test_average_with_mask(self):
        """Masks are joined by AND and a plain operand is neutral (upstream:
        OR, and a plain operand drops the mask), as for the operator. Upstream's
        rule is `mask_mode="union"`.
        """
        self.check_masks(
            layers.Average,
            plain=[[0, 0], [0.5, 1], [0.5, 1], [3, 4]],
            union=[[0, 0], [1, 2], [1, 2], [3, 4]],
        )

    def test_multiply_with_mask(self):
        """Masks are joined by AND and a plain operand is neutral (upstream:
        OR, and a plain operand drops the mask), as for the operator. Upstream's
        rule is `mask_mode="union"`.
        """
        self.check_masks(
            layers.Multiply,
            plain=[[0, 0], [0, 0], [1, 2], [9, 16]],
            union=[[0, 0], [1, 2], [1, 2], [9, 16]],
        )

    def test_maximum_with_mask(self):
        """Masks are joined by AND and a plain operand is neutral (upstream:
        OR, and a plain operand drops the mask), as for the operator. Upstream's
        rule is `mask_mode="union"`.
        """
        self.check_masks(
            layers.Maximum,
            plain=[[0, 0], [0, 0], [-1, -2], [-3, -4]],
            union=[[0, 0], [-1, -2], [-1, -2], [-3, -4]],
            sign=-1,
        )

    def test_minimum_with_mask(self):
        """Masks are joined by AND and a plain operand is neutral (upstream:
        OR, and a plain operand drops the mask), as for the operator. Upstream's
        rule is `mask_mode="union"`.
        """
        self.check_masks(
            layers.Minimum,
            plain=[[0, 0], [0, 0], [1, 2], [3, 4]],
            union=[[0, 0], [1, 2], [1, 2], [3, 4]],
        )

    def test_concatenate_with_mask(self):
        """Along an axis that the masks do not cover they are merged, so a step
        of features is valid where it is in the masked operand. Upstream called
        all steps valid, those that are masked included.
        """
        masking = layers.Masking()
        a = np.array([[[0, 0], [1, 2], [0, 0], [3, 4]]], "float32")
        b = np.array([[[0, 0], [0, 0], [1, 2], [3, 4]]], "float32")
        x1, x2 = masking(a), backend.convert_to_tensor(b)

        output = layers.Concatenate(axis=1)([x1, x2])
        self.assertMaskedClose(
            output,
            np.concatenate([a, b], axis=1),
            [[0, 1, 0, 1, 1, 1, 1, 1]],
        )
        output = layers.Concatenate(axis=2)([x1, x2])
        self.assertMaskedClose(
            output, np.concatenate([a, b], axis=2), [[0, 1, 0, 1]]
        )

    @new
    def test_operators_ops_and_layers_agree(self):
        rng = np.random.default_rng(0)
        x, y = (
            backend.MaskedTensor(
                rng.normal(size=(3, 4, 2)).astype("float32"),
                rng.random((3, 4)) < 0.6,
            )
            for _ in range(2)
        )
        for layer, op, operator in (
            (layers.Add, ops.add, lambda a, b: a + b),
            (layers.Subtract, ops.subtract, lambda a, b: a - b),
            (layers.Multiply, ops.multiply, lambda a, b: a * b),
            (layers.Maximum, ops.maximum, None),
            (layers.Minimum, ops.minimum, None),
            (layers.Average, lambda a, b: (a + b) / 2, None),
        ):
            expected = op(x, y)
            for result in (layer()([x, y]), operator and operator(x, y)):
                if result is not None:
                    self.assertMaskedClose(
                        result,
                        backend.convert_to_numpy(expected.values),
                        backend.convert_to_numpy(expected.mask),
                    )

    @new
    def test_union_is_refused_without_an_identity(self):
        with self.assertRaisesRegex(ValueError, "has no `mask_mode"):
            layers.Concatenate(mask_mode="union")
        with self.assertRaisesRegex(ValueError, "must be"):
            layers.Add(mask_mode="or")

    @new
    def test_mask_mode_is_saved_only_when_set(self):
        self.assertNotIn("mask_mode", layers.Add().get_config())
        layer = layers.Add(mask_mode="union")
        again = layers.Add.from_config(layer.get_config())
        self.assertEqual(again.mask_mode, "union")
