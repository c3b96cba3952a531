"""The images x and y of a run, framed for the networks, and what is known of their truth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from ..contrasts import HEAD, T1_T2, Contrasts
from ..scans.frame import Frame
from ..scans.scan import Scan

WATCHED = 4  # slices in a snapshot
RESIZED = ".resized"  # behind the folder of the images


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


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one contrast, framed for the networks when they are asked for.

    These are the `members`, all or some of `images`; what is known of each stands in arrays of N,
    all their number.
    """

    images: Sequence[np.ndarray]
    frame: Frame
    members: np.ndarray
    """Which of the images: their numbers."""
    boxes: np.ndarray
    """(N, 4), what to frame of each: rows and columns from, and up to; 0: all."""
    origins: np.ndarray
    """The number of the source."""
    names: np.ndarray
    """File names, and of volumes the number of the slice."""
    heads: np.ndarray
    """Whose image it is: what has one name is held out together, and `disjoint` keeps its x from
    its y. The subject of a volume; of single images the image x, also for its y."""
    train: np.ndarray
    """Boolean: the image is in training."""

    @property
    def parts(self) -> list[np.ndarray]:
        """Places of the members, by their source: each has the same share of what is drawn."""
        whose = self.origins[self.members]
        return [np.flatnonzero(whose == number) for number in np.unique(whose)]

    def cut(self, number: int, image: np.ndarray) -> np.ndarray:
        """The part to frame of an image (H, W) of the same slice as the image of this number."""
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
    """The images x and y of a run, what is trained on, and what is known of the truth."""

    x: ImageSet
    y: ImageSet
    pairs: np.ndarray
    """(P, 2) indices of images x and y that show the same slice of the same head."""
    truth: Sequence[np.ndarray] = ()
    """The true y (H, W) of every image x where the data set has a folder of them, else empty."""
    labels: Sequence[np.ndarray] = ()
    """Of every image x, (H, W), where known: 1 CSF, 2 grey, 3 white matter, 0 others."""
    contrasts: Contrasts = T1_T2
    body_part: str = HEAD
    validation: Sequence[str] = ()
    """Heads neither trained on nor held out, which say when to stop the training."""

    @property
    def frame(self) -> Frame:
        return self.x.frame

    def scans(self, side: str, members: Iterable[int]) -> list[Scan]:
        """Scans of the images x or y of these numbers, in their order, as translation takes them.

        The slices of a volume that follow each other are one scan, with the box that all its
        slices have; an 8-bit image is a scan by itself.
        """
        chosen = getattr(self, side)
        images, boxes = chosen.images, chosen.boxes

        def alike(k: int) -> tuple:
            return (*boxes[k], *images.shapes[k], 0 if boxes[k].any() else k)

        scans = []
        for (top, left, bottom, right, *_), numbers in groupby(members, alike):
            stack = np.stack([images[k] for k in numbers])  # n x (H, W) -> (n, H, W)
            scan = Scan.of(stack, getattr(self.contrasts, side), self.body_part)
            box = slice(top, bottom), slice(left, right)
            scans.append(replace(scan, box=box) if bottom else scan)
        return scans

    @property
    def train(self) -> tuple[ImageSet, ImageSet]:
        """The framed images x and y to train on."""
        x, y = (replace(one, members=np.flatnonzero(one.train)) for one in (self.x, self.y))
        return x, y

    def truth_of(self, side: str, number: int) -> np.ndarray | None:
        """The true image (H, W) of the other contrast of image x or y; None if it is not known."""
        if side == "x" and self.truth:
            return self.truth[number]
        own, partner = self.pairs.T if side == "x" else self.pairs.T[::-1]
        images = self.y.images if side == "x" else self.x.images
        return next((images[k] for k in partner[own == number]), None)

    @property
    def x_split(self) -> list[str]:
        """For every image x `train`, `validation`, `held_out`, or `other`: its y is trained on."""
        return self._splits(self.x, self.y)

    @property
    def y_split(self) -> list[str]:
        """For every image y what `x_split` says of the images x."""
        return self._splits(self.y, self.x)

    def _splits(self, own: ImageSet, other: ImageSet) -> list[str]:
        kept, partners = (
            np.isin(own.heads, heads) for heads in (self.validation, other.heads[other.train])
        )
        known = own.train, kept, partners
        return np.select(known, ["train", "validation", "other"], "held_out").tolist()


def watched(train: np.ndarray) -> np.ndarray:
    """Indices of the slices that snapshots show: spread over those not in `train`, or over all."""
    held_out = np.flatnonzero(~train)
    indices = held_out if len(held_out) else np.arange(len(train))
    return indices[np.linspace(0, len(indices) - 1, WATCHED).astype(int)]
