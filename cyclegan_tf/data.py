"""Slices → training and held-out sets, prepared once a run and kept in its folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from skimage.filters import threshold_li
from tqdm.auto import tqdm

from . import InputError
from .presets import Preset
from .runs import SIMULATED, Run, write_atomically
from .scans.folders import Identity, find_domains, find_scans, identify, same_heads
from .scans.frame import Frame
from .scans.images import read_image
from .scans.intensity import INTENSITY_RULE
from .scans.scan import Scan, read_scans
from .scans.store import Stored
from .scans.volumes import is_volume
from .simulation import phantom
from .study.metrics import find_pairs

BLOCK = 5  # consecutive slices that go to the same set where the sets are made disjoint
WATCHED = 4  # slices in a snapshot
LEAST_HEAD = 0.1  # of a slice of a volume: one that shows less of the head is left out
SLICES = (
    f"{{}}, pixels of 1 mm, each volume on its own scale; left out: less than {LEAST_HEAD:.0%} of "
    "it above the volume's threshold of Li & Tam (1998)"
)
SIDES = ("t1", "t2")
IMAGES = ("t1_images", "t2_images", "truth", "labels")
ARRAYS = ("t1_names", "t2_names", "t1_heads", "t2_heads", "t1_train", "t2_train", "pairs")
BOXES = ("t1_boxes", "t2_boxes")


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
    boxes: np.ndarray | None = None
    """(N, 4) of all images: the first row and column to frame, and those after the last."""

    def cut(self, number: int, image: np.ndarray) -> np.ndarray:
        """What is framed of an image (H, W) that shows the same slice as this one of the images."""
        if self.boxes is None:
            return image
        top, left, bottom, right = self.boxes[number]
        return image[top:bottom, left:right]

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
        return Stored(self.images.folder.with_suffix(".resized"), shapes)

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
    """(N, 4) the box of its scan's head as `Framed.boxes`; 0 of an 8-bit image, framed whole."""
    t2_boxes: np.ndarray
    frame: Frame

    @property
    def t1(self) -> Framed:
        """All T1 images framed for the networks."""
        return _framed(self.t1_images, self.frame, self.t1_boxes)

    @property
    def t2(self) -> Framed:
        """All T2 images framed for the networks."""
        return _framed(self.t2_images, self.frame, self.t2_boxes)

    def scans(self, contrast: str, members: Iterable[int]) -> list[Scan]:
        """Scans of the images of these numbers, in their order, as translation takes them.

        The slices of a volume that follow each other are one scan, with the box that all its
        slices have; an 8-bit image is a scan by itself.
        """
        images, boxes = (getattr(self, f"{contrast}_{name}") for name in ("images", "boxes"))
        scans = []
        for key, numbers in groupby(members, lambda k: tuple(boxes[k]) if any(boxes[k]) else k):
            stack = np.stack([images[k] for k in numbers])  # n x (H, W) -> (n, H, W)
            scan = Scan.of(stack, contrast)
            if isinstance(key, tuple):
                top, left, bottom, right = key
                scan = replace(scan, box=(slice(top, bottom), slice(left, right)))
            scans.append(scan)
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


def _framed(images: Stored, frame: Frame, boxes: np.ndarray) -> Framed:
    return Framed(images, frame, np.arange(len(images)), _filled(boxes, images.shapes))


def _filled(boxes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """The boxes of images of these shapes, whole where there is none."""
    whole = np.concatenate([0 * shapes, shapes], axis=1)  # (N, 2) -> (N, 4)
    return np.where(boxes.any(axis=1, keepdims=True), boxes, whole)


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


def prepare(run: Run) -> Sets:
    """Read the run's images, find pairs, split them, and keep all that in the run's folder.

    `images/` holds the images, `data.npz` the rest. What is there for the same settings is taken
    as it is. Counts go into the run's record. Volumes are read one by one and never all held in
    memory. Raises InputError for images or a holdout that cannot be trained on, and where another
    process is at work in the folder.
    """
    with run.alone():
        try:
            sets = load(run)
        except InputError:
            _make(run)
            sets = load(run)
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
            arrays = {name: file[name] for name in ARRAYS}
            images = {
                name: Stored(run.folder / "images" / name, file[f"{name}_shapes"])
                for name in IMAGES
            }
            for name, side in zip(BOXES, IMAGES, strict=False):  # versions before 0.2 have none
                none = np.zeros((len(images[side]), 4), int)
                arrays[name] = file[name] if name in file.files else none
        sets = Sets(**images, **arrays, frame=_frame(images, arrays, run.preset))
        for stored in (*images.values(), sets.t1.files, sets.t2.files):
            for index, shape in enumerate(stored.shapes):
                if stored.path(index).stat().st_size != 4 * shape.prod():
                    raise ValueError(f"{stored.path(index)} is not {shape} pixels")
    except Exception as error:  # a damaged file makes the readers raise any kind
        raise InputError(f"{path} is damaged ({error}): {advice}.") from None
    if settings != _settings(run):
        raise InputError(f"{path} was made with other settings ({settings}): {advice}.")
    return sets


def _make(run: Run) -> None:
    """Leave what `load` reads: `data.npz` last, for without it `images/` counts as unfinished."""
    aside, folder = run.path(".partial-images"), run.path("images")
    shutil.rmtree(aside, ignore_errors=True)  # of a killed notebook
    aside.mkdir()
    try:
        images, arrays = _read(run, aside)
        frame = _frame(images, arrays, run.preset)
        if frame.fit == "resize":
            for name in IMAGES[:2]:
                every = Framed(images[name], frame, np.arange(len(images[name])))
                Stored(every.files.folder, []).append(one[..., 0] for one in every)
        shapes = {f"{name}_shapes": stored.shapes for name, stored in images.items()}
        run.path("data.npz").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    with write_atomically(run.path("data.npz")) as partial:
        np.savez(partial, settings=json.dumps(_settings(run)), **arrays, **shapes)


def _settings(run: Run) -> dict[str, Any]:
    preset = run.preset
    seed = {"seed": preset.seed} if run.data == SIMULATED else {}
    size = {"size": preset.size} if preset.fit == "resize" else {}
    used = ("fit", "plane", "holdout", "disjoint")
    return {"source": run.data} | seed | size | {name: getattr(preset, name) for name in used}


def _frame(images: dict[str, Stored], arrays: dict[str, np.ndarray], preset: Preset) -> Frame:
    boxes = [_filled(arrays[f"{s}_boxes"], images[f"{s}_images"].shapes) for s in ("t1", "t2")]
    return Frame.of(np.concatenate(boxes) @ [[-1, 0], [0, -1], [1, 0], [0, 1]], preset)


@dataclass(frozen=True, eq=False)
class Slice:
    """An image of a training set, and what is known of it."""

    image: np.ndarray
    """Float32 (H, W) in [-1, 1]."""
    source: Path
    name: str
    known_as: tuple[str, ...]
    """Names by which a holdout may name it; the first is that of the head."""
    box: tuple[int, ...] = (0, 0, 0, 0)
    """As `Sets.t1_boxes`."""
    place: tuple = ()
    """Of a volume's: its scan, its shape and the slice's number, alike in T1w and T2w."""


def _read(run: Run, folder: Path) -> tuple[dict[str, Stored], dict[str, np.ndarray]]:
    """The run's images, written into `folder`, and ARRAYS and BOXES."""
    preset = run.preset
    domains = find_domains(*_sources(run))
    paths = []
    for domain, contrast in zip(domains, ("T1w", "T2w"), strict=True):
        found = find_scans(domain, contrast)
        paths.append(found.scans)
        for sentence in found.sentences:
            print(sentence)
    volumes = [sum(map(is_volume, found)) for found in paths]
    if any(volumes) and not all(volumes):
        found = " and ".join(f"{n} in {d}" for n, d in zip(volumes, domains, strict=True))
        raise InputError(f"T1 and T2 volumes are {found}: expected some of both, or images alone.")
    images = {name: Stored(folder / name, []).append([]) for name in IMAGES}
    arrays, sides = {}, []
    people = _people(paths, domains) if all(volumes) else {}
    for side, sources in zip(SIDES, paths, strict=True):
        progress = tqdm(sources, f"reading {side.upper()}", disable=len(sources) < 2, unit="scan")
        slices = _slices(read_scans(progress, side, [preset.plane]), people, preset)
        if not all(volumes):  # in the order of their names, 8 bits and 16
            slices = sorted(slices, key=lambda one: sources.index(one.source))
        images[f"{side}_images"], known = _stored(images[f"{side}_images"], slices)
        sides.append(known)
        arrays[f"{side}_names"] = np.array([one.name for one in known])
        arrays[f"{side}_boxes"] = np.array([one.box for one in known]).reshape(-1, 4)
    if all(volumes):
        arrays["pairs"] = _pairs_by_scan(images["t1_images"], images["t2_images"], *sides)
        heads = [[one.known_as[0] for one in side] for side in sides]
        run.update(data=_counts(volumes, sides, preset))
    else:
        truth, labels = _read_truth(*domains, paths[0])
        for name, stack in (("truth", truth), ("labels", labels)):
            images[name] = images[name].append(stack)
        _check_images(images, domains, paths[0])
        arrays["pairs"] = _pairs_by_content(images["t1_images"], images["t2_images"], preset)
        heads = [[one.name for one in sides[0]], [""] * len(sides[1])]
        for t1, t2 in arrays["pairs"]:
            heads[1][t2] = heads[0][t1]
    arrays |= {f"{side}_heads": np.array(found) for side, found in zip(SIDES, heads, strict=True)}
    known = [one.known_as for side in sides[: 1 + all(volumes)] for one in side]
    held_out = _named(preset.holdout, [*dict.fromkeys(known)], "holdout", domains[0])
    for side in SIDES:
        arrays[f"{side}_train"] = ~np.isin(arrays[f"{side}_heads"], held_out)
    if preset.disjoint:
        _make_disjoint(arrays, block=1 if all(volumes) else BLOCK)
    for side in SIDES:
        train = arrays[f"{side}_train"]
        if train.sum() < 2:
            raise InputError(
                f"holdout {preset.holdout!r} and disjoint {str(preset.disjoint).lower()} leave "
                f"{train.sum()} of {len(train)} {side.upper()} images to train on: expected 2 or "
                "more."
            )
    return images, arrays


def _people(paths: Sequence[list[Path]], domains: Sequence[Path]) -> dict[Path, Identity]:
    """Whose head the volumes of T1 and T2 are; said where nobody is on both sides."""
    sides = [[identify(path, d) for path in p] for p, d in zip(paths, domains, strict=True)]
    sides = same_heads(*sides)
    t1, t2 = ({one.subject: None for one in side} for side in sides)
    if not t1.keys() & t2.keys():
        first = "T1 of {}, T2 of {}".format(*(", ".join([*side][:3]) for side in (t1, t2)))
        print(
            f"By the files' names nobody has both a T1w and a T2w scan ({first}): if somebody has, "
            "name both alike, or a head that is held out is learned from in the other contrast."
        )
    return dict(zip(sum(paths, []), sum(sides, []), strict=True))


def _slices(scans: Iterable[Scan], people: dict[Path, Identity], preset: Preset) -> Iterator[Slice]:
    """The slices to train on: images, and what shows enough of the head in a volume."""
    for scan in scans:
        for doubt in scan.doubts:
            tqdm.write(doubt, file=sys.stderr)
        rows, columns = scan.box
        box = (rows.start, columns.start, rows.stop, columns.stop)
        if preset.fit == "resize" or not (scan.grid or scan.bits == np.uint16):
            box = Slice.box
        if not scan.grid:
            for path, image in zip(scan.sources, scan.slices, strict=True):
                if image.min() == image.max():
                    raise InputError(f"{path} is the same everywhere: expected an image of a head.")
                yield Slice(image, path, path.name, (path.name, path.stem), box)
            continue
        (path,) = scan.sources
        who = people[path]
        for k in _with_head(path, scan.slices):
            place = (who.scan, *scan.slices.shape, k)
            names = (who.subject, path.name, who.stem, who.scan)
            yield Slice(scan.slices[k], path, f"{who.stem} #{k}", names, box, place)


def _stored(images: Stored, slices: Iterable[Slice]) -> tuple[Stored, list[Slice]]:
    """The images and those of the slices, and the slices without their pixels."""
    known = []

    def pixels() -> Iterator[np.ndarray]:
        for one in slices:
            known.append(replace(one, image=np.empty(0)))
            yield one.image

    return images.append(pixels()), known


def _counts(volumes: Sequence[int], sides: Sequence[list[Slice]], preset: Preset) -> dict:
    """What the record says of volumes."""
    data = {"slices": SLICES.format(preset.plane)}
    for side, count, found in zip(SIDES, volumes, sides, strict=True):
        slices = sum({one.source: one.place[1] for one in found}.values())
        data |= {f"{side}_volumes": count, f"{side}_empty_slices": slices - len(found)}
    t1, t2 = ({one.known_as[0] for one in side} for side in sides)
    return data | {"subjects": len(t1 | t2), "subjects_with_both": len(t1 & t2)}


def _check_images(images: dict[str, Stored], domains: Sequence[Path], paths: list[Path]) -> None:
    """Raises InputError where image folders are none of T1 and T2, or the truth is not theirs."""
    t1, t2 = images["t1_images"], images["t2_images"]
    for domain, stored in zip(domains, (t1, t2), strict=True):
        if len(stored) < 2:
            raise InputError(f"{domain} holds a single image: expected 2 or more.")
    if len(t1) == len(t2) and all(map(np.array_equal, t1, t2)):
        raise InputError(f"{domains[0]} and {domains[1]} hold the same images: expected T1 and T2.")
    for name in ("truth", "labels"):
        for path, shape, own in zip(paths, t1.shapes, images[name].shapes, strict=False):
            if (shape != own).any():
                raise InputError(f"{path} and its truth differ in size: expected one size.")


def _pairs_by_content(t1: Stored, t2: Stored, preset: Preset) -> np.ndarray:
    """(P, 2) indices of images of one size that show the same, as mutual information finds it."""
    canvas = Frame.of([*t1.shapes, *t2.shapes], replace(preset, fit="pad"))
    found = find_pairs(*(np.stack([canvas.apply(image) for image in side]) for side in (t1, t2)))
    pairs = np.stack([found.t1, found.t2], axis=1).reshape(-1, 2)
    return pairs[(t1.shapes[pairs[:, 0]] == t2.shapes[pairs[:, 1]]).all(axis=1)]


def _with_head(path: Path, slices: np.ndarray) -> np.ndarray:
    """The numbers of a volume's slices (S, H, W) that show enough of the head."""
    head = np.mean(slices > threshold_li(slices), axis=(1, 2))
    if head.max() < LEAST_HEAD:
        found = f"at most {head.max():.1%} of a slice is bright"
        raise InputError(f"{path} shows no head, {found}: expected {LEAST_HEAD:.0%}.")
    return np.flatnonzero(head >= LEAST_HEAD)


def _pairs_by_scan(
    t1: Stored, t2: Stored, t1_slices: Iterable[Slice], t2_slices: Iterable[Slice]
) -> np.ndarray:
    """(P, 2) indices of slices of the same number in volumes of the same scan and shape.

    They are pairs if mutual information of the middle ones says so. Of several volumes of one
    scan the last one's are taken.
    """
    places = [{one.place: k for k, one in enumerate(side)} for side in (t1_slices, t2_slices)]
    stacks: dict[tuple, list] = {}
    for place in places[0].keys() & places[1].keys():
        stacks.setdefault(place[:-1], []).append((places[0][place], places[1][place]))
    pairs = []
    for stack in map(sorted, stacks.values()):
        i, j = stack[len(stack) // 2]
        if len(find_pairs(t1[i][None, ..., None], t2[j][None, ..., None]).t1):
            pairs += stack
    return np.array(sorted(pairs), int).reshape(-1, 2)


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
        paths = [folder / "T2" / path.name for path in t1_paths]
        found = {
            path: image
            for scan in read_scans(paths, "t2")
            for path, image in zip(scan.sources, scan.slices, strict=True)
        }
        truth = [found[path] for path in paths]
    if (folder / "labels").is_dir():
        labels = [read_image(folder / "labels" / path.name) for path in t1_paths]
    return truth, labels


def named(sets: Sets, chosen: str) -> dict[str, set[str]]:
    """Names of the T1 images that `chosen` names as a `holdout` does, and of the same heads' T2.

    They stand under the directions in which they are the source. Raises InputError as `holdout`.
    """
    known = [(head, Path(head).stem) for head in dict.fromkeys(sets.t1_heads.tolist())]
    heads = _named(chosen, known, "slices", "the run's data")
    return {
        "t1_to_t2": {*sets.t1_names[np.isin(sets.t1_heads, heads)].tolist()},
        "t2_to_t1": {*sets.t2_names[np.isin(sets.t2_heads, heads)].tolist()},
    }


def _named(
    chosen: str, known: list[tuple[str, ...]], parameter: str, place: Path | str
) -> list[str]:
    """The first names of what is chosen: 28-32,46 (numbers in first names), or any name."""
    numbers = [int((re.findall(r"\d+", names[0]) or ["-1"])[-1]) for names in known]
    found = []
    for item in chosen.split(",") if chosen else []:
        item = item.strip()
        matches = [item in names for names in known]
        if not any(matches) and (span := re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", item)):
            first, last = int(span[1]), int(span[2] or span[1])
            matches = [first <= number <= last for number in numbers]
        if not any(matches):
            raise InputError(
                f"{parameter} names {item!r}, which is not in {place}: expected numbers or names "
                f"there, from {known[0][0]} to {known[-1][0]}."
            )
        found += [names[0] for names, match in zip(known, matches, strict=True) if match]
    return found


def _make_disjoint(arrays: dict[str, np.ndarray], block: int) -> None:
    """Take every head in training out of one of the sets: no T1's true partner is trained on.

    The heads in both sets, in the order of the T1 images, are cut into blocks, and go by turns
    to T1 and to T2. Images without a partner stay.
    """
    t1, t2 = arrays["t1_heads"], arrays["t2_heads"]
    partners = set(t2[arrays["t2_train"]])
    shared = [head for head in dict.fromkeys(t1[arrays["t1_train"]]) if head in partners]
    for_t2 = [head for place, head in enumerate(shared) if place // block % 2]
    arrays["t1_train"] &= ~np.isin(t1, for_t2)
    arrays["t2_train"] &= np.isin(t2, for_t2) | ~np.isin(t2, shared)


def _summary(sets: Sets, preset: Preset) -> dict[str, Any]:
    sizes = sorted(np.unique([*sets.t1_images.shapes, *sets.t2_images.shapes], axis=0).tolist())
    shared = np.isin(sets.t1_heads, sets.t2_heads).any()
    return {
        "t1_images": len(sets.t1_images),
        "t2_images": len(sets.t2_images),
        "t1_train": int(sets.t1_train.sum()),
        "t2_train": int(sets.t2_train.sum()),
        "t1_held_out": sets.t1_split.count("held_out"),
        "t2_held_out": sets.t2_split.count("held_out"),
        "pairs": len(sets.pairs),
        "truth": bool(sets.truth),
        "disjoint": preset.disjoint and (bool(shared) or "no effect: no pairs are known"),
        "smallest_shape": sizes[0],
        "largest_shape": sizes[-1],
        "frame": [sets.frame.height, sets.frame.width],
        "intensities": INTENSITY_RULE,
    }
