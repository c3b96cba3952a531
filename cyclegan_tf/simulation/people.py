"""Heads of people: random individuals around label maps of whole heads.

A label map is a volume of FreeSurfer's numbers for the brain and, outside it, of those that the
maps of SynthSeg have (Billot et al., Med. Image Anal. 86:102789, 2023). Every head is bent, turned,
mirrored and resized; its sulci, cortex and fluid are wider or narrower than on the map; tissues
have a texture; some heads have lesions.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from .. import InputError
from ..scans.geometry import AXES
from ..scans.quiet import reading
from .average import SHAPE, spline_basis

# Tissues of the maps' numbers, left and right; what is not named is air.
LABELS = {
    "white": (2, 41, 7, 46, 77, 85, 250, 251, 252, 253, 254, 255),
    "grey": (3, 42, 8, 47, 17, 53, 18, 54, 19, 55, 136, 137, 163, 164, 80),
    "striatum": (11, 50, 12, 51, 26, 58, 27, 59),
    "thalamus": (10, 49, 9, 48, 28, 60),
    "pallidum": (13, 52),
    "stem": (16, 172, 512),
    "ventricle": (4, 43, 5, 44, 14, 15, 31, 63, 72),
    "fluid": (24, 25, 57, 257),
    "vessel": (30, 62, 502, 506),
    "soft": (507, 508),
    "skin": (511, 530),
    "bone": (515,),
    "marrow": (516,),
    "mucosa": (509, 514),
}
NAMES = (*LABELS, "air")
BRAIN = NAMES[:7]
SPACING = 1.25
"""mm between the planes whose mean a thick slice is."""
CLOSING = 10.0
"""mm: half the width of a gap in the brain that extraction leaves in."""
SOLID = ("white", "grey", "striatum", "thalamus", "pallidum", "stem")
"""In which lesions lie."""
WIDTHS, SMALL = (3.0, 48.0), (3.0, 12.0)
"""mm, least and most widths of lesions in `with_lesions`: of all, and of further small ones."""
LESIONS = {  # how many a head, radius in mm, share of water, share of them that hold fluid
    "plaques": ((3, 25), (1.5, 8.0), (0.25, 0.9), 0.0),
    "hyperintensities": ((3, 20), (1.5, 9.0), (0.2, 0.6), 0.0),
    "oedema": ((1, 3), (6.0, 25.0), (0.3, 0.7), 0.0),
    "infarct": ((1, 3), (6.0, 25.0), (0.4, 1.0), 0.4),
    "cyst": ((1, 3), (6.0, 20.0), (1.0, 1.0), 1.0),
}


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> np.ndarray:
    """A float32 field of unit deviation: cubic splines of random knots `spacing` pixels apart."""
    bases = [spline_basis(side, spacing) for side in shape]
    field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    for basis in bases:  # (knots, ...) -> (..., side), so that every axis has its turn
        field = np.tensordot(field, basis, (0, 1))
    return field / (field.std() + 1e-6)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A label map, prepared to be cut; axes rightwards, forwards, upwards, 1 mm."""

    maps: np.ndarray
    """(NAMES, X, Y, Z) float16: every tissue's share, smoothed by a voxel's width."""
    brain: np.ndarray
    """(X, Y, Z): 1 deep in the brain, ½ at its hull, 0 outside."""
    rim: np.ndarray
    """(X, Y, Z): high near the skin."""
    depth: np.ndarray
    """(X, Y, Z): mm from bone and from what lies outside it."""
    low: np.ndarray
    """The brain's box: first and last voxel of each axis; `high` likewise."""
    high: np.ndarray


def find_anatomies(folder: str | Path, least: int = 1) -> list[Path]:
    """The label maps of a folder: its NIfTI files, by name; or the one that is such a file.

    Raises InputError if there are fewer than `least`.
    """
    folder = Path(folder)
    found = [folder] if folder.is_file() else sorted(folder.glob("*.nii*"))
    if len(found) < least:
        count = len(found) or "no"
        raise InputError(f"{folder} holds {count} label maps: expected {least} or more (NIfTI).")
    return found


@lru_cache(1)  # one takes half a gigabyte
def read_anatomy(path: Path) -> Anatomy:
    """Read and prepare a label map; specks outside the head are left out.

    Raises InputError for a file that is no volume of voxels of 1 mm, or one without white matter
    and cortex.
    """
    with reading(path, "label map"):
        volume = nibabel.as_closest_canonical(nibabel.load(path))
        labels = np.asarray(volume.dataobj).astype(np.int16)
    if labels.ndim != 3 or not np.isin((2, 3), labels).all():
        raise InputError(f"{path} is no label map: expected FreeSurfer's numbers, 2 and 3 among.")
    sizes = volume.header.get_zooms()
    if not np.allclose(sizes, 1, atol=0.05):
        raise InputError(f"{path} has voxels of {min(sizes):.2g}, {max(sizes):.2g} mm: expected 1.")
    parts, _ = ndimage.label(labels > 0)
    head = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    (box,) = ndimage.find_objects(head.astype(np.uint8))
    box = tuple(slice(max(0, side.start - 4), side.stop + 4) for side in box)
    labels = np.where(head, labels, 0)[box]
    table = np.full(max(labels.max(), 1023) + 1, NAMES.index("air"), np.uint8)
    for number, numbers in enumerate(LABELS.values()):
        table[list(numbers)] = number
    tissue = table[labels]
    maps = np.empty((len(NAMES), *labels.shape), np.float16)
    for number in range(len(NAMES)):
        maps[number] = ndimage.gaussian_filter((tissue == number).astype(np.float32), 0.7)
    brain = tissue < len(BRAIN)
    # Closed over a centimetre, as masks of extracted brains are: sulci and fissures are inside.
    hull = ndimage.distance_transform_edt(~brain) <= CLOSING
    hull = (ndimage.distance_transform_edt(hull) > CLOSING).astype(np.float32)
    skin = (tissue == NAMES.index("skin")).astype(np.float32)
    outside = np.isin(tissue, [NAMES.index(name) for name in ("bone", "soft", "air")])
    low, high = np.percentile(np.argwhere(brain), (0.5, 99.5), axis=0)
    return Anatomy(
        maps,
        ndimage.gaussian_filter(hull, 2.5),
        ndimage.gaussian_filter(skin, 4),
        ndimage.distance_transform_edt(~outside).astype(np.float32),
        low,
        high,
    )


class Person:
    """One random individual around an anatomy; slices of any plane and thickness."""

    def __init__(self, anatomy: Anatomy, rng: np.random.Generator):
        self.anatomy = anatomy
        self.mirror = rng.choice([-1, 1])
        self.size = np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
        turn = rng.normal(0, 0.08, (3, 3)).astype(np.float32)
        self.turn = turn - turn.T  # antisymmetric: a small rotation
        self.bends = abs(rng.normal(2, 1.5)) * np.stack(  # knots 8 mm apart
            [smooth_noise(rng, (32, 32, 32), 6) for _ in range(3)]
        )
        # Logarithms of what the tissues' shares are multiplied by, which moves their borders.
        means = {"fluid": -0.7, "ventricle": 0.0, "white": 0.0, "vessel": 0.0}
        deviations = (0.8, 0.4, 0.5, 0.5)
        self.growth = dict(zip(means, rng.normal(list(means.values()), deviations), strict=True))
        self.sharpness = rng.uniform(2, 4)
        self.membranes = rng.uniform(0, 0.5)
        self.dura = rng.uniform(0, 0.5)
        self.mixing = rng.uniform(0.02, 0.2, 2)
        self.texture = rng.uniform(0.05, 0.2)
        self.fat = rng.uniform(0.3, 0.9)
        self.lesions = self._lesions(rng) if rng.random() < 0.6 else []

    def _lesions(self, rng: np.random.Generator) -> list[tuple]:
        """Centres (voxels), radii (mm, three axes), share of water, whether of fluid."""
        white = 2 * np.argwhere(self.anatomy.maps[0, ::2, ::2, ::2] > 0.9)
        counts, radii, waters, hollow = LESIONS[rng.choice(list(LESIONS))]
        return [
            (
                rng.choice(white).astype(np.float32),
                (rng.uniform(*radii) * np.exp(rng.normal(0, 0.3, 3))).astype(np.float32),
                rng.uniform(*waters),
                rng.random() < hollow,
            )
            for _ in range(rng.integers(*counts))
        ]

    def section(
        self,
        plane: str,
        place: float,
        thickness: float,
        shift: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Tissues' shares (217, 181) each in a slice, and `Anatomy.brain` there.

        `place` runs from 0 to 1 along the brain, from the first slice to the last; `thickness` and
        `shift` (rows, columns) are in mm. The first row is in front in axial slices, on top in
        others; columns run from left to right, in sagittal slices from back to front.
        """
        rows, columns = np.indices(SHAPE, dtype=np.float32)
        across = columns - SHAPE[1] / 2 + shift[1]
        along = SHAPE[0] / 2 - rows + shift[0]
        axis = AXES[plane][0]  # across the slices
        height = (place - 0.5) * 0.97 * (self.anatomy.high[axis] - self.anatomy.low[axis])
        count = max(1, round(thickness / SPACING))
        fields = [smooth_noise(rng, SHAPE, scale) for scale in (5, 1.5, 7, 5, 6, 9)]
        total: dict[str, np.ndarray] = {}
        brain = 0.0
        for depth in (np.arange(count) - (count - 1) / 2) * thickness / count:
            points = [across, along]
            points.insert(axis, np.full(SHAPE, height + depth, np.float32))
            parts, inside = self._cut(np.stack(points).astype(np.float32), *fields)
            total = {name: total.get(name, 0) + part / count for name, part in parts.items()}
            brain = brain + inside / count
        return total, brain

    def _cut(self, points, coarse, fine, gyri, sulci, dura, lobules):
        """Shares at points (3, 217, 181), in mm from the brain's middle; then unit fields."""
        anatomy = self.anatomy
        points[0] *= self.mirror
        points = points / self.size[:, None, None] + np.tensordot(self.turn, points, 1)
        points += ((anatomy.low + anatomy.high) / 2).astype(np.float32)[:, None, None]
        points += [ndimage.map_coordinates(bend, points / 8, order=1) for bend in self.bends]
        share = dict(zip(NAMES, _interpolate(anatomy.maps, points), strict=True))
        growth = self.growth | {"fluid": self.growth["fluid"] + 0.6 * sulci}
        growth["white"] = growth["white"] + 0.4 * gyri
        for name, logarithm in growth.items():
            share[name] = share[name] * np.exp(logarithm)
        # The maps' blur of a voxel is undone: what was the larger share becomes larger still.
        share = {name: part**self.sharpness for name, part in share.items()}
        whole = sum(share.values()) + 1e-9
        share = {name: part / whole for name, part in share.items()}
        brain, rim, depth = (
            ndimage.map_coordinates(x, points, order=1)
            for x in (anatomy.brain, anatomy.rim, anatomy.depth)
        )
        texture = self.texture * (0.5 * coarse + 0.85 * fine)
        return self._mixed(share, texture, dura, lobules, rim, depth, points), brain

    def _mixed(self, share, texture, dura, lobules, rim, depth, points):
        """The shares of tissues as they are: none is pure, and the fluid is full of membranes."""
        parts = {k: v for k, v in share.items() if k not in ("ventricle", "fluid", "bone", "air")}
        solid = np.clip(self.membranes + 0.3 * dura + self.dura * np.exp(-depth / 1.5), 0, 0.95)
        parts["membrane"] = share["fluid"] * solid
        parts["csf"], parts["sulcal"] = share["ventricle"], share["fluid"] * (1 - solid)
        fat = np.clip(self.fat * 1.6 * np.clip(4 * rim, 0, 1) - 0.1 + 0.2 * lobules, 0, 1)
        parts["fat"], parts["muscle"] = parts["soft"] * fat, parts.pop("soft") * (1 - fat)
        # Grey in white, white in grey and water in grey, finely: what gives tissues their texture.
        to_grey = np.clip(self.mixing[0] + texture, 0, 0.6) * parts["white"]
        to_white = np.clip(self.mixing[1] - texture, 0, 0.6) * parts["grey"]
        to_water = np.clip(texture, 0, 0.4) * parts["grey"]
        parts["white"] = parts["white"] - to_grey + to_white
        parts["grey"] = parts["grey"] + to_grey - to_white - to_water
        parts["sulcal"] = parts["sulcal"] + to_water
        for centre, radii, water, fluid in self.lesions:
            offsets = (points - centre[:, None, None]) / radii[:, None, None]
            away = np.sqrt((offsets**2).sum(axis=0)) + 0.15 * dura
            taken = water * share_inside(away, radii.mean(), 1.5)
            parts = replaced(parts, "csf" if fluid else "lesion", taken)
        return parts


def share_inside(away: np.ndarray, radius: float, edge: float) -> np.ndarray:
    """The share of each pixel that is in a lesion, whose edge is `edge` mm wide.

    `away` is the distance from its centre, 1 at the middle of its edge; that is `radius` mm.
    """
    return np.clip((1 - away) * radius / edge + 0.5, 0, 1)


def replaced(parts: dict[str, np.ndarray], tissue: str, share: np.ndarray) -> dict[str, np.ndarray]:
    """The parts (H, W) of a slice with a share (H, W) of what is SOLID turned into a tissue."""
    rest = {name: parts[name] * (1 - share) for name in SOLID}
    taken = share * sum(parts[name] for name in SOLID)
    return parts | rest | {tissue: parts.get(tissue, 0) + taken}


def with_lesions(parts: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The parts (217, 181) of a slice with one or several lesions in its white matter.

    They are for teaching: people have fewer, and of fewer sizes. They are ellipses, with even or
    ragged and sharp or soft edges, some with a core or as a ring; some hold only fluid.
    """
    room = ndimage.distance_transform_edt(sum(parts[name] for name in SOLID) > 0.8)
    white = np.argwhere((parts["white"] > 0.7) & (room > 2))
    if not len(white):
        return parts
    depth, pixels = room[tuple(white.T)], np.indices(SHAPE, np.float32)
    any_size = rng.uniform(*np.log(WIDTHS), 1 + rng.poisson(rng.choice([0, 1, 3])))
    small = rng.uniform(*np.log(SMALL), rng.poisson(rng.choice([0, 2, 8])))
    for width in np.exp(np.concatenate([any_size, small])):
        fits = white[depth > min(width / 2, rng.uniform(2, max(2.1, depth.max() - 1)))]
        centre = rng.choice(fits if len(fits) else white)
        radii = width / 2 * np.exp(rng.normal(0, 0.2, 2))
        turn = np.exp(1j * rng.uniform(0, np.pi))
        rows, columns = pixels - centre[:, None, None].astype(np.float32)
        turned = (rows + 1j * columns) * turn
        away = np.hypot(turned.real / radii[0], turned.imag / radii[1])
        away = away + rng.choice([0, rng.uniform(0, 0.2)]) * smooth_noise(rng, SHAPE, 6)
        edge = np.exp(rng.uniform(0, np.log(5)))  # mm
        fluid = rng.random() < 0.15
        share = 1.0 if fluid else rng.uniform(0.2, 1)
        core = rng.choice([share, share, 0.2 * share, rng.uniform(0.2, 1)])
        taken = np.where(away < 0.5, core, share * share_inside(away, radii.mean(), edge))
        parts = replaced(parts, "csf" if fluid else "lesion", taken.astype(np.float32))
    return parts


def _interpolate(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """All maps (K, X, Y, Z) at voxels (3, H, W), linearly → (K, H, W); air outside.

    `map_coordinates` would find the same eight neighbours anew for each map.
    """
    first = np.floor(points).astype(int)
    last = np.array(maps.shape[1:])[:, None, None] - 2
    outside = ((first < 0) | (first > last)).any(axis=0)
    first = np.clip(first, 0, last)
    share = (points - first).astype(np.float32)
    result = np.zeros((len(maps), *points.shape[1:]), np.float32)
    for corner in np.ndindex(2, 2, 2):
        x, y, z = (first[axis] + corner[axis] for axis in range(3))
        weight = np.prod([s if far else 1 - s for s, far in zip(share, corner, strict=True)], 0)
        result += maps[:, x, y, z] * weight
    result[:, outside] = 0
    result[-1, outside] = 1
    return result
