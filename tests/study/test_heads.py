import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import nibabel
import numpy as np
import pytest
from conftest import REPOSITORY, begin
from scipy import ndimage

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import main
from cyclegan_tf.simulation import phantom
from cyclegan_tf.study.downstream import find_offset
from cyclegan_tf.study.heads import evaluate_heads, measure_head, measure_trust
from cyclegan_tf.study.pairs import Pair, find_heads, fit_line, read_head

SPACING = 3.0  # mm between slices
PIXEL = 2.0  # mm, which takes a quarter of the time that 1 mm does
ML = PIXEL**2 * SPACING / 1000  # of a voxel


def volume(slices, shift=0.0, pixel=PIXEL):
    """Slices (S, 109, 91) as a volume (91, 109, S) in RAS+, moved by some mm to the right."""
    affine = np.diag([pixel, pixel, SPACING, 1.0])
    affine[0, 3] = shift
    return nibabel.Nifti1Image(np.float32(slices[:, ::-1].transpose(2, 1, 0)), affine)


def simulated(skull, every=2):
    """T1 and T2 of a head, scanner units, air 0, and its labels: pixels of `every` mm."""
    physics, variation = phantom.Physics(skull=skull), phantom.Variation(noise=0.01)
    made = phantom.simulate_pairs(18, 5, 1, variation, physics)
    t1, t2, labels = (x[:, ::every, ::every] for x in made)
    return 350 * (t1[..., 0] + 1), 700 * (t2[..., 0] + 1), labels


@pytest.fixture(scope="module")
def stripped():
    return simulated(skull=False)


@pytest.fixture(scope="module")
def whole():
    return simulated(skull=True)


def save(folder, **volumes) -> Pair:
    """Volumes as the files of a head, by the parts of `Pair`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"t1": "T1", "t2": "T2", "brain": "BRAIN", "lesion": "LESION", "synthetic": "made"}
    for part, image in volumes.items():
        nibabel.save(image, folder / f"{names[part]}.nii.gz")
    (pair,), _ = find_heads(folder.parent)
    return pair


def measured(folder, t1, t2, synthetic, **more):
    pair = save(folder / "one", t1=t1, t2=t2, synthetic=synthetic, **more)
    return measure_head(read_head(pair, folder / "one" / "made.nii.gz"))


def test_the_true_t2_in_any_unit_is_a_perfect_prediction(stripped, tmp_path):
    t1, t2, _ = stripped
    row = measured(tmp_path, volume(t1), volume(t2), volume(0.3 * t2 + 40))
    assert row["synthetic"]["psnr"] > 60 and row["synthetic"]["ssim"] > 0.999
    assert row["synthetic"]["nmi"] > 1.9
    for name in ("sharpness", "csf_gm_ratio", "gm_wm_ratio"):
        assert row[name] == pytest.approx(1, abs=0.15), name
    assert row["fluid_dark"] == 0 and row["warnings"] == []
    assert row["t1_line"]["psnr"] < row["t1_table"]["psnr"] < 40
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_t1_turned_over_is_exactly_its_best_line(stripped, tmp_path):
    t1, t2, _ = stripped
    row = measured(tmp_path, volume(t1), volume(t2), volume(1000 - 1.5 * t1))
    assert row["synthetic"] == pytest.approx(row["t1_line"], abs=1e-3)


def test_shading_of_the_t1_spoils_its_table_but_not_that_without(whole, tmp_path):
    t1, t2, _ = whole
    places = np.meshgrid(*(np.linspace(0, 1, side) for side in t1.shape), indexing="ij")
    clean = measured(tmp_path / "clean", volume(t1), volume(t2), volume(t2))
    shaded = volume(t1 * 3 ** (sum(places) / 3))
    row = measured(tmp_path / "shaded", shaded, volume(t2), volume(t2))
    lost, left = (clean[p]["psnr"] - row[p]["psnr"] for p in ("t1_table", "even_table"))
    assert lost > 1 and left < 0.3 * lost


def test_a_blurred_t2_is_less_sharp_and_black_fluid_is_counted(stripped, tmp_path):
    from scipy import ndimage

    t1, t2, labels = stripped
    soft = np.where(labels == 1, 0, ndimage.gaussian_filter(t2, (0, 2, 2)))
    row = measured(tmp_path, volume(t1), volume(t2), volume(soft))
    assert row["fluid_dark"] > 0.9 and row["csf_gm_ratio"] < 0
    soft = ndimage.gaussian_filter(t2, (0, 2, 2))
    row = measured(tmp_path, volume(t1), volume(t2), volume(soft))
    assert row["sharpness"] < 0.7 and row["fluid_dark"] < 0.1


def test_a_map_that_knows_how_far_errors_reach_ranks_regions_better_than_voxels(stripped, tmp_path):
    t1, t2, _ = stripped
    rng = np.random.default_rng(0)
    reach = np.exp(ndimage.gaussian_filter(rng.standard_normal(t2.shape), 12) * 60)
    made = t2 + 30 * reach * rng.standard_normal(t2.shape)
    parts = {"t1": t1, "t2": t2, "synthetic": made}  # of 1 mm, so that regions have many voxels
    pair = save(tmp_path / "one", **{name: volume(x, pixel=1) for name, x in parts.items()})
    nibabel.save(volume(reach, pixel=1), tmp_path / "trust.nii.gz")
    head = read_head(pair, tmp_path / "one" / "made.nii.gz")
    found = measure_trust(head, tmp_path / "trust.nii.gz", None)
    voxels, regions = (found[f"trust_rank_correlation{name}"] for name in ("", "_around"))
    assert 0.2 < voxels < regions - 0.2 and regions > 0.8
    outside = replace(head, synthetic=np.where(head.brain, head.synthetic, 1e6))
    assert measure_trust(outside, tmp_path / "trust.nii.gz", None) == pytest.approx(found)


def test_a_t2_off_its_t1_is_warned_of_and_one_on_it_is_not(whole, tmp_path):
    t1, t2, _ = whole
    row = measured(tmp_path, volume(t1), volume(t2, shift=4), volume(t2))
    assert row["offset_mm"] == pytest.approx(4, abs=0.7)
    (sentence,) = row["warnings"]
    assert re.search(r"T2.nii.gz lies [34]\.\d mm off .*T1.nii.gz by mutual information", sentence)
    x, y = (volume(slices).get_fdata() for slices in (t1, t2))
    assert find_offset(x, y, x > 80, np.array([PIXEL, PIXEL, SPACING])) < 0.6


def test_a_line_is_right_through_as_many_voxels_as_a_fine_brain_has():
    values = np.random.default_rng(3).uniform(10, 200, 3_000_000)
    mask = values < 190
    truth = np.where(mask, 0.01 * values - 1, 7)
    np.testing.assert_allclose(fit_line(values, truth, mask)[mask], truth[mask], atol=1e-9)
    alike = np.ones(4)
    assert (fit_line(alike, np.arange(4.0), alike > 0) == 1.5).all()  # no line, but the mean


@pytest.mark.slow
def test_of_whole_heads_only_the_brain_counts_and_of_stripped_ones_all(whole, stripped, tmp_path):
    for (t1, t2, labels), least in ((whole, 0.3), (stripped, 0.8)):
        row = measured(tmp_path / str(least), volume(t1), volume(t2), volume(t2))
        assert row["brain_ml"] > least * (labels > 0).sum() * ML
        # What lies outside the brain may be anything.
        outside = np.where(labels > 0, t2, 0.2 * t2)
        again = measured(tmp_path / f"{least}x", volume(t1), volume(t2), volume(outside))
        assert again["synthetic"]["psnr"] > 30


def test_a_given_mask_is_taken_and_lesions_are_measured(stripped, tmp_path):
    t1, t2, labels = stripped
    plaque = np.zeros(labels.shape, bool)
    plaque[9, 50:52, 30:32] = True
    sick, made = (np.where(plaque, level, t2) for level in (1200, 900))
    masks = {"brain": volume(labels > 0), "lesion": volume(plaque)}
    row = measured(tmp_path, volume(t1), volume(sick), volume(made), **masks)
    assert row["brain"] == "given"
    assert row["brain_ml"] == pytest.approx(
        (labels > 0).sum() * PIXEL**2 * SPACING / 1000, rel=0.02
    )
    white = np.median(t2[labels == 3])
    assert row["lesion_ratio"] == pytest.approx((900 - white) / (1200 - white), abs=0.1)


def test_the_truth_may_have_another_grid_and_orientation(stripped, tmp_path):
    t1, t2, _ = stripped
    flipped = volume(t2).slicer[:, :, 1:].as_reoriented(np.array([[1, 1], [0, -1], [2, -1]]))
    row = measured(tmp_path, volume(t1), flipped, volume(t2))
    assert row["synthetic"]["psnr"] > 50


def test_pairs_are_found_in_folders_and_in_bids(stripped, tmp_path, monkeypatch):
    image = volume(stripped[0][:1])
    for name in (
        "plain/b/T1.nii.gz",
        "plain/b/T2.nii.gz",
        "plain/b/T2_reg.nii.gz",
        "plain/b/LESION.nii.gz",
        "plain/a/x_T1w.nii",
        "plain/a/x_T2w.nii",
        "plain/a/x_desc-brain_mask.nii",
        "plain/c/T1.nii.gz",
        "plain/d/notes_T3.nii.gz",
        "flat/IXI2-HH-7-T1.nii.gz",
        "flat/IXI2-HH-7-T2.nii.gz",
        "flat/IXI9-HH-8-T1.nii.gz",
        "flat/IXI9-HH-8-T2.nii.gz",
        "flat/mask.nii.gz",
        "bids/sub-2/anat/sub-2_T1w.nii.gz",
        "bids/sub-2/anat/sub-2_T2w.nii.gz",
        "bids/sub-10/ses-b/anat/sub-10_ses-b_T1w.nii.gz",
        "bids/sub-10/ses-b/anat/sub-10_ses-b_run-1_T2w.nii.gz",
        "bids/sub-10/ses-b/anat/sub-10_ses-b_run-2_T2w.nii.gz",
        "bids/sub-10/ses-c/anat/sub-10_ses-c_T2w.nii.gz",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (a, b), doubts = find_heads("~/plain")  # as papermill hands it over
    assert (a.source.parent.name, a.brain.name, a.lesion) == ("a", "x_desc-brain_mask.nii", None)
    assert (b.name, b.target.name, b.lesion.name) == ("b", "T2_reg.nii.gz", "LESION.nii.gz")
    assert doubts == [f"{tmp_path}/plain/c/T1.nii.gz is left out: there is no T2 of the same head."]
    pairs, doubts = find_heads(tmp_path / "bids")
    assert [pair.name for pair in pairs] == ["sub-2", "sub-10_ses-b"]
    assert "run-1_T2w.nii.gz is taken, and sub-10_ses-b_run-2_T2w.nii.gz not" in doubts[0]
    assert "sub-10_ses-c_T2w.nii.gz is left out: there is no T1 of the same head" in doubts[1]
    (one, two), doubts = find_heads(tmp_path / "flat")
    assert (one.target.name, two.target.name, one.brain) == (
        "IXI2-HH-7-T2.nii.gz",
        "IXI9-HH-8-T2.nii.gz",
        None,
    )


@pytest.fixture(scope="module")
def evaluated(stripped, tmp_path_factory):
    """The shipped pair on two heads, by the command; the folder it worked in and what it said."""
    folder = tmp_path_factory.mktemp("heads")
    t1, t2, _ = stripped
    save(folder / "data" / "good", t1=volume(t1), t2=volume(t2))
    save_bad = folder / "data" / "moved"
    save_bad.mkdir()
    nibabel.save(volume(t1), save_bad / "T1.nii.gz")
    nibabel.save(volume(t2, shift=4), save_bad / "T2.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        status = main(["evaluate", "shipped", "--data", "data"])
    return folder, status


@pytest.mark.slow
def test_the_command_measures_real_heads_with_the_model_that_ships(evaluated):
    folder, status = evaluated
    made = folder / "outputs" / "heads-shipped"
    result = json.loads((made / "metrics.json").read_text())
    assert status == 0 and "the one that ships" in result["model"]
    assert [row["name"] for row in result["heads"]] == ["moved", "good"]
    assert len(result["warnings"]) == 1 and "tensorflow" in " ".join(result["versions"])
    rows = [row["synthetic"]["psnr"] for row in result["heads"]]
    assert rows == sorted(rows) and result["mean"]["synthetic"]["psnr"] == np.mean(rows)
    picture = iio.imread(made / "heads.png")
    assert picture.std() > 20
    assert (made / "viewer.html").read_text().count("image/webp") == 4
    names = ["good.nii.gz", "good_trust.nii.gz", "moved.nii.gz", "moved_trust.nii.gz"]
    sidecars = [name.replace(".nii.gz", ".json") for name in names]
    assert {p.name for p in (made / "synthetic").iterdir()} == {*names, *sidecars}


@pytest.mark.slow
def test_the_other_direction_is_measured_apart_from_the_first(whole, tmp_path, monkeypatch):
    t1, t2, _ = whole
    save(tmp_path / "data" / "one", t1=volume(t1), t2=volume(t2))
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "shipped", "--data", "data", "--direction", "t2-to-t1"]) == 0
    result = json.loads((tmp_path / "outputs/heads-t2-to-t1-shipped/metrics.json").read_text())
    (row,) = result["heads"]
    assert result["direction"] == "t2_to_t1"
    assert [Path(source).name[:2] for source in row["sources"]] == ["T2", "T1"]
    assert row["synthetic"]["psnr"] > row["t1_line"]["psnr"] and "fluid_dark" not in row


@pytest.mark.slow
def test_the_scored_volume_is_what_translate_delivers(evaluated, tmp_path):
    folder, _ = evaluated
    source, out = folder / "data" / "good" / "T1.nii.gz", tmp_path / "out.nii.gz"
    assert main(["translate", str(source), str(out)]) == 0
    scored = folder / "outputs" / "heads-shipped" / "synthetic" / "good.nii.gz"
    assert (nibabel.load(out).get_fdata() == nibabel.load(scored).get_fdata()).all()


@pytest.mark.slow
def test_an_older_models_volumes_are_not_scored(evaluated, stripped, tmp_path):
    folder, _ = evaluated
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    made = tmp_path / "outputs" / "heads-shipped"
    save_old = made / "synthetic" / "good.nii.gz"
    nibabel.save(volume(stripped[0]), save_old)
    shutil.rmtree(tmp_path / "data" / "moved")
    again = evaluate_heads("shipped", tmp_path / "data", made)
    before = json.loads((folder / "outputs/heads-shipped/metrics.json").read_text())["heads"]
    assert again["heads"][0]["synthetic"] == pytest.approx(before[1]["synthetic"], abs=1e-9)


@pytest.mark.parametrize("sources", [1, 2])
def test_a_head_that_the_run_has_learned_from_is_warned_of(sources, stripped, tmp_path):
    t1, t2, _ = stripped
    for name in ("data/kept", "data/one", "other/two")[: sources + 1]:
        save(tmp_path / name / "head", t1=volume(t1), t2=volume(t2))
    data = [[str(tmp_path / name)] for name in ("data", "other")[:sources]]
    run, _, model = begin(tmp_path / "run", data, holdout="kept")
    model.G.save(run.path("models", "t1_to_t2.keras"))
    which = (run.folder, run.folder / "models" / "t1_to_t2.keras")[sources - 1]
    found = evaluate_heads(which, tmp_path / "data", tmp_path / "made")["warnings"]
    (warned,) = [line for line in found if "has learned from this head: hold it out" in line]
    assert "/data/one/head/T1.nii.gz: " in warned


def test_bad_input_is_one_sentence(stripped, tmp_path, capsys):
    t1, t2, labels = stripped
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty.*expected"):
        evaluate_heads("shipped", empty, tmp_path)
    pair = save(tmp_path / "set" / "one", t1=volume(t1), t2=volume(t2))
    with pytest.raises(InputError, match="gone.keras is not there"):
        evaluate_heads(tmp_path / "gone.keras", pair.source.parent.parent, tmp_path)
    pair.target.unlink()
    with pytest.raises(InputError, match="holds no T2w.*expected names that say T2w"):
        evaluate_heads("shipped", pair.source.parent.parent, tmp_path)
    nibabel.save(volume(t2, shift=500), pair.target)
    with pytest.raises(InputError, match="T2.nii.gz does not overlap .*T1.nii.gz"):
        read_head(pair, pair.source)
    nibabel.save(volume(t2), pair.target)
    mask = tmp_path / "mask.nii.gz"
    far = np.zeros(t2.shape)
    far[0, 0, 0] = 1
    nibabel.save(volume(far), mask)
    with pytest.raises(InputError, match="mask.nii.gz leaves nothing of the brain in .*T1.nii.gz"):
        read_head(replace(pair, brain=mask), pair.source)
    part = np.where(t1 > np.median(t1[labels > 0]), t1, 0)
    beyond = save(tmp_path / "p" / "one", t1=volume(part), t2=volume(t2), brain=volume(labels > 0))
    with pytest.raises(InputError, match="T1.nii.gz has one grey in 20% of BRAIN.nii.gz or"):
        read_head(beyond, beyond.source)
    few = save(tmp_path / "few" / "one", t1=volume(t1[:3]), t2=volume(t2[:3]))
    with pytest.raises(InputError, match="T1.nii.gz has 3 slices: expected 4 or more"):
        read_head(few, few.source)


REAL = REPOSITORY.parent / "shared" / "data" / "real" / "pairs"
# PSNR and SSIM of the best line and the best table of the T1, as another implementation has them.
YARDSTICK = {
    "openms-mni-p07": (22.29, 0.802, 22.82, 0.811),
    "openms-mni-p26": (20.88, 0.745, 21.45, 0.756),
    "openms-long-p04-s1": (21.03, 0.742, 21.71, 0.739),
    "openms-long-p12-s1": (20.56, 0.685, 21.17, 0.694),
    "openms-long-p12-s2": (20.42, 0.670, 21.03, 0.675),
}

FEW = ("openms-mni-p07", "openms-long-p12-s2")


@pytest.fixture
def real_pairs():
    if not REAL.is_dir():
        pytest.skip("the real pairs of T1 and T2 are absent (shared/data/real/pairs)")
    return {pair.name: pair for pair in find_heads(REAL)[0]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",  # one of each kind, and when asked for all
    [n if n in FEW else pytest.param(n, marks=pytest.mark.soak) for n in YARDSTICK],
)
def test_real_heads_score_as_by_another_implementation(real_pairs, name):
    pair = real_pairs[name]
    row = measure_head(read_head(pair, pair.source))  # its own T1 is the best line
    assert row["synthetic"] == pytest.approx(row["t1_line"], abs=0.02)
    found = [row[p][m] for p in ("t1_line", "t1_table") for m in ("psnr", "ssim")]
    differences = np.abs(np.subtract(found, YARDSTICK[name]))
    assert (differences < [0.4, 0.025, 0.4, 0.025]).all()
    assert ("stripped" in row["brain"]) == ("mni" in name) and row["warnings"] == []
    assert ("lesion_ratio" in row) == ("mni" in name)


@pytest.mark.slow
def test_a_real_t2_that_is_off_its_header_is_warned_of(real_pairs):
    pair = real_pairs["openms-long-p12-s1"]
    assert pair.target.name == "T2_reg.nii.gz"
    off = replace(pair, target=pair.target.with_name("T2.nii.gz"))
    row = measure_head(read_head(off, pair.source))
    assert row["offset_mm"] == pytest.approx(2.7, abs=0.4) and len(row["warnings"]) == 1
