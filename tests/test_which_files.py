"""From folders as they are: what is translated, what is trained on, and what is said of it."""

import itertools
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import test_preparation
import test_translate
from conftest import REPOSITORY
from PIL import Image
from scipy import ndimage
from test_preparation import write_volume
from test_translate import head, refusal, scan

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import main
from cyclegan_tf.dataset.preparation import prepare
from cyclegan_tf.translation.translate import translate_scans

# Their fixtures.
run, outputs, loaded_once = (
    test_translate.run,
    test_translate.outputs,
    test_translate.loaded_once,
)
begin, scans = test_preparation.begin, test_preparation.scans


def case(name: str) -> Path:
    folder = REPOSITORY.parent / "shared" / "cases" / name
    if not folder.is_dir():
        pytest.skip(f"the case {name} is absent")
    return folder


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name.endswith((".nii.gz", "png")))


def saved(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(scan(), root / name)
    return root


# Translated


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("anat", "sub-01_desc-synthetic_T2w.nii.gz"),
        ("BraTS_001", "BraTS_001_t1_desc-synthetic_T2w.nii.gz"),
    ],
)
def test_of_a_folder_of_many_contrasts_the_t1_is_translated_and_the_rest_listed(
    run, outputs, capsys, place, expected
):
    folder = case("06-every-file-of-a-folder-is-a-T1") / place
    translate_scans(folder, outputs, run)
    assert made(outputs) == [expected]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Left out" in line]
    taken = expected.split("_desc")[0] + ("_T1w.nii.gz" if place == "anat" else ".nii.gz")
    assert all(path.name in line for path in folder.iterdir() if path.name != taken)
    assert taken not in line


def test_a_link_that_leads_nowhere_is_named_and_the_rest_translated(run, outputs, tmp_path, capsys):
    bids = saved(
        tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz"
    )
    place = bids / "sub-02" / "ses-1" / "anat"
    place.mkdir(parents=True)
    for name in ("sub-02_ses-1_T1w.nii.gz", "sub-02_ses-1_T2w.nii.gz"):
        (place / name).symlink_to("../.git/annex/objects/gone")
    with pytest.raises(SystemExit) as exit:
        main(["translate", str(bids), str(outputs), "--model", str(run)])
    assert exit.value.code == "1 of 2 could not be translated."
    errors = [line for line in capsys.readouterr().err.splitlines() if "leads nowhere" in line]
    assert len(errors) == 1 and "sub-02_ses-1_T1w.nii.gz is a link" in errors[0]
    assert made(outputs) == ["sub-01_desc-synthetic_T2w.nii.gz"]
    shutil.rmtree(bids / "sub-01")
    with pytest.raises(SystemExit) as exit:
        main(["translate", str(bids), str(tmp_path / "second"), "--model", str(run)])
    assert exit.value.code == "1 of 1 could not be translated."
    assert "sub-02_ses-1_T1w.nii.gz is a link" in capsys.readouterr().err


def test_the_phase_is_no_picture(run, outputs):
    translate_scans(case("05-part-phase-taken-for-T1w") / "bids", outputs, run)
    assert made(outputs) == ["sub-01_part-mag_desc-synthetic_T2w.nii.gz"]


@pytest.mark.slow
def test_scans_that_differ_in_one_entity_alone_never_meet_in_one_file(run, outputs, tmp_path):
    entities = (
        "",
        "_acq-a",
        "_acq-b",
        "_rec-a",
        "_run-1",
        "_run-2",
        "_echo-1",
        "_desc-a",
        "_desc-b",
    )
    names = [f"sub-01/anat/sub-01{entity}_T1w.nii.gz" for entity in entities]
    names += [f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz" for s in "ab"]
    jobs = translate_scans(saved(tmp_path / "bids", *names), outputs, run, trust=True)
    targets = [path for job in jobs for path in job.targets]
    assert len(jobs) == len(names) and len({*targets}) == 2 * len(names)
    for job, (index, kind) in itertools.product(jobs, enumerate(("synthetic", "trust"))):
        name = job.targets[index].name
        assert kind in name.lower() and name.endswith("_T2w.nii.gz")
        for entity in job.source.name.split("_")[1:-1]:
            assert entity in name, "what told the sources apart tells the results apart"


def test_a_file_that_is_named_as_another_contrast_is_taken_but_not_without_a_word(
    run, outputs, tmp_path, capsys
):
    translate_scans(saved(tmp_path, "p7_T2w.nii.gz") / "p7_T2w.nii.gz", outputs, run)
    assert "is named as T2w: it is taken for a T1w scan." in capsys.readouterr().out
    assert len(made(outputs)) == 1


def test_a_folder_of_the_other_contrast_alone_is_refused(run, outputs, tmp_path):
    folder = saved(tmp_path / "in", "a_T2w.nii.gz", "a_FLAIR.nii.gz")
    assert "holds no T1w, but 1 FLAIR, a_FLAIR.nii.gz; 1 T2w, a_T2w.nii.gz" in refusal(
        folder, outputs, run
    )
    assert not outputs.exists()


def test_what_a_file_is_called_is_not_told_by_chance_and_no_other_file_is_blamed(
    run, outputs, tmp_path
):
    (tmp_path / "notes.txt").write_text("no scan")
    assert "notes.txt is no image and no volume" in refusal(
        tmp_path / "notes.txt", tmp_path / "out.nii.gz", run
    )
    absent = refusal(tmp_path / "skans", tmp_path / "out.nii.gz", run)
    assert "skans is not there: expected an image or a volume" in absent
    Image.fromarray(np.uint8(head()[..., 12] / 4)).save(tmp_path / "a.png")
    sentence = refusal(tmp_path / "a.png", tmp_path / "out.nii.gz", run)
    assert "out.nii.gz cannot be written: expected .png or a folder" in sentence


@pytest.mark.parametrize("name", ["brain.mgz", "pair.img", "pair.hdr"])
def test_freesurfers_and_analyzes_volumes_are_translated(run, tmp_path, name):
    folder = case("15-mgz-and-img-message")
    translate_scans(folder / name, tmp_path / "out.nii.gz", run)
    shape = nibabel.load(folder / name).shape
    assert nibabel.load(tmp_path / "out.nii.gz").shape == shape


def test_a_disk_is_translated(run, tmp_path):
    translate_scans(case("14-disk-with-dicomdir") / "cd", tmp_path / "out.nii.gz", run)
    assert nibabel.load(tmp_path / "out.nii.gz").shape == (49, 58, 12)


def test_a_transparent_background_stays_as_dark_as_a_viewer_shows_it(run, outputs):
    source = case("09-transparent-background") / "png" / "t.png"
    translate_scans(source.parent, outputs, run)
    opaque = ndimage.binary_dilation(np.asarray(Image.open(source))[..., 3] > 0, iterations=4)
    assert 0.1 < opaque.mean() < 0.9
    assert not np.asarray(Image.open(outputs / "t.png"))[~opaque].any()


def test_an_image_from_a_phone_is_shown_as_it_was(run, outputs):
    source = case("10-exif-rotation") / "jpg" / "phone.jpg"
    translate_scans(source.parent, outputs, run)
    with Image.open(source) as before, Image.open(outputs / "phone.jpg") as after:
        assert before.getexif()[274] == 6 and after.getexif().get(274, 1) == 1
        assert after.size == before.size[::-1]


def test_words_of_a_user_mean_what_papermill_makes_of_them(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path, "p7.nii.gz")
    jobs = translate_scans("~/p7.nii.gz", "~/out", str(run), "t1-to-t2", series=3, trust="false")
    assert [path.parent for path in jobs[0].targets] == [tmp_path / "out"]
    assert len(translate_scans("~/p7.nii.gz", "~/out", run, trust="True")[0].targets) == 2
    assert "trust cannot be 'yes'" in refusal("~/p7.nii.gz", "~/out", run, trust="yes")
    assert "direction cannot be 'up'" in refusal("~/p7.nii.gz", "~/out", run, "up")
    assert "plane cannot be 'up'" in refusal("~/p7.nii.gz", "~/out", run, plane="up")


# Trained on


NAMES = {
    "mprage and tse": ("{:03}_T1_MPRAGE", "{:03}_T2_TSE"),
    "oasis": ("OAS1_{:04}_MR1_mpr-1_anon", "OAS1_{:04}_MR1_T2w"),
    "ixi": ("IXI{:03}-Guys-0828-T1", "IXI{:03}-Guys-0828-T2"),
    "brats": ("BraTS_{:03}_t1", "BraTS_{:03}_t2"),
    "nnU-Net": ("BraTS_{:03}_0000", "BraTS_{:03}_0002"),
    "free words": ("{:03}-first-visit", "{:03}-second-visit"),
    "folders": ("{:03}/x", "{:03}/y"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_subjects_t1_and_t2_are_held_out_together_however_files_are_named(
    kind, scans, begin, tmp_path, capsys
):
    for number, pair in enumerate(scans[:3], 1):
        for contrast, name, slices in zip(("T1", "T2"), NAMES[kind], pair, strict=True):
            write_volume(tmp_path / contrast / f"{name.format(number)}.nii.gz", slices)
    run = begin(tmp_path, holdout="IXI002-Guys-0828" if kind == "ixi" else "2")
    sets = prepare(run)
    for train, heads in ((sets.x.train, sets.x.heads), (sets.y.train, sets.y.heads)):
        assert len({*heads[~train]}) == 1 and len({*heads[train]}) == 2
        assert all("2" in head for head in heads[~train])
    assert {*sets.x.heads} == {*sets.y.heads}
    assert run.record["data"]["subjects_with_both"] == 3
    assert "nobody has both" not in capsys.readouterr().out
    assert len(sets.pairs) == 18


def test_subjects_folders_are_a_training_set_and_names_of_slices_say_whose(scans, begin, tmp_path):
    for name, pair in zip(("p07", "p26"), scans, strict=False):
        for contrast, slices in zip(("T1", "T2", "FLAIR"), (*pair, pair[0]), strict=True):
            write_volume(tmp_path / name / f"{contrast}.nii.gz", slices)
    sets = prepare(begin(tmp_path, holdout="p26"))
    assert {name.split(" #")[0] for name in sets.x.names} == {"p07/T1", "p26/T1"}
    assert {*sets.y.heads[~sets.y.train]} == {*sets.x.heads[~sets.x.train]} == {"p26"}


def test_where_nobody_has_both_it_is_said_before_anything_is_trained(
    scans, begin, tmp_path, capsys
):
    for contrast, names in (("T1", ("anna", "berta")), ("T2", ("carla", "dora"))):
        for name, pair in zip(names, scans, strict=False):
            write_volume(tmp_path / contrast / f"{name}.nii.gz", pair[contrast == "T2"])
    run = begin(tmp_path)
    prepare(run)
    said = capsys.readouterr().out
    assert "nobody has both a T1w and a T2w scan: anna and carla are two people." in said
    assert run.record["data"]["subjects_with_both"] == 0


def test_a_training_set_with_links_that_lead_nowhere_is_refused_naming_one(scans, begin, tmp_path):
    for contrast, slices in zip(("T1", "T2"), scans[0], strict=True):
        write_volume(tmp_path / contrast / "p1.nii.gz", slices)
    (tmp_path / "T1" / "p2.nii.gz").symlink_to("../.git/annex/objects/gone")
    with pytest.raises(InputError, match="T1/p2.nii.gz is a link that leads nowhere"):
        prepare(begin(tmp_path))
