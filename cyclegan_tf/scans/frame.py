"""The size at which images go through the networks: resize or pad, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .. import InputError
from ..presets import Preset
from .arrays import resize

MULTIPLE = 32  # sides of a frame, in pixels: a multiple of every network's stride


@dataclass(frozen=True)
class Frame:
    """The size at which images go through the networks, and the way there and back.

    `pad` sets an image into the middle of black and cuts it out again, losing nothing; an image
    that is larger than the frame needs a frame of its own. `resize` is bilinear, as published,
    with smoothing where it shrinks; it changes the aspect ratio and loses detail.
    """

    fit: str
    height: int
    width: int

    @classmethod
    def of(cls, shapes: Iterable[Sequence[int]], preset: Preset, multiple: int = MULTIPLE) -> Frame:
        """The frame of images of the shapes (H, W): sides are rounded up to the `multiple`.

        `pad` takes the largest height and width among them, `resize` the preset's `size`.
        """
        square = [(preset.size, preset.size)]
        sides = np.max(square if preset.fit == "resize" else list(shapes), axis=0)
        height, width = (int(side) for side in -(-sides // multiple) * multiple)
        return cls(preset.fit, height, width)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Images (…, H, W) → float32 (…, height, width, 1). Raises InputError if too large."""
        images = np.asarray(images, np.float32)
        *rest, height, width = images.shape
        if self.fit == "resize":
            return resize(images, (self.height, self.width))[..., None]
        above, left = self._offset(height, width)
        if above < 0 or left < 0:
            raise InputError(
                f"An image is {width} x {height} pixels: expected at most "
                f"{self.width} x {self.height}, as the images that its frame was made for."
            )
        framed = np.full((*rest, self.height, self.width, 1), -1, np.float32)
        framed[..., above : above + height, left : left + width, 0] = images
        return framed

    def invert(self, framed: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Framed images (…, height, width, 1) → (…, H, W), where `shape` is (H, W)."""
        images, (height, width) = framed[..., 0], shape
        if self.fit == "resize":
            return resize(images, (height, width))
        above, left = self._offset(height, width)
        return images[..., above : above + height, left : left + width]

    def _offset(self, height: int, width: int) -> tuple[int, int]:
        return (self.height - height) // 2, (self.width - width) // 2
