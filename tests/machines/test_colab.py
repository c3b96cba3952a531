"""The notebooks on Google Colab: a stand-in for it, and an environment without the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import psutil
import pytest
import yaml
from conftest import REPOSITORY
from test_notebooks import LEAST, NOTEBOOKS, environment, until

from cyclegan_tf.machines import colab

HOME = "https://github.com/cyclegan-tf/cyclegan_tf"  # where notebooks install from
MOUNT = """
import os

def mount(folder):
    if not os.path.isdir(folder):
        os.mkdir(folder)
        os.symlink({drive!r}, os.path.join(folder, "MyDrive"))
"""


@pytest.fixture
def google(tmp_path, monkeypatch):
    """A session's working folder, and what mounts Drive there: it may be replaced."""
    drive = ModuleType("google.colab.drive")
    drive.mount = lambda folder: None
    module = ModuleType("google.colab")
    module.drive = drive
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20261101-060000_RC00")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(colab, "CONTENT", tmp_path)
    return drive


def test_runs_are_kept_on_drive_however_often_the_cell_is_run(google, tmp_path, capsys):
    for _ in range(2):
        colab.start_session("studies/heads")
        assert Path.cwd() == tmp_path / "drive" / "MyDrive" / "studies" / "heads" / "notebooks"
    kept, processors = capsys.readouterr().out.splitlines()[-2:]
    assert kept == f"Runs are kept in {Path.cwd().parent / 'outputs'}."
    assert re.fullmatch(r"GPU: .+\. Precision `auto` is (mixed_b)?float(16|32) here\.", processors)


def test_without_drive_runs_are_kept_in_the_session_and_that_is_said(google, tmp_path, capsys):
    def refuse(folder):
        raise RuntimeError("credential propagation was unsuccessful")

    google.mount = refuse
    colab.start_session("heads")
    assert Path.cwd() == tmp_path / "notebooks"
    shown = capsys.readouterr().out
    assert "no Google Drive (credential propagation was unsuccessful)" in shown
    colab.start_session("")
    assert Path.cwd() == tmp_path / "notebooks"
    assert "Drive" not in capsys.readouterr().out


def test_elsewhere_the_line_and_the_session_do_nothing(tmp_path):
    first = next(c for c in nbformat.read(NOTEBOOKS[0], as_version=4).cells if c.source[0] == "!")
    assert subprocess.run(first.source[1:], shell=True, capture_output=True).stdout == b""
    code = "import sys; from cyclegan_tf.machines.colab import start_session; start_session();"
    code += "sys.exit('tensorflow' in sys.modules)"
    words = [sys.executable, "-c", code]
    result = subprocess.run(
        words, capture_output=True, cwd=tmp_path, env=environment(), check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert not list(tmp_path.iterdir())


def git(*words) -> str:
    return subprocess.check_output(["git", "-C", str(REPOSITORY), *words], text=True).strip()


class Session:
    """A machine that Colab lends: the project's dependencies and the notebooks of HEAD.

    `other` is the Python whose packages it has, `drive` the folder that is the user's Drive.
    """

    def __init__(self, folder: Path, other: str, drive: Path):
        self.folder, self.content = folder, folder / "content"
        self.python = folder / "env" / "bin" / "python"
        subprocess.run([other, "-m", "venv", "--without-pip", folder / "env"], check=True)
        ask = ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        theirs, own = (
            Path(subprocess.check_output([python, *ask], text=True).strip())
            for python in (other, self.python)
        )
        dependencies = folder / "dependencies"
        dependencies.mkdir()
        for path in theirs.iterdir():
            if "cyclegan_tf" not in path.name and path.suffix != ".pth":
                (dependencies / path.name).symlink_to(path)
        (own / "google" / "colab").mkdir(parents=True)
        (own / "google" / "colab" / "drive.py").write_text(MOUNT.format(drive=str(drive)))
        (own / "colab.pth").write_text(f"{dependencies}\nimport google.colab\n")
        self.content.mkdir()
        for path in NOTEBOOKS:
            text = git("show", f"HEAD:notebooks/{path.name}")
            (self.content / path.name).write_text(
                text.replace(HOME, f"file://localhost{REPOSITORY}")
            )

    def start(self, *words) -> subprocess.Popen:
        """Python with these words, in the folder of the notebooks; pip downloads nothing."""
        ours = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # sic
        ours |= {"JUPYTER_DATA_DIR": str(self.folder / "jupyter"), "PYTHONPATH": ""}
        ours |= {"COLAB_RELEASE_TAG": "release-colab_20261101-060000_RC00"}
        ours |= {"PATH": os.pathsep.join([str(self.python.parent), os.environ["PATH"]])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            [self.python, *words], env=os.environ | ours, cwd=self.content, **pipes
        )

    def papermill(self, name: str, **parameters) -> subprocess.Popen:
        words = [f"{name}.ipynb", str(self.folder / f"{name}.ipynb"), "--no-progress-bar"]
        return self.start("-m", "papermill", *words, "-y", yaml.dump(parameters))

    def run(self, name: str, **parameters) -> str:
        """Execute a notebook; returns what its cells have printed."""
        with self.papermill(name, **parameters) as process:
            text = process.communicate()[0]
        assert process.returncode == 0, text
        cells = nbformat.read(self.folder / f"{name}.ipynb", as_version=4).cells
        return "".join(part.get("text", "") for x in cells for part in x.get("outputs", []))


@pytest.fixture
def begin(tmp_path):
    """Begins a session, all with the same Drive; what the one before had elsewhere is lost."""
    other = os.environ.get("CYCLEGAN_TF_OTHER_PYTHON")
    if not other:
        pytest.skip("no Python of another environment (set CYCLEGAN_TF_OTHER_PYTHON to it)")

    def session() -> Session:
        shutil.rmtree(tmp_path / "session", ignore_errors=True)
        return Session(tmp_path / "session", other, tmp_path / "drive")

    (tmp_path / "drive").mkdir()
    return session


@pytest.mark.slow
def test_notebooks_on_colab_find_each_others_run_even_after_a_disconnect(begin, heads, tmp_path):
    run = tmp_path / "drive" / "cyclegan_tf" / "outputs" / "notebook"
    session = begin()
    with session.start("-c", "import google.colab, cyclegan_tf") as bare:
        assert "No module named 'cyclegan_tf'" in bare.communicate()[0]
    many = LEAST | {"epochs": "20"}  # so that the kill below falls among them
    shown = session.run("01_preprocessing", data=str(heads), overrides=many)
    assert re.match(r"Runs are kept in .*\nGPU: .*\n", shown)
    assert json.loads((run / "run.json").read_text())["commit"] == git("rev-parse", "HEAD")

    with session.papermill("02_training") as training:
        until((run / "checkpoints" / "epoch_0001.npz").exists)
        for process in [*psutil.Process(training.pid).children(recursive=True), training]:
            process.kill()
    session = begin()
    shown = session.run("02_training")
    assert "Warm start:" not in shown
    assert int(re.search(r"Training: +(\d+)%", shown)[1]) > 0
    assert json.loads((run / "run.json").read_text())["status"] == "trained"

    image = next((heads / "T1").iterdir())
    shown = [session.run("04_evaluation")]  # 03 finds the run as this one does
    shown += [session.run("05_translation", scan=str(image), trust=False)]
    assert all(text.startswith("Runs are kept in ") for text in shown)
    assert (run / "report.html").is_file()
    assert (run.parent / "translated" / image.name).is_file()
