"""Ways to train on masked data, compared with a curve worked out by hand.

The model takes the mean of the valid steps from each step, which a linear unit
follows. The curve is that of gradient descent in NumPy, on the valid steps.
"""

import functools
import os
import typing

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import callbacks
from keras.src import layers
from keras.src import losses
from keras.src import models
from keras.src import ops
from keras.src import optimizers
from keras.src import testing
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer
from patchset.markers import when

BACKEND = backend.backend()
TAKES_SEVERAL_STEPS = BACKEND != "torch"
if when(">=3.16"):
    TAKES_SEVERAL_STEPS = True
RNG = np.random.default_rng(1337)
ROWS, STEPS, FEATURES, BATCH, RATE = 8, 4, 3, 4, 0.5
X = RNG.normal(size=(ROWS, STEPS, FEATURES)).astype("float32")
Y = RNG.normal(size=(ROWS, STEPS, 1)).astype("float32")
WHOLE = RNG.normal(size=(ROWS, 1)).astype("float32")
# One row has nothing.
MASK = np.arange(STEPS) < np.array([4, 2, 0, 3, 1, 4, 2, 3])[:, None]
# In the second batch, no row has anything.
HALF = MASK & (np.arange(ROWS) < BATCH)[:, None]
KERNEL = RNG.normal(size=(FEATURES, 1)).astype("float32")


def masked(values, mask, poison=np.nan):
    cells = np.broadcast_to(mask[..., None], values.shape)
    return np.ma.MaskedArray(np.where(cells, values, poison), ~cells)


def means(mask):
    """The mean of the valid steps of each row, 0 where there is none."""
    cells = mask[..., None]
    return np.sum(X * cells, 1) / np.maximum(cells.sum(1), 1)


def centred(mask):
    return X.astype("float64") - means(mask)[:, None]


class Curve(typing.NamedTuple):
    """What is known after each epoch."""

    loss: list
    mae: list
    kernel: list
    bias: list


def by_hand(
    epochs, mask=MASK, accumulate=1, penalty=0.0, reduction="mean", rate=RATE
):
    """Gradient descent.

    Args:
        epochs: Number of epochs.
        mask: Of the steps.
        accumulate: Number of batches whose gradients make one step.
        penalty: Of the mean square of the valid predictions.
        reduction: "mean" over all steps, or "mean_with_sample_weight".
    """
    curve = Curve([], [], [], [])
    kernel, bias = KERNEL.astype("float64"), 0.0
    slopes = []
    for _ in range(epochs):
        total, absolute = 0.0, 0.0
        for rows in (slice(0, BATCH), slice(BATCH, ROWS)):
            x, y, w = centred(mask)[rows], Y[rows], mask[rows, :, None] * 1.0
            found = x @ kernel + bias
            valid = max(w.sum(), 1.0)
            share = w / (w.size if reduction == "mean" else valid)
            error = found - y
            total += np.sum(share * error**2)
            total += penalty * np.sum(w * found**2) / valid
            absolute += np.sum(w * np.abs(error))
            slope = 2 * share * error + 2 * penalty * w * found / valid
            slopes.append((np.sum(x * slope, (0, 1))[:, None], slope.sum()))
            if len(slopes) == accumulate:
                kernel = kernel - rate * sum(k for k, _ in slopes) / accumulate
                bias = bias - rate * sum(b for _, b in slopes) / accumulate
                slopes = []
        curve.loss.append(total / 2)
        curve.mae.append(absolute / mask.sum())
        curve.kernel.append(kernel)
        curve.bias.append(bias)
    return curve


class Centre(layers.Layer):
    """Takes the mean of the valid steps from each step."""

    def call(self, x):
        return x - ops.mean(x, axis=1, keepdims=True)


class Penalty(layers.Layer):
    """Adds a loss: the mean square of what is valid."""

    def call(self, x):
        self.add_loss(0.25 * ops.mean(ops.square(x)))
        return x


def make(
    model_class=models.Model,
    penalty=False,
    optimizer=None,
    policy=None,
    loss="mse",
    **compile_arguments,
):
    inputs = layers.Input((STEPS, FEATURES))
    dense = layers.Dense(1, dtype=policy)
    outputs = dense(Centre(dtype=policy)(inputs))
    model = model_class(inputs, Penalty()(outputs) if penalty else outputs)
    dense.set_weights([KERNEL, np.zeros(1)])
    model.compile(
        optimizer or optimizers.SGD(RATE),
        loss,
        weighted_metrics=["mae"],
        **compile_arguments,
    )
    return model


def fit(model, mask=MASK, epochs=2, **arguments):
    return model.fit(
        masked(X, mask),
        masked(Y, mask),
        BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        **arguments,
    )


def loss_of_step(model, x, y, sample_weight):
    y_pred = model(x, training=True)
    loss = model.compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight
    )
    return loss, y_pred


def logs_of_step(model, loss, y, y_pred, sample_weight):
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(loss)
        else:
            metric.update_state(y, y_pred, sample_weight)
    return {metric.name: metric.result() for metric in model.metrics}


class TensorFlowStep(models.Model):
    def train_step(self, data):
        import tensorflow as tf

        x, y, sample_weight = data
        with tf.GradientTape() as tape:
            loss, y_pred = loss_of_step(self, x, y, sample_weight)
        slopes = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(slopes, self.trainable_variables)
        return logs_of_step(self, loss, y, y_pred, sample_weight)


class TorchStep(models.Model):
    def train_step(self, data):
        import torch

        x, y, sample_weight = data
        self.zero_grad()
        loss, y_pred = loss_of_step(self, x, y, sample_weight)
        loss.backward()
        slopes = [weight.value.grad for weight in self.trainable_weights]
        with torch.no_grad():
            self.optimizer.apply(slopes, self.trainable_weights)
        return logs_of_step(self, loss, y, y_pred, sample_weight)


class JaxStep(models.Model):
    def loss_of_step(self, trainable, others, x, y, sample_weight):
        y_pred, others = self.stateless_call(
            trainable, others, x, training=True
        )
        loss = self.compute_loss(x, y, y_pred, sample_weight)
        return loss, (y_pred, others)

    def train_step(self, state, data):
        import jax

        trainable, others, optimizer_state, metrics_state = state
        x, y, sample_weight = data
        slope_of = jax.value_and_grad(self.loss_of_step, has_aux=True)
        (loss, (y_pred, others)), slopes = slope_of(
            trainable, others, x, y, sample_weight
        )
        trainable, optimizer_state = self.optimizer.stateless_apply(
            optimizer_state, slopes, trainable
        )
        logs, rest = {}, list(metrics_state)
        new_state = []
        for metric in self.metrics:
            of_metric = [rest.pop(0) for _ in metric.variables]
            if metric.name == "loss":
                of_metric = metric.stateless_update_state(of_metric, loss)
            else:
                of_metric = metric.stateless_update_state(
                    of_metric, y, y_pred, sample_weight
                )
            logs[metric.name] = metric.stateless_result(of_metric)
            new_state += of_metric
        return logs, (trainable, others, optimizer_state, new_state)


OWN_STEP = {"tensorflow": TensorFlowStep, "torch": TorchStep, "jax": JaxStep}


class Stop(Exception):
    pass


class StopInTheMiddle(callbacks.Callback):
    """Fails in the third epoch, after its first batch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2:
            raise Stop


@pytest.mark.requires_trainable_backend
class MaskedTrainingTest(testing.TestCase):
    def check(self, model, history, curve, **tolerance):
        tolerance = {"rtol": 1e-4, "atol": 1e-5} | tolerance
        self.assertAllClose(history.history["loss"], curve.loss, **tolerance)
        self.assertAllClose(history.history["mae"], curve.mae, **tolerance)
        self.check_weights(model, curve, -1, **tolerance)

    def check_weights(self, model, curve, epoch, **tolerance):
        tolerance = tolerance or {"rtol": 1e-4, "atol": 1e-5}
        kernel, bias = model.get_weights()
        self.assertAllClose(kernel, curve.kernel[epoch], **tolerance)
        self.assertAllClose(bias[0], curve.bias[epoch], **tolerance)

    @parameterized.named_parameters(
        ("compiled", {}),
        ("eager", {"run_eagerly": True}),
        ("jit", {"jit_compile": True}),
        ("no_jit", {"jit_compile": False}),
        ("two_steps_at_once", {"steps_per_execution": 2}),
    )
    def test_fit(self, arguments):
        if "steps_per_execution" in arguments and not TAKES_SEVERAL_STEPS:
            with self.assertRaisesRegex(ValueError, "must be 1 with the PyT"):
                fit(make(**arguments))
            return
        if BACKEND == "torch" and arguments.get("jit_compile"):
            import torch

            # All of `torch.compile` but its compiler of C++, which takes long.
            compile = functools.partial(torch.compile, backend="aot_eager")
            self.enterContext(pytest.MonkeyPatch.context()).setattr(
                torch, "compile", compile
            )
        model = make(**arguments)
        self.check(model, fit(model), by_hand(2))

    def test_gradient_accumulation(self):
        optimizer = optimizers.SGD(RATE, gradient_accumulation_steps=2)
        model = make(optimizer=optimizer)
        self.check(model, fit(model), by_hand(2, accumulate=2))

    def test_a_train_step_of_ones_own(self):
        model = make(OWN_STEP[BACKEND])
        self.check(model, fit(model), by_hand(2))

    @pytest.mark.skipif(BACKEND != "torch", reason="an engine of PyTorch")
    def test_processes_that_look_for_unused_weights(self):
        import torch
        from torch import distributed

        store = os.path.join(self.get_temp_dir(), "store")
        distributed.init_process_group(
            "gloo", f"file://{store}", rank=0, world_size=1
        )
        self.addCleanup(distributed.destroy_process_group)
        model, curve, y = make(), by_hand(2), ops.convert_to_tensor(Y)
        optimizer = torch.optim.SGD(model.parameters(), RATE)
        # Which are used it reads off the tensors in the output.
        parallel = torch.nn.parallel.DistributedDataParallel(
            model, find_unused_parameters=True
        )
        for _ in range(2):
            for rows in (slice(0, BATCH), slice(BATCH, ROWS)):
                x = backend.MaskedTensor(X[rows], MASK[rows])
                optimizer.zero_grad()
                loss = losses.MeanSquaredError()(y[rows], parallel(x), x.mask)
                loss.backward()
                optimizer.step()
        self.check_weights(model, curve, -1)

    def test_a_loss_that_a_layer_adds(self):
        model = make(penalty=True)
        self.check(model, fit(model), by_hand(2, penalty=0.25))

    @parameterized.parameters("mean", "mean_with_sample_weight")
    def test_a_batch_with_nothing_valid(self, reduction):
        model = make(loss=losses.MeanSquaredError(reduction))
        curve = by_hand(2, HALF, reduction=reduction)
        self.check(model, fit(model, HALF), curve)
        nothing = HALF[BATCH:]
        x, y = masked(X[BATCH:], nothing), masked(Y[BATCH:], nothing)
        for _ in range(2):
            # Until 3.15 it gives the mean since the last reset.
            model.reset_metrics()
            self.assertAllEqual(model.train_on_batch(x, y), [0.0, 0.0])
        self.check_weights(model, curve, -1)

    def test_evaluate_is_the_loss_of_predict(self):
        model = make()
        x, y = masked(X, MASK), masked(Y, MASK)
        loss, mae = model.evaluate(x, y, ROWS, verbose=0)
        y_pred = model.predict(x, verbose=0)
        self.assertAllEqual(y_pred.mask[..., 0], ~MASK)
        expected = losses.MeanSquaredError()(Y, y_pred, MASK)
        self.assertAllClose(loss, expected, rtol=1e-5)
        error = (centred(MASK) @ KERNEL - Y)[MASK]
        self.assertAllClose(loss, np.sum(error**2) / MASK.size, rtol=1e-5)
        self.assertAllClose(mae, np.mean(np.abs(error)), rtol=1e-5)

    def test_only_weighted_metrics_leave_out_what_weighs_0(self):
        model = make(metrics=["mse"])
        y = np.where(MASK[..., None], Y, np.nan)
        weights = MASK.astype("float32")
        found = model.evaluate(
            masked(X, MASK), y, ROWS, 0, weights, return_dict=True
        )
        error = np.abs(centred(MASK) @ KERNEL - Y)[MASK]
        self.assertAllClose(found["mae"], error.mean(), rtol=1e-5)
        self.assertTrue(np.isnan(found["mse"]))

    def test_loss_scaling_in_half_precision(self):
        scaled = LossScaleOptimizer(optimizers.SGD(RATE), initial_scale=256.0)
        model = make(optimizer=scaled, policy="mixed_float16")
        curve = by_hand(2)
        self.check(model, fit(model), curve, rtol=1e-2, atol=1e-2)
        # No step was left out for an infinite gradient.
        self.assertEqual(float(scaled.dynamic_scale), 256.0)
        self.assertEqual(int(scaled.step_counter), 4)

    def test_one_masked_output_of_two(self):
        inputs = layers.Input((STEPS, FEATURES))
        each, whole = (layers.Dense(1, name=name) for name in ("a", "b"))
        pooled = layers.GlobalAveragePooling1D()(inputs)
        outputs = {"a": each(Centre()(inputs)), "b": whole(pooled)}
        model = models.Model(inputs, outputs)
        for layer in (each, whole):
            layer.set_weights([KERNEL, np.zeros(1)])
        model.compile(
            optimizers.SGD(RATE),
            {"a": "mse", "b": "mse"},
            loss_weights={"a": 1.0, "b": 0.5},
            weighted_metrics={"a": ["mae"], "b": ["mae"]},
        )
        history = model.fit(
            masked(X, MASK),
            {"a": masked(Y, MASK), "b": WHOLE},
            ROWS,
            epochs=2,
            verbose=0,
        ).history
        x, y = centred(MASK), Y.astype("float64")
        pooled, w = means(MASK), MASK[..., None] / MASK.size
        (a, c), (b, d) = [(KERNEL.astype("float64"), 0.0)] * 2
        for epoch in range(2):
            first, second = x @ a + c - y, pooled @ b + d - WHOLE
            loss = np.sum(w * first**2), np.mean(second**2)
            found = [history[k][epoch] for k in ("a_loss", "b_loss", "loss")]
            expected = [*loss, loss[0] + 0.5 * loss[1]]
            self.assertAllClose(found, expected, rtol=1e-4)
            found = history["a_mae"][epoch], history["b_mae"][epoch]
            expected = np.abs(first)[MASK].mean(), np.abs(second).mean()
            self.assertAllClose(found, expected, rtol=1e-4)
            slope = 2 * w * first
            a = a - RATE * np.sum(x * slope, (0, 1))[:, None]
            c = c - RATE * slope.sum()
            b = b - RATE * 0.5 * 2 * pooled.T @ second / ROWS
            d = d - RATE * 0.5 * 2 * second.mean()
        for layer, kernel in ((each, a), (whole, b)):
            self.assertAllClose(layer.get_weights()[0], kernel, rtol=1e-4)

    def test_callbacks_that_watch_the_validation(self):
        """Its targets are what the model says after the second of its epochs.

        So the second epoch is the best, and the fourth the last.
        """
        curve = by_hand(4)
        valid = centred(MASK) @ curve.kernel[1] + curve.bias[1]
        errors = [
            (centred(MASK) @ kernel + bias - valid)[MASK]
            for kernel, bias in zip(curve.kernel, curve.bias)
        ]
        val_loss = [np.sum(error**2) / MASK.size for error in errors]
        self.assertEqual(np.argmin(val_loss), 1)
        folder = self.get_temp_dir()
        path = os.path.join(folder, "best.weights.h5")
        stopping = callbacks.EarlyStopping(
            patience=2, restore_best_weights=True
        )
        checkpoint = callbacks.ModelCheckpoint(
            path, save_best_only=True, save_weights_only=True
        )
        model = make()
        history = fit(
            model,
            epochs=9,
            validation_data=(
                masked(X, MASK),
                masked(valid.astype("float32"), MASK),
            ),
            callbacks=[
                stopping,
                checkpoint,
                callbacks.TensorBoard(folder, histogram_freq=1),
            ],
        ).history
        self.assertEqual(stopping.stopped_epoch, 3)
        self.assertAllClose(history["loss"], curve.loss, rtol=1e-4)
        self.assertAllClose(history["val_loss"], val_loss, atol=1e-5)
        self.check_weights(model, curve, 1)
        other = make()
        other.load_weights(path)
        self.check_weights(other, curve, 1)
        logged = logged_losses(os.path.join(folder, "train"))
        self.assertAllClose(logged, curve.loss, rtol=1e-4)

    def test_a_run_that_was_cut_off_goes_on(self):
        curve = by_hand(4)
        # It removes its folder in the end.
        folder = os.path.join(self.get_temp_dir(), "backup")
        with self.assertRaises(Stop):
            fit(
                make(),
                epochs=4,
                callbacks=[
                    callbacks.BackupAndRestore(folder),
                    StopInTheMiddle(),
                ],
            )
        model = make()
        backup = callbacks.BackupAndRestore(folder)
        history = fit(model, epochs=4, callbacks=[backup])
        self.assertEqual(history.epoch, [2, 3])
        rest = curve._replace(loss=curve.loss[2:], mae=curve.mae[2:])
        self.check(model, history, rest)


def logged_losses(folder):
    """The losses of epochs that TensorBoard would show."""
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    events = event_accumulator.EventAccumulator(folder)
    events.Reload()
    return [
        tensor_util.make_ndarray(event.tensor_proto)
        for event in events.Tensors("epoch_loss")
    ]
