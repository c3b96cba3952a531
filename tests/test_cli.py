import dataclasses
import os
import subprocess
import sys
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import REPOSITORY

from cyclegan_tf.__main__ import NOTEBOOKS, PIPELINE, PROGRAM, _start_anew, main
from cyclegan_tf.presets import LAPTOP, PAPER, Preset, meanings
from cyclegan_tf.runs import open_run


def command(*arguments, cwd):
    """The command line as a user types it, with the interpreter of the tests."""
    return python(*PROGRAM[1:], *arguments, cwd=cwd)


def python(*words, cwd):
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(status, told, *mentioned):
    """Whether it was one sentence on stderr and exit status 2."""
    sentence = told.err.strip()
    assert status == 2
    assert "\n" not in sentence and sentence.endswith(".")
    assert not told.out
    for word in mentioned:
        assert word in sentence


@pytest.fixture
def images(tmp_path):
    """A folder with three T1 and three T2 images, to be spoilt."""
    rng = np.random.default_rng(0)
    for name in ("TrainT1", "TrainT2"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(3):
            image = np.zeros((64, 48), np.uint8)
            image[8:-8, 8:-8] = rng.integers(1, 255, (48, 32))
            iio.imwrite(folder / f"{name} #{number}.png", image)
    return tmp_path / "images"


@pytest.mark.parametrize(
    "arguments, mentioned",
    [
        ([], ["command"]),
        (["walk"], ["'walk'"]),
        (["run", "--speed", "3"], ["--speed"]),
        (["run", "--pre", "laptop"], ["--pre"]),
        (["run", "--preset", "desktop"], ["'desktop'", "paper, laptop"]),
        (["run", "-p", "epochs"], ["-p", "2 arguments"]),
        (["run", "-p", "epoch", "3"], ["'epoch'", "expected epochs or decay_epoch"]),
        (["run", "-p", "name", "paper"], ["'name'"]),
        (["run", "-p", "epochs", "minus"], ["epochs", "'minus'", "whole number"]),
        (["run", "-p", "shift", "-3"], ["shift", "'-3'", "at least 0"]),
        (["run", "-p", "batch_size", "0"], ["batch_size", "'0'", "at least 1"]),
        (["run", "-p", "flip", "perhaps"], ["flip", "'perhaps'", "true or false"]),
        (["run", "--data", "a", "b", "c"], ["3 folders of data", "expected one, or T1 and T2"]),
        (["run", "--from", "run.json", "--preset", "paper"], ["--from", "--preset"]),
        (["evaluate", "shipped", "--data", "a", "--anatomies", "b"], ["--data and --anatomies"]),
        (
            ["evaluate", "a/t1_to_t2.keras", "b/t1_to_t2.keras", "--data", "c"],
            ["a/t1_to_t2.keras and b/t1_to_t2.keras would both be measured in outputs"],
        ),
        (["evaluate", "shipped"], ["shipped is no run, with images of its own", "--data"]),
        (["evaluate", "run.keras"], ["run.keras is no run, with images of its own", "--data"]),
    ],
)
def test_a_mistake_in_the_command_line_is_one_sentence(
    arguments, mentioned, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as exit:
        status = exit.code
    refused(status, capsys.readouterr(), *mentioned)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, mentioned",
    [(["run", "--speed", "3"], "--speed"), (["run", "-p", "epochs", "minus"], "whole number")],
)
def test_a_mistake_ends_the_process_with_the_sentence_alone(arguments, mentioned, tmp_path):
    result = command(*arguments, cwd=tmp_path)
    refused(result.returncode, SimpleNamespace(out=result.stdout, err=result.stderr), mentioned)
    assert not any(tmp_path.iterdir())


def test_help_and_mistakes_do_not_load_what_takes_long(tmp_path):
    code = (
        "import contextlib, sys\n"
        "from cyclegan_tf.__main__ import main\n"
        "for words in (['run', '--help'], ['run', '-p', 'epochs']):\n"
        "    with contextlib.suppress(SystemExit): main(words)\n"
        "main(['run', '-p', 'epochs', 'minus'])\n"
        "print({'tensorflow', 'numpy', 'papermill'} & set(sys.modules))\n"
        "main(['run', '--data', 'absent'])\n"
        "print('tensorflow' in sys.modules)\n"
    )
    result = python("-c", code, cwd=tmp_path)
    assert result.stdout.splitlines()[-2:] == ["set()", "False"]
    assert not any(tmp_path.iterdir())


def test_help_lists_every_parameter_with_meaning_unit_and_the_presets_values(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["run", "--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Preset)[1:]:
        assert meanings()[field.name] in text
        assert f" {field.name}: " in text
    assert "size: 256 pixels" in text
    assert f"epochs: {PAPER.epochs} | {LAPTOP.epochs} | " in text
    assert "snapshot_epochs: 0,1,100,145 Epochs" in text
    assert "flip: false | true | true" in text


def empty(folder):
    for name in ("TrainT1", "TrainT2"):
        for path in (folder / name).iterdir():
            path.unlink()


def only_t1(folder):
    for path in (folder / "TrainT2").iterdir():
        path.unlink()
    (folder / "TrainT2").rmdir()


def single(folder):
    (folder / "TrainT2" / "TrainT2 #1.png").unlink()
    (folder / "TrainT2" / "TrainT2 #2.png").unlink()


def cut_short(folder):
    path = folder / "TrainT1" / "TrainT1 #1.png"
    path.write_bytes(path.read_bytes()[:200])


def text_file(folder):
    (folder / "TrainT1" / "notes.txt").write_text("no image")


def tiny(folder):
    iio.imwrite(folder / "TrainT1" / "TrainT1 #1.png", np.eye(3, dtype=np.uint8))


@pytest.mark.parametrize(
    "spoil, mentioned",
    [
        (empty, "is no folder of scans"),
        (only_t1, "TrainT2"),
        (single, "single image"),
        (cut_short, "TrainT1 #1.png"),
        (text_file, "notes.txt"),
        (tiny, "TrainT1 #1.png"),
    ],
)
def test_bad_data_is_one_sentence_and_leaves_no_folder(spoil, mentioned, images, tmp_path, capsys):
    spoil(images)
    status = main(["run", "--data", str(images), "--output", str(tmp_path / "new" / "run")])
    sentence = capsys.readouterr().err.strip()
    assert status == 2
    assert mentioned in sentence and "\n" not in sentence
    assert not (tmp_path / "new").exists()


def test_the_same_folder_twice_is_refused(images, tmp_path, capsys):
    folder = str(images / "TrainT1")
    assert main(["run", "--data", folder, folder, "--output", str(tmp_path / "run")]) == 2
    assert "same folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_cannot_be_used_is_one_sentence(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    for output in (file, file / "run", folder):
        for more in ([], ["--fresh"]):
            assert main(["run", "--output", str(output), *more]) == 2
            sentence = capsys.readouterr().err.strip()
            assert str(output) in sentence and "\n" not in sentence
    assert file.read_text() == (folder / "thesis.txt").read_text() == "mine"


def test_a_finished_run_says_where_it_is(tmp_path, capsys):
    open_run(tmp_path / "run", "laptop", "simulated").update(status="finished")
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert main(["run", "--output", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    for name in ("figures", "models", "report.html"):
        assert str(tmp_path / "run" / name) in shown
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_other_settings_are_refused_naming_the_difference(tmp_path, capsys):
    open_run(tmp_path / "run", "laptop", "simulated").update(status="training")
    assert main(["run", "--output", str(tmp_path / "run"), "-p", "epochs", "3"]) == 2
    assert "epochs is 145 there and 3 here" in capsys.readouterr().err


def test_fresh_deletes_nothing_when_the_data_is_not_there(tmp_path, capsys):
    open_run(tmp_path / "run", "laptop", "simulated").update(status="finished")
    words = [
        "run",
        "--data",
        str(tmp_path / "absent"),
        "--output",
        str(tmp_path / "run"),
        "--fresh",
    ]
    assert main(words) == 2
    assert "absent" in capsys.readouterr().err
    assert open_run(tmp_path / "run").record["status"] == "finished"


def test_fresh_deletes_nothing_when_the_data_cannot_be_trained_on(heads, tmp_path, capsys):
    folder = tmp_path / "run"
    open_run(folder, "laptop", str(heads)).update(status="finished")
    words = ["run", "--data", str(heads), "--output", str(folder), "--fresh", "-p", "holdout"]
    for mistake, said in (("99", "holdout names '99'"), ("0-5", "leave 0 of 6 T1 images")):
        assert main([*words, mistake]) == 2
        assert said in capsys.readouterr().err
        assert open_run(folder).record["status"] == "finished"
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_fresh_puts_a_new_run_in_the_place_of_the_old_one_and_follows_no_link(heads, tmp_path):
    folder, own = tmp_path / "run", tmp_path / "mine"
    open_run(folder, "paper", str(heads)).update(status="finished")
    own.mkdir()
    (own / "thesis.txt").write_text("precious")
    (folder / "link").symlink_to(own)
    (folder / "old.keras").write_text("weights")
    _start_anew(folder, "laptop", [[str(heads)]], {"epochs": 2})
    run = open_run(folder)
    assert run.record["status"] == "new" and run.preset.epochs == 2 and run.path("images").is_dir()
    assert not {"link", "old.keras"} & {path.name for path in folder.iterdir()}
    assert (own / "thesis.txt").read_text() == "precious"


def test_a_folder_of_something_else_is_refused_fresh_or_not(heads, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    for words in ([], ["--fresh"]):
        assert main(["run", "--data", str(heads), "--output", str(tmp_path), *words]) == 2
        assert f"{tmp_path} holds no run.json" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_label_maps_that_are_not_there_or_not_of_use_are_told_of_first(heads, tmp_path, capsys):
    words = ["run", "--data", str(heads), "--output", str(tmp_path / "run"), "-p", "anatomies"]
    words += [str(tmp_path / "absent")]
    for more, said in (([], "simulator = varied"), (["-p", "simulator", "varied"], "absent holds")):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_images_that_do_not_fit_into_memory_are_one_sentence(tmp_path, capsys, monkeypatch):
    def prepare(run):
        raise MemoryError("Unable to allocate 37.3 GiB")

    monkeypatch.setattr("cyclegan_tf.dataset.preparation.prepare", prepare)
    assert main(["run", "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said == "There is too little memory: Unable to allocate 37.3 GiB.\n"
    assert not (tmp_path / "run").exists()


def test_every_notebook_of_the_pipeline_is_there():
    assert all((NOTEBOOKS / f"{name}.ipynb").is_file() for name in PIPELINE)
