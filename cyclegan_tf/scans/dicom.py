"""A folder of DICOM files → a volume."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pydicom

from .. import InputError
from .geometry import _check_geometry
from .images import natural_order, passed_over
from .quiet import quiet

EVEN = 0.05  # of the gap between two slices: how far one may be from its place


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What the libraries say of a file: oddities are passed over, errors are an InputError."""
    try:
        with quiet():
            yield
    except InputError:
        raise
    except Exception as error:  # there is hardly one that a damaged file does not raise
        reason = getattr(error, "strerror", None) or textwrap.shorten(str(error), 150)
        raise InputError(f"{path} is damaged or no NIfTI or DICOM volume ({reason}).") from None


def _is_dicom(path: Path) -> bool:
    """A file with DICOM's mark behind its preamble, except a disk's table of contents."""
    if passed_over(path.name) or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


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
