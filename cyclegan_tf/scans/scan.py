"""A scan: the slices of one head in one contrast, read from files of any kind and written back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from nibabel import Nifti1Image

from .. import InputError
from ..contrasts import HEAD, SPOKEN, WITH_AGENT
from .folders import contrast_of
from .geometry import AXES, coarsened, from_slices, refined, to_slices
from .images import read_image, write_image
from .intensity import fill_outside, find_head, find_levels, head_box, is_label_map, rescale
from .shading import find_shading
from .volumes import check_voxels, is_volume, read_volume, write_volume

DARK = 20, 64  # 8-bit grey: air alone is darker, a slice that shows a head is brighter
LEAST = 40  # pixels along a slice's side, in a plane that was not scanned as such
# mm, from front to back where that is seen. A head with its neck that is longer has wrong voxel
# sizes, and so has an adult's brain that is shorter, unless only a few slices of it are there.
SHORTEST, LONGEST = 125, 320


@dataclass(frozen=True)
class Grid:
    """Where the slices of a volume lie."""

    volume: Nifti1Image
    """Its header and affine; of its voxels there is no more than the shape."""
    seen: Nifti1Image
    """The same, `coarsened`: what the slices are of."""
    plane: str
    planes: tuple[str, ...]
    """All planes in which the volume is read."""

    @property
    def apart(self) -> float:
        """Millimetres from one slice to the next."""
        canonical = nibabel.as_closest_canonical(self.seen)
        return nibabel.affines.voxel_sizes(canonical.affine)[AXES[self.plane][0]]


@dataclass(frozen=True, eq=False)
class Scan:
    """The slices of one head in one contrast, where they lie, and what they were read from.

    Nothing after it knows whether they came from a PNG file or a DICOM series.
    """

    slices: np.ndarray
    """Float32 (S, H, W) in [-1, 1]; of a volume 1 mm a pixel, as `geometry.to_slices` has them
    once it is `geometry.coarsened`."""
    contrast: str
    """A key of `contrasts.NAMES`."""
    head: np.ndarray
    """Boolean (S, H, W): what is no padding, no NaN and no air."""
    box: tuple[slice, slice]
    """Rows and columns of the head, the same for all slices: what the networks are shown."""
    sources: tuple[Path, ...] = ()
    """The file or folder of a volume, or the image file of every slice."""
    grid: Grid | None = None
    """Of a volume."""
    bits: type = np.uint8
    """Of images: what they are written as."""
    warnings: tuple[str, ...] = ()
    """What was doubtful, a sentence each, without the name of the source."""

    @property
    def doubts(self) -> list[str]:
        """The warnings for the terminal, with the name of the (first) source."""
        return [f"{self.sources[0]}: {warning}" for warning in self.warnings]

    @classmethod
    def of(cls, slices: np.ndarray, contrast: str, body_part: str = HEAD, **others) -> Scan:
        """A scan whose head, or whatever body part, is looked for; `others` are other fields."""
        head = find_head(slices, body_part)
        return cls(slices, contrast, head, head_box(head), **others)


def read_scans(
    paths: Iterable[Path],
    contrast: str,
    body_part: str = HEAD,
    planes: Sequence[str] = ("",),
    series: str = "",
    reported: Callable[..., AbstractContextManager] = lambda *paths: nullcontext(),
) -> Iterator[Scan]:
    """Scans of files, one after the other: a volume, an 8-bit image, all other images together.

    8-bit grey g becomes g / 127.5 - 1, as published, whatever lies beside it. Images of other
    bits are slices of *one* head, and so are those of floating point: they come last, scaled
    together as a volume's slices are, a scan for each of their sizes. A volume is `coarsened` and
    gives a scan in each of the `planes`, as `choose_planes` takes them for what is no padding;
    `series` is as in `read_volume`.
    `reported(path, …)` is a context in which what concerns these files is read: it may keep an
    InputError from ending the rest.
    """
    kind, others = (contrast, body_part), defaultdict(dict)
    for path in paths:
        with reported(path):
            if is_volume(path):
                yield from _volume(path, kind, planes, series)
                continue
            image = read_image(path)
            if np.ptp(image):  # else it is told elsewhere that it is the same everywhere
                _check_no_labels(path, image[None])
            if image.dtype == np.uint8:
                grey = image[None] / np.float32(127.5) - 1
                brightest = np.percentile(image, 99.9)
                doubt = (
                    f"Its brightest grey is {brightest:.0f}: 8-bit images are taken for 0 to 255."
                )
                warnings = (doubt,) if DARK[0] < brightest < DARK[1] else ()
                yield Scan.of(grey, *kind, sources=(path,), warnings=warnings)
            else:
                others[image.dtype][path] = image
    for images in others.values():
        with reported(*images):
            yield from _stacks(images, kind)


def scan_of(slices: np.ndarray, contrast: str, body_part: str = HEAD) -> Scan:
    """The scan of an array, slices (S, H, W) of one head in any unit, as of a file of them.

    Raises InputError for what would be refused in a file.
    """
    check_voxels("The array", slices)
    _check_no_labels("The array", slices)
    images, warnings = _normalised(slices, (contrast, body_part))
    return Scan.of(images, contrast, body_part, warnings=warnings)


def _normalised(slices: np.ndarray, kind: tuple[str, str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Slices (S, H, W) of one head in any unit, without shading and in [-1, 1]; and warnings."""
    filled = fill_outside(slices, *kind)
    shading = find_shading(filled.voxels, filled.black, *kind)
    even = shading.taken_from(filled.voxels)
    warnings = *filled.warnings, *shading.warnings
    return rescale(even, find_levels(even, filled, *kind)), warnings


def _volume(path: Path, kind: tuple[str, str], planes: Sequence[str], series: str) -> list[Scan]:
    volume = read_volume(path, series)
    place = _place(volume, volume.header, volume.extra)
    voxels = np.asanyarray(volume.dataobj)
    _check_no_labels(path, voxels)
    with _naming(path):
        filled = fill_outside(voxels, *kind)
    shown = volume.slicer[filled.box]
    planes = choose_planes(shown, planes)
    # A head has one scale, its sagittal slices', if there are such: axial ones may show its neck.
    *_, of_scale = choose_planes(shown, ("", "sagittal"))
    volume, scans = coarsened(Nifti1Image(filled.voxels, volume.affine)), []
    seen = _place(volume)
    stack = to_slices(volume, of_scale)
    with _naming(path):
        shading = find_shading(stack, filled.black, *kind)
        stack = shading.taken_from(stack)
        levels = find_levels(stack, filled, *kind)
    shading = shading._replace(gain=from_slices(shading.gain, volume, of_scale))
    volume = Nifti1Image(shading.taken_from(np.asanyarray(volume.dataobj)), volume.affine)
    said = _otherwise(*place.extra.get("said", ("", "")), SPOKEN[kind[0]])
    known = (*place.extra["warnings"], *said, *filled.warnings, *shading.warnings)
    for plane in planes:
        slices = stack if plane == of_scale else to_slices(volume, plane)
        found = {"sources": (path,), "grid": Grid(place, seen, plane, (*planes,))}
        scans.append(Scan.of(rescale(slices, levels), *kind, **found, warnings=known))
    sides = {}  # mm of the head, by the axis of RAS+
    for scan in scans:
        sides |= zip(AXES[scan.grid.plane][1:], (s.stop - s.start for s in scan.box), strict=True)
    longest = max(sides.values())
    length = longest if longest > LONGEST else sides.get(1, longest)
    least = SHORTEST if len(scans) > 1 else 0  # a few slices may lie near the crown
    if kind[1] == HEAD and not least <= length <= LONGEST:
        doubt = f"It is {length} mm long, by its header: are the sizes of its voxels right?"
        return [replace(scan, warnings=(*scan.warnings, doubt)) for scan in scans]
    return scans


def _otherwise(description: str, agent: str, contrast: str) -> list[str]:
    """What a DICOM series says of itself, if that is another contrast than it is taken for."""
    said, by = contrast_of(description), f"SeriesDescription {description!r}"
    t1, after = SPOKEN["t1"], WITH_AGENT
    if agent and said in ("", t1) and contrast in (t1, after):
        said, by = after, f"ContrastBolusAgent {agent!r}"
    return [f"{by} says {said}: is this {contrast}?"] if said not in ("", contrast) else []


def _place(volume: Nifti1Image, *rest) -> Nifti1Image:
    """Only the shape is kept of the voxels, which may take half a gigabyte."""
    nothing = np.broadcast_to(np.float32(0), volume.shape)
    return type(volume)(nothing, volume.affine, *rest)


def _check_no_labels(path: Path | str, values: np.ndarray) -> None:
    if is_label_map(values):
        found = "few values, in areas of one and the same, as a mask or a label map does"
        raise InputError(f"{path} holds {found}: expected the grey values of a scan.")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What is wrong with grey values is said with the file that they are from."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("A scan", str(path), 1)) from None


def _stacks(images: dict[Path, np.ndarray], kind: tuple[str, str]) -> Iterator[Scan]:
    sizes = [image.shape for image in images.values()]
    # S x (H, W) -> (S, H, W): what smaller slices lack is no scan
    stack = np.full((len(sizes), *np.max(sizes, axis=0)), np.nan, np.float32)
    for whole, image in zip(stack, images.values(), strict=True):
        whole[: image.shape[0], : image.shape[1]] = image
    with _naming(next(iter(images))):
        stack, warnings = _normalised(stack, kind)
    alike, paths = defaultdict(list), [*images]
    for number, size in enumerate(sizes):
        alike[size].append(number)
    for (height, width), numbers in alike.items():
        sources = tuple(paths[number] for number in numbers)
        found = {"sources": sources, "bits": np.uint16, "warnings": warnings}
        yield Scan.of(stack[numbers, :height, :width], *kind, **found)


def choose_planes(volume: Nifti1Image, wanted: Sequence[str]) -> list[str]:
    """The planes of a volume's slices: those wanted, where "" is the one whose slices show most.

    That is axial, unless another one has more than twice its pixels. Counted are pixels of 1 mm
    that the voxels resolve. So near-isotropic volumes are axial, a single slice and thick slices
    are taken as they were scanned. What stands after "" is taken too if the volume shows at least
    LEAST pixels along every side.
    """
    if "" not in wanted:
        return [*wanted]
    canonical = nibabel.as_closest_canonical(volume)
    sizes = nibabel.affines.voxel_sizes(canonical.affine)
    sides = np.array(canonical.shape) * np.minimum(sizes, 1)
    pixels = {plane: sides[axes[1]] * sides[axes[2]] for plane, axes in AXES.items()}
    best = max(pixels, key=pixels.get)
    best = best if pixels[best] > 2 * pixels["axial"] else "axial"
    others = [plane for plane in wanted if plane not in ("", best)]
    return [best, *others] if min(sides) >= LEAST else [best]


def in_plane(grid: Grid, other: Grid, slices: np.ndarray) -> np.ndarray:
    """The slices (S, H, W) of one plane of a volume as those of another plane of it."""
    voxels = from_slices(slices, other.seen, other.plane)
    return to_slices(Nifti1Image(voxels, other.seen.affine), grid.plane)


def write_scan(
    scan: Scan,
    targets: Sequence[Path],
    description: str,
    write: Callable[..., None] = write_volume,
) -> None:
    """Write slices where their sources lay: a volume into one file, images into one each.

    A volume has the intensities of `volumes.write_volume` and carries the description, a line on
    what made it and one for each doubt; it is written by that, or by another function that takes
    the same.
    """
    if grid := scan.grid:
        voxels = refined(from_slices(scan.slices, grid.seen, grid.plane), grid.volume)
        write(targets[0], voxels, grid.volume, description)
        return
    for path, image in zip(targets, scan.slices, strict=True):
        write_image(path, image, scan.bits)
