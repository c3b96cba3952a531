"""Slices → training and held-out sets, prepared once a run and kept in its folder."""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from skimage.filters import threshold_li
from tqdm.auto import tqdm

from .. import InputError
from ..contrasts import HEAD, NAMES, SPOKEN, T1_T2, Contrasts, short
from ..parameters import parse
from ..presets import Preset
from ..runs import SIMULATED, Run, intact, listed, write_atomically
from ..scans.folders import Identity, find_domains, find_scans, identify, same_heads
from ..scans.frame import Frame
from ..scans.images import read_image
from ..scans.intensity import BODY_RULE, INTENSITY_RULE
from ..scans.scan import Scan, read_scans
from ..scans.volumes import is_volume
from ..simulation import phantom
from ..simulation.people import find_anatomies
from . import splitting
from .sets import ImageSet, Sets, Stored

BLOCK = 5  # consecutive slices that go to the same set where the sets are made disjoint
LEAST_HEAD = 0.1  # of a slice of a volume: one that shows less of the head is left out
KNOWN = ("names", "heads", "train", "boxes", "origins")
"""What `data.npz` has of an `ImageSet`, each behind its contrast: `t1_names`."""


def prepare(run: Run) -> Sets:
    """Read the run's images, find pairs, split them, and keep all that in the run's folder.

    `images/` holds the images, `data.npz` the rest. What is there for the same settings is taken
    as it is. Counts go into the run's record. Volumes are read one by one and never all held in
    memory. Raises InputError for images, a holdout or a discriminator's depth that cannot be
    trained with, and where another process is at work in the folder.
    """
    with run.alone():
        try:
            sets = load(run)
        except InputError:
            _make(run)
            sets = load(run)
        run.update(data=_summary(sets, run.preset) | _shares(sets, run))
    depth, side = run.preset.discriminator_depth, min(sets.frame.height, sets.frame.width)
    most = int(np.log2(side / 3))  # of more nothing is judged
    if depth > most:
        found = f"{depth} and the frame's shorter side {side} pixels"
        raise InputError(f"Parameter discriminator_depth is {found}: expected {most} or less.")
    return sets


def load(run: Run) -> Sets:
    """What `prepare` has left in the run's folder.

    Raises InputError if that is absent, damaged, or made with other settings.
    """
    path, advice = run.folder / "data.npz", "run notebooks/01_preprocessing first"
    if not path.is_file():
        raise InputError(f"{path} is not there: {advice}.")
    with intact(path, advice):
        with np.load(path, allow_pickle=False) as file:
            settings = {"contrasts": [*T1_T2]} | json.loads(str(file["settings"]))  # of 0.1
            settings["source"] = parse("data", settings["source"], "folders")
            arrays = {**file}
        images = {
            name: Stored(run.folder / "images" / name, arrays[f"{name}_shapes"])
            for name in _image_folders(run.preset)
        }
        known = {}
        for contrast in run.preset.contrasts:
            none = np.zeros((len(images[f"{contrast}_images"]), 4), int)
            old = {"boxes": none, "origins": none[:, 0]}  # version 0.1 has neither of these
            known[contrast] = {k: arrays.get(f"{contrast}_{k}", old.get(k)) for k in KNOWN}
        sets = _sets(images, known, arrays["pairs"], run.preset)
        sets = replace(sets, validation=arrays.get("validation", []))
        for stored in (*images.values(), sets.x.files, sets.y.files):
            for index, shape in enumerate(stored.shapes):
                if stored.path(index).stat().st_size != 4 * shape.prod():
                    raise ValueError(f"{stored.path(index)} is not {shape} pixels")
    if settings != _settings(run):
        raise InputError(f"{path} was made with other settings ({settings}): {advice}.")
    return sets


def learned_from(run: Run, heads: Iterable[Iterable[Path]]) -> list[bool]:
    """For each head, given by its volumes, whether any of these was not held out of the training.

    What `prepare` has read is known by where it lies, so nothing is known of a copy.
    """
    sets = load(run)
    names = np.concatenate([sets.x.names, sets.y.names])
    kept = np.array([*sets.x_split, *sets.y_split]) == "held_out"
    seen = {name.rpartition(" #")[0] for name in names[~kept]}

    def met(path):
        path = path.parent.resolve() / path.name
        for source, folders in zip(run.source_names, run.data, strict=True):
            prefix = f"{source}/" if len(run.data) > 1 else ""
            roots = [root for root in path.parents if any(map(root.is_relative_to, folders))]
            if any(prefix + identify(path, root).stem in seen for root in roots):
                return True
        return False

    return [any(map(met, paths)) for paths in heads]


def _make(run: Run) -> None:
    """Leave what `load` reads: `data.npz` last, for without it `images/` counts as unfinished."""
    if run.preset.anatomies:  # which are not read before the warm start
        if (found := run.preset.simulator) != "varied":
            raise InputError(f"Parameter anatomies needs simulator = varied: found {found}.")
        find_anatomies(run.preset.anatomies)
    sources = _sources(run)
    with write_atomically(run.path("images")) as aside:
        images, slices = _read(run, sources, aside)
        sets = _split(run, images, slices)
        arrays = {f"{name}_shapes": stored.shapes for name, stored in images.items()}
        for contrast, own in zip(sets.contrasts, (sets.x, sets.y), strict=True):
            arrays |= {f"{contrast}_{what}": getattr(own, what) for what in KNOWN}
            if sets.frame.fit == "resize":
                resized = Stored(own.files.folder)
                for image in own.images:
                    resized.add(sets.frame.apply(image)[..., 0])
        run.path("data.npz").unlink(missing_ok=True)
        shutil.rmtree(run.path("images"), ignore_errors=True)
    with write_atomically(run.path("data.npz")) as partial:
        arrays |= {"pairs": sets.pairs, "validation": sets.validation}
        np.savez(partial, settings=json.dumps(_settings(run)), **arrays)


def _settings(run: Run) -> dict[str, Any]:
    preset, used = run.preset, ["fit", "plane", "holdout", "disjoint"]
    used += ["seed"] * (run.data == [[SIMULATED]]) + ["size"] * (preset.fit == "resize")
    used += ["body_part"] * (preset.body_part != HEAD)
    found = {name: getattr(preset, name) for name in used}
    found |= {"validation": True} if preset.patience else {}
    return found | {"contrasts": [*preset.contrasts], "source": run.data}


@dataclass(frozen=True)
class Slice:
    """What is known of an image of a training set."""

    source: Path
    name: str
    known_as: tuple[str, ...]
    """Names by which a holdout may name it; the first is that of the head."""
    origin: int
    """The number of the source that it is from."""
    box: tuple[int, ...] = (0, 0, 0, 0)
    """As `ImageSet.boxes`."""
    place: tuple = ()
    """Of a volume's: its scan, its shape and the slice's number, alike in both contrasts."""


@dataclass(frozen=True)
class Source:
    """Where a run has images from."""

    prefix: str
    """What their names begin with, so that equal names in two sources differ."""
    domains: tuple[Path, Path]
    """The folders of both contrasts."""
    scans: list[list[Path]]
    """Those of each."""


Images = dict[str, Stored]  # by their folders
Slices = dict[str, list[Slice]]  # by contrast


def _image_folders(preset: Preset) -> list[str]:
    return [*(f"{contrast}_images" for contrast in preset.contrasts), "truth", "labels"]


def _read(run: Run, sources: Sequence[Source], folder: Path) -> tuple[Images, Slices]:
    """The run's images, written into `folder`, and by contrast what is known of them."""
    preset, contrasts = run.preset, run.preset.contrasts
    images = {name: Stored(folder / name) for name in _image_folders(preset)}
    slices = {contrast: [] for contrast in contrasts}
    volumes = is_volume(sources[0].scans[0][0])
    for number, source in enumerate(sources):
        people = _people(source, contrasts) if volumes else {}
        for contrast, paths in zip(contrasts, source.scans, strict=True):
            title = f"reading {short(contrast)}"
            progress = tqdm(paths, title, disable=len(paths) < 8, unit="scan")
            scans = read_scans(progress, contrast, preset.body_part, [preset.plane])
            found = _slices(scans, people, preset, source.prefix, number)
            if not volumes:  # in the order of their names, 8 bits and 16
                order = {path: place for place, path in enumerate(paths)}
                found = sorted(found, key=lambda pair: order[pair[0].source])
            for one, image in found:
                slices[contrast].append(one)
                images[f"{contrast}_images"].add(image)
    if volumes:
        run.update(data=_counts(slices, preset))
        return images, slices
    for name, place in (("truth", short(contrasts.y)), ("labels", "labels")):
        known = [_read_truth(source, place, preset) for source in sources]
        for image in sum(known, []) if all(known) else ():
            images[name].add(image)
    _check_images(images, slices, sources[-1], contrasts)
    return images, slices


def _sets(
    images: Images, known: dict[str, dict[str, np.ndarray]], pairs: np.ndarray, preset: Preset
) -> Sets:
    """Sets in a frame that all images fit into; of each contrast is `known` what KNOWN says."""
    stored = [images[f"{contrast}_images"] for contrast in preset.contrasts]
    boxes = np.concatenate([own["boxes"] for own in known.values()])
    start, stop = np.split(boxes, 2, axis=1)  # (N, 4) -> twice (N, 2)
    shapes = np.where(stop, stop - start, np.concatenate([one.shapes for one in stored]))
    frame = Frame.of(shapes, preset)
    x, y = (
        ImageSet(one, frame, np.arange(len(one)), **own)
        for one, own in zip(stored, known.values(), strict=True)
    )
    more = images["truth"], images["labels"], preset.contrasts, preset.body_part
    return Sets(x, y, pairs, *more)


def _split(run: Run, images: Images, slices: Slices) -> Sets:
    """What shows the same, and what is trained on."""
    preset, (x, y) = run.preset, slices.values()
    volumes = bool(x[0].place)
    known = {}
    for contrast, side in slices.items():
        rows = [(one.name, one.known_as[0], True, one.box, one.origin) for one in side]
        known[contrast] = dict(zip(KNOWN, map(np.array, zip(*rows, strict=True)), strict=True))
    both = [images[f"{contrast}_images"] for contrast in preset.contrasts]
    if volumes:
        pairs = splitting.pairs_by_scan(*both, *([one.place for one in side] for side in (x, y)))
    else:
        pairs = splitting.pairs_by_content(*both, preset)
        heads = known[preset.contrasts.x]["heads"]
        known[preset.contrasts.y]["heads"] = partners = np.zeros_like(heads, shape=len(y))
        partners[pairs[:, 1]] = heads[pairs[:, 0]]
    sets = _sets(images, known, pairs, preset)
    names = [one.known_as for one in (x + y if volumes else x)]
    found = splitting.held_out_names(preset.holdout, [*dict.fromkeys(names)], listed(run.data))
    splitting.keep_from_training(sets, found)
    if preset.patience:
        sets = replace(sets, validation=splitting.kept_heads(sets))
        splitting.keep_from_training(sets, sets.validation)
    if preset.disjoint:
        splitting.make_disjoint(sets, block=1 if volumes else BLOCK)
    for train, contrast in zip((sets.x.train, sets.y.train), preset.contrasts, strict=True):
        if train.sum() < 2:
            left = f"{train.sum()} of {len(train)} {short(contrast)} images to train on"
            raise InputError(f"holdout, patience and disjoint leave {left}: expected 2 or more.")
    return sets


def _sources(run: Run) -> list[Source]:
    """The run's sources. Raises InputError where two share a scan, or some have volumes alone."""
    contrasts, data = run.preset.contrasts, run.data
    if data == [[SIMULATED]]:
        folder = run.path("simulated")
        if folder.exists():  # of another seed
            shutil.rmtree(folder)
        shown = {"contrasts": contrasts, "body_part": run.preset.body_part}
        data = [[phantom.write_dataset(folder, run.preset.seed, **shown)]]
    sources, counts, known = [], [], set()
    for name, folders in zip(run.source_names, data, strict=True):
        domains, scans = find_domains(*map(Path, folders), contrasts=contrasts), []
        for domain, contrast in zip(domains, contrasts, strict=True):
            found = find_scans(domain, SPOKEN[contrast])
            for sentence in found.sentences:
                print(sentence)
            if twice := next((path for path in found.scans if path.resolve() in known), None):
                raise InputError(f"{twice} is in two sources: expected sources that share no scan.")
            scans.append(found.scans)
            counts.append((sum(map(is_volume, found.scans)), domain))
        known |= {path.resolve() for path in sum(scans, [])}
        sources.append(Source(f"{name}/" if len(data) > 1 else "", domains, scans))
    if len({count > 0 for count, _ in counts}) > 1:
        held = " and ".join(f"{count} in {domain}" for count, domain in counts)
        raise InputError(f"Volumes are {held}: expected some of both, or images alone.")
    return sources


def _people(source: Source, contrasts: Contrasts) -> dict[Path, Identity]:
    """The subject of each volume of both contrasts; says so if nobody has both."""
    pairs = zip(source.scans, source.domains, strict=True)
    sides = [[identify(path, domain) for path in paths] for paths, domain in pairs]
    sides = same_heads(*sides)
    x, y = ({one.subject for one in side} for side in sides)
    if not x & y:
        names = " and a ".join(NAMES[contrast] for contrast in contrasts)
        print(
            f"By the files' names nobody has both a {names} scan: {min(x)} and {min(y)} are two "
            "people. If they are one, give both the same name, or that one cannot be held out."
        )
    return dict(zip(sum(source.scans, []), sum(sides, []), strict=True))


def _slices(
    scans: Iterable[Scan], people: dict[Path, Identity], preset: Preset, prefix: str, origin: int
) -> Iterator[tuple[Slice, np.ndarray]]:
    """The slices to train on: images, and what shows enough of the head in a volume.

    Each is float32 (H, W) in [-1, 1], with what is known of it.
    """
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
                names = (prefix + path.name, path.name, path.stem)
                yield Slice(path, names[0], names, origin, box), image
            continue
        (path,) = scan.sources
        who = people[path]
        names = (prefix + who.subject, who.subject, path.name, who.stem, who.scan)
        for k in _with_head(path, scan, preset.body_part):
            name, place = f"{prefix}{who.stem} #{k}", (prefix + who.scan, *scan.slices.shape, k)
            yield Slice(path, name, names, origin, box, place), scan.slices[k]


def _counts(slices: Slices, preset: Preset) -> dict[str, Any]:
    """What the record says of volumes."""
    scale = f"{preset.plane}, pixels of 1 mm, each volume on its own scale"
    data = {"slices": f"{scale}; left out: less than {LEAST_HEAD:.0%} of it is bright"}
    for contrast, found in zip(preset.contrasts, slices.values(), strict=True):
        depths = {one.source: one.place[1] for one in found}
        data[f"{contrast}_volumes"] = len(depths)
        data[f"{contrast}_empty_slices"] = sum(depths.values()) - len(found)
    x, y = ({one.known_as[0] for one in side} for side in slices.values())
    return data | {"subjects": len(x | y), "subjects_with_both": len(x & y)}


def _check_images(images: Images, slices: Slices, source: Source, contrasts: Contrasts) -> None:
    """Raises InputError where image folders are not of two contrasts, or the truth not theirs."""
    x, y = (images[f"{contrast}_images"] for contrast in contrasts)
    for domain, stored in zip(source.domains, (x, y), strict=True):
        if len(stored) < 2:
            raise InputError(f"{domain} holds a single image: expected 2 or more.")
    if len(x) == len(y) and all(map(np.array_equal, x, y)):
        names = " and ".join(map(short, contrasts))
        same = " and ".join(map(str, source.domains))
        raise InputError(f"{same} hold the same images: expected {names}.")
    sources = [one.source for one in slices[contrasts.x]]
    for name in ("truth", "labels"):
        for path, shape, own in zip(sources, x.shapes, images[name].shapes, strict=False):
            if (shape != own).any():
                raise InputError(f"{path} and its truth differ in size: expected one size.")


def _with_head(path: Path, scan: Scan, body_part: str) -> np.ndarray:
    """The numbers of a volume's slices (S, H, W) that show enough of the head, or body."""
    shown = scan.slices > threshold_li(scan.slices) if body_part == HEAD else scan.head
    head = np.mean(shown, axis=(1, 2))
    if head.max() < LEAST_HEAD:
        found = f"at most {head.max():.1%} of a slice is bright"
        raise InputError(f"{path} shows no head, {found}: expected {LEAST_HEAD:.0%}.")
    return np.flatnonzero(head >= LEAST_HEAD)


def shared_folder(one: PurePath, other: PurePath) -> PurePath | None:
    """The deepest folder that holds two paths; None if none does, as of two drives of Windows."""
    return next((path for path in (one, *one.parents) if path in (other, *other.parents)), None)


def _read_truth(source: Source, place: str, preset: Preset) -> list[np.ndarray]:
    """What `Truth/T2`, if y is t2, or `Truth/labels` beside both folders has for all images x.

    Its files have the names of theirs. Where there is no such folder, nothing is known.
    """
    above = shared_folder(*source.domains)
    folder = above and above / "Truth" / place
    if not (folder and folder.is_dir()):
        return []
    paths = [folder / path.name for path in source.scans[0]]
    if place == "labels":
        return [read_image(path) for path in paths]
    found = {}
    for scan in read_scans(paths, preset.contrasts.y, preset.body_part):
        found |= zip(scan.sources, scan.slices, strict=True)
    return [found[path] for path in paths]


def _shares(sets: Sets, run: Run) -> dict[str, Any]:
    """For each of several sources, its images and its share of an epoch's, by contrast."""
    if len(run.data) < 2:
        return {}
    found = {name: {} for name in run.source_names}
    for contrast, side in zip(sets.contrasts, (sets.x, sets.y), strict=True):
        trained = side.origins[side.train]
        for number, source in enumerate(found.values()):
            source[f"{contrast}_train"] = count = int(np.sum(trained == number))
            source[f"{contrast}_share"] = bool(count) / len(np.unique(trained))
    return {"sources": found}


def _summary(sets: Sets, preset: Preset) -> dict[str, Any]:
    sizes = sorted(np.unique([*sets.x.images.shapes, *sets.y.images.shapes], axis=0).tolist())
    shared = np.isin(sets.x.heads, sets.y.heads).any()
    counts = {}
    for contrast, split in zip(sets.contrasts, (sets.x_split, sets.y_split), strict=True):
        counts |= {f"{contrast}_images": len(split), f"{contrast}_train": split.count("train")}
        counts[f"{contrast}_held_out"] = split.count("held_out")
    if preset.patience:
        counts["validation"] = [*sets.validation]
    return counts | {
        "pairs": len(sets.pairs),
        "truth": bool(sets.truth),
        "disjoint": preset.disjoint and (bool(shared) or "no effect: no pairs are known"),
        "smallest_shape": sizes[0],
        "largest_shape": sizes[-1],
        "frame": [sets.frame.height, sets.frame.width],
        "intensities": INTENSITY_RULE if preset.body_part == HEAD else BODY_RULE,
    }
