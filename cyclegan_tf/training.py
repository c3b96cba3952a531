"""Training: warm start, schedule, snapshots, checkpoints; what was begun goes on where it stood."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
import time
import timeit
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage
from skimage.transform import resize
from tqdm import tqdm

from . import InputError
from .batches import simulated_batches, steps_per_epoch, unpaired_batches
from .compat import Adam
from .cyclegan import CycleGAN
from .data import Sets, watched
from .models import build_discriminator, build_generator
from .presets import PUBLISHED_EPOCH, PUBLISHED_STEPS, Preset, published_rate
from .runs import Run, write_atomically
from .scans.frame import Frame
from .scans.images import write_image
from .simulation import phantom
from .study.metrics import head_mask
from .translate import DIRECTIONS, translate

# The generators are independent of each other, and so are the discriminators: with half of the
# processors for each, small networks train a quarter faster than with all for one after the other.
with contextlib.suppress(RuntimeError):  # TensorFlow has begun to work in this process
    tf.config.threading.set_inter_op_parallelism_threads(2)
    tf.config.threading.set_intra_op_parallelism_threads(max(1, (os.cpu_count() or 1) // 2))

WON_EPOCHS, WON_LOSS = 10, 0.065
CONSTANT = 0.05  # standard deviation of an image's grey values; a head's is above 0.4

WARM_START_STEPS = 100  # steps in an epoch of the warm start
WARM_START_SEED = 1000  # apart from the seeds of the simulated data set
SLICES_A_HEAD = 8


@keras.saving.register_keras_serializable("cyclegan_tf")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`rate` up to step `start`, then linearly down to 0 at step `end` (CycleGAN, section 4)."""

    def __init__(self, rate: float, start: int, end: int):
        self.rate, self.start, self.end = rate, start, end

    def __call__(self, step):
        left = (self.end - tf.cast(step, tf.float32)) / max(self.end - self.start, 1)
        return self.rate * tf.clip_by_value(left, 0.0, 1.0)

    def get_config(self):
        return {"rate": self.rate, "start": self.start, "end": self.end}


class PublishedRate(keras.optimizers.schedules.LearningRateSchedule):
    """What the original's code made of the rate, if its epoch 145 ended before step `begun`."""

    def __init__(self, begun: int, steps: int):
        first = PUBLISHED_EPOCH * PUBLISHED_STEPS
        self.begun = begun
        self.rates = [published_rate(step) for step in range(first, first + steps)]

    def __call__(self, step):
        # Keras asks once for the rate of step 0, whatever step it goes on from.
        return tf.gather(self.rates, tf.maximum(tf.cast(step, tf.int32) - self.begun, 0))


def build_cyclegan(run: Run, steps: int) -> CycleGAN:
    """The compiled model of a run, weights drawn from its seed; `steps` is an epoch's length."""
    preset = run.preset
    keras.utils.set_random_seed(preset.seed)
    keras.mixed_precision.set_global_policy(choose_precision(run))
    generators = [
        build_generator(preset.generator, preset.filters, preset.blocks, name)
        for name in DIRECTIONS
    ]
    discriminators = [
        build_discriminator(
            preset.discriminator_filters, preset.discriminator_depth, f"discriminator_{contrast}"
        )
        for contrast in ("t1", "t2")
    ]
    model = CycleGAN(
        *generators,
        *discriminators,
        preset.cycle_weight,
        preset.identity_weight,
        preset.simulation_weight,
        preset.micro_batch,
    )
    rate = LinearDecay(preset.learning_rate, preset.decay_epoch * steps, preset.epochs * steps)
    model.compile(
        Adam(rate, beta_1=preset.beta_1),
        Adam(rate, beta_1=preset.beta_1),
    )
    networks = {"generator": generators[0], "discriminator": discriminators[0]}
    run.update(networks={name: {"weights": net.count_params()} for name, net in networks.items()})
    return model


def estimate(model: CycleGAN, run: Run, sets: Sets) -> str:
    """What the unpaired training will take, in a sentence, from one forward pass of a generator.

    A step runs each generator on three images, forward and, at twice the cost, backward; the
    discriminators and everything else add about a fifth. Raises InputError for more memory than
    there is, before the kernel of the system ends the training without a word.
    """
    image = sets.t1[:1]
    layers = keras.Model(model.t1_to_t2.inputs, [x.output for x in model.t1_to_t2.layers])
    activations = sum(output.nbytes for output in layers.predict(image, verbose=0))
    predict = partial(model.t1_to_t2.predict_on_batch, image)
    predict()  # compiles
    seconds = 1.2 * 2 * 3 * 3 * min(timeit.repeat(predict, number=1, repeat=3))
    weights = 4 * sum(network.count_params() for network in model.networks)
    pairs = run.preset.epochs * min(map(len, sets.train))
    hours = seconds * pairs / 3600
    # Weights, gradients, Adam's two moments; `exploding_rate` has all but the gradients twice.
    memory = (6 * run.preset.micro_batch * activations + 7 * weights) / 1e9 + 0.5
    disk = 3 * 3 * weights / 1e9  # three checkpoints of weights and Adam's two moments
    here = memory_here()
    if memory > here and not tf.config.list_physical_devices("GPU"):  # which has its own
        raise InputError(
            f"The training needs about {memory:.1f} GB of memory and this machine has {here:.1f}: "
            f"expected a smaller micro_batch than {run.preset.micro_batch}, or smaller networks."
        )
    return (
        f"About {seconds:.2f} s a pair, so {hours:.1f} hours for {run.preset.epochs} epochs; "
        f"{memory:.1f} GB of memory, {disk:.1f} GB of disk."
    )


def memory_here() -> float:
    """GB of memory that this process may use: the machine's, or its container's (cgroup v2)."""
    machine, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "max"
    with contextlib.suppress(OSError):
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    return (machine if limit == "max" else min(machine, int(limit))) / 1e9


def choose_precision(run: Run) -> str:
    """The run's Keras dtype policy: chosen once, written into `run.json` and kept on resuming."""
    if "precision" not in run.record:
        policy, reason = run.preset.precision, "asked for"
        if policy == "auto":
            policy, reason = automatic_precision()
        run.update(precision={"policy": policy, "reason": reason})
    return run.record["precision"]["policy"]


def automatic_precision() -> tuple[str, str]:
    """The Keras dtype policy for what computes here, and why: bfloat16 where it has instructions.

    GPUs of NVIDIA have from compute capability 8.0 (Ampere) on. Older ones have float16, which
    would take a scaling of the losses.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device = details.get("device_name", "the GPU")
        fast = details.get("compute_capability", (0, 0)) >= (8, 0)
    else:
        cpu = Path("/proc/cpuinfo")
        flags = cpu.read_text() if cpu.is_file() else ""
        device, fast = "the processor", "avx512_bf16" in flags or "amx_bf16" in flags
    reason = f"{device} has {'' if fast else 'no '}bfloat16 instructions"
    return "mixed_bfloat16" if fast else "float32", reason


class Checkpoints:
    """The state of a training after its newest epochs, as `.npz` files of plain arrays.

    `variables` are saved and restored in order. Two files are kept, so that one is whole
    whatever happens while the other is written.
    """

    def __init__(self, folder: Path, variables: list):
        self.folder = folder
        self.variables = variables

    def save(self, epoch: int, history: list[dict]) -> None:
        """Write the state after `epoch` epochs with the losses up to there."""
        arrays = {f"variable_{i:04d}": v.numpy() for i, v in enumerate(self.variables)}
        with write_atomically(self.folder / f"epoch_{epoch:04d}.npz") as partial:
            np.savez(partial, history=json.dumps(history), **arrays)
        for old in sorted(self.folder.glob("epoch_*.npz"))[:-2]:
            os.truncate(old, 0)  # Google Drive keeps what is deleted, and counts it
            old.unlink()

    def restore(self) -> tuple[int, list[dict]]:
        """Take the newest whole state; returns its epoch and losses.

        Where there is none, the present state is kept as that of epoch 0, so that a training which
        is stopped in its first epoch can be begun again with the same model.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob("epoch_*.npz"), reverse=True):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    history = [dict(row) for row in json.loads(str(stored["history"]))]
                    arrays = [
                        np.reshape(stored[f"variable_{i:04d}"], variable.shape)
                        for i, variable in enumerate(self.variables)
                    ]
                for variable, array in zip(self.variables, arrays, strict=True):
                    variable.assign(array)
            except Exception as error:  # a damaged zip file raises almost anything
                print(f"{path} is damaged ({error}): going on from the checkpoint before it.")
                path.unlink()
            else:
                return len(history), history
        self.save(0, [])
        return 0, []


class Recorder(keras.callbacks.Callback):
    """Shows progress; writes losses, snapshots and a checkpoint after every epoch.

    An epoch that ends in NaN or infinity is not kept, but ends the training with an InputError.
    """

    def __init__(self, run, checkpoints, history, steps, title, after_epoch=None):
        super().__init__()
        self.run = run
        self.checkpoints = checkpoints
        self.history = history
        self.steps = steps
        self.title = title
        self.after_epoch = after_epoch

    def on_train_begin(self, logs=None):
        self.bar = tqdm(
            desc=self.title,
            initial=len(self.history) * self.steps,
            total=self.params["epochs"] * self.steps,
            unit="step",
            mininterval=5,
            file=sys.stdout,
        )

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        try:
            self._keep(epoch + 1, logs)
        except InputError:
            self.bar.close()  # a training that is ended so does not come to on_train_end
            raise

    def _keep(self, epoch: int, logs: dict) -> None:
        numbers = *logs.values(), *(variable.numpy() for variable in self.checkpoints.variables)
        if not all(np.isfinite(values).all() for values in numbers):
            warning = (
                "losses or weights are NaN or infinite, so the training was stopped and stands at "
                "the epoch before: start anew with a lower rate."
            )
            warn(self.run, epoch, warning)
            raise InputError(f"Epoch {epoch}: {warning}")
        self.history.append({name: float(value) for name, value in logs.items()})
        if self.after_epoch:
            self.after_epoch(epoch, self.history)
        self.checkpoints.save(epoch, self.history)
        shown = " ".join(f"{name} {value:.3f}" for name, value in self.history[-1].items())
        self.bar.set_postfix_str(f"epoch {epoch}, {shown}", refresh=False)

    def on_train_end(self, logs=None):
        self.bar.close()


class InputClock(keras.callbacks.Callback):
    """Measures the share of the steps that is spent waiting for their batches."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0
        with tf.device("CPU"):
            self.waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def watch(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches; the time between asking for one and having it is added up."""

        def arrived(asked, batch):
            self.waited.assign_add(tf.timestamp() - asked)
            return batch

        asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # it would ask ahead of the step
        return tf.data.Dataset.zip((asked, batches)).map(arrived).with_options(options)

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds += time.perf_counter() - self.begun

    @property
    def share(self) -> float:
        return float(self.waited.numpy()) / self.seconds


def warm_start(
    model: CycleGAN, run: Run, sets: Sets, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> None:
    """Let both generators learn T1 → T2 and T2 → T1 on simulated pairs, or take up where it stood.

    The simulated heads come from other seeds and sequence values than the simulated data set.
    """
    preset = run.preset
    if not preset.warm_start_epochs or not preset.epochs:
        return
    learner = _pair_learner(model, preset)
    checkpoints = Checkpoints(
        run.folder / "checkpoints" / "warm_start",
        learner.weights + list(learner.optimizer.variables),
    )
    with run.alone():  # a checkpoint may be written, or removed
        done, history = checkpoints.restore()
    if done < preset.warm_start_epochs:
        pairs = true_pairs(sets) if preset.oracle else simulated_pairs(preset, sets.frame)
        with run.alone(), run.timed("warm_start"):
            run.update(status="training")
            learner.fit(
                simulated_batches(
                    pairs,
                    preset,
                    done * WARM_START_STEPS,
                    preset.warm_start_epochs * WARM_START_STEPS,
                ),
                steps_per_epoch=WARM_START_STEPS,
                epochs=preset.warm_start_epochs,
                initial_epoch=done,
                callbacks=[
                    Recorder(run, checkpoints, history, WARM_START_STEPS, "Warm start"),
                    *callbacks,
                ],
                shuffle=False,
                verbose=0,
            )
    run.update(warm_start={"steps": preset.warm_start_epochs * WARM_START_STEPS, **history[-1]})


@cache
def simulated_pairs(preset: Preset, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Simulated T1w and T2w slices to learn from, framed, each (pairs, height, width, 1)."""
    t1, t2, _ = phantom.simulate_pairs(
        preset.warm_start_pairs,
        WARM_START_SEED + preset.seed,
        heads=-(-preset.warm_start_pairs // SLICES_A_HEAD),
        **phantom.SIMULATORS[preset.simulator],
    )
    # Heads fill the frame about as the images do, at no loss where these are as large.
    scale = min(frame.height / t1.shape[1], frame.width / t1.shape[2])
    scale = scale if scale < 1 else int(scale)
    shape = (len(t1), *(int(scale * side) for side in t1.shape[1:3]))
    return tuple(frame.apply(resize(images[..., 0], shape, order=1)) for images in (t1, t2))


def true_pairs(sets: Sets) -> tuple[np.ndarray, np.ndarray]:
    """The framed T1 images in training and their true T2 images, for the oracle."""
    known = np.flatnonzero(sets.t1_train)
    if not sets.truth:
        known = np.intersect1d(known, sets.pairs[:, 0])
    if not len(known):
        raise InputError("The oracle needs true pairs, and the data set has none in training.")
    true = [sets.frame.apply(sets.t1.cut(i, sets.true_t2[i])) for i in known]
    return sets.t1[known], np.stack(true)


def _pair_learner(model: CycleGAN, preset: Preset) -> keras.Model:
    """Both generators side by side as a supervised model: (T1, T2) → (T2, T1)."""
    t1, t2 = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    learner = keras.Model([t1, t2], [model.t1_to_t2(t1), model.t2_to_t1(t2)])
    rate = LinearDecay(preset.warm_start_rate, 0, preset.warm_start_epochs * WARM_START_STEPS)
    learner.compile(Adam(rate, beta_1=preset.beta_1), loss="mae")
    learner.optimizer.build(learner.trainable_variables)
    return learner


def train(
    model: CycleGAN, run: Run, sets: Sets, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> None:
    """Unpaired training to the preset's last epoch, from the start or the newest checkpoint.

    Leaves `losses.csv`, TensorBoard's files in `tensorboard/`, `snapshots/` and both generators
    in `models/`, and in the record the share of the steps that was spent waiting for images.
    """
    preset = run.preset
    t1, t2 = sets.train
    steps = steps_per_epoch(t1, t2, preset)
    variables = [
        *(variable for network in model.networks for variable in network.weights),
        *model.optimizer.variables,
        *model.discriminator_optimizer.variables,
    ]
    checkpoints = Checkpoints(run.folder / "checkpoints", variables)

    def after_epoch(epoch, history):
        write_losses(run.path("losses.csv"), history)
        shown = *preset.snapshot_epochs, preset.epochs
        images = {}
        if epoch in shown or epoch % preset.frame_interval == 0:
            images = write_snapshot(model, run, sets, epoch)
            if not preset.warm_start_epochs and epoch <= preset.decay_epoch:
                images = {}  # still open which contrast it will come to
        for warning in symptoms(history, images):
            warn(run, epoch, warning)

    with run.alone():  # a checkpoint may be written, or removed
        done, history = checkpoints.restore()
    if done < preset.epochs and not preset.oracle:
        simulated = simulated_pairs(preset, sets.frame) if preset.simulation_weight else None
        batches = unpaired_batches(t1, t2, preset, done * steps, preset.epochs * steps, simulated)
        clock = InputClock()
        with run.alone(), run.timed("training"):
            run.update(status="training")
            model.fit(
                clock.watch(batches),
                steps_per_epoch=steps,
                epochs=preset.epochs,
                initial_epoch=done,
                callbacks=[
                    Recorder(run, checkpoints, history, steps, "Training", after_epoch),
                    keras.callbacks.TensorBoard(run.folder / "tensorboard"),
                    clock,
                    *callbacks,
                ],
                shuffle=False,
                verbose=0,
            )
        run.update(waiting_for_images=round(clock.share, 4))
        print(f"{clock.share:.1%} of the steps' time was spent waiting for images.")
    save_generators(model, run)
    run.update(status="trained", losses=history[-1] if history else {})


def exploding_rate(
    model: CycleGAN, run: Run, sets: Sets, epochs: int = 3
) -> dict[int, dict[str, np.ndarray]]:
    """`watched_images` of the model as it is and after each epoch at the original's rate, by epoch.

    Weights and moments go on from where they are, with the run's own losses and images, for epochs
    of 11 steps from 146 on; 145 is the model as it is. Afterwards it is that again, and nothing
    is written.
    """
    optimizers = model.optimizer, model.discriminator_optimizer
    weights = [network.get_weights() for network in model.networks]
    done, steps = int(model.optimizer.iterations), epochs * PUBLISHED_STEPS
    simulated = simulated_pairs(run.preset, sets.frame) if run.preset.simulation_weight else None
    images = {PUBLISHED_EPOCH: watched_images(model, sets)}
    bar = tqdm(desc="At the original's rate", total=steps, unit="step", file=sys.stdout)

    def after_epoch(epoch, logs):
        images[epoch + 1] = watched_images(model, sets)
        bar.update(PUBLISHED_STEPS)

    try:
        rate = PublishedRate(done, steps)
        others = [Adam(rate, beta_1=run.preset.beta_1) for _ in optimizers]
        model.compile(*others)
        for other, optimizer in zip(others, optimizers, strict=True):
            for variable, value in zip(other.variables, optimizer.variables, strict=True):
                variable.assign(value)
        model.fit(
            unpaired_batches(*sets.train, run.preset, done, done + steps, simulated),
            steps_per_epoch=PUBLISHED_STEPS,
            epochs=PUBLISHED_EPOCH + epochs,
            initial_epoch=PUBLISHED_EPOCH,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)],
            shuffle=False,
            verbose=0,
        )
    finally:
        for network, values in zip(model.networks, weights, strict=True):
            network.set_weights(values)
        model.compile(*optimizers)
        bar.close()
    return images


def symptoms(history: list[dict], snapshot: dict[str, np.ndarray]) -> list[str]:
    """What has gone wrong in a training, a sentence each, from its losses and newest snapshot.

    A discriminator has won when its loss, 0.25 for one that cannot tell, stays under WON_LOSS: on
    simulated heads, 0.05 was reached in a run whose pictures went bad, 0.074 in one whose
    pictures did not. Inside a head fluid, grey and white matter have opposite orders in T1w and
    T2w images, so that source and synthetic image correlate negatively; a generator that
    exchanges tissues, or copies, makes that positive.
    """
    found = []
    for name in ("discriminator_t1", "discriminator_t2"):
        losses = [row[name] for row in history[-WON_EPOCHS:]]
        if len(losses) == WON_EPOCHS and np.mean(losses) < WON_LOSS:
            found.append(
                f"{name} has won (loss under {WON_LOSS} for {WON_EPOCHS} epochs), and the "
                "generators learn to please a judge of details: try a lower learning_rate."
            )
    for source, fake in (("real_t1", "fake_t2"), ("real_t2", "fake_t1")):
        if snapshot:
            images, made = snapshot[source][..., 0], snapshot[fake][..., 0]
            depths = [ndimage.distance_transform_edt(head_mask(image)) for image in images]
            inner = [depth > depth.max() / 2 for depth in depths]
            if made.std(axis=(1, 2)).max() < CONSTANT:
                found.append(f"{fake} is the same grey everywhere: the generators have collapsed.")
            elif np.corrcoef(images[inner], made[inner])[0, 1] > 0:
                found.append(
                    f"{fake} is bright where {source} is, deep in the head: fluid and white matter "
                    "are exchanged, or the source is copied; try a warm start or a higher "
                    "simulation_weight."
                )
    return found


def warn(run: Run, epoch: int, warning: str) -> None:
    """Print a warning and keep it in the run's record; the same one once."""
    known = run.record.get("warnings", [])
    if not any(line.endswith(warning) for line in known):
        tqdm.write(f"Epoch {epoch}: {warning}")
        run.update(warnings=[*known, f"Epoch {epoch}: {warning}"])


def write_losses(path: Path, history: list[dict]) -> None:
    """One row an epoch: its number and the mean of every loss."""
    with write_atomically(path) as partial, partial.open("w", newline="") as file:
        table = csv.DictWriter(file, ["epoch", *history[0]])
        table.writeheader()
        table.writerows({"epoch": epoch, **row} for epoch, row in enumerate(history, 1))


def watched_images(model: CycleGAN, sets: Sets) -> dict[str, np.ndarray]:
    """What the generators make of the same four slices: arrays (4, height, width, 1) in [-1, 1]."""
    t1, t2 = sets.t1[watched(sets.t1_train)], sets.t2[watched(sets.t2_train)]
    fake_t2, fake_t1 = translate(model.t1_to_t2, t1), translate(model.t2_to_t1, t2)
    return {
        "real_t1": t1,
        "fake_t2": fake_t2,
        "cycled_t1": translate(model.t2_to_t1, fake_t2),
        "real_t2": t2,
        "fake_t1": fake_t1,
        "cycled_t2": translate(model.t1_to_t2, fake_t1),
    }


def write_snapshot(model: CycleGAN, run: Run, sets: Sets, epoch: int) -> dict[str, np.ndarray]:
    """Keep `watched_images`, which are returned, as arrays (.npz) and as a tiled picture (.png).

    The picture's rows are T1, synthetic T2, cycled T1, T2, synthetic T1, cycled T2.
    """
    rows = watched_images(model, sets)
    with write_atomically(run.path("snapshots", f"epoch_{epoch:03d}.npz")) as partial:
        np.savez_compressed(partial, **{k: v.astype(np.float16) for k, v in rows.items()})
    tiles = np.concatenate([np.concatenate(list(row[..., 0]), axis=1) for row in rows.values()])
    write_image(run.path("snapshots", f"epoch_{epoch:03d}.png"), tiles)
    return rows


def save_generators(model: CycleGAN, run: Run) -> None:
    """Both generators as `.keras`, and as `.weights.h5` for the other framework generation."""
    for direction in DIRECTIONS:
        generator = getattr(model, direction)
        for ending, save in ((".keras", generator.save), (".weights.h5", generator.save_weights)):
            with write_atomically(run.path("models", direction + ending)) as partial:
                save(partial)
