"""Volumes: NIfTI files, there and back; FreeSurfer, Analyze and DICOM."""

import gzip
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np

from .. import InputError
from ..runs import write_atomically
from .arrays import enclosed
from .dicom import is_dicom, is_dicom_folder, read_dicom
from .geometry import check_geometry
from .images import LARGEST, check_there, is_dead
from .quiet import VOLUME, reading

UNPLACED = "The file does not say how the head lies: is left where it should be?"
DEFLATE = 1032  # gzip makes a file at most so many times smaller
WHITE = 1000  # what 1 becomes in a written file, and -1 becomes 0


class Look(NamedTuple):
    """How a map is drawn: what is brightest, `top`, is on the scale [0, 1]."""

    title: str
    colours: str
    top: float


MAPS = {
    "source": Look("source", "gray", 1),
    "synthetic": Look("synthetic", "gray", 1),
    "truth": Look("true", "gray", 1),
    "error": Look("absolute error, 0 to 0.2", "inferno", 0.2),
    "trust": Look("trust map, 0 to 0.1", "inferno", 0.1),
}
"""What there is of a scan, in pictures."""

# All else of a header stays behind: free text and extensions may name a patient.
GEOMETRY = ("pixdim", "xyzt", "qform", "sform", "quatern", "qoffset", "srow")
ENDINGS = re.compile(r"\.((nii|hdr|img)(\.gz)?|mgz|mgh|dcm|ima)$", re.IGNORECASE)
MILLIMETRES = {1: 1000.0, 3: 0.001}  # by NIfTI's code of the unit; 0 is unknown, taken as mm


def window(name: str, volume: nibabel.Nifti1Image) -> tuple[float, float]:
    """The values that are drawn black and brightest in a picture of a volume, `name` of MAPS.

    Black is 0 or, for a scan with values below 0, nearly its least.
    """
    low, high = np.percentile(volume.dataobj, [0.1, 99.9])
    scanned = name in ("source", "truth")  # in no unit
    return min(0.0, low), MAPS[name].top * (high if scanned else WHITE)


def is_volume(path: Path) -> bool:
    """Whether the path is a file or a folder that `read_volume` is for, going by its name.

    That is a NIfTI (.nii, .hdr with .img, each also .gz), FreeSurfer (.mgz, .mgh), Analyze (.hdr
    with .img) or DICOM file, a link that has the name of one and leads nowhere, or a folder that is
    one series or one study of DICOM (`dicom.is_dicom_folder`).
    """
    with reading(path):
        disk = path.name.upper() == "DICOMDIR" and path.is_file()
        folder = path.parent if disk else path
        return (
            is_volume_file(path) or is_dicom(path) or (folder.is_dir() and is_dicom_folder(folder))
        )


def is_volume_file(path: Path) -> bool:
    """Whether a file, or a link that leads nowhere, has the name of a volume."""
    there = path.is_file() or is_dead(path)
    if ".img" in path.name.lower() and other_half(path):  # disks have this ending too
        there = there and other_half(path).is_file()
    return there and ENDINGS.search(path.name) is not None


def holds_dicom(path: Path) -> bool:
    """Whether a volume's path leads to DICOM files: a folder, a disk, or one of them."""
    return path.is_dir() or path.name.upper() == "DICOMDIR" or is_dicom(path)


def volume_name(path: Path) -> str:
    """The name of a volume without its ending."""
    return path.name if path.is_dir() else ENDINGS.sub("", path.name)


def read_volume(path: Path, series: str = "") -> nibabel.Nifti1Image:
    """A volume as a three-dimensional float32 NIfTI image in RAS+ mm.

    Scale factors, or rescale slope and intercept, are applied; a fourth dimension of one frame is
    dropped, two dimensions are one slice; NIfTI's metres and microns become mm. Voxels outside the
    head may be NaN: those that join up with the border. Of DICOM, enhanced (multi-frame) or not, it
    is one series, told from others by its UID, which `series` names: its UID, number, or a part of
    the description. Several images in one place are told apart there too, as in "2 EchoTime=4.92",
    by one of `dicom.CHOICES`. `image.extra["warnings"]` lists sentences on what is doubtful, and of
    DICOM `image.extra["file"]` is one of the files.

    Raises InputError for a file that cannot be read, voxels that are no single number, infinite,
    NaN inside the head, or the same everywhere, for a geometry that is none or takes more than
    2^28 voxels as it is or at 1 mm, for DICOM images that are not of magnitude, and where one
    evenly spaced stack is not there or yet to be chosen.
    """
    with reading(path):
        check_there(path)
        if holds_dicom(path):
            disk = path.name.upper() == "DICOMDIR"
            volume = read_dicom(path.parent if disk else path, series)
        else:
            volume = _read_file(path)
        check_voxels(path, np.asanyarray(volume.dataobj))
    return volume


def check_voxels(path: Path | str, data: np.ndarray) -> None:
    """Raises InputError, as `read_volume`, for three-dimensional voxels that are no scan."""
    low, high = np.nanmin(data), np.nanmax(data)
    if max(-low, high) > LARGEST:
        found = f"{max(low, high, key=abs):.4g}"
        raise InputError(f"{path} holds {found}: expected finite voxels, up to {LARGEST:g}.")
    if low == high or np.isnan(low):
        raise InputError(f"{path} is {low} everywhere: expected a scan of a head.")
    if np.isnan(data.min()):
        empty = np.squeeze(np.isnan(data))  # a side of one voxel is no border
        empty = empty if empty.ndim == 3 else np.atleast_2d(empty)[None]
        inside = enclosed(empty, through=len(empty) > 1, corners=True)
        for axis in range(3):  # a slice between others, or a row of a slice, is inside
            gone = empty.all(axis=tuple({0, 1, 2} - {axis}))
            first, last = np.flatnonzero(~gone)[[0, -1]]
            np.moveaxis(inside, axis, 0)[first:last] |= gone[first:last, None, None]
        if count := np.count_nonzero(inside):
            raise InputError(f"{path} holds {count} NaN inside: expected finite voxels there.")


def other_half(path: Path) -> Path | None:
    """The file beside a `.hdr` or `.img`, in the same case, that belongs to the same volume."""
    packed = path.suffix if path.suffix.lower() == ".gz" else ""
    half = path.with_name(path.name.removesuffix(packed))
    other = {".img": ".hdr", ".hdr": ".img"}.get(half.suffix.lower())
    name = other and half.with_suffix(other.upper() if half.suffix.isupper() else other).name
    return name and half.with_name(name + packed)


def check_pair(path: Path) -> None:
    """Raises InputError for one file of two whose other one is not there."""
    other = other_half(path)
    if other and path.is_file() and not other.is_file():
        raise InputError(f"{path} is half of a pair: expected {other.name} beside it.")


def _spm_mat(path: Path) -> Path | None:
    """Where SPM says how an Analyze file lies: in a file beside it, if that is there."""
    if not other_half(path):
        return None
    mat = Path(nibabel.Spm2AnalyzeImage.filespec_to_file_map(path)["mat"].filename)
    return mat if mat.is_file() and mat.stat().st_size else None


def _open(path: Path) -> nibabel.spatialimages.SpatialImage:
    """A file as nibabel has it. Raises InputError where it holds no single volume of numbers."""
    check_pair(path)
    with path.open("rb") as file:
        start = file.read(2)
    packed = start == b"\x1f\x8b"
    if start and packed != path.name.lower().endswith("gz"):
        found = "" if packed else "not "
        raise InputError(f"{path} is {found}compressed by gzip: expected what its name says.")
    mat = _spm_mat(path)
    with reading(path, f"volume that lies as {mat.name} says" if mat else VOLUME):
        image = nibabel.load(path)  # which needs scipy for that, as nothing else here does
    for place in {place.filename for place in image.file_map.values()} if packed else ():
        with gzip.open(place) as file:  # to its end, where the checksum is: nibabel stops before
            while file.read(2**20):
                pass
    kinds = nibabel.Nifti1Pair, nibabel.MGHImage, nibabel.AnalyzeImage
    if not isinstance(image, kinds):
        raise InputError(f"{path} is a {type(image).__name__}: expected a {VOLUME}.")
    voxel = image.get_data_dtype()
    if voxel.names or voxel.kind == "c":
        found = "colour" if voxel.names else "complex numbers"
        raise InputError(f"{path} holds {found}: expected one real number a voxel.")
    if math.prod(image.shape[3:]) != 1:
        size, expected = " x ".join(map(str, image.shape)), "one volume of three dimensions"
        raise InputError(f"{path} has {size} voxels: expected {expected} (fslroi takes one out).")
    return image


def _read_file(path: Path) -> nibabel.Nifti1Image:
    image = _open(path)
    shape = (*image.shape, 1, 1)[:3]  # of a slice alone, too
    doubts, places = [], image.file_map
    if isinstance(image, nibabel.Nifti1Pair):
        block, order = image.header.binaryblock, image.header.endianness
        version = nibabel.Nifti2Image if len(block) > 348 else nibabel.Nifti1Image
        header = version.header_class(block, order, check=False)  # of a pair, for one file
        with places.get("header", places["image"]).get_prepare_fileobj("rb") as file:
            written = image.header_class.from_fileobj(file, check=False)  # else 1 for a size of 0
        if written.is_single and not written["vox_offset"]:
            raise ValueError("its vox_offset is 0, which is the header")
        scale = MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1)
        if scale != 1:
            for field in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
                header[field] *= scale
            header["pixdim"][1:4] *= scale
            header["xyzt_units"] = int(header["xyzt_units"]) & ~7 | 2  # time's unit stays
        affine, sizes = header.get_best_affine(), [np.abs(written["pixdim"][1:4]) * scale]
        if not (header["qform_code"] or header["sform_code"]):
            doubts.append(UNPLACED)
        elif header["sform_code"]:
            doubts += _disagreements(header, sizes[0])
    else:
        version, header, affine, sizes = nibabel.Nifti1Image, None, image.affine, []
        if isinstance(image, nibabel.AnalyzeImage):
            said = f", it lies as {mat.name} says" if (mat := _spm_mat(path)) else ""
            doubts.append(
                f"An Analyze file does not say where left is{said}: is it where it should be?"
            )
            doubts += _other_sizes(np.abs(image.header["pixdim"][1:4]), affine, "mat")
        else:
            with places["image"].get_prepare_fileobj("rb") as file:
                if not any(file.read(30)[28:]):  # goodRASFlag, which nibabel sets where it is 0
                    doubts.append(UNPLACED)
    if (slope := image.dataobj.slope) < 0:
        doubts.append(
            f"Its scale factor is below 0 ({slope:.4g}): are its grey values turned over?"
        )
    check_geometry(path, shape, affine, *sizes)
    voxels = Path(places["image"].filename)
    most = voxels.stat().st_size * (DEFLATE if voxels.suffix.lower() in (".gz", ".mgz") else 1)
    if math.prod(shape) * image.get_data_dtype().itemsize > most:  # before nibabel makes room
        raise ValueError("it is too short for its voxels")
    data = image.get_fdata(caching="unchanged", dtype=np.float32).reshape(shape)
    volume = version(data, affine, header, {"warnings": doubts})
    if header is None:
        volume.header.set_xyzt_units("mm")
        volume.set_sform(affine, "scanner")
        volume.set_qform(affine, "scanner")
    return volume


def _disagreements(header: nibabel.Nifti1Header, sizes: np.ndarray) -> Iterator[str]:
    """What a header says otherwise than in its sform, which is taken; sizes are of its pixdim."""
    sform = header.get_sform()
    yield from _other_sizes(sizes, sform, "sform")
    with suppress(ValueError):  # of a quaternion that is none
        one, other = (str(nibabel.aff2axcodes(x)) for x in (header.get_qform(), sform))
        if header["qform_code"] and one != other:
            yield f"The head lies {one} by the qform and {other} by the sform, which is taken."


def _other_sizes(sizes: np.ndarray, affine: np.ndarray, source: str) -> Iterator[str]:
    """What the affine of a source says otherwise than pixdim, whose voxels have `sizes` in mm."""
    found = nibabel.affines.voxel_sizes(affine)
    if not np.allclose(sizes, found, rtol=0.25):  # an affine registration may stretch as much
        one, other = (" x ".join(f"{size:g}" for size in side) for side in (sizes, found))
        yield f"Voxels are {one} mm by pixdim and {other} mm by the {source}, which is taken."


def whole_numbers(data: np.ndarray) -> np.ndarray:
    """Grey values in [-1, 1] as they are written: float32, 0 (black, -1) to 1000 (white, 1)."""
    return np.rint((np.clip(data, -1, 1) + 1) * (WHITE / 2))


def write_volume(path: Path, data: np.ndarray, like: nibabel.Nifti1Image, description: str) -> None:
    """Write data in [-1, 1] as a NIfTI file (.nii.gz) that lies where the volume `like` lies.

    Voxels are int16 from 0 (black, -1) to 1000 (white, 1): 500 (x + 1), rounded. Shape, voxel
    size, qform and sform with their codes are those of `like`, bit for bit; nothing else of its
    header is taken over. The description's first line is cut to 80 bytes.
    """
    header = like.header_class()
    for field in header:
        if field.startswith(GEOMETRY):
            header[field] = like.header[field]
    header["descrip"] = description.partition("\n")[0].encode()[:80]
    header["cal_min"], header["cal_max"] = 0, WHITE
    grey = np.empty(data.shape, np.int16, order="F")  # as in files
    for plane, values in zip(grey.T, data.T, strict=True):  # one at a time: little memory
        plane[:] = whole_numbers(values)
    with write_atomically(path) as partial:
        nibabel.save(type(like)(grey, like.affine, header, dtype=np.int16), partial)
