"""Training and held-out sets: pairs, splits, disjoint sets, and what is kept in a run's folder."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import imageio.v3 as iio
import nibabel
import numpy as np
import pytest
import tifffile

from cyclegan_tf import InputError
from cyclegan_tf.dataset.preparation import load, prepare, shared_folder
from cyclegan_tf.dataset.sets import ImageSet, Stored
from cyclegan_tf.dataset.splitting import held_out_names, kept_heads
from cyclegan_tf.runs import Run, open_run
from cyclegan_tf.scans.images import write_image
from cyclegan_tf.simulation.phantom import simulate_pairs

BLOCKS = "28-32,46-50"


def write(folder, images, first=1):
    folder.mkdir(parents=True)
    for number, image in enumerate(images, first):
        write_image(folder / f"Image #{number}.png", image)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("C:/mri/a/T1", "C:/mri/b/T2", "C:/mri"),
        ("C:/T1", "C:/T1", "C:/T1"),
        ("C:/T1", "D:/T2", None),
    ],
)
def test_the_folder_above_both_contrasts_is_found_if_there_is_one(one, other, shared):
    found = shared_folder(PureWindowsPath(one), PureWindowsPath(other))
    assert found == (shared and PureWindowsPath(shared))


@pytest.fixture(scope="module")
def heads():
    """T1w and T2w (14, H, W) of one head, true pairs."""
    t1, t2, _ = simulate_pairs(14, seed=8, heads=1)
    return t1[..., 0], t2[..., 0]


@pytest.fixture(scope="module")
def paired(heads, tmp_path_factory):
    """T1 #1 to #14; the T2 of each is number 100 higher; T2 #201 and #202 are of another head."""
    root = tmp_path_factory.mktemp("paired")
    stranger = simulate_pairs(2, seed=9, heads=1)[1][..., 0]
    write(root / "T1", heads[0])
    write(root / "T2", heads[1], first=101)
    for number, image in enumerate(stranger, 201):
        write_image(root / "T2" / f"Image #{number}.png", image)
    return root


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    run = open_run(tmp_path_factory.mktemp("run") / "simulated")
    return run, prepare(run)


@pytest.fixture
def begin(tmp_path):
    """A new run on a data set, with parameters of its preset."""

    def begin(data, folder="run", **overrides) -> Run:
        source = data if isinstance(data, list) else str(data)
        return open_run(tmp_path / folder, "laptop", source, overrides)

    return begin


def numbers(names, chosen=...):
    return [int(name.removesuffix(".png").split("#")[1]) for name in names[chosen]]


# The published data set


def test_the_published_data_set_is_understood(real_data, begin):
    run = begin(real_data)
    sets = prepare(run)
    assert sets.x.shape == (43, 224, 192, 1) and sets.y.shape == (46, 224, 192, 1)
    t1, t2 = numbers(sets.x.names), numbers(sets.y.names)
    assert t1 == [*range(10, 20), *range(23, 56)] and t2 == [*range(70, 101), *range(111, 126)]
    assert [(t1[i], t2[j]) for i, j in sets.pairs] == [(k, k + (60 if k <= 40 else 70)) for k in t1]
    path = next(real_data.rglob("Image #88.png"))
    expected = iio.imread(path) / 127.5 - 1
    np.testing.assert_allclose(sets.truth_of("x", t1.index(28)), expected, atol=1e-6)
    assert [n for k, n in enumerate(t2) if sets.truth_of("y", k) is None] == [80, 81, 82]
    assert run.record["data"]["t1_images"] == 43 and run.record["data"]["t2_images"] == 46
    assert run.record["data"]["pairs"] == 43


def test_blocks_of_the_published_data_set_are_held_out_with_their_partners(real_data, begin):
    sets = prepare(begin(real_data, holdout=BLOCKS))
    held_out = [*range(28, 33), *range(46, 51)]
    assert numbers(sets.x.names, ~sets.x.train) == held_out
    assert numbers(sets.y.names, ~sets.y.train) == [*range(88, 93), *range(116, 121)]
    t1, t2 = sets.train
    assert len(t1) == 33 and len(t2) == 36
    assert set(sets.x_split) == {"train", "held_out"}


def test_disjoint_sets_of_the_published_data_set_share_no_slice(real_data, begin):
    sets = prepare(begin(real_data, holdout=f"{BLOCKS},13-17", disjoint=True))
    t1, t2 = numbers(sets.x.names, sets.x.train), numbers(sets.y.names, sets.y.train)
    partners = {k + (60 if k <= 40 else 70) for k in t1}
    assert not partners & set(t2)
    assert (len(t1), len(t2)) == (15, 16) and {80, 81, 82} <= set(t2)
    assert t1[:5] == [10, 11, 12, 18, 19] and t2[3:8] == [83, 84, 85, 86, 87]
    assert sets.x_split.count("held_out") == sets.y_split.count("held_out") == 15
    assert sets.x_split.count("other") == 13 and sets.y_split.count("other") == 15


# Pairs, splits, disjoint sets


def test_pairs_give_the_truth_in_both_directions(paired, begin, heads):
    sets = prepare(begin(paired))
    assert sets.pairs.tolist() == [[i, i] for i in range(14)]
    for side, expected in (("x", heads[1]), ("y", heads[0])):
        true = [sets.truth_of(side, k) for k in range(14)]
        np.testing.assert_allclose(true, expected, atol=1.01 / 255)
    assert [sets.truth_of("y", k) for k in (14, 15)] == [None, None]
    assert len(sets.labels) == 0 and sets.x.train.all() and sets.y.train.all()
    assert sets.x[:].dtype == np.float32 and sets.x[:].min() == -1
    np.testing.assert_array_equal(sets.frame.invert(sets.x[3], (217, 181)), sets.x.images[3])


@pytest.mark.parametrize(
    ("holdout", "held_out"),
    [
        ("", []),
        ("3", [3]),
        ("2-4,9", [2, 3, 4, 9]),
        (" 2 - 3 , Image #9.png", [2, 3, 9]),
        ("Image #9", [9]),
        ("12-99", [12, 13, 14]),
    ],
)
def test_a_holdout_is_numbers_or_names(paired, begin, holdout, held_out):
    sets = prepare(begin(paired, holdout=holdout))
    assert numbers(sets.x.names, ~sets.x.train) == held_out
    assert numbers(sets.y.names, ~sets.y.train) == [100 + number for number in held_out]
    assert [s == "held_out" for s in sets.x_split] == (~sets.x.train).tolist()


@pytest.mark.parametrize(
    ("holdout", "named"),
    [
        ("3,77", "77"),
        ("9-7", "9-7"),
        ("20-30", "20-30"),
        ("Image #1.jpg", "Image #1.jpg"),
        ("3,", ""),
    ],
)
def test_a_holdout_that_matches_nothing_is_named(paired, begin, holdout, named):
    run = begin(paired, holdout=holdout)
    with pytest.raises(InputError, match=f"holdout names '{named}'"):
        prepare(run)
    assert {path.name for path in run.folder.iterdir()} == {".holder", ".lock", "run.json"}


@pytest.mark.parametrize("holdout", ["1-14", "1-13"])
def test_fewer_than_two_images_to_train_on_are_refused(paired, begin, holdout):
    with pytest.raises(InputError, match="T1 images to train on: expected 2 or more"):
        prepare(begin(paired, holdout=holdout))


def test_disjoint_sets_take_turns_by_blocks_of_five(paired, begin):
    run = begin(paired, holdout="2", disjoint=True)
    sets = prepare(run)
    assert numbers(sets.x.names, sets.x.train) == [1, 3, 4, 5, 6, 12, 13, 14]
    assert numbers(sets.y.names, sets.y.train) == [107, 108, 109, 110, 111, 201, 202]
    assert run.record["data"]["disjoint"] is True
    assert sets.x_split[:2] == ["train", "held_out"] and sets.x_split[6] == "other"


def test_without_pairs_disjoint_has_no_effect_and_says_so(paired, begin, tmp_path):
    shutil.copytree(paired / "T1", tmp_path / "set" / "T1")
    write(tmp_path / "set" / "T2", simulate_pairs(3, seed=9, heads=1)[1][..., 0])
    run = begin(tmp_path / "set", holdout="4-5", disjoint=True)
    sets = prepare(run)
    assert len(sets.pairs) == 0
    assert [sets.truth_of("x", k) for k in range(14)] == [None] * 14
    assert (sets.x.train.sum(), sets.y.train.sum()) == (12, 3)
    assert "no effect" in run.record["data"]["disjoint"]
    assert sets.x_split.count("held_out") == 2


# The simulated data set


def test_the_simulated_data_set_knows_its_truth(simulated):
    run, sets = simulated
    assert (len(sets.x), len(sets.y), len(sets.pairs)) == (43, 46, 0)
    expected = run.folder / "simulated" / "Truth" / "T2" / sets.x.names[7]
    np.testing.assert_allclose(sets.truth_of("x", 7), iio.imread(expected) / 127.5 - 1, atol=1e-6)
    assert set(np.unique(sets.labels)) == {0, 1, 2, 3}
    csf, white = (
        [t2[mask == label].mean() for t2, mask in zip(sets.truth, sets.labels, strict=True)]
        for label in (1, 3)
    )
    assert np.mean(csf) > np.mean(white) + 0.8
    assert [sets.truth_of("y", k) for k in range(46)] == [None] * 46
    assert run.record["data"]["truth"] is True


@pytest.mark.slow
def test_another_seed_is_another_simulated_data_set(simulated, tmp_path):
    shutil.copytree(simulated[0].folder, tmp_path / "run")
    sets = prepare(open_run(tmp_path / "run", overrides={"seed": 2}))
    assert not np.array_equal(sets.x.images[0], simulated[1].x.images[0])


def test_a_discriminator_too_deep_to_judge_anything_is_refused_in_a_sentence(heads, tmp_path):
    for name, images in zip(("T1", "T2"), heads, strict=True):
        write(tmp_path / "heads" / name, images[:3])
    deep = open_run(tmp_path / "run", None, str(tmp_path / "heads"), {"discriminator_depth": 7})
    with pytest.raises(InputError, match="depth is 7 .* side 192 pixels.*: expected 6 or less"):
        prepare(deep)
    assert len(prepare(open_run(deep.folder, overrides={"discriminator_depth": 6})).x) == 3


# What is kept in the run's folder


def assert_same(sets, others):
    for name, value in vars(sets).items():
        other = getattr(others, name)
        if isinstance(value, ImageSet):
            assert_same(value, other)
        elif isinstance(value, Stored):
            assert all(a.tobytes() == b.tobytes() for a, b in zip(value, other, strict=True)), name
        else:
            assert np.array_equal(value, other), name


def test_what_was_prepared_is_loaded_and_not_made_anew(simulated):
    run, sets = simulated
    path = run.folder / "data.npz"
    before = path.stat().st_mtime_ns
    assert_same(sets, load(Run(run.folder, json.loads((run.folder / "run.json").read_text()))))
    assert_same(sets, prepare(run))
    assert path.stat().st_mtime_ns == before


def test_what_was_prepared_outlives_the_images_and_other_epochs(paired, begin, tmp_path):
    shutil.copytree(paired, tmp_path / "set")
    sets = prepare(begin(tmp_path / "set", holdout="3"))
    shutil.rmtree(tmp_path / "set")
    run = begin(tmp_path / "set", holdout="3", epochs=7)
    assert_same(sets, prepare(run))
    assert run.record["data"]["t1_train"] == 13


def test_two_folders_are_prepared_as_their_parent_is(paired, begin):
    sets = prepare(begin(paired))
    run = begin([str(paired / "T1"), str(paired / "T2")], "another")
    assert_same(sets, prepare(run))
    assert_same(sets, load(run))


def test_a_run_without_prepared_data_says_what_to_run_first(paired, begin):
    with pytest.raises(InputError, match=r"data.npz is not there: run notebooks/01_preprocessing"):
        load(begin(paired))


def test_data_prepared_with_other_settings_are_refused_and_made_anew(paired, begin):
    prepare(begin(paired, holdout="3"))
    run = begin(paired, holdout="4")
    with pytest.raises(InputError, match="other settings.*run notebooks/01_preprocessing first"):
        load(run)
    assert numbers(prepare(run).x.names, ~load(run).x.train) == [4]


def test_damaged_data_are_refused_and_made_anew(paired, begin):
    run = begin(paired)
    sets = prepare(run)
    path = run.folder / "data.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="data.npz is damaged.*run notebooks/01"):
            load(run)
    assert_same(sets, prepare(run))
    assert_same(sets, load(run))
    assert {p.name for p in run.folder.iterdir()} == {
        ".holder",
        ".lock",
        "data.npz",
        "images",
        "run.json",
    }


def test_nothing_in_the_data_is_unpickled(paired, begin):
    run = begin(paired)
    prepare(run)
    with zipfile.ZipFile(run.folder / "data.npz", "a") as archive:
        np.savez(run.folder / "evil.npz", pairs=np.array([{}], dtype=object))
        evil = zipfile.ZipFile(run.folder / "evil.npz").read("pairs.npy")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("pairs.npy", evil)
    with pytest.raises(InputError, match="allow_pickle=False"):
        load(run)


def test_images_that_are_lost_or_cut_short_are_made_anew(paired, begin):
    run = begin(paired)
    sets = prepare(run)
    path = run.folder / "images" / "t2_images" / "000007"
    for spoil in (lambda: path.write_bytes(path.read_bytes()[:-4]), path.unlink):
        spoil()
        with pytest.raises(InputError, match=r"data.npz is damaged .*t2_images/000007"):
            load(run)
        assert_same(sets, prepare(run))


def test_a_stopped_preparation_is_begun_anew_and_a_finished_one_outlives_a_mistake(paired, begin):
    run = begin(paired)
    sets = prepare(run)
    with pytest.raises(InputError, match="holdout names"):
        prepare(begin(paired, holdout="99"))
    assert_same(sets, load(begin(paired)))
    (run.folder / "data.npz").unlink()  # it is written last
    (run.folder / ".partial-images").mkdir()
    (run.folder / "images" / "t1_images" / "000000").write_bytes(b"half")
    assert_same(sets, prepare(begin(paired)))
    assert not (run.folder / ".partial-images").exists()


# Volumes


def write_volume(path, slices, thickness=4):
    """Slices (S, H, W) in [-1, 1], nose up, as a 16-bit NIfTI file with pixels of 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.rint(700 * (slices[:, ::-1].transpose(2, 1, 0) + 1)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, thickness, 1])), path)


@pytest.fixture(scope="module")
def scans():
    """T1w and T2w (7, 109, 91) of four heads; the first slice of each is empty."""
    made = [simulate_pairs(6, seed, heads=1)[:2] for seed in (21, 22, 23, 24)]
    halves = [[images[:, ::2, ::2, 0] for images in pair] for pair in made]
    return [[np.pad(x, ((1, 0), (0, 0), (0, 0)), constant_values=-1) for x in p] for p in halves]


@pytest.fixture(scope="module")
def bids(scans, tmp_path_factory):
    """sub-01, sub-02 with two sessions, sub-03 whose T2 is of another head, sub-04 without T2."""
    root = tmp_path_factory.mktemp("bids")
    for name, t1, t2 in (
        ("sub-01", scans[0][0], scans[0][1]),
        ("sub-02_ses-a", scans[1][0], scans[1][1]),
        ("sub-02_ses-b", scans[1][0][:, :-2], scans[1][1]),  # of another shape
        ("sub-03", scans[2][0], scans[0][1]),
        ("sub-04", scans[3][0], None),
    ):
        for suffix, slices in (("T1w", t1), ("T2w", t2)):
            if slices is not None:
                folder = root.joinpath(*name.split("_"), "anat")
                write_volume(folder / f"{name}_{suffix}.nii.gz", slices)
    return root


def volumes_of(names):
    return sorted({name.rpartition(" #")[0] for name in names})


def test_a_bids_data_set_is_read_slice_by_slice_and_paired_by_subject(bids, begin, scans):
    run = begin(bids)
    sets = prepare(run)
    data = run.record["data"]
    assert (data["t1_volumes"], data["t2_volumes"], data["subjects"]) == (5, 4, 4)
    assert (len(sets.x), len(sets.y), data["t1_empty_slices"]) == (5 * 6, 4 * 6, 5)
    assert "axial" in data["slices"] and "white matter" not in data["slices"]
    assert sets.x.names[0] == "sub-01_T1w #1" and sets.y.names[11] == "sub-02_ses-a_T2w #6"
    # Not of session b, whose volumes differ in shape, nor of sub-03, whose heads differ.
    assert sets.pairs.tolist() == [[k, k] for k in range(12)]
    error = sets.x.images[7] - scans[1][0][2]
    assert np.abs(error).mean() < 0.06  # on the scale that the simulation has by itself
    assert sets.truth_of("y", 20) is None
    assert (sets.truth_of("x", 3) == sets.y.images[3]).all()


@pytest.mark.parametrize(
    "holdout", ["sub-02", "2", "sub-02_ses-a", "sub-02_ses-b_T2w", "sub-02_ses-b_T1w.nii.gz"]
)
def test_a_subject_is_held_out_whole(bids, begin, holdout):
    sets = prepare(begin(bids, holdout=holdout))
    for names, train, split in (
        (sets.x.names, sets.x.train, sets.x_split),
        (sets.y.names, sets.y.train, sets.y_split),
    ):
        assert {name[:6] for name in names[~train]} == {"sub-02"}
        assert not any(name.startswith("sub-02") for name in names[train])
        assert [s == "train" for s in split] == train.tolist() and "other" not in split


def test_a_subject_that_is_not_there_is_named(bids, begin):
    with pytest.raises(InputError, match="holdout names 'sub-07'.*from sub-01 to sub-0"):
        prepare(begin(bids, holdout="sub-01,sub-07"))


def test_disjoint_sets_share_no_subject(bids, begin):
    sets = prepare(begin(bids, disjoint=True, holdout="sub-01"))
    assert volumes_of(sets.x.names[sets.x.train]) == [
        "sub-02_ses-a_T1w",
        "sub-02_ses-b_T1w",
        "sub-04_T1w",
    ]
    assert volumes_of(sets.y.names[sets.y.train]) == ["sub-03_T2w"]
    assert {s for s, n in zip(sets.x_split, sets.x.names, strict=True) if "03" in n} == {"other"}


def test_what_the_training_is_stopped_by_is_neither_trained_on_nor_quoted(bids, begin):
    sets = prepare(begin(bids, patience=3, holdout="sub-03"))
    assert [*sets.validation] == ["sub-01"]  # of sub-01 and sub-02, whose truth is known
    for names, heads, split in (
        (sets.x.names[sets.x.train], sets.x.heads, sets.x_split),
        (sets.y.names[sets.y.train], sets.y.heads, sets.y_split),
    ):
        assert not any(name.startswith("sub-01") for name in names)
        wanted = {"sub-01": "validation", "sub-03": "held_out"}
        assert split == [wanted.get(head, "train") for head in heads]


def test_what_is_held_out_never_stops_the_training(bids, begin):
    run = begin(bids, patience=3, holdout="sub-01")
    assert [*prepare(run).validation] == run.record["data"]["validation"] == ["sub-02"]
    sets = prepare(begin(bids, folder="all", patience=3, holdout="sub-01,sub-02"))
    assert not len(sets.validation) and {*sets.x_split} == {"train", "held_out"}


def test_the_middle_tenth_of_the_heads_with_a_truth_stops_the_training():
    heads = np.array([f"sub-{k:02d}" for k in range(40) for _ in range(2)])[::-1]  # two slices each
    x = SimpleNamespace(heads=heads, train=heads >= "sub-04")
    none = np.zeros((0, 2), int)
    # Of sub-05 to sub-39 the truth is known, and all are in training.
    for pairs, truth in ((np.arange(70)[:, None], []), (none, ["of all"])):
        sets = SimpleNamespace(x=x, pairs=pairs, truth=truth)
        assert kept_heads(sets) == [f"sub-{k}" for k in (20, 21, 22, 23)]
    assert kept_heads(SimpleNamespace(x=x, pairs=none, truth=[])) == []


@pytest.mark.parametrize(
    ("t1", "t2"),
    [
        ("IXI002-Guys-0828-T1.nii.gz", "IXI002-Guys-0828-T2.nii.gz"),
        ("T1w_7.nii", "T2w_7.nii"),
        ("patient seven.nii.gz", "patient seven.nii"),
    ],
)
def test_two_folders_of_volumes_are_paired_by_their_names(scans, begin, tmp_path, t1, t2):
    for name, slices, contrast in ((t1, scans[0][0], "T1"), (t2, scans[0][1], "T2")):
        write_volume(tmp_path / contrast / name, slices)
        write_volume(tmp_path / contrast / "other" / "in a folder below.nii.gz", slices)
    sets = prepare(begin([str(tmp_path / "T1"), str(tmp_path / "T2")]))
    assert sets.pairs.tolist() == [[k, k] for k in range(6)]
    assert volumes_of(sets.x.names) == [t1.split(".")[0]]


def test_black_around_a_head_does_not_change_what_is_trained_on(scans, begin, tmp_path):
    for name, black in (("plain", 5), ("padded", 25)):
        for contrast, slices in zip(("T1", "T2"), scans[0], strict=True):
            wide = np.pad(slices, ((0, 0), (black, 2 * black), (black, black)), constant_values=-1)
            write_volume(tmp_path / name / contrast / "head.nii.gz", wide, thickness=20)
    plain = prepare(begin(tmp_path / "plain", "of plain"))
    padded = prepare(begin(tmp_path / "padded", "of padded"))
    assert plain.frame == padded.frame and plain.x.images[0].shape != padded.x.images[0].shape
    (number,) = set(plain.x.names) & set(padded.x.names) & {"head #3"}
    of_plain, of_padded = (sets.x[sets.x.names.tolist().index(number)] for sets in (plain, padded))
    np.testing.assert_allclose(of_plain, of_padded, atol=0.01)
    scan = padded.scans("x", [0])[0]
    rows, columns = scan.box
    assert scan.slices[0][rows, columns].shape < scan.slices[0].shape


def test_volumes_of_other_names_are_no_pairs(scans, begin, tmp_path):
    write_volume(tmp_path / "T1" / "anna.nii.gz", scans[0][0])
    write_volume(tmp_path / "T2" / "berta.nii.gz", scans[0][1])
    assert len(prepare(begin(tmp_path)).pairs) == 0


def test_the_slices_of_another_plane_are_taken_on_request(scans, begin, tmp_path):
    for contrast, slices in zip(("T1", "T2"), scans[0], strict=True):
        write_volume(tmp_path / contrast / "head.nii.gz", slices, thickness=5)
    run = begin(tmp_path, plane="sagittal")
    sets = prepare(run)
    assert sets.x.images[0].shape == (35, 109) and "sagittal" in run.record["data"]["slices"]


def test_a_head_gives_the_same_slices_as_a_volume_and_as_16_bit_images(scans, begin, tmp_path):
    for contrast, slices in zip(("T1", "T2"), scans[0], strict=True):
        write_volume(tmp_path / "volumes" / contrast / "head.nii.gz", slices[1:])
        (tmp_path / "images" / contrast).mkdir(parents=True)
        for number, image in enumerate(slices[1:]):
            grey = np.rint(700 * (image + 1)).astype(np.uint16)
            tifffile.imwrite(tmp_path / "images" / contrast / f"{number}.tif", grey)
    volumes, images = (prepare(begin(tmp_path / n, f"of {n}")) for n in ("volumes", "images"))
    for one, other in ((volumes.x, images.x), (volumes.y, images.y)):
        np.testing.assert_array_equal(list(one.images), list(other.images))
    assert volumes.pairs.tolist() == images.pairs.tolist()


def test_volumes_of_one_contrast_alone_and_volumes_without_a_head_are_refused(
    scans, begin, tmp_path, bids
):
    shutil.copytree(bids / "sub-04", tmp_path / "bids" / "sub-04")
    run = begin(tmp_path / "bids")
    with pytest.raises(InputError, match="bids holds no T2w, but"):
        prepare(run)
    write_volume(tmp_path / "mixed" / "T1" / "head.nii.gz", scans[0][0])
    write(tmp_path / "mixed" / "T2", scans[0][1][1:3])
    with pytest.raises(InputError, match="Volumes are 1 in .* and 0 in .*expected some of both"):
        prepare(begin(tmp_path / "mixed", "of both"))
    dot = np.full((5, 60, 60), -1.0)
    dot[2, 30, 22:38] = np.linspace(-0.5, 1, 16)  # grey values, no mask
    for contrast in ("T1", "T2"):
        write_volume(tmp_path / "dots" / contrast / "dot.nii.gz", dot)
    with pytest.raises(InputError, match=r"T1/dot.nii.gz shows no head"):
        prepare(begin(tmp_path / "dots", "of dots"))
    assert {path.name for path in run.folder.iterdir()} == {".holder", ".lock", "run.json"}


PEAK = r"""
import re, sys
from cyclegan_tf.learning.batches import unpaired_batches
from cyclegan_tf.dataset.preparation import prepare
from cyclegan_tf.runs import open_run
run = open_run(sys.argv[1], "laptop", sys.argv[2])
sets = prepare(run)
t1, t2 = sets.train
for batch in unpaired_batches(t1, t2, run.preset, 0, len(t1)):
    pass
print(len(t1) + len(t2), re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read there")
def test_ten_times_the_volumes_take_the_same_memory(scans, tmp_path):
    # Not ru_maxrss, which on Linux begins with that of the process that starts this one.
    peaks = []
    for count in (1, 10):
        for contrast, slices in zip(("T1", "T2"), scans[0], strict=True):
            whole = np.repeat(np.repeat(np.repeat(slices, 3, axis=0), 2, axis=1), 2, axis=2)
            first = tmp_path / str(count) / contrast / "0.nii.gz"
            write_volume(first, whole)
            for number in range(1, count):
                shutil.copy(first, first.with_name(f"{number}.nii.gz"))
        command = [sys.executable, "-c", PEAK, tmp_path / f"run{count}", tmp_path / str(count)]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(np.array(made.stdout.split(), int))
    (few, small), (many, large) = peaks
    assert many == 10 * few
    print(f"peak {small} kB with {few} slices, {large} kB with {many}")
    more = (many - few) * whole[0].size * 4 / 1024  # kB of pixels
    assert large - small < more / 3 < 0.15 * small


# Images of all sizes and bad input


def test_images_of_mixed_sizes_are_kept_as_they_are(heads, begin, tmp_path):
    images = [heads[0][0], heads[0][4][:200, 20:], heads[0][8][30:]]
    write(tmp_path / "set" / "trainA", images)
    write(tmp_path / "set" / "trainB", [*heads[1][[0, 4]], heads[1][9][:, 10:150]])
    run = begin(tmp_path / "set", "mixed")
    sets = prepare(run)
    assert [image.shape for image in load(run).x.images] == [(217, 181), (200, 161), (187, 181)]
    assert sets.x.shape == sets.y.shape == (3, 224, 192, 1)
    for framed, image, expected in zip(sets.x, load(run).x.images, images, strict=True):
        np.testing.assert_allclose(image, expected, atol=1.01 / 255)
        np.testing.assert_array_equal(sets.frame.invert(framed, image.shape), image)


def test_a_scan_of_16_bits_is_prepared_for_training_on(heads, begin, tmp_path):
    for name, stack in zip(("T1", "T2"), heads, strict=True):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number, image in enumerate(stack):
            scan = np.rint(750 * (image + 1)).astype(np.uint16)
            iio.imwrite(tmp_path / "set" / name / f"{number}.png", scan)
    sets = prepare(begin(tmp_path / "set"))
    assert np.abs(np.stack(sets.x.images) - heads[0]).mean() < 0.05
    assert len(sets.pairs) == 14


def spoil(root, how):
    first = root / "T1" / "Image #1.png"
    if how == "a single image":
        for path in (root / "T2").glob("Image #1*"):
            path.unlink()
        (root / "T2" / "Image #202.png").unlink()
    elif how == "an empty folder":
        shutil.rmtree(root / "T2")
        (root / "T2").mkdir()
    elif how == "no second folder":
        shutil.rmtree(root / "T2")
    elif how == "copied folder":
        shutil.rmtree(root / "T2")
        shutil.copytree(root / "T1", root / "T2")
    elif how == "no image":
        first.write_text("this is no image")
    elif how == "one grey":
        write_image(first, np.full((217, 181), 0.5))
    elif how == "cut short":
        first.write_bytes(first.read_bytes()[:1000])
    elif how == "too small":
        write_image(first, np.linspace(-1, 1, 9).reshape(3, 3))
    elif how == "truth of another size":
        write(root / "Truth" / "T2", np.random.default_rng(0).uniform(-1, 1, (14, 30, 30)))
    elif how == "truth incomplete":
        write(root / "Truth" / "T2", np.random.default_rng(0).uniform(-1, 1, (3, 217, 181)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a single image", r"T2 holds a single image: expected 2 or more"),
        ("an empty folder", r"T2 is no folder of scans"),
        ("no second folder", r"set holds no folder T2"),
        ("copied folder", r"T1 and .*T2 hold the same images"),
        ("no image", r"Image #1.png cannot be read as a PNG, JPEG, TIFF or BMP image"),
        ("cut short", r"Image #1.png cannot be read as a .* image \(image file is truncated"),
        ("one grey", r"Image #1.png is the same everywhere"),
        ("too small", r"Image #1.png is 3 x 3 pixels: expected 16 or more"),
        ("truth of another size", r"Image #1.png and its truth differ in size"),
        ("truth incomplete", r"Truth/T2/Image #4.png .*No such file"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing_half_written(
    paired, begin, tmp_path, how, message
):
    shutil.copytree(paired, tmp_path / "set")
    spoil(tmp_path / "set", how)
    run = begin(tmp_path / "set")
    with pytest.raises(InputError, match=message) as raised:
        prepare(run)
    assert "\n" not in str(raised.value)
    assert {path.name for path in run.folder.iterdir()} == {".holder", ".lock", "run.json"}


def test_the_names_to_hold_out_are_told_from_the_first_to_the_last_of_both_contrasts():
    known = [(name,) for name in ("sub-02", "sub-10", "sub-01", "sub-03")]  # two T1w, two T2w
    with pytest.raises(InputError, match="from sub-01 to sub-10"):
        held_out_names("sub-4", known, "data")
    with pytest.raises(InputError, match="from a to a"):
        held_out_names("b", [("a",)], "data")
