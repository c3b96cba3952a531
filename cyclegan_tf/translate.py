"""A trained generator applied to images."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

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
