"""NIfTI, DICOM and BIDS ↔ slices: the geometry of a scan there and back."""

from __future__ import annotations

import logging
import math
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from nibabel import orientations
from skimage.transform import resize

from . import InputError
from .images import natural_order, passed_over
from .runs import write_atomically

# Axes of a volume in RAS+ (rightwards, forwards, upwards) that are slices, rows and columns.
AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
PLANES = tuple(AXES)

MAXIMUM_VOXELS = 2**28  # 1 GiB as float32; a head at 0.5 mm takes a third of that
DEFLATE = 1032  # how often smaller gzip makes a file at most
VOXEL_SIZES = 0.01, 100  # mm
EVEN = 0.05  # of the gap between two slices: how far one may be from its place
WHITE = 1000  # what 1 becomes in a written file, and -1 becomes 0

# All else of a header stays behind: free text and extensions may name a patient.
GEOMETRY = ("pixdim", "xyzt", "qform", "sform", "quatern", "qoffset", "srow")

for library in ("nibabel.global", "pydicom"):  # an InputError says what is wrong
    logging.getLogger(library).setLevel(logging.CRITICAL)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What the libraries say of a file: oddities are passed over, errors are an InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # there is hardly one that a damaged file does not raise
        reason = getattr(error, "strerror", None) or textwrap.shorten(str(error), 150)
        raise InputError(f"{path} is damaged or no NIfTI or DICOM volume ({reason}).") from None


def is_bids(folder: Path) -> bool:
    """Whether the folder is a BIDS data set with anatomical scans: `sub-*/[ses-*/]anat`."""
    return any(any(folder.glob(place)) for place in ("sub-*/anat", "sub-*/ses-*/anat"))


def is_volume(path: Path) -> bool:
    """Whether the path is a .nii or .nii.gz file, or a folder that itself holds DICOM files."""
    with _reading(path):
        return _is_nifti(path) or (path.is_dir() and any(map(_is_dicom, path.iterdir())))


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz")) and path.is_file()


def _is_dicom(path: Path) -> bool:
    """A file with DICOM's mark behind its preamble, except a disk's table of contents."""
    if passed_over(path.name) or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def find_volumes(folder: Path, suffix: str) -> list[Path]:
    """The volumes of a folder in natural order, hidden ones passed over; [] if there are none.

    Of a BIDS data set (`is_bids`) the scans `sub-*/[ses-*/]anat/*_{suffix}.nii[.gz]`, where suffix
    is T1w or the like. Of any other folder its NIfTI files, its subfolders that hold DICOM files,
    and the folder itself if it holds some.
    """
    with _reading(folder):
        if is_bids(folder):
            scans = [*folder.glob("sub-*/anat/*"), *folder.glob("sub-*/ses-*/anat/*")]
            found = [p for p in scans if _is_nifti(p) and f"_{suffix}.nii" in p.name]
        else:
            found = filter(is_volume, folder.iterdir())
        found = sorted((p for p in found if not passed_over(p.name)), key=natural_order)
        return [folder, *found] if is_volume(folder) else found


def read_volume(path: Path, series: str = "") -> nibabel.Nifti1Image:
    """A NIfTI file or a folder of DICOM files as a three-dimensional float32 image in RAS+ mm.

    Scale factors, or rescale slope and intercept, are applied; a fourth dimension of one frame is
    dropped. Of several DICOM series in the folder, told apart by their UID, `series` names one:
    its UID, its number, or a part of its description. Enhanced (multi-frame) DICOM is read too;
    files without DICOM's mark are passed over. Raises InputError for a damaged file, for voxels
    that are no single number, NaN or infinite, or the same everywhere, for a geometry that is
    none or takes more than 2^28 voxels as it is or at 1 mm, and for DICOM slices that are not one
    evenly spaced stack.
    """
    with _reading(path):
        volume = _read_dicom(path, series) if path.is_dir() else _read_nifti(path)
        data = np.asanyarray(volume.dataobj)
        if not np.isfinite(data).all():
            raise InputError(f"{path} holds NaN or infinity: expected finite voxels.")
        if data.min() == data.max():
            raise InputError(f"{path} is {data.min()} everywhere: expected a scan of a head.")
    return volume


def _read_nifti(path: Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(f"{path} is a {type(image).__name__}: expected .nii or .nii.gz, or DICOM.")
    with nibabel.openers.ImageOpener(path) as file:  # nibabel has put 1 in place of a size of 0
        header = image.header_class.from_fileobj(file, check=False)
    voxel, shape = image.get_data_dtype(), image.shape
    if voxel.names or voxel.kind == "c":
        found = "colour" if voxel.names else "complex numbers"
        raise InputError(f"{path} holds {found}: expected one real number a voxel.")
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        size = " x ".join(map(str, shape))
        raise InputError(f"{path} has {size} voxels: expected three dimensions, or one frame.")
    _check_geometry(path, shape[:3], image.affine, np.abs(header["pixdim"][1:4]))
    most = path.stat().st_size * (DEFLATE if path.suffix.lower() == ".gz" else 1)
    if math.prod(shape) * voxel.itemsize > most:  # before nibabel makes room for them
        raise ValueError("it is too short for its voxels")
    data = image.get_fdata(caching="unchanged", dtype=np.float32)
    return type(image)(data.reshape(shape[:3]), image.affine, image.header)


def _check_geometry(path: Path, shape: tuple, affine: np.ndarray, *stated: np.ndarray) -> None:
    """Before a voxel is read: a header may claim anything."""
    low, high = VOXEL_SIZES
    for sizes in (*stated, nibabel.affines.voxel_sizes(affine)):
        if not np.all((sizes >= low) & (sizes <= high)):
            found = " x ".join(f"{size:g}" for size in sizes)
            raise InputError(
                f"{path} has voxels of {found} mm: expected {low} to {high} mm a side."
            )
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3] / sizes)) > 0.1):
        raise InputError(f"{path} has an affine without inverse: expected three independent axes.")
    voxels = max(math.prod(shape), math.prod(np.maximum(shape, shape * sizes)))
    if not 0 < voxels <= MAXIMUM_VOXELS:
        size = " x ".join(map(str, shape))
        raise InputError(
            f"{path} has {size} voxels, {voxels:.3g} at 1 mm: expected at most {MAXIMUM_VOXELS}."
        )


def _read_dicom(folder: Path, series: str) -> nibabel.Nifti1Image:
    files = _choose(folder, series)
    slices = [frame for header in files.values() for frame in _frames(header)]
    kinds = {s.PhotometricInterpretation for s in slices}
    kinds |= {"MOSAIC" for s in slices if "MOSAIC" in s.get("ImageType", ())}
    if kinds != {"MONOCHROME2"}:
        raise InputError(f"{folder} holds {' and '.join(kinds)} images: expected MONOCHROME2.")
    same = [[s.Rows, s.Columns, *s.PixelSpacing, *s.ImageOrientationPatient] for s in slices]
    if len(slices) < 2 or np.ptp(np.array(same, float), axis=0).max() > 1e-3:
        found = f"{len(slices)} slices of {len(set(map(tuple, same)))} sizes or orientations"
        raise InputError(f"{folder} holds {found}: expected 2 or more slices of one.")
    rows, columns, *spacing = same[0][:4]
    across, down = np.reshape(same[0][4:], (2, 3)).astype(float)
    positions = np.array([s.ImagePositionPatient for s in slices], float)
    order = np.argsort(positions @ np.cross(across, down), kind="stable")
    positions = positions[order]
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    even = np.linspace(positions[0], positions[-1], len(positions))
    if np.linalg.norm(positions - even, axis=1).max() > EVEN * gaps.mean():
        raise InputError(
            f"{folder} holds {len(slices)} slices {gaps.min():.3g} to {gaps.max():.3g} mm apart: "
            "expected all at the same distance, none missing and none twice."
        )
    affine = np.eye(4)
    affine[:3, :2] = np.transpose([across * spacing[1], down * spacing[0]])
    affine[:3, 2:] = np.transpose([even[1] - even[0], even[0]])
    affine = np.diag([-1, -1, 1, 1]) @ affine  # DICOM's x and y point to the left and backwards
    _check_geometry(folder, (columns, rows, len(slices)), affine)

    pixels = []
    for path in files:
        with _reading(path):
            pixels.append(pydicom.dcmread(path).pixel_array.reshape(-1, rows, columns))
    scales = [[s.get("RescaleSlope", 1), s.get("RescaleIntercept", 0)] for s in slices]
    slope, intercept = np.transpose(scales).astype(np.float32)[..., None, None]
    data = np.concatenate(pixels, dtype=np.float32) * slope + intercept
    volume = nibabel.Nifti1Image(data[order].T, affine)
    volume.set_sform(affine, "scanner")
    volume.set_qform(affine, "scanner")
    return volume


def _choose(folder: Path, series: str) -> dict[Path, pydicom.Dataset]:
    """The files, with their headers, of the series that `series` names, or of the only one."""
    headers, known = {}, {}
    for path in sorted(filter(_is_dicom, folder.iterdir()), key=natural_order):
        with _reading(path):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if "Rows" in header:  # a report has none
                headers[path] = header
                number, text = header.get("SeriesNumber"), header.get("SeriesDescription")
                known[header.SeriesInstanceUID] = str(number), str(text or "")
    exact = [uid for uid, (number, _) in known.items() if series in (uid, number)]
    chosen = exact or [uid for uid, (_, text) in known.items() if series.lower() in text.lower()]
    if len(chosen) != 1:
        there = ", ".join(f"{number} {text!r}" for number, text in known.values())
        raise InputError(
            f"{folder} holds {len(known)} DICOM series ({there}): expected one, or the number, "
            f"UID or a part of the description of one of them, found {series!r}."
        )
    return {path: head for path, head in headers.items() if head.SeriesInstanceUID == chosen[0]}


def _frames(header: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """What a file says of each of its slices: classic DICOM of its one, enhanced in groups."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        yield header
        return
    for own in header.PerFrameFunctionalGroupsSequence:
        frame = pydicom.Dataset()
        frame.update(header)
        for group in (*header.SharedFunctionalGroupsSequence[0], *own):
            if group.VR == "SQ" and group.value:
                frame.update(group.value[0])
        yield frame


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
    if plane not in AXES:
        raise InputError(f"There is no plane {plane!r}: expected one of {', '.join(PLANES)}.")
    canonical = nibabel.as_closest_canonical(volume)
    axes = list(AXES[plane])
    slices = np.asanyarray(canonical.dataobj).transpose(axes)[:, ::-1]
    return slices, nibabel.affines.voxel_sizes(canonical.affine)[axes[1:]]


def _resized(slices: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    slices = np.ascontiguousarray(slices, np.float32)
    if slices.shape[1:] == shape:
        return slices
    return np.stack([resize(image, shape, order=3) for image in slices])


def write_volume(path: Path, data: np.ndarray, like: nibabel.Nifti1Image, description: str) -> None:
    """Write data in [-1, 1] as a NIfTI file (.nii.gz) that lies where the volume `like` lies.

    Voxels are int16 from 0 (black, -1) to 1000 (white, 1): 500 (x + 1), rounded. Shape, voxel
    size, qform and sform with their codes are those of `like`, bit for bit; nothing else of its
    header is taken over. The description is cut to 80 bytes.
    """
    header = like.header_class()
    for field in header:
        if field.startswith(GEOMETRY):
            header[field] = like.header[field]
    header["descrip"] = description.encode()[:80]
    header["cal_min"], header["cal_max"] = 0, WHITE
    grey = np.rint((np.clip(data, -1, 1) + 1) * (WHITE / 2)).astype(np.int16)
    with write_atomically(path) as partial:
        nibabel.save(type(like)(grey, like.affine, header, dtype=np.int16), partial)
