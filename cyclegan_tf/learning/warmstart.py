"""The warm start: both generators learn from true pairs before the unpaired training begins."""

from collections.abc import Sequence
from functools import cache

import keras
import numpy as np
import tensorflow as tf
from skimage.transform import resize

from .. import InputError
from ..compat import Adam
from ..contrasts import HEAD, SPINE
from ..cyclegan import CycleGAN
from ..dataset.sets import Sets
from ..presets import Preset
from ..runs import Run
from ..scans.frame import Frame
from ..simulation import phantom
from ..simulation.scanners import SLICES_A_HEAD, Scans, Slices, cut_heads, scan_heads
from ..translation.generators import onnx_weights
from ..translation.loading import load_translator, read_pretrained
from .batches import simulated_batches
from .checkpoints import Checkpoints
from .loop import fit_from_checkpoint
from .schedules import LinearDecay

STEPS = 100  # in an epoch of the warm start
ILL = 0.5  # share of the people of the warm start who have lesions in most slices
SEED = 1000  # added to the preset's: other heads than those of the simulated data set


def warm_start(model: CycleGAN, run: Run, sets: Sets) -> None:
    """Let both generators learn x → y and y → x from pairs, or go on from a checkpoint.

    The pairs are simulated, from other seeds and sequence values than the simulated data set, with
    `simulator` = varied in new scanners every epoch; for the oracle they are the true ones. The
    record gets `warm_start`: steps and last loss. With `start` = shipped they begin with the
    weights that ship.
    """
    preset, epochs = run.preset, run.preset.warm_start_epochs
    if preset.start == "shipped":
        for generator in (model.G, model.F):
            _take_shipped(generator, preset)
    if not epochs or not preset.epochs:
        return

    def again(copy=keras.models.clone_model):
        learner = _pair_learner([copy(generator) for generator in model.networks[:2]], preset)
        return learner, [*learner.weights, *learner.optimizer.variables]

    learner, variables = again(copy=lambda generator: generator)
    checkpoints = Checkpoints(run.folder / "checkpoints" / "warm_start", variables)

    def batches(done):
        if preset.simulator == "varied" and not preset.oracle:
            scans = _new_scans(preset, sets.frame, done, epochs)
        else:
            pairs = true_pairs(sets) if preset.oracle else simulated_scans(preset, sets.frame)
            scans = tf.data.Dataset.from_tensors(tf.concat(pairs, axis=-1)).repeat(epochs - done)
        return simulated_batches(scans, preset, done, STEPS)

    history = fit_from_checkpoint(
        learner, again, run, "warm_start", checkpoints, batches, STEPS, epochs
    )
    run.update(warm_start={"steps": epochs * STEPS, **history[-1]})


def _take_shipped(generator: keras.Model, preset: Preset) -> None:
    """Give a generator the weights that ship. Raises InputError if these are of another form."""
    shipped, form = load_translator(None, generator.name).preset, ("generator", "filters", "blocks")
    has, wants = ([getattr(settings, name) for name in form] for settings in (shipped, preset))
    if has != wants:
        raise InputError(
            f"The shipped generators have {', '.join(form)} {has}: expected these with "
            f"start = shipped, found {wants}."
        )
    generator.set_weights(onnx_weights(read_pretrained(generator.name)))


@cache
def simulated_scans(preset: Preset, frame: Frame) -> Scans:
    """Simulated slices to learn from, framed, each (pairs, height, width, 1)."""
    count, seed = preset.warm_start_pairs, SEED + preset.seed
    if preset.simulator == "varied":
        scans = scan_heads(_heads(preset), [seed], preset.contrasts)
        return _framed(Scans(*(images[:count] for images in scans)), preset, frame)
    heads = -(-count // SLICES_A_HEAD)
    spine = preset.body_part == SPINE
    options = phantom.SPINES if spine else phantom.SIMULATORS[preset.simulator]
    pair = phantom.simulate_pairs(count, seed, heads, contrasts=preset.contrasts, **options)
    return _framed(Scans(*pair[:2], *pair[:2]), preset, frame)


def _new_scans(preset: Preset, frame: Frame, first_epoch: int, last_epoch: int) -> tf.data.Dataset:
    """For each epoch of the warm start framed slices, (N, height, width, 4), of some of its heads.

    Heads are cut once, which takes longer than to scan them. In every epoch each is seen in a new
    scanner of its own, and a share ILL of people has lesions.
    """
    heads, count = _heads(preset), -(-STEPS * preset.batch_size // SLICES_A_HEAD)
    shape = count * SLICES_A_HEAD, frame.height, frame.width, 4

    def scan(epoch):
        seed = [SEED + preset.seed, int(epoch)]
        chosen = np.resize(np.random.default_rng(seed).permutation(len(heads)), count)
        ill = ILL if preset.anatomies else 0.0
        scans = scan_heads([heads[k] for k in chosen], seed, preset.contrasts, ill)
        return np.concatenate(_framed(scans, preset, frame), axis=-1)

    def anew(epoch):
        return tf.ensure_shape(tf.numpy_function(scan, [epoch], tf.float32), shape)

    return tf.data.Dataset.range(first_epoch, last_epoch).map(anew).prefetch(1)


@cache
def _heads(preset: Preset) -> list[Slices]:
    return [*cut_heads(preset.warm_start_pairs, SEED + preset.seed, preset.anatomies)]


def _framed(scans: Scans, preset: Preset, frame: Frame) -> Scans:
    """Scans (N, H, W, 1) in the frame of the images, (N, height, width, 1)."""
    if preset.body_part != HEAD:  # of which a scan may show a part: it is cut out, not made smaller
        sides = zip(scans.x.shape[1:3], (frame.height, frame.width), strict=True)
        cut = [slice((a - min(a, b)) // 2, (a + min(a, b)) // 2) for a, b in sides]
        scans = Scans(*(images[:, cut[0], cut[1]] for images in scans))
    # Heads fill the frame about as the images do; enlarging by whole numbers loses nothing.
    scale = min(frame.height / scans.x.shape[1], frame.width / scans.x.shape[2])
    scale = scale if scale < 1 else int(scale)
    # (N, 217, 181, 1) -> (N, H, W) within the frame -> (N, height, width, 1)
    shape = (len(scans.x), *(int(scale * side) for side in scans.x.shape[1:3]))
    return Scans(*(frame.apply(resize(images[..., 0], shape, order=1)) for images in scans))


def true_pairs(sets: Sets, chosen: np.ndarray | None = None, most: int | None = None) -> Scans:
    """The framed images x that are chosen, a mask, or are in training, and their true y, if known.

    Of more than `most` so many, evenly spread. Raises InputError if there are none.
    """
    known = np.flatnonzero(sets.x.train if chosen is None else chosen)
    if not sets.truth:
        known = np.intersect1d(known, sets.pairs[:, 0])
    if not len(known):
        raise InputError("The oracle needs true pairs, and the data set has none in training.")
    if most:
        known = known[np.unique(np.linspace(0, len(known) - 1, most, dtype=int))]
    true = [sets.frame.apply(sets.x.cut(k, sets.truth_of("x", k))) for k in known]
    pair = sets.x[known], np.stack(true)
    return Scans(*pair, *pair)


def _pair_learner(generators: Sequence[keras.Model], preset: Preset) -> keras.Model:
    """Both generators side by side as a supervised model: (x, y) → (y, x)."""
    x, y = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    G, F = generators
    learner = keras.Model([x, y], [G(x), F(y)])
    rate = LinearDecay(preset.warm_start_rate, 0, preset.warm_start_epochs * STEPS)
    learner.compile(Adam(rate, beta_1=preset.beta_1), loss=preset.warm_start_loss)
    learner.optimizer.build(learner.trainable_variables)
    # Keras makes a loss's metrics when it is first computed; several devices want them before.
    nothing = [tf.zeros((1, 1, 1, 1))] * 2
    tf.distribute.get_strategy().run(lambda: learner.compute_loss(y=nothing, y_pred=nothing))
    return learner
