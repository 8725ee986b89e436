"""Times the fork against upstream: pairs in one run, median of many.

Each process measures one tree, "fork" or "upstream", on one backend, and the
driver alternates between the two, so that a machine that slows down slows both
down. Training steps vary more: there two processes live side by side and take
turns, a few steps each, beside a third, upstream again, that tells what is
noise. Run it on an otherwise idle machine:

    python benchmarks/against_upstream.py --backend jax
    python benchmarks/against_upstream.py --backend torch --only plain,masked

What is measured: the plain path (`add`, `matmul`, `mean`, `Dense` on small
tensors), the import, masked arithmetic beside the plain op of the same tree,
eager calls of layers on masked input, `predict` with masked outputs beside
plain ones, building and loading a masked model of twelve Transformer blocks,
one compiled training step of a masked BiLSTM classifier and of a masked
Transformer block, and `fit` on masked input.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc

ROOT = pathlib.Path(__file__).resolve().parent.parent
TREES = {"fork": ROOT / "build", "upstream": ROOT / "build" / "upstream"}


def per_call(function, finish, seconds=0.25):
    """Microseconds a call, the smallest of several blocks of calls."""
    finish(function())
    calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            result = function()
        finish(result)
        spent = time.perf_counter() - start
        if spent > seconds / 10:
            break
        calls *= 2
    blocks = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(calls):
            result = function()
        finish(result)
        blocks.append((time.perf_counter() - start) / calls)
    return min(blocks) * 1e6


def finisher(keras):
    """What waits until a result is there."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.block_until_ready
    return lambda result: result


def plain(keras, finish):
    import numpy as np

    x = keras.ops.convert_to_tensor(np.ones((8, 8), "float32"))
    dense = keras.layers.Dense(8)
    dense(x)
    return {
        "ops.add": per_call(lambda: keras.ops.add(x, x), finish),
        "ops.matmul": per_call(lambda: keras.ops.matmul(x, x), finish),
        "ops.mean": per_call(lambda: keras.ops.mean(x, axis=1), finish),
        "layers.Dense": per_call(lambda: dense(x), finish),
    }


def masked(keras, finish):
    """Masked arithmetic, and the plain op beside it (fork only)."""
    if not hasattr(keras, "MaskedTensor"):
        return {}
    import numpy as np

    values = keras.ops.convert_to_tensor(np.ones((8, 16, 8), "float32"))
    mask = np.arange(16) < np.arange(1, 9)[:, None]
    x = keras.MaskedTensor(values, mask)
    y = keras.MaskedTensor(values, mask[::-1].copy())
    add = keras.ops.add
    return {
        "plain + 1.0": per_call(lambda: add(values, 1.0), finish),
        "plain + plain": per_call(lambda: add(values, values), finish),
        "masked + 1.0": per_call(lambda: x + 1.0, finish),
        "masked + masked": per_call(lambda: x + x, finish),
        "masked + other mask": per_call(lambda: x + y, finish),
    }


def masked_layers(keras, finish):
    """Layers on the same masked input, which each tree carries in its way."""
    import numpy as np

    layers = keras.layers
    values = keras.ops.convert_to_tensor(np.ones((8, 16, 8), "float32"))
    mask = keras.ops.convert_to_tensor(np.arange(16) < np.arange(1, 9)[:, None])
    if hasattr(keras, "MaskedTensor"):
        masked = keras.MaskedTensor(values, mask)

        def given():
            return masked
    else:
        from keras.src.backend import set_keras_mask

        def given():
            # Each time: upstream's attention takes it off its input.
            set_keras_mask(values, mask)
            return values

    attention = layers.MultiHeadAttention(2, 4)
    calls = {
        "Dense": layers.Dense(8),
        "LayerNormalization": layers.LayerNormalization(),
        "LSTM": layers.LSTM(8, return_sequences=True),
        "MultiHeadAttention": lambda x: attention(x, x),
    }
    return {
        f"{name} on masked": per_call(
            lambda call=call: call(given()),
            lambda y: finish(getattr(y, "values", y)),
        )
        for name, call in calls.items()
    }


def predict(keras, finish):
    """`predict` of a layer on all steps, masked and plain, and its memory."""
    import numpy as np

    model = keras.Sequential([keras.Input((64, 32)), keras.layers.Dense(32)])
    values = np.ones((4_096, 64, 32), "float32")
    data = {"plain": values}
    if hasattr(keras, "MaskedTensor"):
        lengths = np.random.default_rng(0).integers(0, 65, 4_096)
        mask = np.arange(64) < lengths[:, None]
        data["masked"] = keras.MaskedTensor(values, mask)
    results = {}
    for kind, x in data.items():

        def call(x=x):
            return model.predict(x, batch_size=256, verbose=0)

        results[f"predict, {kind}"] = per_call(call, finish)
        tracemalloc.start()
        call()
        results[f"peak of predict, {kind}"] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return results


def build(keras, finish):
    """Twelve Transformer blocks over masked embeddings, built and loaded.

    In microseconds of the processor, the smallest of several.
    """
    layers = keras.layers

    def make():
        ids = keras.Input((None,), dtype="int32")
        x = layers.Embedding(64, 64, mask_zero=True)(ids)
        for _ in range(12):
            h = layers.MultiHeadAttention(4, 16, dropout=0.1)(x, x)
            h = layers.Add()([x, layers.Dropout(0.1)(h)])
            x = layers.LayerNormalization()(h)
            h = layers.Dense(64)(layers.Dense(128, activation="gelu")(x))
            h = layers.Add()([x, layers.Dropout(0.1)(h)])
            x = layers.LayerNormalization()(h)
        return keras.Model(ids, layers.Dense(64)(x))

    def spent(function):
        start = time.process_time()
        function()
        return (time.process_time() - start) * 1e6

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        make().save(path)
        return {
            "build a model": min(spent(make) for _ in range(4)),
            "load a model": min(
                spent(lambda: keras.models.load_model(path)) for _ in range(4)
            ),
        }


def bilstm(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Embedding(64, 32, mask_zero=True),
            layers.Bidirectional(layers.LSTM(32)),
            layers.Dense(1),
        ]
    )


def transformer(keras):
    layers = keras.layers
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(64, 64, mask_zero=True)(ids)
    x = layers.Add()([x, layers.MultiHeadAttention(4, 16)(x, x)])
    x = layers.LayerNormalization()(x)
    h = layers.Dense(64)(layers.Dense(128, activation="relu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, h]))
    return keras.Model(ids, layers.Dense(64)(x))


def training_step(make, shape, keras):
    """A step on ids whose 0 is masked, and on weights."""
    import numpy as np

    rng = np.random.default_rng(0)
    ids = rng.integers(1, 64, (32, 40))
    ids[np.arange(40) >= rng.integers(5, 40, 32)[:, None]] = 0
    y = rng.normal(size=shape)
    weights = np.ones(y.shape[:-1])
    model = make(keras)
    model.compile("adam", "mse")
    return lambda: model.train_on_batch(ids, y, weights)


def fit_on_series(make, shape, keras):
    """`fit` on masked series; upstream gets 0 for what is masked."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, 40, 16)).astype("float32")
    mask = np.arange(40) < rng.integers(5, 40, SAMPLES)[:, None]
    y = rng.normal(size=(SAMPLES, *shape))
    model = make(keras)
    model.compile("adam", "mse")
    x = x * mask[..., None]
    if hasattr(keras, "MaskedTensor"):
        x = keras.MaskedTensor(x, mask)
    weights = mask[:, : y.shape[1]] * 1.0 if y.ndim > 2 else None
    return lambda: model.fit(x, y, sample_weight=weights, verbose=0)


def of_series(*layers):
    """A model of masked series, or of series with 0 for what is masked."""

    def make(keras):
        is_masked = hasattr(keras, "MaskedTensor")
        first = [] if is_masked else [keras.layers.Masking()]
        return keras.Sequential(
            first + [layer(keras.layers) for layer in layers]
        )

    return make


lstm_of_series = of_series(lambda k: k.LSTM(32), lambda k: k.Dense(1))
steps_of_series = of_series(
    lambda k: k.Dense(64, activation="relu"),
    lambda k: k.LayerNormalization(),
    lambda k: k.Dense(1),
)


def turns(name):
    """Answers each line on standard input with the milliseconds of a step."""
    import keras

    make, calls = STEPS[name]
    step = make(keras)
    for _ in range(calls + 2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(calls):
            step()
        spent = time.perf_counter() - start
        print(spent / calls * 1e3, flush=True)


SAMPLES = 2048
# What makes a step, and how many of them are a turn.
STEPS = {
    "BiLSTM step": (functools.partial(training_step, bilstm, (32, 1)), 8),
    "Transformer step": (
        functools.partial(training_step, transformer, (32, 40, 64)),
        8,
    ),
    "LSTM fit": (functools.partial(fit_on_series, lstm_of_series, (1,)), 1),
    "Steps fit": (
        functools.partial(fit_on_series, steps_of_series, (40, 1)),
        1,
    ),
}


SECTIONS = {
    "plain": plain,
    "masked": masked,
    "layers": masked_layers,
    "predict": predict,
    "build": build,
}


def worker(only):
    start = time.perf_counter()
    import keras

    results = {"import": (time.perf_counter() - start) * 1e3}
    for name, section in SECTIONS.items():
        if name in only:
            results.update(section(keras, finisher(keras)))
    print(json.dumps(results))


def environment(tree, backend):
    return os.environ | {
        "PYTHONPATH": str(TREES[tree]),
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONHASHSEED": "0",
    }


def measure(tree, backend, only):
    """One process on one tree."""
    done = subprocess.run(
        [sys.executable, "-P", __file__, "--worker", "--only", only],
        env=environment(tree, backend),
        cwd=TREES[tree],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"The process on {tree} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(name, backend, turns):
    """Milliseconds of a training step, turn by turn, of each tree.

    Returns:
        Three lists: of the fork, of upstream, and of upstream again.
    """
    trees = ("fork", "upstream", "upstream")
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-P", __file__, "--steps", name],
                    env=environment(tree, backend),
                    cwd=TREES[tree],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            for tree in trees
        ]
        for tree, worker in zip(trees, workers):
            while (line := worker.stdout.readline()) != "ready\n":
                if not line:
                    sys.exit(f"The process on {tree} failed in '{name}'.")
        spent = ([], [], [])
        for turn in range(turns):
            # Whose turn is first changes.
            for i in range(3) if turn % 2 else (2, 1, 0):
                print(file=workers[i].stdin, flush=True)
                spent[i].append(float(workers[i].stdout.readline()))
    return spent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument(
        "--only", default=",".join((*SECTIONS, "training", "fit"))
    )
    parser.add_argument("--worker", action="store_true")
    parser.add_argument("--steps", choices=STEPS)
    args = parser.parse_args()
    if args.steps:
        return turns(args.steps)
    if args.worker:
        return worker(args.only.split(","))
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    runs = {"fork": [], "upstream": []}
    chosen = args.only.split(",")
    rounds = args.rounds if set(chosen) & {*SECTIONS} else 0
    for i in track(range(2 * rounds), description=args.backend):
        # The first of a pair is now the one, now the other.
        tree = ("fork", "upstream")[(i + i // 2) % 2]
        runs[tree].append(measure(tree, args.backend, args.only))
    table = Table(title=f"{args.backend}, median of {args.rounds} pairs")
    for column in ("what", "fork", "upstream", "fork / upstream"):
        table.add_column(column)
    fork, upstream = medians(runs["fork"]), medians(runs["upstream"])
    for name, value in fork.items():
        other = upstream.get(name)
        if other is not None:
            # The ratio of each pair, then the median of the ratios.
            ratios = [
                a[name] / b[name]
                for a, b in zip(runs["fork"], runs["upstream"])
            ]
            ratio = f"{statistics.median(ratios):.3f}"
            table.add_row(name, f"{value:.2f}", f"{other:.2f}", ratio)
    for name, base in (
        ("masked + 1.0", "plain + 1.0"),
        ("masked + masked", "plain + plain"),
        ("masked + other mask", "plain + plain"),
        ("predict, masked", "predict, plain"),
        ("peak of predict, masked", "peak of predict, plain"),
    ):
        if name in fork:
            ratio = fork[name] / fork[base]
            row = (f"{fork[name]:.2f}", f"{fork[base]:.2f}", f"{ratio:.2f}")
            table.add_row(f"{name}, beside {base}", *row)
    if args.backend != "numpy":
        # The last word of a step's name is what it is chosen by.
        kinds = {"step": "training", "fit": "fit"}
        for name in STEPS:
            if kinds[name.split()[-1]] not in chosen:
                continue
            one, other, again = take_turns(name, args.backend, args.turns)
            row = (f"{statistics.median(x):.2f}" for x in (one, other))
            table.add_row(name, *row, spread(one, other))
            table.add_row(
                f"{name}, upstream twice", "", "", spread(again, other)
            )
    console = Console()
    console.print(table)
    console.print(
        "Microseconds a call; milliseconds for the import, the steps and "
        f"`fit` of {SAMPLES} samples; bytes that NumPy and Python took."
    )


def medians(runs):
    names = runs[0] if runs else ()
    return {
        name: statistics.median(run[name] for run in runs) for name in names
    }


def spread(some, others):
    """The median of the ratios, turn by turn, and their quartiles."""
    ratios = [a / b for a, b in zip(some, others)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
