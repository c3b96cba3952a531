"""Evaluation: figures of a run and its baselines, several runs, and what pictures need."""

import json
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import sobel
from test_preparation import write

from cyclegan_tf import InputError, metrics, training
from cyclegan_tf.__main__ import main
from cyclegan_tf.dataset.preparation import load, prepare
from cyclegan_tf.learning.snapshots import read_snapshots, write_snapshot
from cyclegan_tf.runs import open_run
from cyclegan_tf.scans.images import write_image
from cyclegan_tf.scans.volumes import MAPS
from cyclegan_tf.simulation.phantom import simulate_pairs
from cyclegan_tf.study import evaluation, figures
from cyclegan_tf.study.evaluation import evaluate, fidelity_over_epochs
from cyclegan_tf.study.report import compare, read_metrics, summarise, worst_first
from cyclegan_tf.translation.loading import DIRECTIONS
from cyclegan_tf.translation.translate import translate_scans
from cyclegan_tf.translation.trust import trust_map, views

TINY = {
    "filters": 4,
    "blocks": 0,
    "discriminator_filters": 2,
    "precision": "float32",
    "holdout": "3,4",
    "epochs": 0,
}
BASELINES = {"source", "histogram_matched", "neighbour", "lookup_table"}


@pytest.fixture(scope="module")
def slices():
    """T1w and T2w (6, 109, 91) of one head at 2 mm, true pairs, and their tissues."""
    t1, t2, labels = simulate_pairs(6, seed=8, heads=1, slices=(0, 24))
    return t1[:, ::2, ::2, 0], t2[:, ::2, ::2, 0], labels[:, ::2, ::2]


@pytest.fixture(scope="module")
def paired(slices, tmp_path_factory):
    """T1 #1 to #6; the T2 of each is number 100 higher; T2 #107 is of another head."""
    root = tmp_path_factory.mktemp("paired")
    stranger = simulate_pairs(1, seed=9, heads=1)[1][:, ::2, ::2, 0]
    write(root / "T1", slices[0])
    write(root / "T2", [*slices[1], *stranger], first=101)
    return root


def begin(folder, data, **overrides):
    """A run with generators that have learned nothing, not yet evaluated."""
    run = open_run(folder, "laptop", str(data), TINY | overrides)
    sets = prepare(run)
    training.save_generators(training.build_cyclegan(run, steps=1), run)
    return run, sets


@pytest.fixture(scope="module")
def evaluated(paired, tmp_path_factory):
    run, sets = begin(tmp_path_factory.mktemp("runs") / "run", paired)
    return run, sets, *evaluate(run, sets)


def copied(run, folder):
    """The evaluated run in another folder."""
    shutil.copytree(run.folder, folder)
    return folder


def scaled(folder, change):
    """Change the mean PSNR of the T1 → T2 held-out images in a run's `metrics.json`."""
    result = read_metrics(folder)
    result["t1_to_t2"]["held_out"]["psnr"]["mean"] += change
    (folder / "metrics.json").write_text(json.dumps(result))
    return folder


# Figures


def test_a_figure_stands_under_direction_split_measure(evaluated):
    run, _, result, _ = evaluated
    assert json.loads((run.folder / "metrics.json").read_text()) == result
    for way in DIRECTIONS:
        for split in ("train", "held_out"):
            values = result[way][split]["psnr"]
            assert values["mean"] == pytest.approx(np.mean(values["per_slice"]))
            assert set(result["baselines"][way][split]) == BASELINES
            for row in result["baselines"][way][split].values():
                assert len(row["ssim"]["per_slice"]) == len(row["names"])


def test_every_image_is_measured_in_its_split_and_only_where_its_truth_is_known(evaluated):
    _, _, result, _ = evaluated
    assert result["t1_to_t2"]["held_out"]["names"] == ["Image #3.png", "Image #4.png"]
    assert result["t2_to_t1"]["held_out"]["names"] == ["Image #103.png", "Image #104.png"]
    others = [f"Image #{k}.png" for k in (101, 102, 105, 106)]  # 107 has no T1
    assert result["t2_to_t1"]["train"]["names"] == others
    assert result["truth"] == {"t1_to_t2": "pairs", "t2_to_t1": "pairs"}


def test_figures_of_training_images_are_marked_as_such(evaluated):
    _, _, result, _ = evaluated
    assert "trained on" in result["splits"]["train"]
    assert f"**T1 → T2, train** ({result['splits']['train']}; images: 4)" in summarise(result)
    assert "nothing of these slices was trained on" in result["splits"]["held_out"]
    brief = summarise(result, brief=True)
    assert brief.count("held_out") == 2 and "train**" not in brief and "MAE" not in brief


def test_images_whose_partner_is_trained_on_are_told_apart(paired, tmp_path):
    run, sets = begin(tmp_path / "run", paired, holdout="", disjoint=True)
    result, _ = evaluate(run, sets)
    assert result["t1_to_t2"]["other"]["names"] == ["Image #6.png"]
    assert set(result["t1_to_t2"]) == {"train", "other"}


def test_what_is_measured_are_the_files_that_translate_writes(evaluated, paired, tmp_path):
    run, _, result, pictures = evaluated
    translate_scans(paired / "T1", tmp_path, run.folder, trust=True)
    kept = pictures["t1_to_t2"]
    for k, name in enumerate(kept["names"].tolist()):
        trust = iio.imread(tmp_path / name.replace(".png", "_trust.png")) / 255
        np.testing.assert_array_equal(kept["synthetic"][k], iio.imread(tmp_path / name))
        np.testing.assert_allclose(kept["trust_maps"][k], trust, atol=0.003)
    for name, number, psnr in zip(
        ("Image #3.png", "Image #4.png"),
        (103, 104),
        result["t1_to_t2"]["held_out"]["psnr"]["per_slice"],
        strict=True,
    ):
        truth = iio.imread(paired / "T2" / f"Image #{number}.png") / 255
        error = iio.imread(tmp_path / name) / 255 - truth
        assert psnr == pytest.approx(-10 * np.log10((error**2).mean()), abs=0.01)


def test_baselines_are_the_images_they_claim_to_be(evaluated, paired):
    def psnr(image, truth):
        return -10 * np.log10((((image - truth.astype(float)) / 255) ** 2).mean())

    rows = evaluated[2]["baselines"]["t1_to_t2"]["held_out"]
    read = {k: iio.imread(paired / "T2" / f"Image #{k}.png").astype(float) for k in range(103, 106)}
    expected = [psnr(read[104], read[103]), psnr(read[105], read[104])]
    assert rows["neighbour"]["psnr"]["per_slice"] == pytest.approx(expected)
    source = iio.imread(paired / "T1" / "Image #3.png").astype(float)
    assert rows["source"]["psnr"]["per_slice"][0] == pytest.approx(psnr(source, read[103]))
    assert rows["lookup_table"]["psnr"]["mean"] > rows["source"]["psnr"]["mean"]


def test_tissue_contrast_is_measured_by_clusters_in_both_directions(evaluated):
    _, _, result, _ = evaluated
    for way in DIRECTIONS:
        table = result["baselines"][way]["held_out"]["lookup_table"]
        assert table["gm_wm_ratio"]["mean"] == pytest.approx(1, abs=0.4)
        assert table["order_kept"]["mean"] == 1
    assert result["baselines"]["t1_to_t2"]["held_out"]["source"]["order_kept"]["mean"] == 0


def test_the_gradient_of_the_source_stands_beside_the_trust_map(evaluated):
    _, sets, result, pictures = evaluated
    synthetic = pictures["t1_to_t2"]["synthetic"][2] / 255
    source, truth = ((sets.x.images[2] + 1) / 2, (sets.truth_of("x", 2) + 1) / 2)
    error = np.abs(synthetic - truth)
    found = result["t1_to_t2"]["held_out"]["gradient_rank_correlation"]["per_slice"][0]
    expected = metrics.rank_correlation(sobel(source), error, metrics.head_mask(source))
    assert found == pytest.approx(expected, abs=0.01)


# Truth from elsewhere, or none


@pytest.fixture(scope="module")
def strangers(slices, tmp_path_factory):
    """T1 images, and T2 images of another head."""
    root = tmp_path_factory.mktemp("strangers")
    write(root / "T1", slices[0][:4])
    write(root / "T2", simulate_pairs(4, seed=10, heads=1)[1][:, ::2, ::2, 0])
    return root


def test_without_pairs_there_are_the_unpaired_measures_and_the_report_says_so(strangers, tmp_path):
    run, sets = begin(tmp_path / "run", strangers)
    result, pictures = evaluate(run, sets)
    assert result["truth"] == {"t1_to_t2": "none", "t2_to_t1": "none"}
    ours = result["t1_to_t2"]["held_out"]
    unpaired = {"gradient_correlation", "cycle_error", "histogram_distance"}
    assert set(ours) == {"names"} | unpaired
    assert set(result["baselines"]["t1_to_t2"]["held_out"]) == set()
    assert "T1 → T2: no true pairs are known" in summarise(result)
    assert "PSNR" not in summarise(result)
    assert fidelity_over_epochs({}, sets) == {}
    assert worst_first(ours) == ours["names"]
    assert len(figures.maps(run, pictures, "t1_to_t2", ours["names"], MAPS).axes) == 2 * 3


def test_a_folder_of_true_images_and_labels_is_the_truth(strangers, slices, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(strangers, data)
    write(data / "Truth" / "T2", slices[1][:4])
    (data / "Truth" / "labels").mkdir()
    for number, labels in enumerate(slices[2][:4], 1):
        iio.imwrite(data / "Truth" / "labels" / f"Image #{number}.png", labels)
    run, sets = begin(tmp_path / "run", data)
    result, _ = evaluate(run, sets)
    assert result["truth"] == {"t1_to_t2": "folder", "t2_to_t1": "none"}
    true = metrics.unit(slices[1][2:4, ..., None])
    table = result["baselines"]["t1_to_t2"]["held_out"]["lookup_table"]
    contrast = np.divide(table["gm_wm"]["per_slice"], table["gm_wm_ratio"]["per_slice"])
    expected = [metrics.tissue_contrast(*x)[1] for x in zip(true, slices[2][2:4], strict=True)]
    np.testing.assert_allclose(contrast, expected, atol=0.002)


def test_images_of_two_sizes_are_measured_at_their_own(slices, tmp_path):
    write(tmp_path / "data" / "T1", [x[4:100, 5:85] for x in slices[0]])
    write(tmp_path / "data" / "T2", [x[4:100, 5:85] for x in slices[1]])
    write_image(tmp_path / "data" / "T2" / "Image #9.png", slices[1][0])
    run, sets = begin(tmp_path / "run", tmp_path / "data", fit="resize", size=64)
    result, pictures = evaluate(run, sets)
    synthetic = pictures["t1_to_t2"]["synthetic"]
    assert synthetic.shape == (6, 109, 91)
    assert not np.delete(synthetic, slice(6, 102), axis=1).any()  # black
    assert result["t1_to_t2"]["held_out"]["psnr"]["mean"] > 3


@pytest.mark.slow
def test_of_many_images_neighbours_are_measured_by_twos_as_they_are_among_all(
    paired, tmp_path, monkeypatch
):
    run, sets = begin(tmp_path / "run", paired, holdout="")
    every, _ = evaluate(run, sets)
    monkeypatch.setattr(evaluation, "MOST", 4)
    some, pictures = evaluate(run, sets)
    assert some["most_of_a_split"] == 4 and every["most_of_a_split"] == 100
    for way, names in (("t1_to_t2", (1, 2, 5, 6)), ("t2_to_t1", (101, 102, 105, 106))):
        names = [f"Image #{k}.png" for k in names]
        assert some[way]["train"]["names"] == names
        for row, same in (("source", [0, 1, 2, 3]), ("neighbour", [0, 2])):  # the next, if kept
            few, many = (
                dict(zip(found["names"], found["psnr"]["per_slice"], strict=True))
                for found in (result["baselines"][way]["train"][row] for result in (some, every))
            )
            assert all(few[names[k]] == pytest.approx(many[names[k]]) for k in same)
    assert len(pictures["t2_to_t1"]["source"]) == 4


# Several runs


def test_runs_are_compared_by_mean_least_and_greatest(evaluated, tmp_path):
    run, _, result, _ = evaluated
    folders = [scaled(copied(run, tmp_path / str(k)), change=k) for k in (0, 3)]
    table = compare(
        {"a": result} | {str(k): read_metrics(x) for k, x in enumerate(folders)}, [1] * 3
    )
    psnr = result["t1_to_t2"]["held_out"]["psnr"]["mean"]
    *_, second, last = table.splitlines()
    assert second.startswith(f"| 1 | 1.0 | {psnr + 3:.2f} |")
    spread = f"{psnr + 1:.2f} ({psnr:.2f} to {psnr + 3:.2f})"
    assert last.startswith(f"| mean (least to greatest) | 1.0 (1.0 to 1.0) | {spread} |")


def test_runs_are_compared_on_the_same_images_alone(evaluated):
    result, text = evaluated[2], json.dumps(evaluated[2])
    other = json.loads(text.replace('"Image #1.png"', '"Image #9.png"'))  # trained on
    assert compare({"a": result, "b": other}, [1, 1])
    other = json.loads(text.replace("Image #", "Slice #"))
    with pytest.raises(InputError, match="evaluated on other images"):
        compare({"a": result, "b": other}, [1, 1])


@pytest.mark.slow
def test_several_runs_end_in_a_table_with_a_row_for_each(evaluated, tmp_path, capsys):
    run, _, result, _ = evaluated
    folders = [copied(run, tmp_path / name) for name in ("seed 1", "more/seed 2")]
    for folder, seconds in zip(folders, (90, 600), strict=True):
        durations = {"warm_start": 30, "training": seconds - 30, "01_preprocessing": 5}
        open_run(folder).update(durations=durations)
    assert main(["evaluate", *map(str, [*folders, folders[0]])]) == 0  # one twice counts once
    *_, head, _, first, second, _ = capsys.readouterr().out.splitlines()
    forms = {"psnr": ".2f", "ssim": ".3f", "cycle_error": ".4f"}
    cells = " | ".join(
        format(result[way]["held_out"][measure]["mean"], form)
        for way in DIRECTIONS
        for measure, form in forms.items()
    )
    assert head.startswith(
        "| run | minutes | T1 → T2, held_out: PSNR, dB | T1 → T2, held_out: SSIM"
    )
    assert first == f"| {folders[0]} | 1.5 | {cells} |"
    assert second == f"| {folders[1]} | 10.0 | {cells} |"


def test_damaged_metrics_are_named(tmp_path):
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="metrics.json is damaged"):
        read_metrics(tmp_path)


def test_the_worst_slices_come_first():
    figures = {"names": ["a", "b", "c"], "psnr": {"per_slice": [20.0, 10.0, None]}}
    assert worst_first(figures) == ["b", "a", "c"]


def test_a_run_without_generators_is_named(paired, tmp_path):
    run = open_run(tmp_path / "run", "laptop", str(paired), TINY)
    with pytest.raises(InputError, match="t1_to_t2.keras"):
        evaluate(run, prepare(run))
    assert not (run.folder / "metrics.json").exists()


# Views and the trust map


class Pattern:
    """A generator that multiplies brightness by a fixed pattern of the frame."""

    def __init__(self, pattern):
        self.pattern = pattern

    def __call__(self, images):
        return (images + 1) * self.pattern - 1


def brightness(*shape):
    return np.random.default_rng(0).uniform(0, 2, (1, *shape, 1)).astype(np.float32)


def test_a_generator_that_treats_all_views_alike_is_trusted_but_for_the_gain():
    images = brightness(8, 16) - 1
    found = views(Pattern(np.float32(0.5)), images)
    assert found.shape == (4, 1, 8, 16, 1)
    for k in range(4):
        expected = (0.9 if k > 1 else 1) * (images + 1) / 2 - 1
        np.testing.assert_allclose(found[k], expected, atol=1e-6)
    spread = 0.1 * ndimage.gaussian_filter((images[0, ..., 0] + 1) / 2, 0.5, mode="mirror") / 4
    np.testing.assert_allclose(trust_map(found)[0], spread, atol=1e-6)


def test_the_trust_map_is_the_spread_over_mirrored_and_moved_images():
    light, pattern = brightness(8, 16), brightness(8, 16)[:, ::-1] / 2
    found = views(Pattern(pattern), light - 1)
    outputs = []
    for upside_down, mirrored, moved in ((0, 0, 0), (0, 1, 0), (0, 1, 1), (1, 1, 1)):
        # Pixel (i, j) of the image meets the pattern where the view has put it.
        i, j = np.indices((8, 16))
        i, j = (7 - i if upside_down else i), (15 - j if mirrored else j)
        met = pattern[0, (i + moved) % 8, (j + moved) % 16, 0]
        outputs.append((0.9 if moved else 1) * light[0, ..., 0] * met - 1)
    np.testing.assert_allclose(found[:, 0, ..., 0], outputs, atol=1e-6)
    blurred = ndimage.gaussian_filter(np.std(outputs, axis=0) / 2, 0.5, mode="mirror")
    np.testing.assert_allclose(trust_map(found)[0], blurred, atol=1e-6)


# Over the epochs, and pictures


def test_fidelity_over_the_epochs_is_that_of_the_watched_slices(evaluated, tmp_path):
    run, sets, result, _ = evaluated
    model = training.build_cyclegan(run, steps=1)
    folder = open_run(copied(run, tmp_path / "run"))
    for epoch in (0, 3):
        write_snapshot(folder, epoch, training.watched_images(model, sets))
    curves = fidelity_over_epochs(read_snapshots(folder), load(run))
    assert list(curves["t1_to_t2"]) == [0, 3]
    first, last = result["t1_to_t2"]["held_out"]["psnr"]["per_slice"]
    expected = np.mean([first, first, first, last])  # watched are held-out images: #3, 3, 3, 4
    values = [*curves["t1_to_t2"].values()]
    np.testing.assert_allclose(values, expected, atol=0.02)
    assert set(curves) == set(DIRECTIONS) and len(curves["t2_to_t1"]) == 2
    (axis,) = figures.fidelity(folder, curves).axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), list(curves["t1_to_t2"].items()))


def test_pictures_show_the_slices_asked_for_on_one_scale(evaluated, paired):
    run, sets, result, pictures = evaluated
    shown = "t1_to_t2", ["Image #4.png", "Image #3.png"], MAPS
    axes = figures.maps(run, pictures, *shown).axes
    assert len(axes) == 2 * 5
    source, _, truth, error, _ = (axis.images[0] for axis in axes[:5])
    np.testing.assert_array_equal(source.get_array(), iio.imread(paired / "T1" / "Image #4.png"))
    np.testing.assert_array_equal(truth.get_array(), iio.imread(paired / "T2" / "Image #104.png"))
    assert {axis.images[0].get_clim() for axis in axes[3::5]} == {(0, 51)}
    assert error.get_array().max() > 0
    figures.per_slice(run, result, pictures, "t1_to_t2")
    assert (run.folder / "figures" / "per_slice_t1_to_t2.png").is_file()
