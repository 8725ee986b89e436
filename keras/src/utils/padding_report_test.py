import numpy as np

from keras.src import backend
from keras.src import testing
from keras.src.utils.padding_report import padding_report

MASK = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], "bool")


class PaddingReportTest(testing.TestCase):
    def test_each_masked_tensor_has_a_line(self):
        x = backend.MaskedTensor(np.ones((2, 4, 3)), MASK)
        inside = backend.MaskedTensor(
            np.ones((2, 4, 1)), np.ones((2, 4, 1), "bool")
        )
        plain = np.ones((2, 4))
        found = padding_report({"a": x, "b": [plain, x.packed(), inside]})
        first, second, third = found.splitlines()
        self.assertEqual(
            first,
            "x['a']: 2 rows of 4 steps, of 1 to 2 valid ones. 3 of 8 steps are "
            "valid (38 %); x['a'].packed() would compute with 38 % of the "
            "steps.",
        )
        self.assertIn("x['b'][1]: 2 rows of 4 steps", second)
        self.assertIn("it is packed, in 3 steps", second)
        self.assertIn("inside of steps", third)

    def test_arrays_of_numpy_count(self):
        x = np.ma.MaskedArray(np.ones((2, 4)), ~MASK)
        self.assertIn("x: 2 rows of 4 steps", padding_report(x))

    def test_nothing_masked(self):
        for x in (
            np.ones((2, 4)),
            backend.MaskedTensor(np.ones((2, 4)), MASK[:, 0]),
            [],
        ):
            self.assertIn("Nothing has a mask", padding_report(x))

    def test_no_rows(self):
        x = backend.MaskedTensor(np.ones((0, 4)), MASK[:0])
        self.assertIn("0 of 0 steps are valid", padding_report(x))

    def test_a_symbolic_tensor_is_refused(self):
        mask = backend.KerasTensor((2, 4), "bool")
        x = backend.KerasTensor((2, 4, 3), mask=mask)
        with self.assertRaisesRegex(ValueError, "Pass a batch"):
            padding_report(x)
