"""When to stop a training: by the error on heads that are kept from it, whose truth is known."""

import numpy as np

from ..cyclegan import CycleGAN
from ..dataset.sets import Sets
from ..machines.devices import agree
from ..metrics import head_mask
from ..translation.generators import predict
from .warmstart import true_pairs

PAIRS = 32  # evenly spread over all slices of these heads


def kept_pairs(sets: Sets) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """True pairs x and y of the heads that the training is stopped by, and masks of these heads.

    (N, H, W, 1) each, N at most PAIRS. None if there are no such heads.
    """
    chosen = np.isin(sets.x.heads, sets.validation)
    if not chosen.any():
        return None
    x, y, *_ = true_pairs(sets, chosen, PAIRS)
    return x, y, np.stack([head_mask(image[..., 0])[..., None] for image in x])


def validation_error(model: CycleGAN, x: np.ndarray, y: np.ndarray, heads: np.ndarray) -> float:
    """1 minus the correlation with the truth inside the head, mean of all pairs and directions.

    Scans have no unit, so a difference that a straight line removes is no error. The error is 0 if
    such a line removes all, 1 for an even grey, and up to 2 if dark and bright are exchanged.
    """
    ways = (predict(model.G, x), y), (predict(model.F, y), x)
    # For each way N x (H, W, 1) -> the N correlations of those pixels that are in the head.
    slices = [one for way in ways for one in zip(*way, heads, strict=True)]
    with np.errstate(invalid="ignore"):  # of an even grey
        found = [np.corrcoef(made[head], true[head])[0, 1] for made, true, head in slices]
    error = 1 - np.nan_to_num(found).mean()
    return agree(round(1e6 * error)) / 1e6  # one number in all processes: they stop together
