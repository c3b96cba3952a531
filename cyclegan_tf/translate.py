"""A trained generator applied to images."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from scipy import ndimage

from . import InputError, layers  # noqa: F401 (registers the layers in the files)

DIRECTIONS = ("t1_to_t2", "t2_to_t1")


def load_generator(path: Path) -> keras.Model:
    """A generator from the `.keras` file of a run, in safe mode: no code in the file is run.

    Raises InputError for a file that is no model, or no generator of this project.
    """
    try:
        generator = keras.saving.load_model(path, compile=False, safe_mode=True)
        shapes = generator.input_shape, generator.output_shape
    except Exception as error:  # whatever a file that is no model makes the readers raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no model that can be loaded safely ({reason}).") from None
    if shapes != ((None, None, None, 1),) * 2:
        raise InputError(f"{path} maps {shapes[0]} to {shapes[1]}: expected grey images to grey.")
    return generator


def translate(generator: keras.Model, images: np.ndarray) -> np.ndarray:
    """The generator's output for framed images (N, h, w, 1) in [-1, 1], same shape and range."""
    return generator.predict(images, batch_size=8, verbose=0)


def views(generator: keras.Model, images: np.ndarray) -> np.ndarray:
    """Eight translations (8, N, h, w, 1) of framed images, to compare and to average.

    Of the images as they are, mirrored left-right, up-down and both ways, and of each of these
    also moved by a pixel (which the generators, working at half resolution, see differently) and
    darkened by a tenth; each output is set back in place. The first is that of `translate`.
    """
    outputs = []
    for axes in ((), (2,), (1,), (1, 2)):
        for pixels, gain in ((0, 1.0), (1, 0.9)):
            moved = np.roll(np.flip(images, axes), pixels, axis=(1, 2))
            output = translate(generator, gain * moved + (gain - 1))
            outputs.append(np.flip(np.roll(output, -pixels, axis=(1, 2)), axes))
    return np.stack(outputs)


def trust_map(views: np.ndarray) -> np.ndarray:
    """Where the mean of `views` is likely wrong: (N, h, w), the higher the less it is to trust.

    The standard deviation of the views on the intensity scale [0, 1], blurred by half a pixel:
    where the anatomy does not decide the output, an accident of the view does (test-time
    augmentation: Wang et al., Neurocomputing 338:34, 2019).
    """
    return ndimage.gaussian_filter(views[..., 0].std(axis=0) / 2, (0, 0.5, 0.5))
