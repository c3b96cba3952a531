"""Slices → training and held-out sets, prepared once a run and kept in its folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from skimage.filters import threshold_li
from tqdm.auto import tqdm

from . import InputError
from .presets import Preset
from .runs import SIMULATED, Run, write_atomically
from .scans.folders import find_domains, list_images
from .scans.frame import Frame
from .scans.geometry import to_slices
from .scans.images import read_image, read_images
from .scans.intensity import INTENSITY_RULE, scale_intensities
from .scans.volumes import find_volumes, read_volume
from .simulation import phantom
from .study.metrics import find_pairs

BLOCK = 5  # consecutive slices that go to the same set where the sets are made disjoint
WATCHED = 4  # slices in a snapshot
LEAST_HEAD = 0.1  # of a slice of a volume: one that shows less of the head is left out
SLICES = (
    f"{{}}, pixels of 1 mm, each volume on its own scale; left out: less than {LEAST_HEAD:.0%} of "
    "it above the volume's threshold of Li & Tam (1998)"
)
IMAGES = ("t1_images", "t2_images", "truth", "labels")
ARRAYS = ("t1_names", "t2_names", "t1_heads", "t2_heads", "t1_train", "t2_train", "pairs")


@dataclass(frozen=True, eq=False)
class Stored(Sequence):
    """Images (H, W) of any sizes on disk, each read when it is asked for.

    A file for each, named by its number: float32 pixels and nothing else, which TensorFlow reads
    without Python (whose threads may keep an interrupted process from ending).
    """

    folder: Path
    shapes: np.ndarray
    """(N, 2) heights and widths."""

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06}"

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        return np.fromfile(self.path(index), np.float32).reshape(self.shapes[index])

    def append(self, images: Iterable[np.ndarray]) -> Stored:
        """These images and more, which are written."""
        self.folder.mkdir(exist_ok=True)
        shapes = [*self.shapes]
        for image in images:
            image.astype(np.float32).tofile(self.path(len(shapes)))
            shapes.append(image.shape)
        return Stored(self.folder, np.array(shapes, int).reshape(-1, 2))


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
            return self.frame.apply(self.images[numbers])
        return np.stack([self.frame.apply(self.images[number]) for number in numbers])


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
    frame: Frame

    @property
    def t1(self) -> Framed:
        """All T1 images framed for the networks."""
        return Framed(self.t1_images, self.frame, np.arange(len(self.t1_images)))

    @property
    def t2(self) -> Framed:
        """All T2 images framed for the networks."""
        return Framed(self.t2_images, self.frame, np.arange(len(self.t2_images)))

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
        sets = Sets(**images, **arrays, frame=_frame(images, run.preset))
        for stored in (*images.values(), sets.t1.files, sets.t2.files):
            for index, shape in enumerate(stored.shapes):
                if stored.path(index).stat().st_size != 4 * shape.prod():
                    raise ValueError(f"{stored.path(index)} is not {shape} pixels")
    except Exception as error:  # there is hardly one that is not raised by a damaged file
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
        frame = _frame(images, run.preset)
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


def _frame(images: dict[str, Stored], preset: Preset) -> Frame:
    return Frame.of([*images["t1_images"].shapes, *images["t2_images"].shapes], preset)


def _read(run: Run, folder: Path) -> tuple[dict[str, Stored], dict[str, np.ndarray]]:
    """The run's images, written into `folder`, and ARRAYS."""
    preset = run.preset
    domains = find_domains(*_sources(run))
    volumes = [*map(find_volumes, domains, ("T1w", "T2w"))]
    if any(volumes):
        images, arrays, known, data = _read_volumes(folder, domains, volumes, preset.plane)
        run.update(data=data)
    else:
        images, arrays, known = _read_images(folder, *domains, preset)
    held_out = _named(preset.holdout, known, "holdout", domains[0])
    for side in ("t1", "t2"):
        arrays[f"{side}_train"] = ~np.isin(arrays[f"{side}_heads"], held_out)
    if preset.disjoint:
        _make_disjoint(arrays, block=1 if any(volumes) else BLOCK)
    for side in ("t1", "t2"):
        train = arrays[f"{side}_train"]
        if train.sum() < 2:
            raise InputError(
                f"holdout {preset.holdout!r} and disjoint {str(preset.disjoint).lower()} leave "
                f"{train.sum()} of {len(train)} {side.upper()} images to train on: expected 2 or "
                "more."
            )
    return images, arrays


def _read_images(folder: Path, t1_folder: Path, t2_folder: Path, preset: Preset) -> tuple:
    """Images and arrays of two folders, whose pairs mutual information finds, and T1's names."""
    t1_paths, t2_paths = list_images(t1_folder), list_images(t2_folder)
    for domain, paths in ((t1_folder, t1_paths), (t2_folder, t2_paths)):
        if len(paths) < 2:
            raise InputError(f"{domain} holds a single image: expected 2 or more.")
    t1, t2 = read_images(t1_paths, "t1"), read_images(t2_paths, "t2")
    if len(t1) == len(t2) and all(map(np.array_equal, t1, t2)):
        raise InputError(f"{t1_folder} and {t2_folder} hold the same images: expected T1 and T2.")
    truth, labels = _read_truth(t1_folder, t2_folder, t1_paths)
    for path, *images in zip(t1_paths, t1, *filter(len, (truth, labels)), strict=True):
        if len({image.shape for image in images}) > 1:
            raise InputError(f"{path} and its truth differ in size: expected one size.")

    canvas = Frame.of([image.shape for image in t1 + t2], replace(preset, fit="pad"))
    found = find_pairs(*(np.stack([canvas.apply(image) for image in side]) for side in (t1, t2)))
    pairs = np.stack([found.t1, found.t2], axis=1)
    pairs = pairs[[t1[i].shape == t2[j].shape for i, j in pairs]]
    names = [np.array([path.name for path in paths]) for paths in (t1_paths, t2_paths)]
    arrays = {"t1_names": names[0], "t2_names": names[1], "t1_heads": names[0], "pairs": pairs}
    arrays["t2_heads"] = np.zeros(len(t2), names[0].dtype)  # no name
    arrays["t2_heads"][pairs[:, 1]] = names[0][pairs[:, 0]]
    written = dict(zip(IMAGES, (t1, t2, truth, labels), strict=True))
    images = {name: Stored(folder / name, []).append(x) for name, x in written.items()}
    return images, arrays, [(path.name, path.stem) for path in t1_paths]


def _read_volumes(
    folder: Path, domains: Sequence[Path], volumes: Sequence[list[Path]], plane: str
) -> tuple:
    """Images and arrays of volumes, read one at a time, all their names, and what was found."""
    if not all(volumes):
        found = " and ".join(f"{len(v)} in {d}" for v, d in zip(volumes, domains, strict=True))
        raise InputError(f"T1 and T2 volumes are {found}: expected some of both, or images alone.")
    images = {name: Stored(folder / name, []).append([]) for name in IMAGES}
    arrays, known, places, data = {}, [], [], {"slices": SLICES.format(plane)}
    for contrast, paths in zip(("t1", "t2"), volumes, strict=True):
        name, found, total = f"{contrast}_images", [], 0
        for path in tqdm(paths, f"reading {contrast.upper()}", unit="volume"):
            stem, scan, subject = _identity(path)
            slices = scale_intensities(to_slices(read_volume(path), plane), contrast)
            kept = _with_head(path, slices)
            images[name] = images[name].append(slices[k] for k in kept)
            grid = scan, len(slices), *slices[0].shape
            found += [((*grid, k), f"{stem} #{k}", subject) for k in kept]
            known.append((subject, path.name, stem, scan))
            total += len(slices)
        keys, names, heads = zip(*found, strict=True)
        places.append({key: index for index, key in enumerate(keys)})
        arrays |= {f"{contrast}_names": np.array(names), f"{contrast}_heads": np.array(heads)}
        data |= {f"{contrast}_volumes": len(paths), f"{contrast}_empty_slices": total - len(found)}
    arrays["pairs"] = _pairs_by_scan(images["t1_images"], images["t2_images"], *places)
    return images, arrays, known, data | {"subjects": len({names[0] for names in known})}


def _identity(path: Path) -> tuple[str, str, str]:
    """Of a volume: its stem, its scan, which T1w and T2w have in common, and its subject.

    `sub-01_ses-2` and `sub-01` in BIDS, else both the stem without T1, T2, T1w or T2w.
    """
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    if bids := re.match(r"(sub-[^_]+)(_ses-[^_]+)?", stem):
        return stem, bids[0], bids[1]
    scan = re.sub(r"(^|[\W_])t[12]w?(?![^\W_])", "", stem, flags=re.IGNORECASE)
    return stem, scan, scan


def _with_head(path: Path, slices: list[np.ndarray]) -> np.ndarray:
    """The numbers of a volume's slices that show enough of the head."""
    head = np.mean(slices > threshold_li(np.ravel(slices)), axis=(1, 2))
    if head.max() < LEAST_HEAD:
        found = f"at most {head.max():.1%} of a slice is bright"
        raise InputError(f"{path} shows no head, {found}: expected {LEAST_HEAD:.0%}.")
    return np.flatnonzero(head >= LEAST_HEAD)


def _pairs_by_scan(t1: Stored, t2: Stored, t1_places: dict, t2_places: dict) -> np.ndarray:
    """(P, 2) indices of slices of the same number in volumes of the same scan and shape.

    They are pairs if mutual information of the middle ones says so. `places` are the indices of
    the images by scan, shape and number; of several volumes of one scan they are the last one's.
    """
    stacks: dict[tuple, list] = {}
    for place in t1_places.keys() & t2_places.keys():
        stacks.setdefault(place[:-1], []).append((t1_places[place], t2_places[place]))
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
        truth = read_images([folder / "T2" / path.name for path in t1_paths], "t2")
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
