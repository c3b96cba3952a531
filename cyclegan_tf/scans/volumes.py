"""Volumes: NIfTI files, there and back, BIDS data sets, and folders of DICOM."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np

from .. import InputError
from ..runs import write_atomically
from .dicom import _is_dicom, _read_dicom, _reading
from .geometry import _check_geometry
from .images import natural_order, passed_over

DEFLATE = 1032  # how often smaller gzip makes a file at most
WHITE = 1000  # what 1 becomes in a written file, and -1 becomes 0

# All else of a header stays behind: free text and extensions may name a patient.
GEOMETRY = ("pixdim", "xyzt", "qform", "sform", "quatern", "qoffset", "srow")


def is_bids(folder: Path) -> bool:
    """Whether the folder is a BIDS data set with anatomical scans: `sub-*/[ses-*/]anat`."""
    return any(any(folder.glob(place)) for place in ("sub-*/anat", "sub-*/ses-*/anat"))


def is_volume(path: Path) -> bool:
    """Whether the path is a .nii or .nii.gz file, or a folder that itself holds DICOM files."""
    with _reading(path):
        return _is_nifti(path) or (path.is_dir() and any(map(_is_dicom, path.iterdir())))


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz")) and path.is_file()


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
