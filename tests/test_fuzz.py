"""No mutated file makes a reader do anything but read it or refuse it in one sentence."""

import json
import os
import pickle
import resource
import shutil
import time
import zipfile
from pathlib import Path

import imageio.v3 as iio
import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from cyclegan_tf import InputError
from cyclegan_tf.images import find_domains, list_images, read_image
from cyclegan_tf.models import build_generator
from cyclegan_tf.runs import open_run, read_run
from cyclegan_tf.training import Checkpoints
from cyclegan_tf.translate import load_generator

SECONDS = 5  # of the processor, so that others' load fails no test
MEMORY = 2**30  # bytes that all mutants of a kind may add to the process
GREY = (np.hypot(*np.mgrid[-31:33, -23:25]) * 6 % 256).astype(np.uint8)
SCAN = GREY.astype(np.uint16) * 37


def image(name, pixels, write=iio.imwrite, **options):
    def seed(folder):
        write(folder / name, pixels, **options)
        return folder / name

    return seed, read_image


def save(path, picture, **options):
    picture.save(path, **options)


def record(folder):
    return open_run(folder / "run", "paper", overrides={"epochs": 3}).folder / "run.json"


def generator(folder):
    build_generator("unet", 2, 0, "t1_to_t2").save(folder / "t1_to_t2.keras")
    return folder / "t1_to_t2.keras"


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


READERS = {  # a seed file, made in a folder, and what reads it
    "png": image("x.png", GREY),
    "png, 16 bits": image("x.png", SCAN),
    "jpeg": image("x.jpg", GREY),
    "bmp": image("x.bmp", GREY),
    "tiff": image("x.tif", SCAN, tifffile.imwrite),
    "tiff, deflated": image("x.tif", np.float32(SCAN), tifffile.imwrite, compression="zlib"),
    "tiff, lzw": image("x.tif", Image.fromarray(GREY), save, compression="tiff_lzw"),
    "run.json": (record, read_run),
    "model": (generator, load_generator),
    "checkpoint": (checkpoint, restore),
}


def mutant(content, rng):
    """The content with bits flipped, cut short, or with pieces set to 0, doubled or exchanged."""
    content, size = bytearray(content), len(content)
    start, other = (int(i) for i in rng.integers(0, size, 2))
    length = int(rng.integers(1, max(2, min(size // 4, 200))))
    match rng.integers(6):
        case 0:
            for position in rng.integers(0, size, rng.integers(1, 9)):
                content[position] ^= 1 << rng.integers(8)
        case 1:
            content[rng.integers(0, min(size, 64))] = rng.integers(256)  # in the header
        case 2:
            del content[start:]
        case 3:
            content[start : start + length] = bytes(len(content[start : start + length]))
        case 4:
            content[other:other] = content[start : start + length]
        case 5:
            piece = content[start : start + length]
            content[start : start + length] = content[other : other + length]
            content[other : other + length] = piece
    return bytes(content)


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("count", [30, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", READERS)
def test_a_mutated_file_is_read_or_refused_in_one_sentence(kind, count, tmp_path, capfd):
    make, read = READERS[kind]
    path = make(tmp_path)
    content, rng, refused = path.read_bytes(), np.random.default_rng(count), 0
    read(path)
    before, longest = memory(), 0.0
    for number in range(count):
        path.write_bytes(mutant(content, rng))
        start = time.process_time()
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert str(error).endswith(".") and "\n" not in str(error), number
            assert str(path) in str(error), number
        longest = max(longest, time.process_time() - start)
        said = capfd.readouterr().out
        assert said.count("\n") <= 1, number
    assert longest < SECONDS and memory() - before < MEMORY
    print(f"{kind}: {refused} of {count} refused, slowest {longest:.2f} s")
    print(f"{(memory() - before) / 1e6:.0f} MB more")


def rewritten(path, change):
    """The zip file with one changed member, its checksums right."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in change(members).items():
            new.writestr(name, content)
    return path


def refusal(read, path):
    start, before = time.process_time(), memory()
    with pytest.raises(InputError) as raised:
        read(path)
    assert time.process_time() - start < SECONDS and memory() - before < MEMORY
    text = str(raised.value)
    assert text.endswith(".") and "\n" not in text and str(path) in text
    return text


def test_a_model_with_code_in_it_is_refused(tmp_path):
    images = keras.Input((None, None, 1))
    keras.Model(images, keras.layers.Lambda(lambda x: -x)(images)).save(tmp_path / "model.keras")
    refusal(load_generator, tmp_path / "model.keras")


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


def test_fresh_does_not_follow_a_link_out_of_the_folder(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    folder = open_run(tmp_path / "run").folder
    (folder / "link").symlink_to(tmp_path / "precious")
    open_run(folder, fresh=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine"
    assert not (folder / "link").is_symlink()


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
