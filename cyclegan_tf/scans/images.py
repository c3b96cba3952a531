"""Image files ↔ arrays, and the folders that they are in."""

from __future__ import annotations

import os
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from tqdm.auto import tqdm

from .. import InputError
from ..runs import write_atomically
from .intensity import scale_intensities
from .quiet import quiet

LAYOUTS = (("TrainT1", "TrainT2"), ("TrainA", "TrainB"), ("T1", "T2"))
TIFF_SUFFIXES = {".tif", ".tiff"}
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"} | TIFF_SUFFIXES
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
PASSED_OVER = {"__macosx", "thumbs.db", "desktop.ini", "truth"}  # besides hidden files

MINIMUM_SIDE = 16  # pixels
MAXIMUM_PIXELS = 8192**2


def find_domains(*folders: Path) -> tuple[Path, Path]:
    """The T1 and the T2 folder: those given, or found up to three levels below the one given.

    Found are, in upper or lower case, `TrainT1` and `TrainT2` (published: `Tr1/TrainT1` and
    `Tr2/TrainT2`), `trainA` and `trainB`, `T1` and `T2`; the shallowest, where there are several.
    The root of a BIDS data set (`sub-*/[ses-*/]anat`) holds both and is returned twice. Raises
    InputError unless there are two folders, and two different ones.
    """
    if len(folders) > 2:
        raise InputError(f"{len(folders)} folders of data are given: expected one, or T1 and T2.")
    if len(folders) == 1 and any(folders[0].glob("sub-*/**/anat/")):
        return folders * 2
    t1, t2 = folders if len(folders) == 2 else _search(*folders)
    for folder in (t1, t2):
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: expected a folder of images.")
    if os.path.samefile(t1, t2):
        raise InputError(f"{t1} and {t2} are the same folder: expected one of T1 and one of T2.")
    return t1, t2


def _search(root: Path) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"{root} is no folder: expected one that holds a T1 and a T2 folder.")
    below = [path for depth in ("*", "*/*", "*/*/*") for path in sorted(root.glob(depth))]
    visible = [path for path in below if not any(map(passed_over, path.relative_to(root).parts))]
    for layout in LAYOUTS:
        found = {
            name: [path for path in visible if path.name.lower() == name.lower() and path.is_dir()]
            for name in layout
        }
        if not any(found.values()):
            continue
        for name, paths in found.items():
            if not paths:
                both = " and ".join(layout)
                raise InputError(f"{root} holds no folder {name}: expected both {both}.")
            if len(paths) > 1 and len(paths[0].parts) == len(paths[1].parts):
                raise InputError(f"{paths[0]} and {paths[1]} are both there: expected one {name}.")
        return [paths[0] for paths in found.values()]
    expected = ", or ".join(" and ".join(layout) for layout in LAYOUTS)
    raise InputError(f"{root} holds no folders of T1 and T2 images: expected {expected}.")


def passed_over(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's images: hidden, or a system's."""
    return name.startswith(".") or name.lower() in PASSED_OVER


def list_images(folder: Path) -> list[Path]:
    """The PNG, JPEG, TIFF and BMP files of a folder in natural order, #9 before #10.

    Hidden files are passed over. Raises InputError for any other file and where there is no image.
    """
    try:
        entries = [p for p in folder.iterdir() if not passed_over(p.name)]
        files = [p for p in entries if p.is_file() or not p.exists()]  # a link that leads nowhere
    except OSError as error:
        raise InputError(f"{folder} is no folder that can be read ({error.strerror}).") from None
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path} is no image: expected only PNG, JPEG, TIFF or BMP files.")
    if not files:
        raise InputError(f"{folder} holds no image: expected PNG, JPEG, TIFF or BMP files.")
    return sorted(files, key=natural_order)


def natural_order(path: Path) -> tuple[list, str]:
    """A key that sorts #9 before #10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def read_image(path: Path) -> np.ndarray:
    """Grey values (H, W) as they are in a file: uint8 of 1- to 8-bit images, float32 of others.

    Colour becomes luminance (ITU-R 601), a palette its colours; transparency is ignored. Raises
    InputError for a damaged file, several pages, NaN or infinity, and an image too small or large.
    """
    try:
        with quiet():  # of oddities that do not touch the grey values
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _decode(path)
    except InputError:
        raise
    except Exception as error:  # there is hardly one that no decoder raises on a damaged file
        reason = getattr(error, "strerror", None) or textwrap.shorten(str(error), 150)
        raise InputError(f"{path} is damaged or no image ({reason}).") from None
    if image.ndim != 2 or min(image.shape) < MINIMUM_SIDE:
        size = " x ".join(map(str, image.shape[::-1]))
        raise InputError(f"{path} is {size} pixels: expected {MINIMUM_SIDE} or more a side.")
    if not np.isfinite(image).all():
        raise InputError(f"{path} holds NaN or infinity: expected finite grey values.")
    return image


def _decode(path: Path) -> np.ndarray:
    if path.suffix.lower() in TIFF_SUFFIXES:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            _check(path, len(tiff.pages), page.size)
            wide = page.dtype not in (np.uint8, bool)  # pillow would cut some of these to 8 bits
            if wide and page.compression != tifffile.COMPRESSION.LZW:  # which only pillow unpacks
                return _wide_tiff(page)
    with Image.open(path, formats=FORMATS) as image:
        _check(path, getattr(image, "n_frames", 1), image.width * image.height)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return np.asarray(image, np.float32)
        if ";16" in str(image.tile):
            raise InputError(f"{path} is 16-bit colour: expected grey or 8 bits.")
        return np.asarray(image.convert("L"))


def _check(path: Path, pages: int, pixels: int) -> None:
    if pages != 1:
        raise InputError(f"{path} holds {pages} pages: expected one image a file.")
    if pixels > MAXIMUM_PIXELS:
        raise InputError(f"{path} has {pixels} pixels: expected at most {MAXIMUM_PIXELS}.")


def _wide_tiff(page: tifffile.TiffPage) -> np.ndarray:
    grey = page.asarray().astype(np.float32)
    if "S" in page.axes:
        samples = np.moveaxis(grey, page.axes.index("S"), -1)
        colour = samples.shape[-1] >= 3
        grey = samples[..., :3] @ np.float32([0.299, 0.587, 0.114]) if colour else samples[..., 0]
    inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    return -grey if inverted else grey


def read_images(paths: Sequence[Path], contrast: str) -> list[np.ndarray]:
    """The images of one folder or head, float32 (H, W) in [-1, 1]; `contrast` is `t1` or `t2`.

    8-bit grey g becomes g / 127.5 - 1, as published. All others are scaled together, as one
    stack, by `scale_intensities`. Raises InputError as `read_image`, and for a constant image.
    """
    images = [read_image(path) for path in tqdm(paths, "reading", disable=len(paths) < 200)]
    for path, image in zip(paths, images, strict=True):
        if image.min() == image.max():
            raise InputError(f"{path} is {image.min()} everywhere: expected an image of a head.")
    others = [image for image in images if image.dtype != np.uint8]
    scaled = iter(scale_intensities(others, contrast) if others else [])
    return [
        image.astype(np.float32) / 127.5 - 1 if image.dtype == np.uint8 else next(scaled)
        for image in images
    ]


def write_image(path: Path, image: np.ndarray, bits: type = np.uint8) -> None:
    """Write an image (H, W) in [-1, 1] as grey; the name's ending is the format."""
    grey = np.rint((np.clip(image, -1, 1) + 1) / 2 * np.iinfo(bits).max).astype(bits)
    with write_atomically(path) as partial:
        Image.fromarray(grey).save(partial, quality=95)  # of a JPEG
