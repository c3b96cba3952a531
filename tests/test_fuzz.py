"""No mutated file makes a reader do anything but read it or refuse it in one sentence."""

import contextlib
import gzip
import io
import json
import os
import pickle
import re
import resource
import shutil
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import imageio.v3 as iio
import keras
import nibabel
import numpy as np
import pytest
import tensorflow as tf
import test_dicom
import test_volumes
import tifffile
from PIL import Image

from cyclegan_tf import InputError
from cyclegan_tf.learning.checkpoints import Checkpoints
from cyclegan_tf.learning.snapshots import IMAGES, read_snapshots, write_snapshot
from cyclegan_tf.models import build_generator
from cyclegan_tf.runs import open_run, read_run
from cyclegan_tf.scans.folders import find_domains, list_images
from cyclegan_tf.scans.geometry import from_slices, to_slices
from cyclegan_tf.scans.images import read_image
from cyclegan_tf.scans.volumes import read_volume
from cyclegan_tf.translation.generators import load_generator
from cyclegan_tf.translation.handover import export_onnx
from cyclegan_tf.translation.loading import load_translator

SECONDS = 5  # of the processor, so that others' load fails no test
MEMORY = 2**29  # bytes that a file may add to the process
LONGEST = 300  # characters of a sentence, besides the path
GREY = (np.hypot(*np.mgrid[-31:33, -23:25]) * 6 % 256).astype(np.uint8)
SCAN = GREY.astype(np.uint16) * 37
VOLUME = test_volumes.smooth((8, 9, 3))


def image(name, pixels, write=iio.imwrite, **options):
    def seed(folder):
        write(folder / name, pixels, **options)
        return folder / name

    return seed, read_image


def save(path, picture, **options):
    picture.save(path, **options)


def nifti(name, version=nibabel.Nifti1Image):
    def seed(folder):
        nibabel.save(version(VOLUME, test_volumes.OBLIQUE), folder / name)
        return folder / name

    return seed, there_and_back


def classic(folder):
    return test_volumes.save(test_volumes.series_of(test_volumes.image(VOLUME)), folder / "series")


def enhanced(folder):
    return test_volumes.save([test_volumes.enhanced(test_volumes.image())], folder / "series")


def bare(folder):
    return test_dicom.without_preamble(classic(folder), implicit_vr=True, little_endian=True)


def compressed(folder):
    """JPEG lossless, JPEG-LS, JPEG 2000."""
    folder = classic(folder)
    for path, kind in zip(sorted(folder.iterdir()), test_dicom.COMPRESSED, strict=False):
        test_dicom.compress(path, kind)
    return folder


def there_and_back(path):
    """Reads a volume and takes it to slices and back."""
    volume = read_volume(path)
    assert volume.get_data_dtype() == np.float32 and not np.isinf(volume.dataobj).any()
    assert from_slices(to_slices(volume), volume).shape == volume.shape


def record(folder):
    return open_run(folder / "run", "paper", overrides={"epochs": 3}).folder / "run.json"


def generator(folder):
    build_generator("unet", 2, 0, "t1_to_t2").save(folder / "t1_to_t2.keras")
    return folder / "t1_to_t2.keras"


def onnx(folder):
    export_onnx(generator(folder), folder / "t1_to_t2.onnx")
    return folder / "t1_to_t2.onnx"


def run_onnx(path):
    load_translator(path, "t1_to_t2").generator(np.zeros((1, 32, 32, 1), np.float32))


def weights(folder):
    """Of a run by the other framework generation, whose `.keras` file cannot be loaded."""
    run = open_run(folder / "run", "laptop", overrides={"filters": 2, "blocks": 0})
    with zipfile.ZipFile(run.path("models", "t1_to_t2.keras"), "w") as file:
        file.writestr("metadata.json", '{"keras_version": "0.0"}')
    path = run.path("models", "t1_to_t2.weights.h5")
    build_generator("unet", 2, 0, "t1_to_t2").save_weights(path)
    return path


def load_weights(path):
    return load_generator(path.with_name("t1_to_t2.keras"))


def variables():
    return [tf.Variable(np.float32(GREY)), tf.Variable(np.int64(7))]


def checkpoint(folder):
    Checkpoints(folder, variables()).save(1, [{"generator": 0.5}])
    return folder / "epoch_0001.npz"


def restore(path):
    """As a reader: a damaged checkpoint is announced in one line, and none is left."""
    fresh = variables()
    if Checkpoints(path.parent, fresh).restore() == (0, []):
        assert not path.exists()
        (path.parent / "epoch_0000.npz").unlink()


def snapshot(folder):
    run = open_run(folder / "run")
    write_snapshot(run, 1, dict.fromkeys(IMAGES, np.float32(GREY)[None, ..., None]))
    return run.path("snapshots", "epoch_001.npz")


def draw_snapshot(path):
    snapshots = read_snapshots(open_run(path.parent.parent))
    assert all(image.dtype == np.float32 for image in snapshots[1].values())


READERS = {  # what makes a file, or a folder of files, to mutate, and what reads it
    "png": image("x.png", GREY),
    "png, 16 bits": image("x.png", SCAN),
    "png, palette": image("x.png", Image.fromarray(GREY).convert("P", colors=16), save),
    "jpeg": image("x.jpg", GREY),
    "bmp": image("x.bmp", GREY),
    "tiff": image("x.tif", SCAN, tifffile.imwrite),
    "tiff, deflated": image("x.tif", np.float32(SCAN), tifffile.imwrite, compression="zlib"),
    "tiff, lzw": image("x.tif", Image.fromarray(GREY), save, compression="tiff_lzw"),
    "nifti": nifti("x.nii"),
    "nifti, gzipped": nifti("x.nii.gz"),
    "nifti 2": nifti("x.nii", nibabel.Nifti2Image),
    "nifti, pair": nifti("x.img", nibabel.Nifti1Pair),
    "freesurfer": nifti("x.mgz", nibabel.MGHImage),
    "dicom": (classic, there_and_back),
    "dicom, bare": (bare, there_and_back),
    "dicom, compressed": (compressed, there_and_back),
    "dicom, enhanced": (enhanced, there_and_back),
    "run.json": (record, read_run),
    "model": (generator, load_generator),
    "onnx": (onnx, run_onnx),
    "weights": (weights, load_weights),
    "checkpoint": (checkpoint, restore),
    "snapshot": (snapshot, draw_snapshot),
}
NUMBERS = [*(2**k - 1 for k in (0, 1, 7, 8, 15, 16, 31, 32, 63, 64)), 2**31, 2**32, 20_000]
WORDS = (b"", b"-1", b"0.001", b"1e308", b"NaN", b"9" * 30)


def mutant(content, rng):
    """The content changed; a container's every other time inside, so that its checksums are right.

    Else hardly a change gets past the checksums of PNG, gzip and zip.
    """
    if rng.random() < 0.5:
        if content.startswith(b"\x1f\x8b"):
            return gzip.compress(mutant(gzip.decompress(content), rng))
        if content.startswith(b"PK"):
            return mutant_zip(content, rng)
        if content.startswith(b"\x89PNG"):
            return mutant_png(content, rng)
    return changed(content, rng)


def changed(content, rng):
    """Bits flipped, a number replaced, cut short, or pieces set to 0, doubled or exchanged."""
    content, size = bytearray(content), len(content)
    reach = size if rng.random() < 0.5 else min(size, 512)  # as often in the header as anywhere
    start, other = (int(place) for place in rng.integers(0, reach, 2))
    length = int(rng.integers(1, max(2, min(size // 4, 200))))
    match rng.integers(7):
        case 0:
            for place in rng.integers(0, reach, rng.integers(1, 9)):
                content[place] ^= 1 << rng.integers(8)
        case 1:
            width, order = 2 ** int(rng.integers(4)), ("little", "big")[rng.integers(2)]
            number = NUMBERS[rng.integers(len(NUMBERS))] % 256**width
            content[start : start + width] = number.to_bytes(width, order)
        case 2:
            found = [*re.finditer(rb"[0-9.]+|$", content)]
            start, end = found[rng.integers(len(found))].span()
            content[start:end] = WORDS[rng.integers(len(WORDS))]
        case 3:
            del content[start:]
        case 4:
            content[start : start + length] = bytes(len(content[start : start + length]))
        case 5:
            content[other:other] = content[start : start + length]
        case 6:
            piece = content[start : start + length]
            content[start : start + length] = content[other : other + length]
            content[other : other + length] = piece
    return bytes(content)


def mutant_zip(content, rng):
    """A member lost, renamed, doubled, replaced by another, or itself mutated."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = [[name, old.read(name)] for name in old.namelist()]
    one, other = (members[k] for k in rng.integers(0, len(members), 2))
    match rng.integers(10):
        case 0:
            members.remove(one)
        case 1:
            one[0] = f"../{one[0]}"
        case 2:
            members.append(one)
        case 3:
            one[1] = other[1]
        case _:
            one[1] = mutant(one[1], rng)
    return zipped(members)


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as new:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            new.writestr(name, content)
    return file.getvalue()


def mutant_png(content, rng):
    """Any chunk but the last, which is empty, mutated."""
    chunks, place = [], 8
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        chunks.append(content[place + 4 : place + 8 + size])
        place += size + 12
    k = rng.integers(len(chunks) - 1)
    chunks[k] = chunks[k][:4] + changed(chunks[k][4:], rng)
    numbers = [(len(chunk) - 4, zlib.crc32(chunk)) for chunk in chunks]
    packed = [
        size.to_bytes(4, "big") + chunk + checksum.to_bytes(4, "big")
        for chunk, (size, checksum) in zip(chunks, numbers, strict=True)
    ]
    return content[:8] + b"".join(packed)


def memory():
    """The most that this process has held, in bytes, since `forget_memory`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_memory():
    with contextlib.suppress(OSError):  # Linux alone can
        Path("/proc/self/clear_refs").write_text("5")


def assert_clear(error, place):
    text = str(error)
    assert text.endswith(".") and "\n" not in text and str(place) in text
    assert len(text) < len(str(place)) + LONGEST
    return text


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras of damage
def test_a_mutated_file_is_read_or_refused_in_one_sentence(kind, count, tmp_path, capfd):
    make, read = READERS[kind]
    path = make(tmp_path)
    files = sorted(path.iterdir()) if path.is_dir() else sorted(path.parent.glob(f"{path.stem}.*"))
    good = [file.read_bytes() for file in files]
    rng, refused, longest, most = np.random.default_rng(count), 0, 0.0, 0
    read(path)
    for number in range(count):
        k = rng.integers(len(files))
        files[k].write_bytes(mutant(good[k], rng))
        forget_memory()
        start, before = time.process_time(), memory()
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert_clear(error, path if read is not load_weights else path.parent)
        except Exception as error:
            pytest.fail(f"mutant {number}: {error!r}")
        longest, most = max(longest, time.process_time() - start), max(most, memory() - before)
        said = capfd.readouterr().out
        assert said.count("\n") <= 1, number
        refused += bool(said)
        files[k].write_bytes(good[k])
    assert longest < SECONDS and most < MEMORY
    print(
        f"{kind}: {count} mutants, {count - refused} read, {refused} refused, "
        f"slowest {longest:.2f} s, most memory {most / 1e6:.0f} MB"
    )


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """The zip file with some changed members, its checksums right."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    path.write_bytes(zipped(change(members).items(), compression))
    return path


def refusal(read, path, named=None):
    forget_memory()
    start, before = time.process_time(), memory()
    with pytest.raises(InputError) as raised:
        read(path)
    assert time.process_time() - start < SECONDS and memory() - before < MEMORY
    return assert_clear(raised.value, named or path)


def test_a_model_with_code_in_it_is_refused(tmp_path):
    images = keras.Input((None, None, 1))
    keras.Model(images, keras.layers.Lambda(lambda x: -x)(images)).save(tmp_path / "model.keras")
    refusal(load_generator, tmp_path / "model.keras")


def test_a_model_whose_layers_wait_for_each_other_is_refused(tmp_path):
    def change(members):
        config = json.loads(members["config.json"])
        first = config["config"]["layers"][2]
        later = json.dumps(first).replace('"space_to_depth', '"depth_to_space')
        assert later != json.dumps(first)
        config["config"]["layers"][2] = json.loads(later)
        return members | {"config.json": json.dumps(config)}

    assert " waits for depth_to_space" in refusal(
        load_generator, rewritten(generator(tmp_path), change)
    )


def test_a_model_that_asks_for_more_memory_than_there_is_is_refused(tmp_path):
    def change(members):
        config = json.loads(members["config.json"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Conv2D":
                layer["config"]["filters"] = 2**30
        return members | {"config.json": json.dumps(config)}

    refusal(load_generator, rewritten(generator(tmp_path), change))


def test_nothing_in_a_checkpoint_is_unpickled(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    path = checkpoint(tmp_path)
    np.savez(path, history=np.array([Trap()], dtype=object), variable_0000=GREY, variable_0001=7)
    assert b"owned" in path.read_bytes() and pickle.dumps(Trap())
    restore(path)
    assert not (tmp_path / "owned").exists() and not path.exists()
    assert "damaged" in capsys.readouterr().out


def test_a_checkpoint_that_claims_an_absurd_size_is_passed_over(tmp_path, capsys):
    def change(members):
        header = members["variable_0000.npy"].replace(b"(64, 48)", b"(2000000000, 2000000000)")
        return members | {"variable_0000.npy": header}

    restore(rewritten(checkpoint(tmp_path), change))
    assert "damaged" in capsys.readouterr().out


def packed(folder):
    """A model whose members are compressed, one of them 100 MB of nothing."""
    return rewritten(
        generator(folder),
        lambda members: members | {"assets/x": bytes(10**8)},
        zipfile.ZIP_DEFLATED,
    )


def inflated(folder):
    """Weights that HDF5 makes 800 MB of."""
    path = weights(folder)
    with h5py.File(path, "a") as file:
        file.create_dataset("x", (2 * 10**8,), "f4", compression="gzip")
    return path


@pytest.mark.parametrize("make, read", [(packed, load_generator), (inflated, load_weights)])
def test_a_model_that_unpacks_to_more_than_it_is_is_refused_before_it_does(tmp_path, make, read):
    path = make(tmp_path)
    assert path.stat().st_size < 10**6
    assert "claims to hold" in refusal(read, path, named=path.stem.removesuffix(".weights"))


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_volume_that_claims_more_voxels_than_its_file_can_hold_is_refused(tmp_path, name):
    path = nifti(name)[0](tmp_path)
    scan = bytearray(gzip.decompress(path.read_bytes()) if name[-1] == "z" else path.read_bytes())
    header = nibabel.Nifti1Header(bytes(scan[:348]))
    header.set_data_shape((600, 600, 600))
    header.set_data_dtype(np.float64)
    scan[:348] = header.binaryblock
    path.write_bytes(gzip.compress(scan) if name[-1] == "z" else scan)
    refusal(read_volume, path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"preset": {"name": "\\u001b[2J"}}'])
def test_a_hostile_record_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError) as raised:
        read_run(tmp_path / "run.json")
    assert str(raised.value).isprintable()


def test_links_that_lead_nowhere_round_or_to_devices_are_refused(tmp_path):
    iio.imwrite(tmp_path / "good.png", GREY)
    for target in ("nowhere.png", "link.png"):
        (tmp_path / "link.png").symlink_to(tmp_path / target)
        with pytest.raises(InputError, match="link.png"):
            [read_image(path) for path in list_images(tmp_path)]
        (tmp_path / "link.png").unlink()
    (tmp_path / "link.png").symlink_to("/dev/zero")
    assert list_images(tmp_path) == [tmp_path / "good.png"]


def test_names_are_names_whatever_they_look_like(tmp_path):
    names = ["-rf.png", "$(reboot).png", "%s.png", "ü\u202e.png", "a b\t.png", "x" * 251]
    for folder in ("T1", "T2"):
        (tmp_path / folder).mkdir()
        for name in names[:-1] + [names[-1] + ".png"]:
            iio.imwrite(tmp_path / folder / name, GREY)
    t1, _ = find_domains(tmp_path)
    assert len(list_images(t1)) == len(names)
    assert all(Path(path).parent == t1 for path in list_images(t1))
    (t1 / "two\nlines.png").write_bytes(b"no image")
    with pytest.raises(InputError) as raised:
        [read_image(path) for path in list_images(t1)]
    assert "two?lines.png" in str(raised.value)
    shutil.rmtree(t1)
