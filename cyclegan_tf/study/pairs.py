"""Real heads with their truth: found by their names, and read onto one grid."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage

from .. import InputError
from ..contrasts import HEAD, SPOKEN, T1_T2, Contrasts
from ..parameters import user_path
from ..scans.folders import find_scans, identify, same_heads
from ..scans.intensity import Filled, fill_outside, find_head, normalise
from ..scans.shading import find_shading
from ..scans.volumes import is_volume, read_volume, volume_name

MASKS = {  # beside the source, by their names without ending
    "brain": r"brain|mask|(.*[_-])?brain_?mask",
    "lesion": r"(.*[_-])?lesions?(_mask)?",
}
AIR = -0.7  # of [-1, 1]; darker is air, bone, or partly so
SKULL = 0.03  # of the layer 2 to 15 mm inside a whole head is dark in both; of a stripped one 0.004
COVERS = 15  # mm of scalp, skull and the brain's rim that are left out of a whole head
SLAB = 100  # mm; scans that are thinner do not reach from the neck to the crown
FEWEST = 4  # slices, to be registered
ONE_GREY = 0.2  # of a brain; where more has the same grey, the mask goes beyond the scan


@dataclass(frozen=True)
class Pair:
    """The files of one head."""

    name: str
    source: Path
    target: Path
    brain: Path | None = None
    lesion: Path | None = None


def find_heads(folder: str | Path, contrasts: Contrasts = T1_T2) -> tuple[list[Pair], list[str]]:
    """The heads of which a folder holds both contrasts, in natural order, and what was doubtful.

    Which files are which and whose they are is read from their names (`folders.identify`): a folder
    for each subject, a BIDS data set, IXI and others; of several of one contrast, one with `_reg`
    in its name is taken first. `BRAIN` or `*brain_mask` in the folder of a subject is the mask of
    the brain, `LESION` that of lesions. Raises InputError where there is no pair.
    """
    folder, doubts, labels = user_path(folder), [], contrasts.labels
    names = [SPOKEN[contrast] for contrast in contrasts]
    files = [[p for p in find_scans(folder, name).scans if is_volume(p)] for name in names]
    sides: list[dict[str, list[Path]]] = [{}, {}]
    people = same_heads(*([identify(path, folder) for path in paths] for paths in files))
    for side, paths, whose in zip(sides, files, people, strict=True):
        for path, person in zip(paths, whose, strict=True):
            side.setdefault(person.scan.replace("/", "_"), []).append(path)
    pairs = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        x, y = (side.get(name, []) for side in sides)
        if not (x and y):
            lacks = labels["y" if x else "x"]
            doubts.append(f"{(x or y)[0]} is left out: there is no {lacks} of the same head.")
            continue
        for paths in (x, y):
            paths.sort(key=lambda path: "_reg" not in path.name.lower())
            others = ", ".join(path.name for path in paths[1:])
            if others and "_reg" not in paths[0].name.lower():
                doubts.append(f"{paths[0]} is taken, and {others} not.")
        masks = {}
        if len({*x[0].parent.iterdir()} & {*files[0]}) == len(x):  # the subject's own folder
            for part, pattern in MASKS.items():
                named = [p for p in x[0].parent.iterdir() if is_volume(p)]
                fits = [p for p in named if re.fullmatch(pattern, volume_name(p).lower())]
                masks |= {part: min(fits)} if fits else {}
        pairs.append(Pair(name, x[0], y[0], **masks))
    if not pairs:
        why = doubts[0] if doubts else f"{folder} holds no volumes."
        both = " and ".join(labels.values())
        raise InputError(f"{why[:-1]}; expected {both} volumes of one head, named as such.")
    return pairs, doubts


@dataclass(frozen=True)
class Aligned:
    """One head on the grid of its source, canonical: (X, Y, Z) to the right, the front, the top."""

    pair: Pair
    contrasts: Contrasts
    has_tissues: bool
    """It is a head in T1w, and in T2w."""
    source: np.ndarray
    even: np.ndarray
    """The source without its shading, as the networks see it."""
    synthetic: np.ndarray
    truth: np.ndarray
    """1 is its 99.5th percentile in the brain."""
    scaled: tuple[np.ndarray, np.ndarray]
    """Source and truth in [-1, 1], as the networks see them."""
    brain: np.ndarray
    """Boolean, likewise `lesion`: nothing where no mask is given."""
    lesion: np.ndarray
    found: str
    """How the brain was found."""
    affine: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Of a voxel, mm."""
        return nibabel.affines.voxel_sizes(self.affine)

    @cached_property
    def fitted(self) -> dict[str, np.ndarray]:
        """What is compared, by `heads.PREDICTORS`, each fitted to the truth inside the brain."""
        truth, brain = self.truth, self.brain
        return {
            "synthetic": fit_line(self.synthetic, truth, brain),
            "t1_line": fit_line(self.source, truth, brain),
            "t1_table": fit_table(self.source, truth, brain),
            "even_table": fit_table(self.even, truth, brain),
        }


def read_head(
    pair: Pair, synthetic: Path, contrasts: Contrasts = T1_T2, body_part: str = HEAD
) -> Aligned:
    """A head and what was made of its source, on one grid.

    Of what is no head the brain is all that is brighter than air in both. Raises InputError where
    the two do not overlap, of fewer than FEWEST slices, and where nothing of the brain is left or
    much of a given mask is of one grey.
    """
    filled, affine = _read_filled(pair.source, contrasts.x, body_part)
    x = nibabel.Nifti1Image(filled.voxels, affine)
    y = read_canonical(pair.target, contrasts.y, body_part)
    lattice, sizes = (x.shape, x.affine), nibabel.affines.voxel_sizes(x.affine)
    if min(x.shape) < FEWEST:
        raise InputError(f"{pair.source} has {min(x.shape)} slices: expected {FEWEST} or more.")
    source = x.get_fdata()
    truth = resample_from_to(y, lattice, 1, cval=np.nan).get_fdata()
    seen = np.isfinite(truth)
    if not seen.any():
        raise InputError(f"{pair.target} does not overlap {pair.source}: expected one head.")
    truth[~seen] = truth[seen].min()
    scaled = tuple(
        np.moveaxis(normalise(np.moveaxis(volume, 2, 0), contrast, body_part), 0, 2)
        for volume, contrast in zip((source, truth), contrasts, strict=True)
    )
    masks = {
        part: resample_from_to(read_volume(path), lattice, 0).get_fdata() > 0.5
        for part in MASKS
        if (path := getattr(pair, part))
    }
    if pair.brain:
        brain, found = masks["brain"], "given"
    elif body_part == HEAD:
        brain, found = find_brain(*scaled, sizes)
    else:
        brain, found = np.logical_and(*(find_head(one, body_part) for one in scaled)), "the body"
    brain &= seen & (scaled[1] > -1)  # a registered T2 is 0 outside its field of view
    if brain.sum() * np.prod(sizes) < 1000:  # mm³
        mask = pair.brain or pair.target
        raise InputError(f"{mask} leaves nothing of the brain in {pair.source}.")
    if pair.brain:
        commonest = np.unique(source[brain], return_counts=True)[1].max()
        if commonest > ONE_GREY * brain.sum():
            found = f"{pair.source} has one grey in {ONE_GREY:.0%} of {pair.brain.name} or more"
            raise InputError(f"{found}: expected a mask of what it shows.")
    truth /= np.percentile(truth[brain], 99.5)
    lesion = brain & masks.get("lesion", False)
    made = read_canonical(synthetic).get_fdata()
    has_tissues = contrasts == T1_T2 and body_part == HEAD
    shading = find_shading(filled.voxels, filled.black, contrasts.x, body_part)
    even = shading.taken_from(filled.voxels).astype(float)
    volumes = source, even, made, truth, scaled, brain, lesion
    return Aligned(pair, contrasts, has_tissues, *volumes, found, x.affine)


def read_canonical(path: Path, contrast: str = "", body_part: str = HEAD) -> nibabel.Nifti1Image:
    """A volume in canonical orientation; what is no scan (NaN, padding) has the grey of air."""
    filled, affine = _read_filled(path, contrast, body_part)
    return nibabel.Nifti1Image(filled.voxels, affine)


def _read_filled(path: Path, contrast: str, body_part: str) -> tuple[Filled, np.ndarray]:
    """A volume in canonical orientation, filled outside, and its affine."""
    volume = nibabel.as_closest_canonical(read_volume(path))
    return fill_outside(np.asanyarray(volume.dataobj), contrast, body_part), volume.affine


def find_brain(x: np.ndarray, y: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, str]:
    """The brain (X, Y, Z) in x and y, in [-1, 1] with voxels of `sizes` mm; how it was found.

    The head is what is above AIR in one of both, for fluid is dark in T1, with its holes. It
    counts as stripped of its skull where almost nothing within is dark in both, as bone is: then
    it is the brain, without its outermost voxels. Of a whole head the brain is what lies 15 mm or
    more from air and bone, which leaves the brain's rim out and hardly anything else in.
    """
    bright = ndimage.binary_fill_holes(ndimage.binary_opening((x > AIR) | (y > AIR)))
    head = bright
    for axis in range(3):  # bone is open where the field of view ends
        slices = [ndimage.binary_fill_holes(image) for image in np.moveaxis(head, axis, 0)]
        head = np.moveaxis(np.stack(slices), 0, axis)
    layer = ndimage.distance_transform_edt(head, sampling=sizes)
    layer = (layer > 2) & (layer < COVERS)
    if layer.any() and (~bright)[layer].mean() > SKULL:
        # Where a field of view ends is an edge, for it cuts the neck; not in thin slabs.
        ends = int(head.shape[2] * sizes[2] > SLAB)
        padded = np.pad(bright, [(1, 1), (1, 1), (ends, ends)])
        depth = ndimage.distance_transform_edt(padded, sampling=sizes)
        depth = depth[1:-1, 1:-1, ends : depth.shape[2] - ends]
        return depth > COVERS, f"{COVERS} mm or more within the head"
    return ndimage.binary_erosion(bright), "the head, which is stripped of its skull"


def fit_line(values: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The best straight line of `values` to the truth inside the mask, by least squares."""
    x, y = values[mask], truth[mask]
    # Through more than two million points np.polyfit of numpy 1.26 is wrong on some processors.
    gain = np.mean((x - x.mean()) * (y - y.mean())) / (x.var() or 1.0)
    return gain * (values - x.mean()) + y.mean()


def fit_table(values: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The best look-up table of 64 levels: the mean truth at each, inside the mask."""
    edges = np.linspace(*np.percentile(values[mask], [0.5, 99.5]), 65)[1:-1]
    levels = np.digitize(values, edges)
    total = np.bincount(levels[mask], truth[mask], minlength=64)
    return (total / np.maximum(np.bincount(levels[mask], minlength=64), 1))[levels]
