import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from conftest import REPOSITORY

from cyclegan_tf import InputError, __main__
from cyclegan_tf.__main__ import PIPELINE, PROGRAM, main
from cyclegan_tf.dataset.preparation import prepare
from cyclegan_tf.runs import open_run

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
TINY = {
    "filters": "4",
    "blocks": "1",
    "discriminator_filters": "4",
    "epochs": "2",
    "warm_start_epochs": "1",
    "warm_start_pairs": "8",
    "practice_steps": "4",
    "snapshot_epochs": "0,1,2",
    "fit": "resize",
    "size": "64",
}
# The least that goes through all notebooks, for what does not ask what the pictures show.
LEAST = TINY | {
    "generator": "published",
    "blocks": "0",
    "discriminator_depth": "1",
    "practice_steps": "0",
    "size": "32",
}


def environment():
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": paths}


def command(folder, *more, **overrides):
    """The words of `python -m cyclegan_tf run` with tiny networks."""
    values = [word for pair in (TINY | overrides).items() for word in ("-p", *map(str, pair))]
    return [sys.executable, *PROGRAM[1:], "run", "--output", str(folder), *values, *more]


def execute(words):
    return subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)


def papermill(notebook, output, *more):
    """A notebook by itself, as a user runs it."""
    words = ["-m", "papermill", str(REPOSITORY / "notebooks" / notebook), str(output), *more]
    return execute([sys.executable, *words, "--no-progress-bar"])


def run_cells(name, **parameters):
    """A notebook's code in this process, where TensorFlow has begun; returns its variables."""
    cells = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4).cells
    _, own, *codes = (cell.source for cell in cells if cell.cell_type == "code")
    variables = {}
    exec(own, variables)
    assert variables.keys() >= parameters.keys()
    variables |= parameters
    for code in codes:
        exec(code, variables)
    return variables


def execute_here(name, folder):
    """A notebook of a run without papermill and a kernel, which load everything anew."""
    run_cells(name, run_dir=folder)
    open_run(folder, begin=False).spend(name, 0)


def until(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_the_notebooks_are_numbered_and_begin_with_those_of_the_pipeline():
    names = [path.stem for path in NOTEBOOKS]
    assert [name[:3] for name in names] == [f"{n:02d}_" for n in range(1, len(names) + 1)]
    assert names[: len(PIPELINE)] == list(PIPELINE)


def test_a_notebook_is_valid_and_holds_no_output(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_a_notebook_begins_with_the_one_line_for_colab_and_one_parameters_cell(notebook):
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first = nbformat.read(NOTEBOOKS[0], as_version=4).cells[1].source
    assert codes[0].source == first and len(first.splitlines()) == 1
    assert first.startswith('![ -z "$COLAB_RELEASE_TAG" ] || ')
    assert sum("start_session()" in cell.source for cell in codes) == 1
    tags = [cell.metadata.get("tags", []) for cell in codes]
    assert tags[1] == ["parameters"] and not any(tags[:1] + tags[2:])


def test_a_notebook_begins_with_a_question_and_explains_every_cell(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    assert re.match(r"# \d+ · .*\?\n", notebook.cells[0].source)
    assert kinds[-1] == "markdown"
    assert ("code", "code") not in zip(kinds, kinds[1:], strict=False)


def test_a_notebook_ends_with_what_was_learned_and_leads_to_the_next():
    for path, following in zip(NOTEBOOKS, [*NOTEBOOKS[1:], None], strict=True):
        end = nbformat.read(path, as_version=4).cells[-1].source
        assert end.startswith("## What was learned")
        assert following is None or f"Next: [{following.stem}]({following.name})" in end


LOOK = re.compile(r"\b(look|follow|watch|compare)\b", re.IGNORECASE)


def test_every_picture_has_words_that_say_what_to_look_for(notebook):
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code" and re.search(r"figures\.|lesson\.show_tried", cell.source):
            caption = [line for line in before.source.splitlines() if not line.startswith("#")]
            assert LOOK.search(" ".join(caption)), cell.source


def test_sliders_follow_a_picture_that_stands_for_them_where_nothing_moves(notebook):
    codes = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for before, code in zip(codes, codes[1:], strict=False):
        assert "interact" not in code  # it may wait for ever: see figures.dials
        if "figures.dials(" in code:
            assert re.search(r"^figures\.(?!dials)", before, re.MULTILINE)


def test_the_course_meets_every_mistake_of_the_original():
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells]
    text = " ".join(" ".join(cell.source.split()) for cell in cells)
    for words in (
        "the rate does not fall: from 0 it *rises*",
        "length of the *path's text*",
        "shuffles both with the same seed",
        "with the titles exchanged",
        "scores 31.0 dB",
        "The original's README calls that a U-Net",
        "its files are blank",
        "the original held no image out and gave no number",
    ):
        assert words in text
    assert {"lesson.try_published_rate", "figures.round_trip", "figures.draw_networks"} <= set(
        re.findall(r"\b(?:lesson|figures)\.\w+", text)
    )


def test_a_cell_of_code_is_short_and_holds_no_logic(notebook):
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        assert len(cell.source.splitlines()) <= 10
        assert not re.search(r"^\s*(def|class|while|if|try|with)\b", cell.source, re.MULTILINE)


def test_links_between_notebooks_lead_somewhere(notebook):
    text = "".join(cell.source for cell in notebook.cells)
    for link in re.findall(r"\]\(([^)#]+\.ipynb)\)", text):
        assert (REPOSITORY / "notebooks" / link).is_file()


def test_neither_data_nor_pictures_load_tensorflow():
    paths = (REPOSITORY / "notebooks" / f"{PIPELINE[place]}.ipynb" for place in (0, 2))
    cells = [cell for path in paths for cell in nbformat.read(path, as_version=4).cells]
    lines = "\n".join(cell.source for cell in cells if cell.cell_type == "code").splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    code = "\n".join([*imports, "import sys", "sys.exit('tensorflow' in sys.modules)"])
    assert execute([sys.executable, "-c", code]).returncode == 0


def test_figures_before_training_names_the_notebook_to_run_first(heads, tmp_path):
    prepare(open_run(tmp_path / "run", data=str(heads)))
    with pytest.raises(InputError, match="run 02_training first"):
        run_cells("03_figures", run_dir=tmp_path / "run")


def test_training_before_preprocessing_names_the_notebook_to_run_first(tmp_path):
    with pytest.raises(InputError, match="01_preprocessing first"):
        run_cells("02_training", run_dir=tmp_path / "run", overrides={"epochs": 10})
    assert not (tmp_path / "run").exists()


def test_an_unknown_name_among_the_overrides_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no parameter 'epoch'"):
        run_cells("01_preprocessing", run_dir=tmp_path / "run", overrides={"epoch": 10})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "stage", "first"),
    [
        (signal.SIGINT, "02_training", "snapshots/epoch_000.npz"),
        (signal.SIGTERM, "01_preprocessing", "figures/samples.png"),
    ],
)
def test_a_run_ended_by_a_signal_says_how_to_go_on_and_leaves_no_kernel(
    heads, kind, stage, first, tmp_path
):
    folder = tmp_path / "run"
    words = command(folder, "--fresh", "--data", str(heads), **LEAST)
    pipe = subprocess.PIPE
    options = {"env": environment(), "stdout": pipe, "stderr": pipe, "text": True}
    # As a shell script does with what it starts in the background.
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    with subprocess.Popen(words, **options) as process:
        until(lambda: (folder / first).is_file() or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(kind)
        said = f"Stopping: the kernel of {stage} ends within 15 s"
        until(lambda: process.stderr.readline().startswith(said), 60)
        _, errors = process.communicate(timeout=60)  # 15 s where nothing else is at work
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("Stopped. The same command goes on")
    assert f"--output {folder}" in errors and "--fresh" not in errors
    assert "Traceback" not in errors
    assert kernels and not psutil.wait_procs(kernels, timeout=10)[1]


@pytest.mark.slow
def test_no_epochs_build_the_networks_and_stop_after_the_untrained_pictures(
    heads, tmp_path, monkeypatch
):
    monkeypatch.setattr(__main__, "_execute", execute_here)
    folder, data = tmp_path / "run", tmp_path / "data"
    for theirs, ours in (("T1", "T1"), ("T2", "FLAIR")):
        shutil.copytree(heads / theirs, data / ours)
    others = {"epochs": "0", "target": "FLAIR"}  # any contrast, all the same
    assert main(command(folder, "--data", str(data), **LEAST | others)[3:]) == 0
    assert [path.name for path in (folder / "snapshots").glob("*.png")] == ["epoch_000.png"]
    for direction in ("t1_to_flair", "flair_to_t1"):
        assert (folder / "models" / f"{direction}.keras").is_file()
        assert (folder / "figures" / f"epochs_{direction}.png").is_file()
    assert not (folder / "losses.csv").exists()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
