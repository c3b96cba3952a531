"""Training: the model of a run, what it will cost, its unpaired training and what that leaves."""

import csv
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from . import InputError
from .compat import Adam
from .cyclegan import CycleGAN
from .dataset.sets import Sets, watched
from .learning.batches import steps_per_epoch, unpaired_batches
from .learning.checkpoints import Checkpoints
from .learning.loop import fit_from_checkpoint
from .learning.schedules import LinearDecay, PublishedRate
from .learning.snapshots import epoch_of, write_snapshot
from .learning.stopping import kept_pairs, validation_error
from .learning.symptoms import find_symptoms
from .learning.warmstart import simulated_scans
from .machines.devices import agree, use_devices
from .machines.machine import choose_precision, in_turns, memory_here
from .models import build_discriminator, build_generator
from .presets import PUBLISHED_EPOCH, Preset
from .runs import Run, write_atomically


def build_cyclegan(run: Run, steps: int) -> CycleGAN:
    """The compiled model of a run, with weights drawn from its seed; an epoch has `steps` steps."""
    use_devices(run)
    keras.mixed_precision.set_global_policy(choose_precision(run))
    model = compiled_cyclegan(run.preset, learning_rate(run.preset, steps))
    parts = {"generator": model.G, "discriminator": model.D_x}
    run.update(networks={name: {"weights": x.count_params()} for name, x in parts.items()})
    return model


def learning_rate(preset: Preset, steps: int) -> LinearDecay | PublishedRate:
    """The schedule of a preset's learning rate; an epoch has `steps` steps."""
    if preset.decay == "published":
        return PublishedRate(preset.learning_rate, PUBLISHED_EPOCH * steps)
    return LinearDecay(preset.learning_rate, preset.decay_epoch * steps, preset.epochs * steps)


def compiled_cyclegan(preset: Preset, rate: LinearDecay | PublishedRate) -> CycleGAN:
    """The model that a preset describes, in the precision that Keras is set to."""
    keras.utils.set_random_seed(preset.seed)
    generators = _generators(preset)  # first: the order decides what is drawn
    form = preset.discriminator_filters, preset.discriminator_depth
    judges = [build_discriminator(*form, f"discriminator_{name}") for name in preset.contrasts]
    weights = preset.cycle_weight, preset.identity_weight, preset.simulation_weight
    model = CycleGAN(*generators, *judges, *weights, preset.micro_batch)
    model.compile(*(Adam(rate, beta_1=preset.beta_1) for _ in range(2)))
    return model


def _generators(preset: Preset) -> list[keras.Model]:
    form = preset.generator, preset.filters, preset.blocks
    return [build_generator(*form, name) for name in preset.contrasts.directions]


def epoch_steps(run: Run, sets: Sets) -> int:
    """Steps in an epoch: until the smaller set was seen once or, with `minutes`, what fills them.

    It is chosen once, from the speed measured here, and kept in the record: a resumed run keeps its
    schedule.
    """
    preset = run.preset
    if "epoch_steps" not in run.record:
        steps = steps_per_epoch(*sets.train, preset)
        if preset.minutes and preset.epochs:
            keras.mixed_precision.set_global_policy(choose_precision(run))
            seconds = preset.batch_size * seconds_a_pair(_generators(preset), sets.x[:1])
            steps = max(1, round(60 * preset.minutes / (seconds * preset.epochs)))
        run.update(epoch_steps=agree(steps))
    return run.record["epoch_steps"]


def seconds_a_pair(generators: Sequence[keras.Model], image: np.ndarray) -> float:
    """What a training step takes for one image of each contrast, in seconds, from a forward pass.

    Both generators run at once, as in a step, and share the cores. In a step each runs on three
    images, forward and, at twice the cost, backward; the discriminators and everything else add
    about a fifth. `image` is (1, H, W, 1).
    """
    both = tf.function(lambda: [generator(image, training=False) for generator in generators])

    def forward() -> None:
        for output in both():
            output.numpy()  # a GPU is waited for

    (seconds,) = in_turns({"forward": forward}, 3).values()
    return 1.2 * 3 * 3 * float(seconds.min())


def estimate(model: CycleGAN, run: Run, sets: Sets) -> str:
    """How long the unpaired training will take and what it needs, in a sentence.

    Raises InputError if that is more memory than there is: the operating system would end the
    training without a word.
    """
    image = sets.x[:1]
    layers = keras.Model(model.G.inputs, [x.output for x in model.G.layers])
    activations = sum(np.asarray(output).nbytes for output in layers(image, training=False))
    seconds = seconds_a_pair([model.G, model.F], image)
    weights = 4 * sum(network.count_params() for network in model.networks)
    epochs = run.preset.unpaired_epochs
    pairs = epochs * epoch_steps(run, sets) * run.preset.batch_size
    hours = seconds * pairs / 3600
    # Weights, gradients, Adam's two moments.
    memory = (6 * run.preset.micro_batch * activations + 4 * weights) / 1e9 + 0.5
    kept = 4 if run.preset.patience else 3  # checkpoints of weights and Adam's two moments
    disk = kept * 3 * weights / 1e9
    here = memory_here()
    if memory > here and not tf.config.list_physical_devices("GPU"):  # a GPU has its own
        raise InputError(
            f"The training needs about {memory:.1f} GB of memory and this machine has {here:.1f}: "
            f"expected a smaller micro_batch than {run.preset.micro_batch}, or smaller networks."
        )
    return (
        f"About {seconds:.2f} s a pair, so {hours:.1f} hours for {epochs} epochs; "
        f"{memory:.1f} GB of memory, {disk:.1f} GB of disk."
    )


def train(model: CycleGAN, run: Run, sets: Sets) -> None:
    """Unpaired training to the preset's last epoch, from the start or the newest checkpoint.

    With patience and heads for it, it may end before, and leaves the best epoch's networks.

    Leaves `losses.csv`, TensorBoard's files in `tensorboard/`, `snapshots/` and both generators
    in `models/`.
    """
    preset, (x, y) = run.preset, sets.train
    steps = epoch_steps(run, sets)
    kept = kept_pairs(sets)
    if preset.patience and kept is None:
        print(
            "There is nothing to stop the training by, so it goes to its last epoch: nobody in it "
            "has both contrasts in images that lie on each other, and no loss says what is right."
        )

    def batches(done):
        simulated = simulated_scans(preset, sets.frame) if preset.simulation_weight else None
        last = preset.epochs * steps
        return unpaired_batches(x, y, preset, done * steps, last, simulated)

    def again():
        other = compiled_cyclegan(preset, learning_rate(preset, steps))
        return other, state(other)

    def after_epoch(history):
        epoch, images = len(history), {}
        if kept:
            history[-1]["validation"] = validation_error(model, *kept)
        write_losses(run, history)
        if epoch in (*preset.snapshot_epochs, preset.epochs) or epoch % preset.frame_interval == 0:
            images = watched_images(model, sets)
            write_snapshot(run, epoch, images)
        # Without a warm start it is open until the decay which contrast a generator will come to.
        settled = preset.warm_start_epochs or epoch > preset.decay_epoch
        shown = images if settled else {}
        for symptom in find_symptoms(history, shown, preset):
            run.warn(symptom, epoch)

    if kept and "validation_begun" not in run.record:  # else of a run that was stopped
        run.update(validation_begun=validation_error(model, *kept))
    stop = (preset.patience, run.record["validation_begun"]) if kept else ()
    checkpoints = Checkpoints(run.folder / "checkpoints", state(model), *stop)
    epochs = preset.unpaired_epochs
    board = [keras.callbacks.TensorBoard(run.folder / "tensorboard")]
    history = fit_from_checkpoint(
        model, again, run, "training", checkpoints, batches, steps, epochs, board, after_epoch
    )
    if kept and epochs:
        keep_best(model, run, sets, checkpoints, history)
    if preset.oracle and preset.epochs:  # the epochs that have taught it are the warm start's
        write_snapshot(run, preset.warm_start_epochs, watched_images(model, sets))
    save_generators(model, run)
    run.update(status="trained", losses=history[-1] if history else {})


def keep_best(
    model: CycleGAN, run: Run, sets: Sets, checkpoints: Checkpoints, history: list[dict]
) -> None:
    """Take the best epoch's networks; say which and why, also in the record's `stopped`.

    The newest snapshot is then that epoch's: those of later ones, which are given up, are removed.
    """
    best, last, heads = checkpoints.best(history), len(history), len(sets.validation)
    least = history[best - 1]["validation"] if best else checkpoints.begun
    reason = (
        f"the error on {heads} head{'s' * (heads > 1)} kept for it was least after epoch {best}, "
        f"{least:.4f} ({checkpoints.begun:.4f} at the start), of {last}"
    )
    if checkpoints.over(history):
        reason += f"; the training was stopped, as {run.preset.patience} more were no better"
    print(f"Kept is epoch {best}: {reason}.")
    run.update(stopped={"epoch": last, "best": best, "reason": reason})
    if best < last:
        checkpoints.take(best)
        for path in (run.folder / "snapshots").glob("epoch_*"):
            if epoch_of(path) > best:
                path.unlink()
        write_snapshot(run, best, watched_images(model, sets))


def state(model: CycleGAN) -> list:
    """Every variable that training changes: weights, then both optimisers' moments and counters."""
    optimizers = model.optimizer, model.discriminator_optimizer
    parts = [*(x.weights for x in model.networks), *(x.variables for x in optimizers)]
    return [variable for part in parts for variable in part]


def write_losses(run: Run, history: list[dict]) -> None:
    """`losses.csv`: one row an epoch, its number and the mean of every loss."""
    path = run.path("losses.csv")
    with write_atomically(path) as aside, aside.open("w", newline="") as file:
        table = csv.DictWriter(file, ["epoch", *history[0]])
        table.writeheader()
        table.writerows({"epoch": epoch, **row} for epoch, row in enumerate(history, 1))


def watched_images(model: CycleGAN, sets: Sets) -> dict[str, np.ndarray]:
    """What the generators make of the same four slices: arrays (4, height, width, 1) in [-1, 1]."""

    def made(network: keras.Model, images: np.ndarray) -> np.ndarray:
        return np.asarray(network(images, training=False))  # `predict` would first compile

    x, y = (side[watched(side.train)] for side in (sets.x, sets.y))
    fake_y, fake_x = made(model.G, x), made(model.F, y)
    return {
        "real_x": x,
        "fake_y": fake_y,
        "cycled_x": made(model.F, fake_y),
        "real_y": y,
        "fake_x": fake_x,
        "cycled_y": made(model.G, fake_x),
    }


def save_generators(model: CycleGAN, run: Run) -> None:
    """Both generators as `.keras`, and as `.weights.h5` for the other framework generation."""
    for generator in (model.G, model.F):
        for ending, save in ((".keras", generator.save), (".weights.h5", generator.save_weights)):
            with write_atomically(run.path("models", generator.name + ending)) as aside:
                save(aside)
