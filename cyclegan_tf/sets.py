"""The T1 and the T2 images of a run, framed for the networks, and what is known of their truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from .scans.frame import Frame
from .scans.scan import Scan
from .scans.store import Stored

WATCHED = 4  # slices in a snapshot
RESIZED = ".resized"  # behind the folder of the images


@dataclass(frozen=True, eq=False)
class Partners(Sequence):
    """The images of the given numbers, or None where the number is None."""

    images: Sequence[np.ndarray]
    numbers: list[int | None]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> np.ndarray | None:
        number = self.numbers[index]
        return None if number is None else self.images[number]


@dataclass(frozen=True, eq=False)
class Framed:
    """Some of the images, framed for the networks when they are asked for."""

    images: Sequence[np.ndarray]
    frame: Frame
    members: np.ndarray
    """Which of the images: their numbers."""
    boxes: np.ndarray
    """(N, 4) of all images, what to frame of them: rows and columns from, and up to; 0: all."""

    def cut(self, number: int, image: np.ndarray) -> np.ndarray:
        """What is framed of an image (H, W) that shows the same slice as this one of the images."""
        top, left, bottom, right = self.boxes[number]
        return image[top : bottom or None, left : right or None]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.members), self.frame.height, self.frame.width, 1

    @property
    def files(self) -> Stored:
        """All the images on disk, at the networks' scale: resized ones are kept beside the others.

        What they lack of the frame is black around them.
        """
        if self.frame.fit == "pad":
            return self.images
        shapes = np.tile([self.frame.height, self.frame.width], (len(self.images), 1))
        return Stored(self.images.folder.with_suffix(RESIZED), shapes)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, chosen: int | slice | Sequence[int]) -> np.ndarray:
        """Float32 (height, width, 1) of one image, (n, height, width, 1) of several."""
        numbers = self.members[chosen]
        if numbers.ndim == 0:
            return self.frame.apply(self.cut(numbers, self.images[numbers]))
        return np.stack([self.frame.apply(self.cut(k, self.images[k])) for k in numbers])


@dataclass(frozen=True, eq=False)
class Sets:
    """The T1 and the T2 images of a run, what is trained on, and what is known of the truth."""

    t1_images: Sequence[np.ndarray]
    """Float32 (H, W) in [-1, 1] as read, of any size each; `t2_images` likewise."""
    t2_images: Sequence[np.ndarray]
    t1_names: np.ndarray
    """File names, and of volumes the number of the slice."""
    t2_names: np.ndarray
    t1_heads: np.ndarray
    """Whose image it is: what has one name is held out together, and `disjoint` keeps its T1 from
    its T2. The subject of a volume; of single images the T1 image, and its name in `t2_heads`."""
    t2_heads: np.ndarray
    t1_train: np.ndarray
    """Boolean (N,): the image is in training."""
    t2_train: np.ndarray
    pairs: np.ndarray
    """(P, 2) indices of T1 and T2 images that show the same slice of the same head."""
    truth: Sequence[np.ndarray]
    """The true T2 (H, W) of every T1 image where the data set has a folder of them, else empty."""
    labels: Sequence[np.ndarray]
    """Of every T1 image, (H, W), where known: 1 CSF, 2 grey, 3 white matter, 0 others."""
    t1_boxes: np.ndarray
    """(N, 4) the box of its scan's head, as `Framed.boxes`; 0 of an 8-bit image."""
    t2_boxes: np.ndarray
    frame: Frame

    @property
    def t1(self) -> Framed:
        """All T1 images framed for the networks."""
        return Framed(self.t1_images, self.frame, np.arange(len(self.t1_images)), self.t1_boxes)

    @property
    def t2(self) -> Framed:
        """All T2 images framed for the networks."""
        return Framed(self.t2_images, self.frame, np.arange(len(self.t2_images)), self.t2_boxes)

    def scans(self, contrast: str, members: Iterable[int]) -> list[Scan]:
        """Scans of the images of these numbers, in their order, as translation takes them.

        The slices of a volume that follow each other are one scan, with the box that all its
        slices have; an 8-bit image is a scan by itself.
        """
        images, boxes = (getattr(self, f"{contrast}_{name}") for name in ("images", "boxes"))

        def alike(k: int) -> tuple:
            return (*boxes[k], *images.shapes[k], 0 if boxes[k].any() else k)

        scans = []
        for (top, left, bottom, right, *_), numbers in groupby(members, alike):
            stack = np.stack([images[k] for k in numbers])  # n x (H, W) -> (n, H, W)
            scan, box = Scan.of(stack, contrast), (slice(top, bottom), slice(left, right))
            scans.append(replace(scan, box=box) if bottom else scan)
        return scans

    @property
    def train(self) -> tuple[Framed, Framed]:
        """The framed T1 and T2 images to train on."""
        return (
            replace(self.t1, members=np.flatnonzero(self.t1_train)),
            replace(self.t2, members=np.flatnonzero(self.t2_train)),
        )

    @property
    def true_t2(self) -> Sequence[np.ndarray | None]:
        """The true T2 (H, W) of every T1 image, None where it is not known."""
        known = dict(self.pairs.tolist())
        return self.truth or Partners(self.t2_images, [*map(known.get, range(len(self.t1)))])

    @property
    def true_t1(self) -> Sequence[np.ndarray | None]:
        """The true T1 (H, W) of every T2 image, None where it is not known."""
        known = dict(self.pairs[:, ::-1].tolist())
        return Partners(self.t1_images, [*map(known.get, range(len(self.t2)))])

    @property
    def t1_split(self) -> list[str]:
        """`train`, `held_out`, or `other` for every T1 image left out whose T2 is trained on."""
        return _splits(self.t1_train, np.isin(self.t1_heads, self.t2_heads[self.t2_train]))

    @property
    def t2_split(self) -> list[str]:
        """For every T2 image what `t1_split` says of the T1 images."""
        return _splits(self.t2_train, np.isin(self.t2_heads, self.t1_heads[self.t1_train]))


def _splits(train: np.ndarray, partner_trains: np.ndarray) -> list[str]:
    return [
        "train" if own else "other" if partner else "held_out"
        for own, partner in zip(train, partner_trains, strict=True)
    ]


def watched(train: np.ndarray) -> np.ndarray:
    """Indices of the slices that snapshots show: spread over those not in `train`, or over all."""
    held_out = np.flatnonzero(~train)
    indices = held_out if len(held_out) else np.arange(len(train))
    return indices[np.linspace(0, len(indices) - 1, WATCHED).astype(int)]
