"""What a user hands over means the same on a command line, through papermill and in a call."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import _parser
from cyclegan_tf.parameters import parse, user_path
from cyclegan_tf.runs import default_folder, open_run
from cyclegan_tf.study.report import read_metrics


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(
    "text",
    ["{epochs: 2, flip: True, holdout: 13}", '{"epochs": "2", "flip": true, "holdout": "13"}'],
)
def test_overrides_may_be_text_and_mean_what_a_mapping_means(text, tmp_path):
    run = open_run(tmp_path / "of text", overrides=text)
    mapping = open_run(tmp_path / "of a mapping", overrides={"epochs": 2, "holdout": "13"})
    assert run.preset == mapping.preset and run.preset.epochs == 2


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("{snapshot_epochs: [0, 7]}", "snapshot_epochs", (0, 7)),
        ("{learning_rate: 1e-5}", "learning_rate", 1e-5),
        ("{holdout: 2026-01-02}", "holdout", "2026-01-02"),  # no date
        ("{holdout: 001}", "holdout", "001"),  # no number
        ("{holdout: [sub-01, 7-9]}", "holdout", "sub-01,7-9"),
        ({"holdout": None}, "holdout", ""),
    ],
)
def test_a_value_in_text_is_read_as_its_parameter_wants_it(text, name, value, tmp_path):
    assert getattr(open_run(tmp_path / "run", overrides=text).preset, name) == value


@pytest.mark.parametrize("text", ["epochs=2", "epochs", "[1, 2]", "{epochs: 2", "2", 2, True])
def test_overrides_that_are_no_mapping_are_refused_in_a_sentence_that_shows_one(text, tmp_path):
    with pytest.raises(
        InputError, match="overrides cannot be .*expected names and values"
    ) as error:
        open_run(tmp_path / "run", overrides=text)
    assert str(error.value).count("\n") == 0 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [True, "True", "true", False, "False", "false"])
def test_true_and_false_are_read_as_papermill_and_as_yaml_write_them(value):
    assert parse("trust", value, "bool") is (str(value).lower() == "true")


@pytest.mark.parametrize("value", ["yes", "no", 1, 0, "", None, "f"])
def test_what_is_neither_true_nor_false_is_refused_and_not_taken_for_true(value):
    with pytest.raises(InputError, match=r"trust cannot be .*: expected true or false\."):
        parse("trust", value, "bool")


def test_a_choice_is_one_of_those_there_are():
    assert parse("plane", "axial", "str", choices=("axial", "coronal")) == "axial"
    with pytest.raises(InputError, match="plane cannot be 'up': expected axial or coronal"):
        parse("plane", "up", "str", choices=("axial", "coronal"))
    with pytest.raises(InputError, match="expected nothing or axial"):
        parse("plane", "up", "str", choices=("", "axial"))


@pytest.mark.parametrize(
    ("value", "folders"),
    [
        ("a b", [["a b"]]),
        ("[a, b c]", [["a", "b c"]]),
        (["a", Path("b")], [["a", "b"]]),
        ("[[a], [b, c]]", [["a"], ["b", "c"]]),
        (2026, [["2026"]]),
        ([], []),
        (None, []),
    ],
)
def test_folders_may_be_one_or_several_as_text_or_as_a_list(value, folders):
    assert parse("data", value, "folders") == folders


def test_the_home_folder_may_be_written_short_in_every_path(home):
    for words, name in (
        (["run", "--output", "~/x"], "output"),
        (["run", "--from", "~/x"], "record"),
        (["evaluate", "run", "--anatomies", "~/x"], "anatomies"),
        (["translate", "~/x", "out"], "input"),
        (["translate", "in", "~/x"], "output"),
        (["translate", "in", "out", "--model", "~/x"], "model"),
    ):
        assert getattr(_parser().parse_args(words), name) == home / "x"
    assert _parser().parse_args(["evaluate", "~/x"]).runs == [home / "x"]
    run = open_run("~/run", data=["~/t1", "~/t2"])
    assert run.folder == home / "run" and run.data == [[str(home / "t1"), str(home / "t2")]]
    assert default_folder("~", run.preset).name == "home-laptop-seed1"
    with pytest.raises(InputError, match=f"{home}/r/metrics.json is not there"):
        read_metrics("~/r")
    assert sorted(os.listdir(home.parent)) == ["home"], "no folder is named ~"


def test_the_home_of_nobody_is_refused():
    with pytest.raises(InputError, match="~nobody-of-this-name/x names the home of nobody"):
        user_path("~nobody-of-this-name/x")


@pytest.mark.slow
def test_papermills_p_sets_overrides_as_the_text_that_they_are(home, heads, tmp_path):
    words = ["-p", "run_dir", "~/run", "-p", "data", str(heads)]
    words += ["-p", "overrides", "{epochs: 2, flip: False}"]
    environment = os.environ | {"HOME": str(home), "JUPYTER_PREFER_ENV_PATH": "1"}
    notebook = str(REPOSITORY / "notebooks" / "01_preprocessing.ipynb")
    result = subprocess.run(
        [sys.executable, "-m", "papermill", notebook, "out.ipynb", *words],
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-999:]
    preset = open_run(home / "run", begin=False).preset
    assert (preset.epochs, preset.flip) == (2, False)
