"""What is no head: scaled, trained on and translated without a brain anywhere."""

import json
import re

import keras
import nibabel
import numpy as np
import pytest

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import main
from cyclegan_tf.contrasts import Contrasts
from cyclegan_tf.dataset.preparation import load, prepare
from cyclegan_tf.learning.warmstart import simulated_scans
from cyclegan_tf.models import build_generator
from cyclegan_tf.presets import get_preset
from cyclegan_tf.runs import open_run
from cyclegan_tf.scans.frame import Frame
from cyclegan_tf.scans.intensity import fill_outside, find_head, normalise
from cyclegan_tf.simulation import phantom
from cyclegan_tf.simulation.spine import Spine
from cyclegan_tf.translation.translate import translate_scans

ALONE = {"warm_start_epochs": 0, "simulation_weight": 0}


def spine(contrast: str, slices: int = 24) -> np.ndarray:
    """Axial slices (S, 80, 64) that the neck fills: a cord in fluid, in muscle, all along."""
    rows, columns = np.indices((80, 64))
    away = np.hypot(rows - 40, columns - 32)
    cord, fluid, muscle = {"t1": (420, 150, 330), "t2": (400, 1000, 45)}[contrast]
    image = np.select([away < 5, away < 10], [cord, fluid], muscle)
    noise = np.random.default_rng(0).normal(0, 6, (slices, 80, 64))
    return np.abs(image + noise).astype(np.float32)


@pytest.mark.parametrize("contrast", ["t1", "t2"])
def test_gain_offset_and_padding_leave_a_body_as_it_is(contrast):
    scaled = normalise(spine(contrast), contrast, "other")
    assert np.percentile(scaled, 98) == pytest.approx(0.6, abs=0.02)
    changed = np.pad(3 * spine(contrast) + 100, ((0, 0), (20, 20), (20, 20)), constant_values=100)
    inner = normalise(changed, contrast, "other")[:, 20:-20, 20:-20]
    assert np.abs(inner - scaled).max() < 0.02


def test_muscle_that_is_nearly_as_dark_as_air_belongs_to_the_body_and_real_air_does_not():
    beside = np.pad(spine("t2"), ((0, 0), (0, 0), (60, 60)))
    found = find_head(normalise(beside, "t2", "other"), "other")
    assert found[:, :, 60:-60].mean() > 0.99 and not found[:, :, :50].any()
    assert find_head(normalise(spine("t2"), "t2")).mean() < 0.5  # as if it were a head


def test_ct_is_in_one_window_whatever_else_it_shows():
    units = np.full((3, 40, 40), -1000.0)
    units[:, 5:35, 5:35], units[:, 10:20, 10:20], units[0, 12:14, 12:14] = 50, 700, 3000
    scaled = normalise(units, "ct", "other")
    assert not fill_outside(units, "ct", "other").warnings
    found = [scaled[0][k, k] for k in (0, 8, 12, 15)]
    assert found == pytest.approx([-1, 0.05, 1, 0.7], abs=1e-6)
    (doubt,) = fill_outside(units + 1024, "ct", "other").warnings
    assert "Hounsfield" in doubt


def test_no_simulated_head_is_forced_on_another_body_part(tmp_path):
    with pytest.raises(InputError, match="Only head and spine can be simulated: .* to be 0"):
        get_preset("laptop", {"body_part": "other"})
    run = open_run(tmp_path / "run", overrides=ALONE | {"body_part": "other"})
    with pytest.raises(InputError, match="expected data of your own"):
        prepare(run)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A prepared run on T1w and T2w volumes of one spine, with networks of random weights."""
    folder = tmp_path_factory.mktemp("spine")
    for contrast in ("t1", "t2"):
        image = nibabel.Nifti1Image(spine(contrast).transpose(2, 1, 0), np.eye(4))
        nibabel.save(image, folder / f"neck_{contrast.upper()}.nii.gz")
    small = {"body_part": "other", "filters": 4, "blocks": 1}
    run = open_run(folder / "run", data=str(folder), overrides=ALONE | small)
    prepare(run)
    for direction in run.preset.contrasts.directions:
        keras.utils.set_random_seed(1)
        build_generator("unet", 4, 1, direction).save(run.path("models", f"{direction}.keras"))
    return run


def test_every_slice_of_a_spine_is_trained_on_and_its_rule_is_in_the_record(run):
    sets, data = load(run), run.record["data"]
    assert data["t1_images"] == data["t2_images"] == 24 and data["t2_empty_slices"] == 0
    assert "98th percentile of the body" in data["intensities"]
    assert "brain" not in json.dumps(data) and "Li" not in data["slices"]
    (scan,) = sets.scans("y", range(24))
    assert scan.head.mean() > 0.99


def test_a_model_of_spines_translates_one_where_it_lies_and_speaks_of_no_head(run, capsys):
    source, target = run.folder.parent / "neck_T1.nii.gz", run.folder / "neck_T2.nii.gz"
    (job,) = translate_scans(source, target, run.folder, strict=True)
    assert job.done and not job.warnings
    assert not re.search("head|brain", capsys.readouterr().err)
    made = nibabel.load(target)
    assert (made.affine == np.eye(4)).all() and made.shape == (64, 80, 24)
    assert (np.asanyarray(made.dataobj) > 0).mean() > 0.99
    (job,) = translate_scans(source, run.folder / "shipped.nii.gz")
    assert "It does not look like a head" in job.warnings[-1]


@pytest.mark.parametrize("words", [["calibrate"], ["evaluate"], ["evaluate", "--lesions"]], ids=str)
def test_a_model_of_spines_is_not_tried_on_simulated_heads(words, run, tmp_path, capsys):
    (tmp_path / "map.nii.gz").touch()
    assert main([*words, str(run.folder), "--anatomies", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("is of body part other: expected head.\n")


# A simulated spine

CASES = [("t1", "t2"), ("t2", "ct"), ("flair", "pd")]


@pytest.mark.parametrize("pair", CASES, ids=str)
def test_a_spine_is_simulated_in_mr_and_in_ct_by_its_tables(pair):
    x, y, labels = phantom.simulate_pairs(
        2, 3, 1, phantom.Variation(0, 0, 0, 0), phantom.PHYSICS["spine"], (9, 18), Contrasts(*pair)
    )
    assert not labels.any()
    middle, above = (slice(105, 112), slice(87, 94)), (slice(85, 95), slice(86, 95))
    for images, contrast in ((x, pair[0]), (y, pair[1])):
        cord = images[0, ..., 0][middle].mean()
        assert -1 < cord < 0.6
        if contrast == "ct":
            assert cord == pytest.approx(0.035, abs=0.02)  # Hounsfield units, thousands of them
            assert max(image[above].mean() for image in images[..., 0]) > 0.15  # a vertebra


def test_vertebrae_and_discs_follow_each_other_and_nothing_is_there_twice():
    spine = Spine(np.random.default_rng(2), anatomy=1)
    slices = [spine.fractions(z) for z in np.arange(0, 36, 1.5)]
    assert all(sum(parts.values()).max() < 1 + 1e-6 for parts in slices)
    discs = np.array([parts["disc"].sum() for parts in slices]) > 150
    assert 0.15 < discs.mean() < 0.45 and np.abs(np.diff(discs.astype(int))).sum() >= 3
    assert all(parts["cord"].sum() > 50 for parts in slices)


def test_only_what_a_spine_is_simulated_in_is_learned_from():
    assert get_preset("laptop", {"body_part": "spine", "target": "CT"}).contrasts.y == "ct"
    for overrides in ({"target": "T1wGd"}, {"simulator": "varied"}):
        with pytest.raises(InputError, match="can be simulated|simulator cannot be 'varied'"):
            get_preset("laptop", {"body_part": "spine"} | overrides)


def test_a_warm_start_shows_as_much_of_a_spine_as_a_scan_of_it_does():
    preset = get_preset("laptop", {"body_part": "spine", "warm_start_pairs": 2})
    scans = simulated_scans(preset, Frame("pad", 96, 64))
    assert scans.x.shape == (2, 96, 64, 1) and scans.x.min() > -1.01
    wide = simulated_scans(preset, Frame("pad", 224, 192))
    np.testing.assert_array_equal(scans.x, wide.x[:, 63:159, 63:127])


@pytest.mark.slow
def test_a_simulated_run_of_a_spine_has_its_truth(tmp_path):
    run = open_run(tmp_path / "run", overrides={"body_part": "spine", "target": "CT"})
    sets = prepare(run)
    assert len(sets.truth) == len(sets.x) and sets.contrasts == ("t1", "ct")
    assert not any(labels.any() for labels in sets.labels)
