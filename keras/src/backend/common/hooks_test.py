from keras.src import testing
from keras.src.backend.common import hooks


class HooksTest(testing.TestCase):
    def test_each_is_filled_in_when_keras_is_imported(self):
        names = hooks.__annotations__
        empty = [name for name in names if not hasattr(hooks, name)]
        self.assertEqual(empty, [])

    def test_what_fills_one_in_stays_what_it_is(self):
        self.addCleanup(vars(hooks).pop, "of_this_test")

        @hooks.fills("of_this_test")
        def found():
            return 1

        self.assertEqual((found(), hooks.of_this_test()), (1, 1))
        self.assertIs(hooks.fills("of_this_test", hooks), hooks)
        self.assertIs(hooks.of_this_test, hooks)
