"""What is installed from the wheel, outside of the repository, does what the repository does."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path, PurePath, PureWindowsPath

import imageio.v3 as iio
import nbformat
import nibabel
import numpy as np
import pytest
from conftest import REPOSITORY
from test_notebooks import TINY, command, execute
from test_translate import scan

from cyclegan_tf import __version__
from cyclegan_tf.__main__ import PIPELINE
from cyclegan_tf.parameters import parse
from cyclegan_tf.presets import get_preset
from cyclegan_tf.scans.folders import identify

LIGHT = """
import sys, tempfile
import onnxruntime, pathlib, portalocker, psutil  # which know the systems that they run on
heavy = "tensorflow keras tensorflow_addons h5py onnx scipy skimage sklearn matplotlib".split()
heavy += "papermill IPython nilearn imageio gdcm fcntl resource pwd grp termios".split()

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in heavy:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in heavy:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
"""
PICTURES = ("samples", "round_trip", "spin_echoes", "networks", "epoch_000", "epoch_002")
PICTURES += ("learning_rates", "losses", "exploding_rate")
DRAWING = r"^(figures\.(?!dials)|lesson\.show_tried|Image\()"
DEPENDENCIES = REPOSITORY / "pyproject.toml"


def python(*words, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    options = {"env": environment, "capture_output": True, "text": True} | options
    return subprocess.run([sys.executable, *map(str, words)], check=False, **options)


def lightly(*words, **environment) -> subprocess.CompletedProcess:
    """A command where only what translates is installed, and as if on Windows."""
    code = "from cyclegan_tf.__main__ import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return python("-c", LIGHT + code, *words, env=environment)


def test_translating_needs_neither_tensorflow_nor_scipy_nor_posix(tmp_path):
    source, made = tmp_path / "head.nii.gz", tmp_path / "t2.nii.gz"
    nibabel.save(scan(), source)
    result = lightly("translate", source, made, "--trust")
    assert result.returncode == 0, result.stderr
    data = np.asanyarray(nibabel.load(made).dataobj)
    assert data.shape == scan().shape and data.max() > 300
    assert (tmp_path / "t2_trust.nii.gz").is_file()


# Text files and pipes take even less than on Windows, where some letters of Europe are all.
NARROW = {
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "cp1252",
}
RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{k}" for port in ("com", "lpt") for k in range(10)),
}


def assert_windows_takes(names: Iterable[PurePath]) -> None:
    """What Windows forbids is in no name, and no two names differ in capitals alone."""
    names = [*names]
    for name in names:
        for part in name.parts:
            assert not set(part) & set('<>:"/\\|?*') and part.isprintable(), name
            assert part[-1] not in ". " and part.split(".")[0].lower() not in RESERVED, name
    assert len({str(name).lower() for name in names}) == len({*names})


def test_no_file_of_the_project_or_of_a_run_has_a_name_that_windows_refuses():
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=REPOSITORY, text=True)
    names = [PurePath(name) for name in tracked.split("\0") if name]
    assert any("gallery" in name.parts for name in names)  # real runs
    assert_windows_takes(names)


def test_a_bids_app_writes_and_shows_what_windows_takes(tmp_path):
    scans, made = tmp_path / "bids", tmp_path / "made"
    (scans / "sub-01" / "anat").mkdir(parents=True)
    nibabel.save(scan(), scans / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    described = {"Name": "Zürich → Łódź", "BIDSVersion": "1.10.0"}
    text = json.dumps(described, ensure_ascii=False)
    (scans / "dataset_description.json").write_text(text, encoding="utf-8")
    result = lightly("bids", scans, made, "participant", "--trust", **NARROW)
    assert result.returncode == 0, result.stderr
    assert "synthetic" in (made / "sub-01.html").read_text(encoding="utf-8")
    assert_windows_takes(path.relative_to(made) for path in made.rglob("*"))
    shown = lightly("evaluate", "--help", **NARROW)
    assert shown.returncode == 0 and "source ? target" in shown.stdout, shown.stderr


class WindowsPath(PureWindowsPath):
    """A path of Windows to nothing."""

    def is_dir(self) -> bool:
        return False


@pytest.mark.parametrize(
    "name",
    ["bids/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz", "ixi/IXI002-Guys-0828-T1.nii", "p7/T1.png"],
)
def test_whose_scan_it_is_is_read_from_a_path_of_windows_as_from_any(name):
    folder = name.split("/")[0]
    here = identify(Path("/data", name), Path("/data", folder))
    there = WindowsPath("D:\\data", *name.split("/"))
    assert identify(there, WindowsPath("D:\\data", folder)) == here and here.subject


def test_a_path_of_windows_comes_through_every_way_in_which_it_is_given():
    folder = r"C:\Users\Jo Doe\scans"
    for text in (folder, f"[{folder}]"):
        assert parse("data", text, "folders") == [[folder]]
    assert parse("data", [folder, "D:\\T2"], "folders") == [[folder, "D:\\T2"]]
    for overrides in ({"anatomies": folder}, f"{{anatomies: '{folder}'}}", f"anatomies: {folder}"):
        assert get_preset("laptop", overrides).anatomies == folder


@pytest.mark.parametrize("words", [["run", "--output", "new"], ["export", "x", "y.onnx"]])
def test_what_needs_more_than_is_installed_says_what_to_install(words, tmp_path):
    words = [tmp_path / word if word == "new" else word for word in words]
    result = lightly(*words)
    assert result.returncode == 2 and not (tmp_path / "new").exists(), result.stderr
    assert result.stderr.endswith(
        "is not installed, which this command needs: pip install 'cyclegan_tf[train]'.\n"
    )
    assert result.stderr.count("\n") == 1


def test_a_keras_file_without_tensorflow_is_one_sentence(tmp_path):
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    model = tmp_path / "t1_to_t2.keras"
    model.write_bytes(b"")
    words = ["translate", tmp_path / "head.nii.gz", tmp_path / "t2.nii.gz", "--model", model]
    sentence = lightly(*words).stderr
    assert "cannot be read without" in sentence and ".onnx file" in sentence
    assert sentence.count("\n") == 1


def test_all_that_translates_is_in_the_whole_set_too():
    listed = DEPENDENCIES.read_text().split("dependencies = [")[1].split("]")[0]
    whole = {line.split(" ")[0] for line in (REPOSITORY / "requirements.txt").open()}
    assert {name.strip(' ,"') for name in listed.split()} - {""} <= {x.strip() for x in whole}


def copy(folder: Path) -> Path:
    """The project in another folder, without what a test or a run leaves in it."""
    for name in subprocess.check_output(["git", "ls-files"], cwd=REPOSITORY, text=True).split("\n"):
        if name and not name.startswith(("outputs/", "tests/test_")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The scripts of an environment with the wheel, which has all else from this one."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation"]
    source = copy(folder / "source")
    built = python(*options, "--wheel-dir", folder, source, env=os.environ)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    python("-m", "venv", "--without-pip", folder / "env")
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    own = next((folder / "env").rglob("site-packages"))
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))
    pip = ["-m", "pip", "--quiet", "--python", scripts / "python"]
    put = python(*pip, "install", "--no-deps", wheel, env=os.environ)
    assert put.returncode == 0, put.stderr
    return scripts


def run_installed(scripts: Path, *words, cwd) -> subprocess.CompletedProcess:
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    options = {"capture_output": True, "text": True, "check": False}
    result = subprocess.run([scripts / "cyclegan-tf", *words], cwd=cwd, env=environment, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def finished(installed, tmp_path_factory):
    """The folder of a tiny run from beginning to end, and what was shown meanwhile."""
    folder = tmp_path_factory.mktemp("whole")
    values = [word for pair in TINY.items() for word in ("-p", *pair)]
    result = run_installed(installed, "run", *values, cwd=folder)
    return folder / "outputs" / "simulated-laptop-seed1", result


@pytest.mark.slow
def test_a_run_leaves_everything_that_was_promised(finished):
    folder, _ = finished
    expected = [f"{name}.ipynb" for name in PIPELINE]
    expected += [f"snapshots/epoch_{epoch:03d}.png" for epoch in (0, 1, 2)]
    for direction in ("t1_to_t2", "t2_to_t1"):
        expected += [f"models/{direction}.keras", f"models/{direction}.weights.h5"]
        expected += [f"figures/epochs_{direction}.png"]
    expected += [f"figures/{name}.png" for name in PICTURES]
    expected += ["figures/training.gif", "losses.csv", "run.json", "report.html", "tensorboard"]
    assert [name for name in expected if not (folder / name).exists()] == []
    assert not list(folder.rglob(".partial-*"))
    assert len(iio.imread(folder / "figures" / "training.gif")) == 3
    assert (folder / "figures" / "training.gif").stat().st_size < 3e6
    assert len((folder / "losses.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_the_record_of_a_run_says_how_it_came_about(finished):
    record = json.loads((finished[0] / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["preset"]["name"] == "laptop" and record["preset"]["epochs"] == 2
    assert record["overrides"] == TINY
    assert record["seed"] == 1
    assert (record["data"]["t1_images"], record["data"]["t2_images"]) == (43, 46)
    assert all(record["networks"][name]["weights"] > 0 for name in ("generator", "discriminator"))
    assert record["warm_start"]["steps"] == 100
    assert record["durations"].keys() >= {*PIPELINE, "warm_start", "training", "total"}
    assert record["durations"]["total"] >= record["durations"]["training"] > 0


@pytest.mark.slow
def test_a_run_shows_stages_and_progress_and_ends_with_where_things_are(finished):
    folder, result = finished
    for number, name in enumerate(PIPELINE, 1):
        assert f"[{number}/{len(PIPELINE)}] {name}" in result.stdout
    assert re.search(r"Training:.*epoch 2, .*cycle \d", result.stdout)
    assert result.stdout.rstrip().endswith(str(folder / "report.html"))
    assert str(folder / "figures") in result.stdout
    assert "Traceback" not in result.stderr and "encryption" not in result.stderr


@pytest.mark.slow
def test_executed_notebooks_show_each_picture_once_and_no_error(finished):
    for name in PIPELINE:
        for cell in nbformat.read(finished[0] / f"{name}.ipynb", as_version=4).cells:
            outputs = cell.get("outputs", [])
            kinds = [output.output_type for output in outputs]
            pictures = [kind for o in outputs for kind in o.get("data", {}) if "image/" in kind]
            assert "error" not in kinds
            drawing = re.search(DRAWING, cell.source, re.MULTILINE)
            assert len(pictures) == bool(cell.cell_type == "code" and drawing)


@pytest.mark.slow
def test_the_same_command_again_does_nothing_and_others_are_refused(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = execute(command(folder))
    assert again.returncode == 0
    assert str(folder / "figures") in again.stdout
    other = execute(command(folder, epochs=3))
    assert other.returncode == 2
    assert "epochs is 2 there and 3 here" in other.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_the_installed_command_translates_by_a_run_of_its_own_and_by_what_ships(
    installed, finished, tmp_path
):
    version = run_installed(installed, "--version", cwd=tmp_path).stdout
    assert version == f"cyclegan_tf {__version__}\n"
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    for name, model in (("own", ["--model", finished[0]]), ("shipped", [])):
        words = ["translate", "head.nii.gz", f"{name}.nii.gz", *map(str, model)]
        assert "Translated: " in run_installed(installed, *words, cwd=tmp_path).stdout
        assert nibabel.load(tmp_path / f"{name}.nii.gz").shape == scan().shape


@pytest.mark.slow
def test_the_loop_in_the_readme_leaves_a_pair_that_lies_on_itself(installed, tmp_path):
    text = (REPOSITORY / "README.md").read_text()
    loop = "    for t1w in " + text.split("    for t1w in ")[1].split("\n\n")[0]
    folder = tmp_path / "copy" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    nibabel.save(scan(), folder / "sub-01_T1w.nii.gz")
    environment = os.environ | {"PATH": f"{installed}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(["bash", "-ec", loop], cwd=tmp_path, env=environment, check=True)
    t1w, t2w = (nibabel.load(folder / f"sub-01_{x}.nii.gz") for x in ("T1w", "acq-synthetic_T2w"))
    assert t2w.shape == t1w.shape and np.array_equal(t2w.affine, t1w.affine)


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_make_a_bids_app_of_250_mb(tmp_path):
    steps = dict(
        line.split(" ", 1)
        for line in (REPOSITORY / "Dockerfile").read_text().splitlines()
        if not line.startswith("#")
    )
    source, target = steps["COPY"].split()
    assert source == "."
    here = copy(tmp_path / "copied")
    python("-m", "venv", tmp_path / "env")
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)

    def run(*words) -> None:
        options = {"capture_output": True, "text": True, "check": False, "cwd": tmp_path}
        result = subprocess.run(list(map(str, words)), env=environment, **options)
        assert result.returncode == 0, result.stdout + result.stderr

    before = size(tmp_path / "env")
    run(*shlex.split(steps["RUN"].replace(target, str(here))))
    assert size(tmp_path / "env") - before < 250e6
    folder = tmp_path / "in" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    nibabel.save(scan(), folder / "sub-01_T1w.nii.gz")
    program, *words = json.loads(steps["ENTRYPOINT"])
    run(scripts / program, *words, tmp_path / "in", tmp_path / "out", "participant")
    made = tmp_path / "out" / "sub-01" / "anat" / "sub-01_desc-synthetic_T2w.nii.gz"
    assert nibabel.load(made).shape == scan().shape
    assert (tmp_path / "out" / "sub-01.html").read_text().count("data:image/webp") == 2


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
