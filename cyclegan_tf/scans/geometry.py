"""A volume ↔ its slices: where they lie, there and back."""

import math
from pathlib import Path

import nibabel
import numpy as np
from nibabel import orientations

from .. import InputError
from .arrays import interpolation, resize, trimmed

# Axes of a volume in RAS+ (rightwards, forwards, upwards) that are slices, rows and columns.
AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}  # by presets.PLANES

MAXIMUM_VOXELS = 2**28  # 1 GiB as float32; a head at 0.5 mm takes a third of that
VOXEL_SIZES = 0.01, 100  # mm
WIDE = 1.05  # mm a side: what a network sees is no finer


def check_geometry(path: Path, shape: tuple, affine: np.ndarray, *stated: np.ndarray) -> None:
    """Raises InputError for a shape and an affine that no scan has: a header may claim anything.

    To be called before a voxel is read. `stated` are voxel sizes in mm beside those of the affine.
    """
    low, high = VOXEL_SIZES
    for sizes in (*stated, nibabel.affines.voxel_sizes(affine)):
        if not np.all((sizes >= low) & (sizes <= high)):
            found = " x ".join(f"{size:g}" for size in sizes) + " mm"
            raise InputError(f"{path} has voxels of {found}: expected {low} to {high} mm a side.")
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3] / sizes)) > 0.1):
        raise InputError(f"{path} has an affine without inverse: expected three independent axes.")
    voxels = max(math.prod(shape), math.prod(np.maximum(shape, shape * sizes)))
    if not 0 < voxels <= MAXIMUM_VOXELS:
        size = " x ".join(map(str, shape))
        raise InputError(
            f"{path} has {size} voxels, {voxels:.3g} at 1 mm: expected at most {MAXIMUM_VOXELS}."
        )


def joined_voxels(affine: np.ndarray) -> list[int]:
    """How many voxels along each axis are one of `coarsened`: as many as fit into 1 mm.

    So a head at 0.5 mm takes no more work than one at 1 mm. Networks are shown pixels of 1 mm
    anyway; of what lies across the slices little is lost. Of four heads simulated at 0.5 mm around
    label maps 17 to 20 the T2, three planes averaged, came 0.03 dB and 0.001 SSIM (at worst 0.14
    and 0.007) less near the truth of 0.5 mm inside the head than with slices of 0.5 mm; of the real
    head openms-long-p12-s1, its pixels halved, 0.04 dB and 0.003. The source's finest structure by
    the lines of a guided filter (He & Sun, arXiv:1505.00996) would give back at most 0.03 dB.
    """
    return [max(1, int(WIDE / size)) for size in nibabel.affines.voxel_sizes(affine)]


def coarsened(volume: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """A volume, float32, each of whose voxels is the mean of those that are joined.

    There are fewer of them at the end of a side. A volume of 1 mm stays.
    """
    counts = joined_voxels(volume.affine)
    if max(counts) == 1:
        return volume
    fine, steps = np.asanyarray(volume.dataobj).T, counts[::-1]  # as in files: much faster
    total, number = np.zeros((2, *(-(-np.array(fine.shape) // steps))), np.float32)
    for corner in np.ndindex(*steps):
        part = fine[tuple(map(slice, corner, fine.shape, steps))]
        near = tuple(map(slice, part.shape))
        total[near] += part
        number[near] += 1
    grid = np.diag([*counts, 1.0])
    grid[:3, 3] = (np.diag(grid)[:3] - 1) / 2
    return nibabel.Nifti1Image((total / number).T, volume.affine @ grid)


def refined(data: np.ndarray, volume: nibabel.Nifti1Image) -> np.ndarray:
    """Float32 of the volume's shape, by cubic splines that `coarsened` makes the data of again.

    What is darkest stays so, as splines would draw waves into the air around a head.
    """
    counts = joined_voxels(volume.affine)
    if max(counts) == 1:
        return data
    data, darkest = data.T, data.min()  # as in files, the first axis without gaps
    air = data == darkest
    for side, count in zip(volume.shape[::-1], counts[::-1], strict=True):
        air = np.moveaxis(air.repeat(count, axis=0)[:side], 0, -1)
        if count == 1:
            data = np.moveaxis(data, 0, -1)
            continue
        splines = interpolation(len(data), count * len(data), 3)  # (fine, coarse)
        means = splines.reshape(len(data), count, -1).mean(axis=1)
        own = trimmed(splines @ np.linalg.inv(means))[:side].astype(np.float32)
        data = np.tensordot(data, own, (0, 1))  # (coarse, ...) -> (..., fine): every axis in turn
    np.putmask(data, air, darkest)
    return data.T


def to_slices(
    volume: nibabel.Nifti1Image, plane: str = "axial", spacing: float = 1.0
) -> np.ndarray:
    """Float32 (S, H, W), intensities as they are, slices `spacing` mm a pixel.

    In the orientation closest to RAS+: slices rise from feet to head (axial), from back to front
    (coronal), from left to right (sagittal). The first row is in front in axial slices, on top in
    others; columns run from left to right, in sagittal slices from back to front. Within slices
    cubic splines, which lose half as much as bilinear, with smoothing where that shrinks; the
    slices stay as many as they are.
    """
    slices, sizes = _stack(volume, plane)
    height, width = np.maximum(1, np.rint(slices.shape[1:] * sizes / spacing)).astype(int)
    return _resized(slices, (height, width))


def slice_of(volume: nibabel.Nifti1Image, place: float, plane: str = "axial") -> np.ndarray:
    """One slice of `to_slices`, (H, W), without the work of others; `place` is from 0 to 1."""
    canonical = nibabel.as_closest_canonical(volume)
    axis = AXES[plane][0]
    number = round(place * (canonical.shape[axis] - 1))
    cut = [slice(None)] * 3
    cut[axis] = slice(number, number + 1)
    # (1, H, W) -> (H, W)
    return to_slices(canonical.slicer[tuple(cut)], plane)[0]


def from_slices(
    slices: np.ndarray, volume: nibabel.Nifti1Image, plane: str = "axial"
) -> np.ndarray:
    """The inverse of `to_slices`: (S, H, W) at any pixel size → float32 of the volume's shape.

    Axes come out in the volume's own order and direction.
    """
    stack, _ = _stack(volume, plane)
    canonical = _resized(slices, stack.shape[1:])[:, ::-1].transpose(np.argsort(AXES[plane]))
    own = orientations.io_orientation(volume.affine)
    back = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), own)
    return orientations.apply_orientation(canonical, back)


def _stack(volume: nibabel.Nifti1Image, plane: str) -> tuple[np.ndarray, np.ndarray]:
    """The slices (S, H, W) as `to_slices` describes them, and their pixels' sides in mm."""
    canonical = nibabel.as_closest_canonical(volume)
    axes = list(AXES[plane])
    slices = np.asanyarray(canonical.dataobj).transpose(axes)[:, ::-1]
    return slices, nibabel.affines.voxel_sizes(canonical.affine)[axes[1:]]


def _resized(slices: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Each slice by cubic splines, within its own range."""
    if slices.shape[1:] == shape:
        return np.ascontiguousarray(slices, np.float32)
    resized = np.empty((len(slices), *shape), np.float32)
    for result, image in zip(resized, slices, strict=True):  # one at a time: little memory
        np.clip(resize(image, shape, order=3), image.min(), image.max(), out=result)
    return resized
