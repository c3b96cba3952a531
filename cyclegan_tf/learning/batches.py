"""The stream of training batches: a pure function of seed and step, so any step can be the next."""

import math
from functools import partial

import numpy as np
import tensorflow as tf

from ..dataset.sets import ImageSet
from ..presets import Preset
from ..scans.frame import MULTIPLE
from ..scans.intensity import AIR, MARGIN
from ..simulation.scanners import Scans


def steps_per_epoch(x: np.ndarray | ImageSet, y: np.ndarray | ImageSet, preset: Preset) -> int:
    """Steps until the smaller set has been seen once, as published."""
    return math.ceil(min(len(x), len(y)) / preset.batch_size)


def unpaired_batches(
    x: np.ndarray | ImageSet,
    y: np.ndarray | ImageSet,
    preset: Preset,
    first_step: int,
    last_step: int,
    simulated: Scans | None = None,
) -> tf.data.Dataset:
    """Batches `(x, y)` for the steps from `first_step` up to, not including, `last_step`.

    The two sets are shuffled independently; every image of a set is seen before one is seen
    again. Several sources take turns, image by image, whatever their size. With `simulated` heads
    each batch is `(x, y, *scans)`, one of each of `Scans`. All are (N, H, W, 1) in [-1, 1];
    `ImageSet` images are read from disk as they are drawn.
    """
    sets = [one if isinstance(one, ImageSet) else tf.constant(one) for one in (x, y)]
    scans = None if simulated is None else tf.concat(simulated, axis=-1)

    def batch(step):
        images = [
            _augment(_draw(images, preset, step, stream), preset, step, stream)
            for stream, images in enumerate(sets)
        ]
        if scans is not None:
            images += tf.split(_draw_scans(scans, preset, step, stream=len(sets)), 4, axis=-1)
        return tuple(images)

    return _stream(batch, first_step, last_step)


def simulated_batches(
    simulated: tf.data.Dataset, preset: Preset, first_epoch: int, steps: int
) -> tf.data.Dataset:
    """Batches for the warm start: `((x, y), (wanted_y, wanted_x))`, sources and targets.

    `simulated` holds for each epoch from `first_epoch` on what its `steps` are to be drawn from,
    the arrays of `Scans` side by side, (N, H, W, 4). Heads in many scanners (`simulator` = varied)
    are seen in frames of many sizes.
    """

    def batch(scans, step):
        drawn = _draw_scans(scans, preset, step, stream=0)
        if preset.simulator == "varied":
            drawn = _cut(drawn, preset, step)
        x, y, wanted_x, wanted_y = tf.split(drawn, 4, axis=-1)  # (N, h, w, 4) -> 4 x (N, h, w, 1)
        return (x, y), (wanted_y, wanted_x)

    def epoch(number, scans):
        return _stream(partial(batch, scans), number * steps, (number + 1) * steps)

    return simulated.enumerate(first_epoch).flat_map(epoch)


def _stream(batch, first_step: int, last_step: int) -> tf.data.Dataset:
    batch = tf.autograph.experimental.do_not_convert(batch)  # there is nothing to convert
    return tf.data.Dataset.range(first_step, last_step).map(batch).prefetch(4)


def _draw(images: tf.Tensor | ImageSet, preset: Preset, step: tf.Tensor, stream: int) -> tf.Tensor:
    parts = images.parts if isinstance(images, ImageSet) else [np.arange(images.shape[0])]

    def one(serial):
        turn, serial = serial % len(parts), serial // len(parts)
        chosen = []  # of each source the next image, of which the one whose turn it is is taken
        for part in parts:
            order = tf.random.experimental.stateless_shuffle(
                tf.constant(part), seed=[preset.seed * 8 + stream, serial // len(part)]
            )
            chosen.append(order[serial % len(part)])
        index = tf.stack(chosen)[turn]
        return _read(images, index) if isinstance(images, ImageSet) else images[index]

    serials = step * preset.batch_size + tf.range(preset.batch_size, dtype=tf.int64)
    # Not a loop of Python's: a large batch would be traced image by image, for a minute.
    return tf.map_fn(one, serials, fn_output_signature=tf.float32)


def _read(images: ImageSet, index: tf.Tensor) -> tf.Tensor:
    """What `images[index]` is, by TensorFlow's own means."""
    files, size = images.files, tf.constant(images.shape[1:3], tf.int64)
    number = tf.constant(images.members)[index]
    name = tf.strings.as_string(number, width=6, fill="0")
    pixels = tf.io.decode_raw(tf.io.read_file(f"{files.folder}/" + name), tf.float32)
    shape = tf.constant(files.shapes, tf.int64)[number]
    start, stop = tf.split(tf.constant(images.boxes, tf.int64)[number], 2)
    stop = tf.where(stop > 0, stop, shape)
    pixels = tf.reshape(pixels, shape)[start[0] : stop[0], start[1] : stop[1]]
    before = (size - tf.shape(pixels, tf.int64)) // 2
    after = size - tf.shape(pixels, tf.int64) - before
    framed = tf.pad(pixels, tf.stack([before, after], axis=1), constant_values=-1.0)
    return tf.ensure_shape(framed[..., None], images.shape[1:])


def _draw_scans(scans: tf.Tensor, preset: Preset, step: tf.Tensor, stream: int) -> tf.Tensor:
    # Simulated heads look up, published ones down: seen either way, both are translated alike.
    drawn, seed = _draw(scans, preset, step, stream), [preset.seed * 8 + stream, step]
    return tf.image.stateless_random_flip_up_down(drawn, seed)


def _cut(drawn: tf.Tensor, preset: Preset, step: tf.Tensor) -> tf.Tensor:
    """Scans (N, H, W, 4) in a smaller frame around their heads, of any size down to theirs.

    So the networks' statistics do not depend on how much black a frame has.
    """
    seen = tf.reduce_any(drawn > AIR, axis=(0, 3))  # (H, W)
    shares = tf.random.stateless_uniform([2], [preset.seed * 8, step])
    for axis, side in enumerate(drawn.shape[1:3]):
        middle = tf.constant([side // 2], tf.int64)  # for a slice may show no head
        shown = tf.concat([middle, tf.where(tf.reduce_any(seen, axis=1 - axis))[:, 0]], axis=0)
        first, last = tf.reduce_min(shown) - MARGIN, tf.reduce_max(shown) + MARGIN
        least = tf.cast((last - first) // MULTIPLE + 1, tf.float32)
        most = side // MULTIPLE
        count = least + tf.floor(tf.maximum(0.0, most + 1 - least) * shares[axis])
        size = tf.minimum(MULTIPLE * tf.cast(count, tf.int64), side)
        start = tf.clip_by_value((first + last - size) // 2, 0, side - size)
        drawn = tf.gather(drawn, tf.range(start, start + size), axis=1 + axis)
    return drawn


def _augment(images: tf.Tensor, preset: Preset, step: tf.Tensor, stream: int) -> tf.Tensor:
    seed = [preset.seed * 8 + stream, step]
    if preset.flip:
        images = tf.image.stateless_random_flip_left_right(images, seed)
    if preset.shift:
        shift = [0, 0], [preset.shift] * 2, [preset.shift] * 2, [0, 0]
        moved = tf.pad(images, shift, constant_values=-1.0)
        images = tf.image.stateless_random_crop(moved, images.shape, seed)
    return images
