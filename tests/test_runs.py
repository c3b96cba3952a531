import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

from cyclegan_tf import InputError
from cyclegan_tf.presets import LAPTOP, PAPER, get_preset
from cyclegan_tf.runs import Run, default_folder, open_run, write_atomically


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        open_run(*arguments, **options)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    return message


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def begun(tmp_path) -> Run:
    """A run of three epochs that has begun training."""
    run = open_run(tmp_path / "run", "laptop", overrides={"epochs": 3})
    run.update(status="training")
    return run


def test_a_new_run_is_laptop_on_simulated_data_and_on_record(tmp_path):
    run = open_run(tmp_path / "deep" / "run")
    assert (run.preset, run.data) == (LAPTOP, [["simulated"]])
    record = json.loads((run.folder / "run.json").read_text())
    assert record["status"] == "new" and record["seed"] == LAPTOP.seed
    assert record["preset"]["learning_rate"] == LAPTOP.learning_rate
    assert {"cyclegan_tf", "python", "numpy"} <= set(record["versions"])
    assert platform.release() not in record["versions"]["platform"]
    assert re.fullmatch("none|[0-9a-f]{40}", record["commit"])


def recorded_commit(home, folder, **environment) -> str:
    """The commit in the record of a run that is begun with the package in the folder `home`."""
    script = "import sys; from cyclegan_tf import runs; runs.open_run(sys.argv[1])"
    words = [sys.executable, "-c", script, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(home), **environment}
    subprocess.run(words, env=environment, cwd=folder.parent, check=True)
    return json.loads((folder / "run.json").read_text())["commit"]


@pytest.fixture
def site_packages(tmp_path):
    """The package as pip installs it, in a folder of an unrelated repository."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "Other"], check=True)
    home = tmp_path / ".venv" / "site-packages"
    package = REPOSITORY / "cyclegan_tf"
    shutil.copytree(package, home / package.name, ignore=shutil.ignore_patterns("pretrained"))
    (home / "cyclegan_tf-0.1.0.dist-info").mkdir()
    return home


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="the project is in no repository")
def test_the_commit_is_that_of_the_repository_which_the_package_lies_in(tmp_path):
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert recorded_commit(REPOSITORY, tmp_path / "run") == head
    assert recorded_commit(REPOSITORY, tmp_path / "without git", PATH="") == "none"


def test_the_commit_of_a_package_from_git_is_the_one_that_pip_has_noted(site_packages, tmp_path):
    noted = {"vcs": "git", "commit_id": "0123456789abcdef0123456789abcdef01234567"}
    origin = {"url": "https://example.org/project", "vcs_info": noted}
    path = site_packages / "cyclegan_tf-0.1.0.dist-info" / "direct_url.json"
    path.write_text(json.dumps(origin))
    assert recorded_commit(site_packages, tmp_path / "run") == noted["commit_id"]


@pytest.mark.parametrize("origin", [None, '{"url": "file:///project", "dir_info": {}}'])
def test_the_commit_of_an_unrelated_repository_is_none(site_packages, tmp_path, origin):
    if origin:
        (site_packages / "cyclegan_tf-0.1.0.dist-info" / "direct_url.json").write_text(origin)
    assert recorded_commit(site_packages, tmp_path / "run") == "none"


def test_preset_data_and_overrides_are_recorded(tmp_path):
    run = open_run(
        tmp_path / "run", "paper", str(tmp_path), {"epochs": "7", "snapshot_epochs": [2]}
    )
    again = open_run(run.folder)
    assert again.preset == get_preset("paper", {"epochs": 7, "snapshot_epochs": (2,)})
    assert again.data == [[str(tmp_path.resolve())]]
    assert again.record["overrides"] == {"epochs": "7", "snapshot_epochs": [2]}


def test_a_begun_run_goes_on_with_the_same_settings_or_none(begun):
    before = contents(begun.folder)
    for options in (
        {},
        {"preset": "laptop", "overrides": {"epochs": "3"}},
        {"overrides": {"epochs": 3}},
        {"data": "simulated"},
    ):
        assert open_run(begun.folder, **options).record["status"] == "training"
        assert contents(begun.folder) == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"preset": "laptop"}, "epochs is 3 there and 145 here"),
        ({"overrides": {"epochs": 4}}, "epochs is 3 there and 4 here"),
        ({"preset": "paper", "overrides": {"epochs": 3}}, "name is laptop there and paper here"),
        ({"data": "scans"}, "data is simulated there and "),
    ],
)
def test_a_begun_run_is_refused_with_other_settings_naming_the_difference(
    begun, options, difference
):
    before = contents(begun.folder)
    message = refusal(begun.folder, **options)
    assert str(begun.folder) in message and difference in message and "--fresh" in message
    assert contents(begun.folder) == before


def test_a_run_that_has_not_begun_takes_other_settings(tmp_path):
    run = open_run(tmp_path / "run", "laptop")
    open_run(run.folder, "paper", overrides={"epochs": 2})
    assert open_run(run.folder).preset == get_preset("paper", {"epochs": 2})


def test_what_was_chosen_by_settings_is_chosen_anew_with_others(tmp_path):
    run = open_run(tmp_path / "run", "laptop")
    chosen = {"precision": {"policy": "float32"}, "epoch_steps": 43, "validation_begun": 0.5}
    run.update(**chosen)
    assert chosen.items() <= open_run(run.folder, "laptop").record.items()
    other = open_run(run.folder, overrides={"batch_size": 4})
    assert not chosen.keys() & other.record.keys()
    assert not chosen.keys() & json.loads((run.folder / "run.json").read_text()).keys()


def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert str(tmp_path) in refusal(tmp_path)
    assert contents(tmp_path) == {"thesis.txt": "precious"}
    assert "thesis.txt" in refusal(tmp_path / "thesis.txt")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"preset": []}',
        '{"preset": {"name": "laptop"}}',
        '{"preset": {"name": "laptop"}, "data": {"source": "simulated"}, "status": "odd"}',
        '{"preset": {"name": "laptop"}, "data": {"source": 0.5}, "status": "new"}',
        "\udcff",
    ],
)
def test_a_damaged_record_is_refused_naming_the_file(tmp_path, text):
    (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    assert "run.json is damaged" in refusal(tmp_path)


def test_an_empty_folder_becomes_a_run(tmp_path):
    assert open_run(tmp_path).preset == LAPTOP


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in refusal(tmp_path / "file" / "run")


def test_the_default_folder_is_made_from_data_preset_and_seed(tmp_path):
    assert default_folder("simulated", LAPTOP).parts == ("outputs", "simulated-laptop-seed1")
    assert default_folder(f"{tmp_path}/knee MRI/", PAPER).name == "knee MRI-paper-seed100"


def test_update_merges_dictionaries_and_replaces_the_rest(begun):
    begun.update(durations={"a": 1}, losses=[1])
    begun.update(durations={"b": 2}, losses=[2])
    record = open_run(begun.folder).record
    assert record["durations"] == {"a": 1, "b": 2} and record["losses"] == [2]


def test_timed_adds_up_over_sessions_interrupted_ones_too(begun):
    with begun.timed("training"):
        time.sleep(0.03)
    with pytest.raises(KeyboardInterrupt), begun.timed("training"):
        time.sleep(0.03)
        raise KeyboardInterrupt
    again = open_run(begun.folder)
    with again.timed("training"), again.timed("other"):
        time.sleep(0.03)
    assert 0.08 < again.record["durations"]["training"] < 5
    assert again.record["durations"]["other"] < again.record["durations"]["training"]


def test_a_file_written_atomically_is_whole_or_as_before(tmp_path):
    path = tmp_path / "losses.csv"
    with write_atomically(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), write_atomically(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert contents(tmp_path) == {"losses.csv": "first"}


def test_a_failed_write_leaves_nothing(tmp_path):
    with (
        pytest.raises(InputError, match="a.npz cannot be written .No space"),
        write_atomically(tmp_path / "a.npz") as partial,
    ):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert contents(tmp_path) == {}


def test_a_run_whose_folder_has_gone_makes_no_other_in_its_place(begun):
    begun.folder.rename(begun.folder.with_name("elsewhere"))
    for write in (begun.update, lambda: begun.path("models", "x.keras")):
        with pytest.raises(InputError, match="is gone"):
            write()
    assert not begun.folder.exists()


def test_label_maps_lie_where_the_command_was_given_whatever_runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for text, folder in (("maps", str(tmp_path / "maps")), ("~/maps", "/home/me/maps"), ("", "")):
        monkeypatch.chdir(tmp_path)
        run = open_run(tmp_path / f"run-{len(text)}", overrides={"anatomies": text})
        run.update(status="trained")
        assert open_run(run.folder, overrides={"anatomies": text}).preset.anatomies == folder
        monkeypatch.chdir("/")
        assert open_run(run.folder).preset.anatomies == folder
