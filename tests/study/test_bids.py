"""The BIDS App: which participants, what it writes, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import pytest
import test_translate
from conftest import REPOSITORY
from test_translate import scan

from cyclegan_tf.__main__ import main

run, loaded_once = test_translate.run, test_translate.loaded_once


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "bids"
    for name in ("sub-01/ses-1", "sub-01/ses-2", "sub-02/ses-1"):
        folder = root / name / "anat"
        folder.mkdir(parents=True)
        stem = name.replace("/", "_")
        nibabel.save(scan(), folder / f"{stem}_T1w.nii.gz")
    text = json.dumps({"Name": "test", "BIDSVersion": "1.10.0"})
    (root / "dataset_description.json").write_text(text)
    return root


def app(dataset, output, run, *options) -> int:
    return main(["bids", str(dataset), str(output), "participant", "--model", str(run), *options])


def volumes(output) -> list[str]:
    return sorted(path.name for path in output.rglob("*.nii.gz"))


def test_participants_and_sessions_are_chosen_and_have_a_page(dataset, run, tmp_path, capsys):
    out = tmp_path / "out"
    assert app(dataset, out, run, "--participant-label", "01", "--session-label", "ses-2") == 0
    assert volumes(out) == ["sub-01_ses-2_desc-synthetic_T2w.nii.gz"]
    assert (out / "sub-01.html").read_text().count("data:image/webp") == 2
    assert not (out / "sub-02.html").exists()
    (there,) = dataset.glob("sub-02/**/*T1w*")
    gone = there.rename(there.with_name("sub-02_ses-1_PDw.nii.gz"))
    assert app(dataset, out, run, "--participant-label", "01", "02") == 2
    assert "holds no scan of what was chosen of sub-02: expected one" in capsys.readouterr().err
    gone.rename(there)
    assert app(dataset, out, run, "--trust") == 0
    assert len(volumes(out)) == 6 and (out / "sub-02.html").is_file()
    sidecar = json.loads(next(out.rglob("sub-02*synthetic_T2w.json")).read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz"]
    assert "mine" in sidecar["Model"]
    validator = Path(sys.executable).with_name("bids-validator-deno")
    words = [validator, "--ignoreNiftiHeaders", out]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_who_is_not_there_and_the_output_of_another_data_set_are_refused_in_a_sentence(
    dataset, run, tmp_path, capsys
):
    out = tmp_path / "out"
    assert app(dataset, out, run, "--participant-label", "99") == 2
    assert "has no participant 99: expected one of 01, 02." in capsys.readouterr().err
    assert app(dataset, out, run, "--session-label", "7") == 2
    assert "has no session 7: expected one of 1, 2." in capsys.readouterr().err
    assert app(tmp_path, out, run) == 2
    assert "is no BIDS data set" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    (out / "dataset_description.json").write_text('{"Name": "fMRIPrep"}')
    assert app(dataset, out, run) == 2
    assert "was made by another program" in capsys.readouterr().err and not volumes(out)


# It says what it makes at once.
WORKER = """
import sys
from cyclegan_tf.translation import translate, translator

make = translator.Translator.__call__

def said(self, scans, *options):
    print("made", *(scan.sources[0].name for scan in scans), flush=True)
    return make(self, scans, *options)

translator.Translator.__call__ = said
translate.translate_scans(*sys.argv[1:])
"""


@pytest.mark.slow
def test_four_processes_on_one_output_make_each_of_40_volumes_once_though_one_is_killed(tmp_path):
    root, out = tmp_path / "scans", tmp_path / "out"
    root.mkdir()
    nibabel.save(scan(), root / "00_T1w.nii.gz")
    for number in range(1, 40):
        shutil.copy(root / "00_T1w.nii.gz", root / f"{number:02}_T1w.nii.gz")
    out.mkdir()
    (out / ".partial-1-07_desc-synthetic_T2w.nii.gz").write_text("of a process that was killed")

    def begin():
        words = [sys.executable, "-c", WORKER, root, out]
        return subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)

    first, *others = started = [begin() for _ in range(4)]
    assert any(line.startswith("made") for line in first.stdout)
    first.kill()
    said = [process.communicate()[0] for process in (*others, first)]
    assert [process.returncode for process in others] == [0] * 3, said
    again = begin()
    said.append(again.communicate()[0])
    assert again.returncode == 0 and len(started) == 4
    made = [line for text in said for line in text.splitlines() if line.startswith("made")]
    assert len(volumes(out)) == 40 and len(made) <= 41  # the killed one's is made again
    expected = nibabel.load(out / "00_desc-synthetic_T2w.nii.gz").get_fdata()
    for path in out.glob("*.nii.gz"):
        assert (nibabel.load(path).get_fdata() == expected).all()
    # A sidecar for each; no parts, and at most the lock of the killed one.
    assert len([*out.glob("*.json")]) == 40 and len(os.listdir(out)) <= 81
