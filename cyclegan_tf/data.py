"""Slices → training and held-out sets, prepared once a run and kept in its folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import InputError, phantom
from .images import INTENSITY_RULE, Frame, find_domains, list_images, read_image, read_images
from .metrics import find_pairs
from .presets import Preset
from .runs import SIMULATED, Run, write_atomically

BLOCK = 5  # consecutive slices that go to the same set where the sets are made disjoint
WATCHED = 4  # slices in a snapshot
IMAGES = ("t1_images", "t2_images", "truth", "labels")  # what is kept of `Sets`
ARRAYS = ("t1_names", "t2_names", "t1_train", "t2_train", "pairs")


@dataclass(frozen=True, eq=False)
class Sets:
    """The T1 and the T2 images of a run, what is trained on, and what is known of the truth."""

    t1_images: list[np.ndarray]
    """Float32 (H, W) in [-1, 1] as read, of any size each; `t2_images` likewise."""
    t2_images: list[np.ndarray]
    t1_names: np.ndarray
    """File names."""
    t2_names: np.ndarray
    t1_train: np.ndarray
    """Boolean (N,): the image is in training."""
    t2_train: np.ndarray
    pairs: np.ndarray
    """(P, 2) indices of T1 and T2 images that show the same slice of the same head."""
    truth: list[np.ndarray]
    """The true T2 (H, W) of every T1 image where the data set has a folder of them, else empty."""
    labels: list[np.ndarray]
    """uint8 (H, W) for every T1 image, where known: 1 CSF, 2 grey, 3 white matter, 0 others."""
    frame: Frame

    @cached_property
    def t1(self) -> np.ndarray:
        """All T1 images framed for the networks: float32 (N, height, width, 1)."""
        return np.stack([self.frame.apply(image) for image in self.t1_images])

    @cached_property
    def t2(self) -> np.ndarray:
        """All T2 images framed for the networks."""
        return np.stack([self.frame.apply(image) for image in self.t2_images])

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """The framed T1 and T2 images to train on."""
        return self.t1[self.t1_train], self.t2[self.t2_train]

    @property
    def true_t2(self) -> list[np.ndarray | None]:
        """The true T2 (H, W) of every T1 image, None where it is not known."""
        return list(self.truth) or _partners(self.pairs, len(self.t1_images), self.t2_images)

    @property
    def true_t1(self) -> list[np.ndarray | None]:
        """The true T1 (H, W) of every T2 image, None where it is not known."""
        return _partners(self.pairs[:, ::-1], len(self.t2_images), self.t1_images)

    @property
    def t1_split(self) -> list[str]:
        """`train`, `held_out`, or `other` for every T1 image left out whose T2 is trained on."""
        return _splits(self.t1_train, _partners(self.pairs, len(self.t1_train), self.t2_train))

    @property
    def t2_split(self) -> list[str]:
        """For every T2 image what `t1_split` says of the T1 images."""
        partners = _partners(self.pairs[:, ::-1], len(self.t2_train), self.t1_train)
        return _splits(self.t2_train, partners)


def _partners(pairs: np.ndarray, count: int, values: Sequence) -> list:
    known = {own: values[other] for own, other in pairs.tolist()}
    return [known.get(index) for index in range(count)]


def _splits(train: np.ndarray, partner_trains: list) -> list[str]:
    return [
        "train" if own else "other" if partner else "held_out"
        for own, partner in zip(train, partner_trains, strict=True)
    ]


def watched(train: np.ndarray) -> np.ndarray:
    """Indices of the slices that snapshots show: spread over those not in `train`, or over all."""
    held_out = np.flatnonzero(~train)
    indices = held_out if len(held_out) else np.arange(len(train))
    return indices[np.linspace(0, len(indices) - 1, WATCHED).astype(int)]


def prepare(run: Run) -> Sets:
    """Read the run's images, find pairs, split them, and keep all that in its `data.npz`.

    What is there for the same settings is taken as it is. Counts go into the run's record. Raises
    InputError for images or a holdout that cannot be trained on.
    """
    try:
        sets = load(run)
    except InputError:
        sets = _read(run)
        _save(run, sets)
    run.update(data=_summary(sets, run.preset))
    return sets


def load(run: Run) -> Sets:
    """What `prepare` has left in the run's folder.

    Raises InputError if that is absent, damaged, or made with other settings.
    """
    path, advice = run.folder / "data.npz", "run notebooks/01_preprocessing first"
    if not path.is_file():
        raise InputError(f"{path} is not there: {advice}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            settings = json.loads(str(file["settings"]))
            images = {name: _unpack(file[name], file[f"{name}_shapes"]) for name in IMAGES}
            arrays = {name: file[name] for name in ARRAYS}
        frame = _frame(images["t1_images"] + images["t2_images"], run.preset)
        sets = Sets(**images, **arrays, frame=frame)
    except Exception as error:  # there is hardly one that is not raised by a damaged file
        raise InputError(f"{path} is damaged ({error}): {advice}.") from None
    if settings != _settings(run):
        raise InputError(f"{path} was made with other settings ({settings}): {advice}.")
    return sets


def _save(run: Run, sets: Sets) -> None:
    arrays = {name: getattr(sets, name) for name in ARRAYS}
    for name in IMAGES:
        images = getattr(sets, name)
        arrays[name], arrays[f"{name}_shapes"] = _pack(images), [image.shape for image in images]
    with write_atomically(run.path("data.npz")) as partial:
        np.savez(partial, settings=json.dumps(_settings(run)), **arrays)


def _settings(run: Run) -> dict[str, Any]:
    seed = {"seed": run.preset.seed} if run.data == SIMULATED else {}
    preset = {"holdout": run.preset.holdout, "disjoint": run.preset.disjoint}
    return {"source": run.data} | seed | preset


def _pack(images: list[np.ndarray]) -> np.ndarray:
    """Images of any sizes as one array: each at the top left of its layer."""
    height, width = np.max([image.shape for image in images] or [(0, 0)], axis=0)
    packed = np.zeros((len(images), height, width), images[0].dtype if images else np.float32)
    for layer, image in zip(packed, images, strict=True):
        layer[: image.shape[0], : image.shape[1]] = image
    return packed


def _unpack(packed: np.ndarray, shapes: np.ndarray) -> list[np.ndarray]:
    return [layer[:height, :width] for layer, (height, width) in zip(packed, shapes, strict=False)]


def _frame(images: list[np.ndarray], preset: Preset) -> Frame:
    return Frame.of([image.shape for image in images], preset)


def _read(run: Run) -> Sets:
    preset = run.preset
    t1_folder, t2_folder = find_domains(*_sources(run))
    t1_paths, t2_paths = list_images(t1_folder), list_images(t2_folder)
    for folder, paths in ((t1_folder, t1_paths), (t2_folder, t2_paths)):
        if len(paths) < 2:
            raise InputError(f"{folder} holds a single image: expected 2 or more.")
    t1, t2 = read_images(t1_paths, "t1"), read_images(t2_paths, "t2")
    if len(t1) == len(t2) and all(map(np.array_equal, t1, t2)):
        raise InputError(f"{t1_folder} and {t2_folder} hold the same images: expected T1 and T2.")
    truth, labels = _read_truth(t1_folder, t2_folder, t1_paths)
    for path, *images in zip(t1_paths, t1, *filter(len, (truth, labels)), strict=True):
        if len({image.shape for image in images}) > 1:
            raise InputError(f"{path} and its truth differ in size: expected one size.")

    canvas = _frame(t1 + t2, replace(preset, fit="pad"))
    found = find_pairs(*(np.stack([canvas.apply(image) for image in side]) for side in (t1, t2)))
    pairs = np.stack([found.t1, found.t2], axis=1)
    pairs = pairs[[t1[i].shape == t2[j].shape for i, j in pairs]]

    t1_train = ~_held_out(preset.holdout, t1_paths)
    t2_train = np.ones(len(t2), bool)
    t2_train[pairs[~t1_train[pairs[:, 0]], 1]] = False
    if preset.disjoint:
        _make_disjoint(t1_train, t2_train, pairs)
    for name, train in (("T1", t1_train), ("T2", t2_train)):
        if train.sum() < 2:
            raise InputError(
                f"holdout {preset.holdout!r} and disjoint {str(preset.disjoint).lower()} leave "
                f"{train.sum()} of {len(train)} {name} images to train on: expected 2 or more."
            )
    names = [np.array([path.name for path in paths]) for paths in (t1_paths, t2_paths)]
    frame = _frame(t1 + t2, preset)
    return Sets(t1, t2, *names, t1_train, t2_train, pairs, truth, labels, frame)


def _sources(run: Run) -> list[Path]:
    if run.data != SIMULATED:
        return [Path(run.data)] if isinstance(run.data, str) else [Path(f) for f in run.data]
    folder = run.path("simulated")
    with contextlib.suppress(FileNotFoundError):  # of another seed, or unfinished
        shutil.rmtree(folder)
    return [phantom.write_dataset(folder, run.preset.seed)]


def _read_truth(t1_folder: Path, t2_folder: Path, t1_paths: list[Path]) -> tuple[list, list]:
    """`Truth/T2` and `Truth/labels` beside the two folders, by the T1 images' file names."""
    folder = Path(os.path.commonpath([t1_folder, t2_folder])) / "Truth"
    truth, labels = [], []
    if (folder / "T2").is_dir():
        truth = read_images([folder / "T2" / path.name for path in t1_paths], "t2")
    if (folder / "labels").is_dir():
        labels = [read_image(folder / "labels" / path.name) for path in t1_paths]
    return truth, labels


def _held_out(holdout: str, paths: list[Path]) -> np.ndarray:
    """Boolean (N,) of the images that `holdout` names: 28-32,46 or file names or their stems."""
    numbers = [int((re.findall(r"\d+", path.stem) or ["-1"])[-1]) for path in paths]
    held_out = np.zeros(len(paths), bool)
    for item in holdout.split(",") if holdout else []:
        item = item.strip()
        matches = [item in (path.name, path.stem) for path in paths]
        if not any(matches) and (span := re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", item)):
            first, last = int(span[1]), int(span[2] or span[1])
            matches = [first <= number <= last for number in numbers]
        if not any(matches):
            raise InputError(
                f"holdout names {item!r}, which is no T1 image: expected numbers or names in "
                f"{paths[0].parent}, from {paths[0].name} to {paths[-1].name}."
            )
        held_out |= matches
    return held_out


def _make_disjoint(t1_train: np.ndarray, t2_train: np.ndarray, pairs: np.ndarray) -> None:
    """Take one image of every pair out of training: no T1 image's true partner is trained on.

    The pairs in training, in the order of the T1 images, are cut into blocks of BLOCK, and go by
    turns to T1 and to T2. Images without a partner stay.
    """
    training = pairs[t1_train[pairs[:, 0]]]
    for_t2 = np.arange(len(training)) // BLOCK % 2 == 1
    t1_train[training[for_t2, 0]] = False
    t2_train[training[~for_t2, 1]] = False


def _summary(sets: Sets, preset: Preset) -> dict[str, Any]:
    sizes = sorted({image.shape for image in sets.t1_images + sets.t2_images})
    no_effect = "no effect: no pairs are known"
    return {
        "t1_images": len(sets.t1_images),
        "t2_images": len(sets.t2_images),
        "t1_train": int(sets.t1_train.sum()),
        "t2_train": int(sets.t2_train.sum()),
        "t1_held_out": sets.t1_split.count("held_out"),
        "t2_held_out": sets.t2_split.count("held_out"),
        "pairs": len(sets.pairs),
        "truth": bool(sets.truth),
        "disjoint": preset.disjoint and (len(sets.pairs) > 0 or no_effect),
        "smallest_shape": sizes[0],
        "largest_shape": sizes[-1],
        "frame": [sets.frame.height, sets.frame.width],
        "intensities": INTENSITY_RULE,
    }
