"""Training and held-out sets: pairs, splits, disjoint sets, and what is kept in a run's folder."""

import json
import shutil
import zipfile

import imageio.v3 as iio
import numpy as np
import pytest

from cyclegan_tf import InputError
from cyclegan_tf.data import load, prepare
from cyclegan_tf.images import write_image
from cyclegan_tf.phantom import simulate_pairs
from cyclegan_tf.runs import Run, open_run

BLOCKS = "28-32,46-50"


def write(folder, images, first=1):
    folder.mkdir(parents=True)
    for number, image in enumerate(images, first):
        write_image(folder / f"Image #{number}.png", image)


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
    assert sets.t1.shape == (43, 224, 192, 1) and sets.t2.shape == (46, 224, 192, 1)
    t1, t2 = numbers(sets.t1_names), numbers(sets.t2_names)
    assert t1 == [*range(10, 20), *range(23, 56)] and t2 == [*range(70, 101), *range(111, 126)]
    assert [(t1[i], t2[j]) for i, j in sets.pairs] == [(k, k + (60 if k <= 40 else 70)) for k in t1]
    path = next(real_data.rglob("Image #88.png"))
    expected = iio.imread(path) / 127.5 - 1
    np.testing.assert_allclose(sets.true_t2[t1.index(28)], expected, atol=1e-6)
    assert [n for n, true in zip(t2, sets.true_t1, strict=True) if true is None] == [80, 81, 82]
    assert run.record["data"]["t1_images"] == 43 and run.record["data"]["t2_images"] == 46
    assert run.record["data"]["pairs"] == 43


def test_blocks_of_the_published_data_set_are_held_out_with_their_partners(real_data, begin):
    sets = prepare(begin(real_data, holdout=BLOCKS))
    held_out = [*range(28, 33), *range(46, 51)]
    assert numbers(sets.t1_names, ~sets.t1_train) == held_out
    assert numbers(sets.t2_names, ~sets.t2_train) == [*range(88, 93), *range(116, 121)]
    t1, t2 = sets.train
    assert len(t1) == 33 and len(t2) == 36
    assert set(sets.t1_split) == {"train", "held_out"}


def test_disjoint_sets_of_the_published_data_set_share_no_slice(real_data, begin):
    sets = prepare(begin(real_data, holdout=f"{BLOCKS},13-17", disjoint=True))
    t1, t2 = numbers(sets.t1_names, sets.t1_train), numbers(sets.t2_names, sets.t2_train)
    partners = {k + (60 if k <= 40 else 70) for k in t1}
    assert not partners & set(t2)
    assert (len(t1), len(t2)) == (15, 16) and {80, 81, 82} <= set(t2)
    assert t1[:5] == [10, 11, 12, 18, 19] and t2[3:8] == [83, 84, 85, 86, 87]
    assert sets.t1_split.count("held_out") == sets.t2_split.count("held_out") == 15
    assert sets.t1_split.count("other") == 13 and sets.t2_split.count("other") == 15


# Pairs, splits, disjoint sets


def test_pairs_give_the_truth_in_both_directions(paired, begin, heads):
    sets = prepare(begin(paired))
    assert sets.pairs.tolist() == [[i, i] for i in range(14)]
    for true, expected in zip((sets.true_t2, sets.true_t1), (heads[1], heads[0]), strict=True):
        np.testing.assert_allclose(true[:14], expected, atol=1.01 / 255)
    assert sets.true_t1[14:] == [None, None]
    assert sets.labels == [] and sets.t1_train.all() and sets.t2_train.all()
    assert sets.t1.dtype == np.float32 and sets.t1.min() == -1
    np.testing.assert_array_equal(sets.frame.invert(sets.t1[3], (217, 181)), sets.t1_images[3])


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
    assert numbers(sets.t1_names, ~sets.t1_train) == held_out
    assert numbers(sets.t2_names, ~sets.t2_train) == [100 + number for number in held_out]
    assert [s == "held_out" for s in sets.t1_split] == (~sets.t1_train).tolist()


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
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]


@pytest.mark.parametrize("holdout", ["1-14", "1-13"])
def test_fewer_than_two_images_to_train_on_are_refused(paired, begin, holdout):
    with pytest.raises(InputError, match="T1 images to train on: expected 2 or more"):
        prepare(begin(paired, holdout=holdout))


def test_disjoint_sets_take_turns_by_blocks_of_five(paired, begin):
    run = begin(paired, holdout="2", disjoint=True)
    sets = prepare(run)
    assert numbers(sets.t1_names, sets.t1_train) == [1, 3, 4, 5, 6, 12, 13, 14]
    assert numbers(sets.t2_names, sets.t2_train) == [107, 108, 109, 110, 111, 201, 202]
    assert run.record["data"]["disjoint"] is True
    assert sets.t1_split[:2] == ["train", "held_out"] and sets.t1_split[6] == "other"


def test_without_pairs_disjoint_has_no_effect_and_says_so(paired, begin, tmp_path):
    shutil.copytree(paired / "T1", tmp_path / "set" / "T1")
    write(tmp_path / "set" / "T2", simulate_pairs(3, seed=9, heads=1)[1][..., 0])
    run = begin(tmp_path / "set", holdout="4-5", disjoint=True)
    sets = prepare(run)
    assert len(sets.pairs) == 0 and sets.true_t2 == [None] * 14
    assert (sets.t1_train.sum(), sets.t2_train.sum()) == (12, 3)
    assert "no effect" in run.record["data"]["disjoint"]
    assert sets.t1_split.count("held_out") == 2


# The simulated data set


def test_the_simulated_data_set_knows_its_truth(simulated):
    run, sets = simulated
    assert (len(sets.t1), len(sets.t2), len(sets.pairs)) == (43, 46, 0)
    expected = run.folder / "simulated" / "Truth" / "T2" / sets.t1_names[7]
    np.testing.assert_allclose(sets.true_t2[7], iio.imread(expected) / 127.5 - 1, atol=1e-6)
    assert set(np.unique(sets.labels)) == {0, 1, 2, 3} and sets.labels[0].dtype == np.uint8
    csf, white = (
        [t2[mask == label].mean() for t2, mask in zip(sets.true_t2, sets.labels, strict=True)]
        for label in (1, 3)
    )
    assert np.mean(csf) > np.mean(white) + 0.8
    assert sets.true_t1 == [None] * 46
    assert run.record["data"]["truth"] is True


def test_another_seed_is_another_simulated_data_set(simulated, tmp_path):
    shutil.copytree(simulated[0].folder, tmp_path / "run")
    sets = prepare(open_run(tmp_path / "run", overrides={"seed": 2}))
    assert not np.array_equal(sets.t1_images[0], simulated[1].t1_images[0])


# What is kept in the run's folder


def assert_same(sets, others):
    for name, value in vars(sets).items():
        other = getattr(others, name)
        if isinstance(value, list):
            assert len(value) == len(other)
            assert all(map(np.array_equal, value, other)), name
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
    run = begin(tmp_path / "set", holdout="3", epochs=7, fit="resize", size=64)
    assert prepare(run).t1.shape == (14, 64, 64, 1)
    assert_same(sets, prepare(begin(tmp_path / "set", holdout="3")))
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
    assert numbers(prepare(run).t1_names, ~load(run).t1_train) == [4]


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
    assert sorted(p.name for p in run.folder.iterdir()) == ["data.npz", "run.json"]


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


# Images of all sizes and bad input


def test_images_of_mixed_sizes_are_kept_as_they_are(heads, begin, tmp_path):
    images = [heads[0][0], heads[0][4][:200, 20:], heads[0][8][30:]]
    write(tmp_path / "set" / "trainA", images)
    write(tmp_path / "set" / "trainB", [*heads[1][[0, 4]], heads[1][9][:, 10:150]])
    run = begin(tmp_path / "set", "mixed")
    sets = prepare(run)
    assert [image.shape for image in load(run).t1_images] == [(217, 181), (200, 161), (187, 181)]
    assert sets.t1.shape == sets.t2.shape == (3, 224, 192, 1)
    for framed, image, expected in zip(sets.t1, load(run).t1_images, images, strict=True):
        np.testing.assert_allclose(image, expected, atol=1.01 / 255)
        np.testing.assert_array_equal(sets.frame.invert(framed, image.shape), image)


def test_a_scan_of_16_bits_is_prepared_for_training_on(heads, begin, tmp_path):
    for name, stack in zip(("T1", "T2"), heads, strict=True):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number, image in enumerate(stack):
            scan = np.rint(750 * (image + 1)).astype(np.uint16)
            iio.imwrite(tmp_path / "set" / name / f"{number}.png", scan)
    sets = prepare(begin(tmp_path / "set"))
    assert np.abs(np.stack(sets.t1_images) - heads[0]).mean() < 0.05
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
        ("an empty folder", r"T2 holds no image"),
        ("no second folder", r"set holds no folder T2"),
        ("copied folder", r"T1 and .*T2 hold the same images"),
        ("no image", r"Image #1.png is damaged or no image"),
        ("cut short", r"Image #1.png is damaged or no image \(image file is truncated"),
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
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]
