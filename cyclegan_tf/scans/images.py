"""Image files ↔ arrays of grey values."""

import re
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps

from .. import InputError
from ..runs import write_atomically
from .quiet import reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
IMAGES = "PNG, JPEG, TIFF or BMP"  # as messages say it
ORIENTATION = 274  # EXIF's and TIFF's tag
PASSED_OVER = {"__macosx", "thumbs.db", "desktop.ini", "truth"}  # besides hidden files

POINTERS = (b"/annex/objects/", b"version https://git-lfs")  # how such files begin

MINIMUM_SIDE = 16  # pixels
MAXIMUM_PIXELS = 8192**2  # fewer than pillow warns of
LARGEST = 1e35  # of float32; what is larger stands for no number, and sums of it are none


def passed_over(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's images: hidden, or a system's."""
    return name.startswith(".") or name.lower() in PASSED_OVER


def natural_order(path: Path) -> tuple[list, str]:
    """A key that sorts #9 before #10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def is_dead(path: Path) -> bool:
    """Whether the path is a link that leads nowhere."""
    return path.is_symlink() and not path.exists()


def check_there(path: Path) -> None:
    """Raises InputError for what stands in a file's place and has no content: a link, a pointer.

    What is not there at all is left to who reads it.
    """
    if is_dead(path):
        expected = "a file, so fetch it first (git annex get, datalad get)"
        raise InputError(f"{path} is a link that leads nowhere: expected {expected}.")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(64).startswith(POINTERS):
                found = "a pointer of git-annex or Git LFS"
                raise InputError(f"{path} is {found}: expected the file it stands for.")
    elif path.exists() and not path.is_dir():
        raise InputError(f"{path} is no file: expected one.")


def read_image(path: Path) -> np.ndarray:
    """Grey values (H, W) as a viewer shows them: uint8 of 1 to 8 bits, int64 of more, or float32.

    Colour becomes luminance (ITU-R 601), a palette its colours, what is transparent black in that
    measure, and the image is turned upright as its EXIF orientation says. Raises InputError for a
    damaged file, several pages, NaN, what exceeds LARGEST, and an image too small or large.
    """
    with reading(path, f"{IMAGES} image"):
        check_there(path)
        image = _decode(path)
    if image.ndim != 2 or min(image.shape) < MINIMUM_SIDE:
        size = " x ".join(map(str, image.shape[::-1]))
        raise InputError(f"{path} is {size} pixels: expected {MINIMUM_SIDE} or more a side.")
    if not (np.abs(image) <= LARGEST).all():
        raise InputError(f"{path} holds NaN or numbers beyond {LARGEST:g}: expected grey values.")
    return image


def _decode(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        is_tiff = file.read(2) in (b"II", b"MM")  # whatever its name says
    sign = 1
    if is_tiff:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            # ImageJ and tifffile may write one page and all slices of a stack behind it.
            pages = max(len(tiff.pages) * page.imagedepth, tiff.series[0].size // page.size)
            _check(path, pages, page.size)
            wide = page.dtype not in (np.uint8, bool)  # pillow would cut some of these to 8 bits
            if wide and page.compression != tifffile.COMPRESSION.LZW:  # which only pillow unpacks
                return _wide_tiff(path, page)
            # Of more than 8 bits pillow does not see to it.
            sign = 1 - 2 * (page.photometric == tifffile.PHOTOMETRIC.MINISWHITE)
    with Image.open(path, formats=FORMATS) as image:
        image.filename = ""  # else pillow maps a TIFF that lies on its side with the wrong width
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a phone's previews
        _check(path, pages, image.width * image.height)
        if ";16" in str(image.tile) and not image.mode.startswith("I"):
            found = "16 bits with colour or transparency"
            raise InputError(f"{path} has {found}: expected grey alone, or 8 bits.")
        if image.mode == "L" and isinstance(image.info.get("transparency"), int):
            steps = {"L;2": 85, "L;4": 17}  # pillow spreads such greys over 8 bits, but not this
            image.info["transparency"] *= steps.get(image.tile[0][3], 1)
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            grey = np.asarray(image, np.float32 if image.mode == "F" else np.int64)
            return np.where(grey == image.info.get("transparency"), 0, sign * grey)
        if image.has_transparency_data:
            black = Image.new("RGBA", image.size, "black")
            image = Image.alpha_composite(black, image.convert("RGBA"))
        return np.asarray(image.convert("L"))


def _check(path: Path, pages: int, pixels: int) -> None:
    if pages != 1:
        raise InputError(f"{path} holds {pages} pages: expected one image a file.")
    if pixels > MAXIMUM_PIXELS:
        raise InputError(f"{path} has {pixels} pixels: expected at most {MAXIMUM_PIXELS}.")


def _wide_tiff(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    black, white = tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE
    grey_alone = page.photometric in (black, white) and page.samplesperpixel == 1
    if not grey_alone or page.dtype.kind == "c":
        found = f"{page.dtype} {page.photometric.name} of {page.samplesperpixel} samples"
        raise InputError(f"{path} is {found}: expected grey alone, or 8 bits.")
    grey = page.asarray().astype(np.float32)
    upright = Image.fromarray(-grey if page.photometric == white else grey)
    upright.getexif()[ORIENTATION] = page.tags.valueof(ORIENTATION, 1)
    kind = np.float32 if page.dtype.kind == "f" else np.int64
    return np.asarray(ImageOps.exif_transpose(upright), kind)


def write_image(path: Path, image: np.ndarray, bits: type = np.uint8) -> None:
    """Write an image (H, W) in [-1, 1] as grey; the name's ending is the format."""
    grey = np.rint((np.clip(image, -1, 1) + 1) / 2 * np.iinfo(bits).max).astype(bits)
    with write_atomically(path) as partial:
        Image.fromarray(grey).save(partial, quality=95)  # of a JPEG
