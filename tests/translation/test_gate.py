"""What a scan is taken for before it is translated: T1w, another contrast, or no head."""

import json

import nibabel
import numpy as np
import pytest
from conftest import REPOSITORY

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import main
from cyclegan_tf.scans.scan import Scan, read_scans
from cyclegan_tf.simulation import phantom
from cyclegan_tf.study.calibration import fit_gate
from cyclegan_tf.translation.gate import (
    OUTLINE,
    SMALLEST,
    coefficients,
    features,
    judge,
    judge_each,
    measured_slices,
    shares,
)
from cyclegan_tf.translation.translate import translate_scans

REAL = REPOSITORY.parent / "shared" / "data" / "real"


@pytest.fixture(scope="module")
def pair():
    """T1 and T2 of a simulated head, (12, 217, 181) each in [-1, 1]."""
    physics, variation = phantom.Physics(skull=True), phantom.Variation(noise=0.01)
    t1, t2, _ = phantom.simulate_pairs(12, 5, 1, variation, physics)
    return t1[..., 0], t2[..., 0]


@pytest.fixture(scope="module")
def volumes(pair, tmp_path_factory):
    """A folder with both as volumes, of names that say nothing."""
    folder = tmp_path_factory.mktemp("volumes")
    for name, slices in zip(("one", "two"), pair, strict=True):
        data = 500 * (slices[:, ::-1].transpose(2, 1, 0) + 1)
        nibabel.save(
            nibabel.Nifti1Image(np.float32(data), np.diag([1, 1, 4, 1])), folder / f"{name}.nii"
        )
    return folder


def test_a_t1_passes_and_a_t2_is_named_whichever_way_is_asked_for(pair):
    for slices, own, other in zip(pair, ("t1", "t2"), ("t2", "t1"), strict=True):
        right, wrong = (judge([Scan.of(slices, contrast)]) for contrast in (own, other))
        assert not right.wrong, right.warning
        assert wrong.wrong and own.upper() in wrong.warning.split(", not ")[0]
        assert max(wrong.named, key=wrong.named.get).startswith(own.upper())
        assert sum(right.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("others", [0, 1])
def test_an_image_of_another_contrast_than_those_beside_it_is_named(pair, others):
    sides = [[Scan.of(image[None], "t1") for image in side[4:9]] for side in pair]
    beside, (odd, *_) = sides[others], sides[1 - others][2:]
    mixed = [*beside, odd]
    *said, named = judge_each(mixed)[1]
    assert f"By itself this looks like T{2 - others}w" in named and not any(said)
    assert not any(judge_each(beside)[1]) and judge_each([odd])[1] == [""]


def test_what_fills_its_box_is_no_head(pair):
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.6, 1, (8, 200, 200)).astype(np.float32)
    verdict = judge([Scan.of(noise, "t1")])
    assert verdict.wrong and "not look like a head" in verdict.warning


def test_a_head_with_a_side_or_two_cut_off_still_looks_like_one(pair):
    whole = pair[0][2:10]
    rows, columns = (n // 4 for n in whole.shape[1:])
    cuts = whole[:, rows:], whole[:, :, columns:], whole[:, :-rows, :-columns]
    for slices in (whole, *cuts):
        scan = Scan.of(slices, "t1")
        filled, corner = np.mean(measured_slices(scan), axis=0)[-OUTLINE:]
        assert 0.5 < corner < np.pi / 4 < filled + 0.05
        assert "like a head" not in judge([scan]).warning


def test_too_little_is_no_reason_for_alarm(pair):
    for slices in (pair[1][:, :20, :20], np.full((1, 90, 90), -1, np.float32)):
        verdict = judge([Scan.of(slices, "t1")])
        assert not verdict.wrong and "cannot be told" in verdict.warning
    square = np.full((1, 90, 90), -1, np.float32)
    square[:, 20:70, 20:70] = 0.5
    assert not judge([Scan.of(square, "t1")]).wrong  # one slice may have any outline


def test_the_size_of_pixels_and_padding_change_little(pair):
    slices = pair[0][4:6]
    small, large = slices[:, ::2, ::2], np.pad(slices, ((0, 0), (40, 60), (9, 30)), "edge")
    known = coefficients()["features"]
    spread = np.array([one["deviation"] for one in known.values()])
    first = np.mean(measured_slices(Scan.of(slices, "t1")), axis=0)[:-OUTLINE]
    for other, most in ((large, 0.3), (small, 1.5)):
        found = np.mean(measured_slices(Scan.of(other, "t1")), axis=0)[:-OUTLINE]
        moved = np.abs(found - first) / spread
        assert np.median(moved) < most
    assert min(small.shape[1:]) > SMALLEST


def test_coefficients_and_features_have_the_same_names(pair):
    scan = Scan.of(pair[0][5:6], "t1")
    names = [*features(scan.slices[0], scan.head[0])]
    assert [*coefficients()["features"]] == names[:-OUTLINE]


def test_strict_refuses_the_only_scan_with_status_2_and_one_of_many_with_1(
    volumes, tmp_path, capsys
):
    words = ["translate", str(volumes / "two.nii"), str(tmp_path / "t2.nii"), "--strict"]
    assert main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "two.nii is not translated. This looks like T2w, not T1w" in said
    assert not (tmp_path / "t2.nii").exists()
    with pytest.raises(SystemExit, match="1 of 2 could not be translated"):
        main(["translate", str(volumes), str(tmp_path / "all"), "--strict"])
    made = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert made == [f"one_desc-synthetic_T2w.{ending}" for ending in ("json", "nii.gz")]


def test_without_strict_the_warning_stands_in_terminal_and_sidecar(volumes, tmp_path, capsys):
    bids = tmp_path / "bids"
    (bids / "sub-1" / "anat").mkdir(parents=True)
    (bids / "dataset_description.json").write_text(
        json.dumps({"Name": "x", "BIDSVersion": "1.8.0"})
    )
    path = bids / "sub-1" / "anat" / "sub-1_T1w.nii"
    path.write_bytes((volumes / "two.nii").read_bytes())
    (job,) = translate_scans(bids, tmp_path / "out")
    assert job.done and "This looks like T2w" in job.warnings[0]
    assert "sub-1_T1w.nii: This looks like T2w" in capsys.readouterr().err
    translate_scans(path, tmp_path / "Synthetic.NII.gz")
    alone = (tmp_path / "Synthetic.json").read_text()
    assert "sub-1" not in alone  # which may be a patient's name
    beside = job.targets[0].with_name("sub-1_desc-synthetic_T2w.json").read_text()
    for sidecar in map(json.loads, (alone, beside)):
        assert sidecar["Warnings"] == job.warnings
        assert next(iter(sidecar["SourceContrast"])) == "T2w"


def test_the_fit_finds_the_feature_that_tells_and_more_slices_are_surer():
    rng = np.random.default_rng(0)
    kinds = ["t1", "t2", "pd"] * 60
    rows = rng.normal(0.7, 0.05, (180, 5, len(coefficients()["features"]) + OUTLINE))
    rows[:, :, 3] += np.tile([0.2, -0.2, 0], 60)[:, None]
    known = fit_gate([*rows], kinds)
    weights = {name: np.abs(one["weights"]).sum() for name, one in known["features"].items()}
    assert max(weights, key=weights.get) == list(weights)[3]
    assert known["contrasts"] == ["pd", "t1", "t2"] and 0.6 < known["least filled"] < 0.7
    for head, kind in zip(rows[:20], kinds, strict=False):
        one, all_ = (shares(slices, known)[0][kind] for slices in (head[:1], head))
        assert all_ > 0.9 and all_ > one - 0.05


EXPECTED = {  # the word in the warning, "" for none
    "pairs/openms-mni-p07/T1.nii.gz": "",
    "pairs/openms-mni-p07/T2.nii.gz": "T2w, not",
    "pairs/openms-mni-p07/FLAIR.nii.gz": "FLAIR, not",
    "pairs/openms-long-p12-s1/T1.nii.gz": "",
    "pairs/openms-long-p12-s1/T2.nii.gz": "T2w, not",
    "pairs/openms-long-p12-s1/FLAIR.nii.gz": "FLAIR, not",
    "pairs/openms-long-p12-s2/T1.nii.gz": "",
    "pairs/openms-long-p12-s2/T2.nii.gz": "T2w, not",
    "pairs/openms-long-p04-s1/T1.nii.gz": "",
    "pairs/openms-long-p04-s1/T2.nii.gz": "T2w, not",
    "pairs/openms-mni-p26/T1.nii.gz": "",
    "pairs/openms-mni-p26/T2.nii.gz": "T2w, not",
    "pairs/openms-mni-p26/FLAIR.nii.gz": "FLAIR, not",
    "singles/chris/T1.nii.gz": "",
    "singles/chris/PD.nii.gz": "PDw, not",
    "singles/datalad-t1/T1.nii.gz": "",
    "singles/niimath-bitmap/T1.nii.gz": "",
    "singles/niivue-gd/T1POST.nii.gz": "after contrast agent",
    "singles/torchio-fernando/FLAIR.nii.gz": "FLAIR, not",
    "organs/sct-spine/T1.nii.gz": "not look like a head",
    "organs/sct-spine/T2.nii.gz": "not look like a head",
    "organs/prostate-t2tsetra-dicom": "not look like a head",
    "singles/ixi-slices/T1": "",
    "singles/ixi-slices/T2": "T2w, not",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_real_scans_are_told_apart(name):
    path = REAL / name
    if not path.exists():
        pytest.skip(f"the real scan is absent (shared/data/real/{name})")
    paths = sorted(path.glob("*.png")) or [path]
    verdict = judge(list(read_scans(paths, "t1")))
    expected = EXPECTED[name]
    assert (expected in verdict.warning) if expected else not verdict.warning, verdict.warning


def test_published_slices_pass_one_by_one_or_nothing_is_said_for_sure(real_data):
    for folder, wrong in (("TrainT1", False), ("TrainT2", True)):
        paths = sorted(real_data.rglob(f"{folder}/*.png"))[::6]
        found = [judge([scan]).wrong for scan in read_scans(paths, "t1")]
        assert np.mean(found) >= 0.8 if wrong else not any(found)


def test_a_scan_that_is_not_there_is_refused_before(tmp_path):
    with pytest.raises(InputError):
        translate_scans(tmp_path / "gone.nii", tmp_path / "out.nii", strict=True)
