"""Symptoms of a training that has gone wrong, in its losses and its pictures."""

import numpy as np
from scipy import ndimage

from ..contrasts import HEAD
from ..metrics import head_mask
from ..presets import PAPER, Preset

WON_EPOCHS, WON_LOSS = 10, 0.065
CONSTANT = 0.05  # standard deviation of an image's grey values; a head's is above 0.4


def find_symptoms(
    history: list[dict], snapshot: dict[str, np.ndarray], preset: Preset = PAPER
) -> list[str]:
    """What has gone wrong in a training, a sentence each, from its losses and its newest snapshot.

    `history` holds each epoch's losses, `snapshot` the arrays of `snapshots.IMAGES` or nothing. A
    discriminator that cannot tell real from synthetic has a loss of 0.25. It has won when its loss
    stays under WON_LOSS: on simulated heads, 0.05 was reached in a run whose pictures went bad, and
    0.074 in one whose pictures did not. Deep in a head, fluid, grey and white matter have opposite
    orders in T1w and in T2w or PDw images, so a source and its translation correlate negatively. If
    a generator exchanges tissues, or copies its source, they correlate positively.
    """
    found, contrasts = [], preset.contrasts
    for name in map("discriminator_{}".format, contrasts):
        losses = [row[name] for row in history[-WON_EPOCHS:]]
        if len(losses) == WON_EPOCHS and np.mean(losses) < WON_LOSS:
            found.append(
                f"{name} has won (loss under {WON_LOSS} for {WON_EPOCHS} epochs), and the "
                "generators learn to please a judge of details: try a lower learning_rate."
            )
    dark, bright = {*contrasts} & {"t1", "t1gd"}, {*contrasts} & {"t2", "pd"}  # fluid
    opposite = len(dark) == len(bright) == 1 and preset.body_part == HEAD
    for sides in (("real_x", "fake_y"), ("real_y", "fake_x")):
        source, fake = map(contrasts.named, sides)
        if snapshot:
            images, made = (snapshot[side][..., 0] for side in sides)
            depths = [ndimage.distance_transform_edt(head_mask(image)) for image in images]
            inner = [depth > depth.max() / 2 for depth in depths]
            if made.std(axis=(1, 2)).max() < CONSTANT:
                found.append(f"{fake} is the same grey everywhere: the generators have collapsed.")
            elif opposite and np.corrcoef(images[inner], made[inner])[0, 1] > 0:
                found.append(
                    f"{fake} is bright where {source} is, deep in the head: fluid and white matter "
                    "are exchanged, or the source is copied; try a warm start or a higher "
                    "simulation_weight."
                )
    return found
