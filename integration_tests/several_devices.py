"""Trains and asks a masked model on one device or on several.

    KERAS_BACKEND=jax python integration_tests/several_devices.py data 8

Prints the losses, the weights, and what `predict` says, as JSON. `ENGINES`
names what shares the work between the devices.
"""

import faulthandler
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
)

import numpy as np

import keras

ROWS, STEPS, FEATURES, BATCH = 24, 6, 3, 8
EPOCHS = 2
RATE = 0.5


def data():
    """Series of unequal length, some targets unknown, and what is masked NaN.

    Where a batch is cut in two, one device gets the long series and the other
    the short ones; of eight, one has nothing at all. PyTorch deals the rows in
    turn: one process has no target that is known.
    """
    rng = np.random.default_rng(0)
    values = rng.normal(size=(ROWS, STEPS, FEATURES)).astype("float32")
    lengths = np.where(np.arange(ROWS) % BATCH < BATCH // 2, STEPS, 1)
    lengths[BATCH - 1 :: BATCH] = 0
    mask = np.arange(STEPS) < lengths[:, None]
    values[~mask] = np.nan
    y = rng.normal(size=(ROWS, 1)).astype("float32")
    known = np.arange(ROWS) % 2 == 0
    y[~known] = np.nan
    return keras.MaskedTensor(values, mask), keras.MaskedTensor(y, known)


def model():
    """A mean over the steps of what an LSTM and a residual branch give."""
    inputs = keras.Input((STEPS, FEATURES))
    h = keras.layers.Dense(4, name="branch")(inputs)
    steps = h + keras.layers.LSTM(4, return_sequences=True)(h)
    pooled = keras.layers.GlobalAveragePooling1D()(steps)
    outputs = keras.layers.Dense(1)(pooled)
    made = keras.Model(inputs, outputs)
    rng = np.random.default_rng(1)
    made.set_weights([rng.normal(size=w.shape) for w in made.get_weights()])
    made.compile(keras.optimizers.SGD(RATE), "mse", weighted_metrics=["mae"])
    return made, keras.Model(inputs, steps)


def train_and_ask():
    x, y = data()
    made, of_steps = model()
    history = made.fit(x, y, BATCH, EPOCHS, verbose=0, shuffle=False).history
    return {**history, **ask(made, of_steps)}


def ask(made, of_steps):
    x, y = data()
    steps = of_steps.predict(x, BATCH, verbose=0)
    return {
        "evaluate": made.evaluate(x, y, BATCH, verbose=0),
        "weights": [w.tolist() for w in made.get_weights()],
        "predict": made.predict(x, BATCH, verbose=0).tolist(),
        "steps": steps.filled(0).tolist(),
        "mask": steps.mask.tolist(),
    }


def jax_data(devices):
    devices = keras.distribution.list_devices()[:devices]
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices)
    )
    return train_and_ask()


def jax_model(devices):
    """Half of the devices share each kernel, and two share the batch."""
    mesh = keras.distribution.DeviceMesh(
        (2, devices // 2) if devices > 1 else (1, 1),
        ["batch", "model"],
        keras.distribution.list_devices()[:devices],
    )
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*(lstm|branch).*kernel"] = (None, "model")
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(
            layout_map=layout, batch_dim_name="batch"
        )
    )
    return train_and_ask()


def tf_mirrored(devices):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * devices
    )
    names = [f"CPU:{i}" for i in range(devices)]
    with tf.distribute.MirroredStrategy(names).scope():
        found = train_and_ask()
        made, _ = model()
    refuses_packed(made, tf.data.Dataset)
    return found


def refuses_packed(made, dataset):
    """Raises if several replicas take batches whose steps are across rows."""
    x, y = data()
    padded = dataset.from_tensors((x, y.values))
    for source in (
        (x.packed(), y),
        (x, x.packed()),
        ((x.packed(), y.values) for _ in range(3)),
        padded.map(lambda x, y: (x.packed(), y)),
    ):
        arrays = source if isinstance(source, tuple) else (source,)
        try:
            made.fit(*arrays, verbose=0)
        except ValueError as error:
            assert "x.padded()" in str(error), error
        else:
            raise AssertionError(source)


def torch_ddp(devices):
    """Each process has its rows of each batch, as PyTorch's sampler deals."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _torch_process, (devices, folder), nprocs=devices
        )
        return json.loads(Path(folder, "outcome.json").read_text())


def _torch_process(rank, devices, folder):
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    faulthandler.dump_traceback_later(180, exit=True)
    distributed.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=devices
    )
    made, of_steps = model()
    parallel = DistributedDataParallel(made)
    optimizer = torch.optim.SGD(made.parameters(), RATE)
    x, y = data()
    rows = list(range(ROWS))
    sampler = torch.utils.data.DistributedSampler(rows, shuffle=False)
    loader = torch.utils.data.DataLoader(
        rows,
        BATCH // devices,
        sampler=sampler,
        collate_fn=lambda rows: (x[rows], y[rows]),
    )
    mse, losses = keras.losses.MeanSquaredError(), []
    for _ in range(EPOCHS):
        total = 0
        for x_batch, y_batch in loader:
            optimizer.zero_grad()
            weight = keras.utils.sample_weight_from_mask(y_batch.mask)
            loss = mse(y_batch.values, parallel(x_batch), weight)
            loss.backward()
            optimizer.step()
            distributed.all_reduce(loss.detach_())
            total += loss.item() / devices
        losses.append(total / len(loader))
    if rank == 0:
        asked = json.dumps({"loss": losses, **ask(made, of_steps)})
        Path(folder, "outcome.json").write_text(asked)
    # A group that goes while a thread of it still lets go of a tensor of Python
    # waits for that thread, which waits for the interpreter.
    distributed.barrier()
    distributed.destroy_process_group()
    faulthandler.cancel_dump_traceback_later()


ENGINES = {f.__name__: f for f in (jax_data, jax_model, tf_mirrored, torch_ddp)}


if __name__ == "__main__":
    # Says of all threads where they wait, and ends the process: one that waits
    # for another may wait for ever.
    faulthandler.dump_traceback_later(300, exit=True)
    engine, devices = sys.argv[1:]
    print(json.dumps(ENGINES[engine](int(devices))))
