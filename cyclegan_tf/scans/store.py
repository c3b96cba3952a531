"""Images kept on disk, one by one, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(eq=False)
class Stored(Sequence):
    """Images (H, W) of any sizes on disk, each read when it is asked for.

    A file for each, named by its number: float32 pixels and nothing else, which TensorFlow reads
    without Python (whose threads may keep an interrupted process from ending).
    """

    folder: Path
    shapes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), int))
    """(N, 2) heights and widths."""

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06}"

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        return np.fromfile(self.path(index), np.float32).reshape(self.shapes[index])

    def add(self, image: np.ndarray) -> None:
        """Write one more image."""
        self.folder.mkdir(parents=True, exist_ok=True)
        image.astype(np.float32).tofile(self.path(len(self)))
        self.shapes = np.append(self.shapes, [image.shape], axis=0)
