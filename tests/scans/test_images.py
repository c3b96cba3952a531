"""Image folders and files of every kind, one intensity scale, and frames that lose nothing."""

import os
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.stats import linregress
from skimage.metrics import peak_signal_noise_ratio
from skimage.transform import resize

from cyclegan_tf import InputError
from cyclegan_tf.presets import LAPTOP, PAPER
from cyclegan_tf.scans.folders import find_domains, list_images
from cyclegan_tf.scans.frame import MULTIPLE, Frame
from cyclegan_tf.scans.images import read_image, write_image
from cyclegan_tf.scans.intensity import normalise
from cyclegan_tf.scans.scan import read_scans
from cyclegan_tf.simulation.phantom import Variation, simulate_pairs

GREY = np.random.default_rng(0).integers(0, 256, (24, 20), dtype=np.uint8)


@pytest.fixture(scope="module")
def head():
    """T1w, T2w (12, H, W) in arbitrary units from 0, and tissue labels."""
    t1, t2, labels = simulate_pairs(12, seed=3, heads=1)
    return t1[..., 0] + 1, t2[..., 0] + 1, labels


def read_images(paths, contrast):
    """What a scan of the files holds, image by image."""
    found = {}
    for scan in read_scans(paths, contrast):
        found |= dict(zip(scan.sources, scan.slices, strict=True))
    return [found[path] for path in paths]


def folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


# Folders


@pytest.mark.parametrize(
    ("t1", "t2"),
    [
        ("Tr1/TrainT1", "Tr2/TrainT2"),
        ("MRI+T1_T2+Dataset/Tr1/TrainT1", "MRI+T1_T2+Dataset/Tr2/TrainT2"),
        ("trainT1", "trainT2"),
        ("trainA", "trainB"),
        ("T1", "T2"),
        ("my scans #1/t1", "my scans #1/t2"),
    ],
)
def test_every_known_layout_is_found(tmp_path, t1, t2):
    folders(tmp_path, t1, t2, "__MACOSX/Tr1/TrainT1", ".cache/T1", "Truth/deep/T2")
    assert find_domains(tmp_path) == (tmp_path / t1, tmp_path / t2)


def test_two_folders_may_have_any_names(tmp_path):
    folders(tmp_path, "mprage", "tse")
    assert find_domains(tmp_path / "mprage", tmp_path / "tse") == (
        tmp_path / "mprage",
        tmp_path / "tse",
    )


def test_two_folders_that_are_named_as_other_contrasts_are_refused(tmp_path):
    for x, y, wrong in (("trainT2", "trainT1", "T2"), ("T2", "a", "T2"), ("T1", "FLAIR", "FLAIR")):
        folders(tmp_path, x, y)
        with pytest.raises(InputError, match=f"{wrong} is named as {wrong}w?: expected the folder"):
            find_domains(tmp_path / x, tmp_path / y)
    assert find_domains(tmp_path / "T1", tmp_path / "a") == (tmp_path / "T1", tmp_path / "a")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no folders of T1 and T2 images"),
        (["TrainT1"], "holds no folder TrainT2: expected both TrainT1 and TrainT2"),
        (["x/trainB"], "holds no folder TrainA"),
        (["T1", "Truth/T2"], "holds no folder T2"),
        (["a/T1", "b/T1", "a/T2"], "expected one T1"),
    ],
)
def test_a_missing_or_doubtful_folder_is_refused(tmp_path, names, message):
    folders(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        find_domains(tmp_path)


def test_a_folder_is_not_translated_into_itself(tmp_path):
    folders(tmp_path, "T1")
    (tmp_path / "T2").symlink_to(tmp_path / "T1")
    for given in ((tmp_path,), (tmp_path / "T1", tmp_path / "T1")):
        with pytest.raises(InputError, match="the same folder"):
            find_domains(*given)


def test_three_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="3 folders of data are given"):
        find_domains(tmp_path, tmp_path, tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(InputError, match=f"{path.name} is no folder"):
            find_domains(path)
        with pytest.raises(InputError, match=f"{path.name} is no folder"):
            find_domains(tmp_path, path)
        with pytest.raises(InputError, match=f"{path.name} cannot be read as a folder"):
            list_images(path)


def test_images_come_in_natural_order(tmp_path):
    names = ["Image #1.TIF", "image #9.png", "Image #10.PNG", "Image #10b.bmp", "Image #100.jpeg"]
    for name in (*reversed(names), ".DS_Store", "._Image #9.png", "Thumbs.db"):
        (tmp_path / name).touch()
    folders(tmp_path, "subfolder.png")
    assert [path.name for path in list_images(tmp_path)] == names


def test_a_folder_without_images_and_a_stray_file_are_refused(tmp_path):
    (tmp_path / ".DS_Store").touch()
    with pytest.raises(InputError, match="is no folder of scans"):
        list_images(tmp_path)
    (tmp_path / "a.png").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="notes.txt is no image"):
        list_images(tmp_path)


# Files of 8 bits


HOLDS = {
    "a.png": ("L", "RGB", "RGBA", "LA", "P"),
    "a.bmp": ("L", "RGB", "RGBA", "P"),
    "a b #1.TIFF": ("L", "RGB", "RGBA", "LA", "P", "CMYK"),
}


@pytest.mark.parametrize(("name", "mode"), [(n, m) for n, modes in HOLDS.items() for m in modes])
def test_8_bits_are_scaled_as_published(tmp_path, name, mode):
    Image.fromarray(GREY).convert(mode).save(tmp_path / name)
    (image,) = read_images([tmp_path / name], "t1")
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, GREY / 127.5 - 1, atol=1e-6)


def test_jpeg_and_compressed_tiff_are_read(tmp_path):
    smooth = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None], 20, axis=1)
    Image.fromarray(smooth).save(tmp_path / "a.JPG", quality=95)
    Image.fromarray(smooth).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert np.abs(read_image(tmp_path / "a.JPG") - smooth.astype(float)).max() <= 4
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), smooth)


def test_an_image_is_read_as_what_it_is_whatever_its_name_says(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.tif", format="PNG")
    tifffile.imwrite(tmp_path / "b.tif", GREY.astype(np.int32) * 1000)
    (tmp_path / "b.tif").rename(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), GREY)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), GREY * 1000.0)


def test_colour_becomes_luminance(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    iio.imwrite(tmp_path / "8.png", colour)
    expected = colour @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(read_image(tmp_path / "8.png"), expected, atol=0.51)


def test_one_bit_and_colour_palettes_are_read(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png"), np.where(GREY > 100, 255, 0))
    palette = Image.fromarray(GREY).convert("P")
    palette.putpalette([255 - level for level in range(256) for _ in range(3)])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), 255 - GREY)


# What a viewer shows is what is read


RAMP = np.tile(np.arange(40, 240, 10, dtype=np.uint8), (24, 1))
HALF = np.where(np.arange(20) < 10, 255, 0).astype(np.uint8) * np.ones((24, 1), np.uint8)


def hidden(mode):
    """A ramp whose right half is transparent, white underneath."""
    under = Image.fromarray(np.where(HALF > 0, RAMP, 255))
    alpha = Image.fromarray(HALF)
    if mode == "P":
        palette = under.quantize(256, dither=Image.Dither.NONE)
        data = np.asarray(palette).copy()
        data[HALF == 0] = free = 255  # a colour of its own, that nobody sees
        colours = [*palette.getpalette(), *[255] * 768][: 3 * free] + [255] * 3
        image = Image.fromarray(data, "P")
        image.putpalette(colours)
        return image, {"transparency": free}
    if mode in ("L", "RGB"):  # one grey or colour is the transparent one
        white = 255 if mode == "L" else (255, 255, 255)
        return under.convert(mode), {"transparency": white}
    image = under.convert(mode)
    image.putalpha(alpha)
    return image, {}


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB"])
def test_what_is_transparent_is_black_whatever_colour_it_hides(tmp_path, mode):
    image, options = hidden(mode)
    image.save(tmp_path / "a.png", **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.where(HALF > 0, RAMP, 0))


def test_what_is_half_transparent_is_half_as_bright(tmp_path):
    image = Image.fromarray(RAMP).convert("RGBA")
    image.putalpha(Image.fromarray(np.full_like(RAMP, 128)))
    image.save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png") - RAMP * (128 / 255)).max() <= 1


def test_16_bits_with_colour_or_transparency_are_refused_and_not_taken_for_grey(tmp_path):
    wide = RAMP.astype(np.uint16)
    for name, samples, options in (
        ("alpha.tif", np.dstack([wide] * 2), {"photometric": "minisblack"}),
        ("rgb.tif", np.dstack([wide] * 3), {"photometric": "rgb"}),
        ("cmyk.tif", np.dstack([wide] * 4), {"photometric": "separated"}),
        (
            "palette.tif",
            wide,
            {"photometric": "palette", "colormap": np.zeros((3, 2**16), np.uint16)},
        ),
        ("complex.tif", RAMP.astype(np.complex64), {}),
    ):
        if name == "alpha.tif":
            options |= {"planarconfig": "contig", "extrasamples": ["unassalpha"]}
        tifffile.imwrite(tmp_path / name, samples, **options)
    (tmp_path / "alpha.png").write_bytes(png(16, 16, 16, 4, bytes(65 * 16)))
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match="expected grey alone, or 8 bits"):
            read_image(path)


@pytest.mark.parametrize("depth", [2, 4, 16])
def test_a_grey_of_any_depth_that_counts_as_transparent_is_black(tmp_path, depth):
    row = {2: b"\x1f" * 4, 4: b"\x1f" * 8, 16: b"\x10\0\xff\xff" * 8}[depth]
    content = png(16, 16, depth, 0, (b"\0" + row) * 16)
    body = b"tRNS" + struct.pack(">H", 2**depth - 1)  # white
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    place = content.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(content[:place] + chunk + content[place:])
    shown = {2: [0, 85, 0, 0], 4: [17, 0], 16: [0x1000, 0]}[depth]
    expected = np.tile(shown, (16, 16 // len(shown)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "8.tif", "16.tif", "lzw.tif", "a.jpg"])
def test_an_image_is_turned_upright_as_its_orientation_says(tmp_path, name, orientation):
    upright = np.repeat(np.repeat(np.arange(6).reshape(3, 2) * 40, 8, 0), 16, 1).astype(np.uint8)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    if name == "16.tif":
        tag = 274, "H", 1, orientation, True
        tifffile.imwrite(tmp_path / name, turned.astype(np.uint16), extratags=[tag])
    else:
        image = Image.fromarray(np.ascontiguousarray(turned))
        image = Image.fromarray(np.uint16(turned)) if name == "lzw.tif" else image
        exif = image.getexif()
        exif[274] = orientation
        options = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
        image.save(tmp_path / name, exif=exif, **options)
    read = read_image(tmp_path / name)
    assert read.shape == upright.shape
    assert np.abs(read - upright.astype(float)).max() <= (8 if name == "a.jpg" else 0)


def test_the_preview_beside_a_phones_photograph_is_no_second_page(tmp_path):
    Image.fromarray(RAMP).save(
        tmp_path / "a.jpg",
        format="MPO",
        save_all=True,
        append_images=[Image.fromarray(RAMP[:16, :16])],
        quality=95,
    )
    assert np.abs(read_image(tmp_path / "a.jpg") - RAMP.astype(float)).max() <= 4


# All other files, and the rule of intensities

WIDE = {
    "uint16.png": lambda path, x: iio.imwrite(path, x),
    "uint16.tif": lambda path, x: tifffile.imwrite(path, x),
    "deflate.tif": lambda path, x: tifffile.imwrite(path, x, compression="zlib", predictor=True),
    "tiled.tif": lambda path, x: tifffile.imwrite(path, x, tile=(64, 64)),
    "big endian.tiff": lambda path, x: tifffile.imwrite(path, x, byteorder=">", bigtiff=True),
    "int16.tif": lambda path, x: tifffile.imwrite(path, x.astype(np.int16)),
    "int32.tif": lambda path, x: tifffile.imwrite(path, x.astype(np.int32)),
    "pillow.tif": lambda path, x: Image.fromarray(x.astype(np.float32)).save(path),
    "lzw.tif": lambda path, x: Image.fromarray(x).save(path, compression="tiff_lzw"),
    "inverted lzw.tif": lambda path, x: Image.fromarray(1500 - x).save(
        path, compression="tiff_lzw", tiffinfo={262: 0}
    ),
    "float16.tif": lambda path, x: tifffile.imwrite(path, x.astype(np.float16)),
    "float64.tif": lambda path, x: tifffile.imwrite(path, x.astype(np.float64)),
    "inverted.tif": lambda path, x: tifffile.imwrite(path, 1500 - x, photometric="miniswhite"),
    "negative.tif": lambda path, x: tifffile.imwrite(path, x.astype(np.int16) - 700),
}


@pytest.fixture(scope="module")
def scan(head):
    """A T1w slice as a scanner gives it: uint16, its maximum 1500."""
    image = head[0][6]
    return np.rint(1500 * image / image.max()).astype(np.uint16)


@pytest.mark.parametrize("name", WIDE)
def test_the_same_slice_looks_the_same_in_every_type(tmp_path, scan, name):
    WIDE[name](tmp_path / name, scan)
    (image,) = read_images([tmp_path / name], "t1")
    (expected,) = normalise([scan], "t1")
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, atol=2e-3)
    assert np.percentile(image, 95) > 0, "a scan whose maximum is 1500 must not come out black"


@pytest.mark.parametrize("contrast", ["t1", "t2"])
def test_a_scan_gets_the_grey_values_of_published_images(head, contrast):
    t1, t2, labels = head
    stack = {"t1": t1, "t2": t2}[contrast]
    scaled = normalise(5.9 * stack, contrast)
    brain = labels > 0
    assert np.abs(scaled[brain] - (stack[brain] - 1)).mean() < 0.05
    assert scaled[labels == 0].min() == -1


@pytest.mark.parametrize("contrast", ["t1", "t2"])
def test_gain_and_offset_of_the_scanner_change_nothing(head, contrast):
    stack = 700 * head[0] + np.random.default_rng(0).rayleigh(20, head[0].shape)
    expected = normalise(stack, contrast)
    for other in (2 * stack, stack / 1000, 3 * stack - 900):
        np.testing.assert_allclose(normalise(other, contrast), expected, atol=1e-3)


@pytest.mark.parametrize("contrast", ["t1", "t2"])
def test_the_brain_comes_out_the_same_without_its_skull(contrast):
    brains = []
    for stripped in (0.0, 1.0):
        variation = Variation(stripped=stripped)
        *images, labels = simulate_pairs(12, seed=4, heads=1, variation=variation)
        stack = images[contrast == "t2"][..., 0] + 1
        brains.append((normalise(stack, contrast), labels == 3))
    (whole, inside), (stripped, same) = brains
    white_matter = inside & same
    difference = np.abs(whole[white_matter].mean() - stripped[white_matter].mean())
    assert difference < 0.05 * 2  # 5 % of the range


def test_slices_of_one_head_keep_one_straight_scale(head):
    stack = 1000 * head[1]
    scaled = normalise(stack, "t2")
    within = (scaled > -1) & (scaled < 1)
    slope, offset, *_ = linregress(stack[within].astype(float), scaled[within].astype(float))
    np.testing.assert_allclose(scaled, np.clip(slope * stack + offset, -1, 1), atol=1e-4)


def test_one_hot_pixel_does_not_darken_a_scan(head):
    stack = 1000 * head[0]
    expected = normalise(stack, "t1")
    hot = stack.copy()
    hot[3, 100, 100] = 60000
    assert np.abs(np.subtract(normalise(hot, "t1"), expected)).mean() < 1e-3


def test_8_bit_images_keep_their_scale_beside_others(tmp_path, scan):
    iio.imwrite(tmp_path / "a.png", GREY)
    iio.imwrite(tmp_path / "b.png", scan)
    first, second = read_images([tmp_path / "a.png", tmp_path / "b.png"], "t1")
    np.testing.assert_allclose(first, GREY / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(second, normalise([scan], "t1")[0])


# Bad input


def png(width, height, depth=8, colour=0, data=b""):
    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def saved(tmp_path, name, *args, write=iio.imwrite, **options):
    write(tmp_path / name, *args, **options)
    return (tmp_path / name).read_bytes()


BAD = {
    "empty.png": lambda folder: b"",
    "text.png": lambda folder: b"this is no image",
    "text.tif": lambda folder: b"this is no image",
    "cut.png": lambda folder: saved(folder, "x.png", GREY)[:300],
    "cut.jpg": lambda folder: saved(folder, "x.jpg", GREY)[:-100],
    "cut.bmp": lambda folder: saved(folder, "x.bmp", GREY)[:-100],
    "cut.tif": lambda folder: saved(folder, "x.tif", GREY, write=tifffile.imwrite)[:-100],
    "cut16.tif": lambda folder: saved(
        folder, "x.tif", GREY.astype(np.uint16), write=tifffile.imwrite
    )[:-100],
    "flipped bit.png": lambda folder: saved(folder, "x.png", GREY).replace(b"IDAT", b"IDAU"),
    "gif.png": lambda folder: saved(folder, "x.gif", GREY),
    "small.png": lambda folder: saved(folder, "x.png", GREY[:15]),
    "nan.tif": lambda folder: saved(
        folder, "x.tif", np.where(GREY > 9, GREY, np.nan), write=tifffile.imwrite
    ),
    "infinite.tif": lambda folder: saved(
        folder, "x.tif", np.where(GREY > 9, np.float32(GREY), np.inf), write=tifffile.imwrite
    ),
    "no data.tif": lambda folder: saved(
        folder, "x.tif", np.where(GREY > 9, np.float32(GREY), 3.4e38), write=tifffile.imwrite
    ),
    "depth.tif": lambda folder: saved(
        folder, "x.tif", np.stack([GREY] * 5), write=tifffile.imwrite, volumetric=True
    ),
    "pages.tif": lambda folder: saved(
        folder, "x.tif", np.stack([GREY] * 3), write=tifffile.imwrite, photometric="minisblack"
    ),
    "behind one page.tif": lambda folder: saved(
        folder, "x.tif", np.stack([GREY] * 5), write=tifffile.imwrite, truncate=True
    ),
    "bomb.png": lambda folder: png(10_000, 9_000),
    "huge bomb.png": lambda folder: png(2**30, 2**30),
    "bomb.tif": lambda folder: saved(
        folder,
        "x.tif",
        np.broadcast_to(np.uint16(1), (8192, 8200)),
        write=tifffile.imwrite,
        compression="zlib",
    ),
    "16-bit colour.png": lambda folder: png(16, 16, 16, 2, b"\0" + bytes(97) * 16),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("error")
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(tmp_path, name, capfd):
    content = BAD[name](tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_images([tmp_path / name], "t1")
    message = str(raised.value)
    assert message.startswith(str(tmp_path / name))
    assert message.endswith(".") and "\n" not in message and len(message) < 400
    assert capfd.readouterr() == ("", "")


def test_what_stands_for_no_data_and_slices_in_depth_are_refused_as_what_they_are(tmp_path):
    kinds = {"no data": "beyond 1e+35", "depth": "5 pages", "behind one page": "5 pages"}
    for kind, found in kinds.items():
        name = f"{kind}.tif"
        (tmp_path / name).write_bytes(BAD[name](tmp_path))
        with pytest.raises(InputError, match=re.escape(found)):
            read_image(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.png.*No such file"):
        read_image(tmp_path / "gone.png")


def test_no_mutated_file_escapes_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    wide = GREY.astype(np.float32)
    good = [
        *(saved(tmp_path, f"x.{kind}", GREY) for kind in ("png", "jpg", "bmp")),
        saved(tmp_path, "x.tif", GREY, write=tifffile.imwrite),
        saved(tmp_path, "x.tif", wide, write=tifffile.imwrite, compression="zlib"),
    ]
    for trial in range(300):
        which = trial % len(good)
        content = bytearray(good[which])
        for position in rng.integers(0, len(content), rng.integers(1, 6)):
            content[position] = rng.integers(256)
        path = tmp_path / ("mutant.tif" if which >= 3 else "mutant.png")
        path.write_bytes(content)
        try:
            image = read_image(path)
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert image.ndim == 2 and np.isfinite(image).all()


# Writing


def test_8_bit_images_are_written_as_they_were_read(tmp_path):
    image = GREY / np.float32(127.5) - 1
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(iio.imread(tmp_path / "a.png"), GREY)
    write_image(tmp_path / "a.png", 3 * image)
    assert os.listdir(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(
        iio.imread(tmp_path / "a.png"), np.rint((np.clip(3 * image, -1, 1) + 1) * 127.5)
    )


def test_an_image_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises((ValueError, SystemError)):
        write_image(tmp_path / "a.png", np.zeros((0, 0)))
    assert os.listdir(tmp_path) == []


# Frames

SHAPES = [(217, 181), (200, 190), (16, 16)]


def test_pad_takes_every_size_there_and_back_without_loss():
    frame = Frame.of(SHAPES, LAPTOP)
    assert (frame.height, frame.width) == (224, 192)
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        image = rng.uniform(-1, 1, shape).astype(np.float32)
        framed = frame.apply(image)
        assert framed.shape == (224, 192, 1) and framed.dtype == np.float32
        assert (framed == -1).sum() == framed.size - image.size
        np.testing.assert_array_equal(frame.invert(framed, shape), image)


def test_pad_sets_the_image_into_the_middle():
    framed = Frame.of([(20, 30)], LAPTOP).apply(np.ones((20, 30)))[..., 0]
    rows, columns = np.nonzero(framed == 1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 25, 1, 30)


def test_resize_is_the_published_one_and_costs_what_is_known(head):
    frame = Frame.of([(217, 181)], PAPER)
    image = head[1][6] - 1
    framed = frame.apply(image)
    np.testing.assert_allclose(framed, resize(image, (256, 256, 1)), atol=1e-6)
    back = frame.invert(framed, image.shape)
    assert back.shape == image.shape and back.dtype == framed.dtype == np.float32
    assert 27 < peak_signal_noise_ratio(image, back, data_range=2) < 36


def test_resize_of_the_true_t2_loses_as_much_as_was_found(real_data):
    paths = list_images(find_domains(real_data)[1])
    frame = Frame.of([(217, 181)], PAPER)
    psnr = []
    for image in read_images(paths, "t2"):
        back = frame.invert(frame.apply(image), image.shape)
        psnr.append(peak_signal_noise_ratio(image, back, data_range=2))
    assert np.mean(psnr) == pytest.approx(31.0, abs=0.5)


@pytest.mark.parametrize("preset", [LAPTOP, PAPER])
def test_a_stack_is_framed_as_its_slices_are(preset):
    stack = np.random.default_rng(0).uniform(-1, 1, (3, 40, 50)).astype(np.float32)
    frame = Frame.of([stack.shape[1:]], preset)
    framed = frame.apply(stack)
    assert framed.shape == (3, frame.height, frame.width, 1)
    np.testing.assert_allclose(framed, [frame.apply(image) for image in stack], atol=1e-6)
    back = frame.invert(framed, (40, 50))
    expected = [frame.invert(image, (40, 50)) for image in framed]
    np.testing.assert_allclose(back, expected, atol=1e-6)


@pytest.mark.parametrize("size", [16, 100, 256])
def test_sides_are_what_both_networks_need(size):
    frame = Frame.of(SHAPES, replace(PAPER, size=size))
    assert frame.height == frame.width >= size and frame.height % MULTIPLE == 0
    frame = Frame.of([(217, 181)], LAPTOP)
    assert (frame.height, frame.width) == (224, 192)


def test_an_image_larger_than_its_frame_is_refused():
    with pytest.raises(InputError, match="300 x 20 pixels: expected at most 192 x 224"):
        Frame.of(SHAPES, LAPTOP).apply(np.zeros((20, 300)))
