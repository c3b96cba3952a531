"""The simulated heads: signal equations, anatomy, and the data set that needs no download."""

from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
from scipy import ndimage

from cyclegan_tf import InputError
from cyclegan_tf.simulation import phantom, physics

CSF, GREY, WHITE = 1, 2, 3
NO_VARIATION = phantom.Variation(anatomy=0, tissue=0, gain=0)


def grey_values(images: np.ndarray) -> np.ndarray:
    return (images[..., 0] + 1) * 127.5


@pytest.fixture(scope="module")
def nominal():
    """Four slices without any random deviation, on the 8-bit scale."""
    t1w, t2w, labels = phantom.simulate_pairs(4, 0, heads=1, variation=NO_VARIATION)
    return grey_values(t1w), grey_values(t2w), labels


@pytest.fixture(scope="module")
def pairs():
    return phantom.simulate_pairs(6, 5, heads=3)


def rim_profile(t1w: np.ndarray, t2w: np.ndarray, depth: int = 22) -> tuple[np.ndarray, np.ndarray]:
    """Median grey value in each millimetre below the head's outline, T1w and T2w."""
    t1, t2 = [], []
    for one, two in zip(t1w, t2w, strict=True):
        head = ndimage.binary_fill_holes((one > 20) | (two > 20))
        below = np.ceil(ndimage.distance_transform_edt(head))
        t1.append([np.median(one[below == mm]) for mm in range(1, depth)])
        t2.append([np.median(two[below == mm]) for mm in range(1, depth)])
    return np.mean(t1, 0), np.mean(t2, 0)


def test_the_signal_equations_give_the_values_worked_out_by_hand():
    # White matter, T1w: E1 = exp(-18/500) = 0.964640; 0.5 (1 - E1) / (1 - 0.866025 E1) = 0.107413;
    # times 0.77 exp(-10/61) = 0.653574. T2w: 0.77 times 1 - exp(-3300/500) = 0.998640 times
    # exp(-120/70) = 0.180092.
    white = physics.TISSUES["white"]
    assert physics.flash_signal(white, physics.T1W_FLASH) == pytest.approx(0.070202, rel=1e-4)
    t2w = physics.SPIN_ECHOES["T2w"]
    assert physics.spin_echo_signal(white, t2w) == pytest.approx(0.13848, rel=1e-4)


@pytest.mark.parametrize(
    ("label", "t1", "t2", "t2_star", "pd"),
    [(CSF, 2569, 329, 58, 1), (GREY, 833, 83, 69, 0.86), (WHITE, 500, 70, 61, 0.77)],
)
def test_pure_tissue_has_the_equations_grey_value(nominal, label, t1, t2, t2_star, pd):
    t1w, t2w, labels = nominal
    pure = np.stack([ndimage.binary_erosion(one == label, iterations=2) for one in labels])
    e1 = np.exp(-18 / t1)
    flash = pd * 0.5 * (1 - e1) / (1 - np.sqrt(0.75) * e1) * np.exp(-10 / t2_star)
    spin_echo = pd * (1 - np.exp(-3300 / t1)) * np.exp(-120 / t2)
    assert pure.sum() > 50
    assert np.median(t1w[pure]) == pytest.approx(151 * flash / 0.070202, rel=0.05)
    assert np.median(t2w[pure]) == pytest.approx(255 * spin_echo / 0.502189, rel=0.05)


def test_tissues_are_in_the_order_of_each_contrast_and_labels_say_which(pairs):
    t1w, t2w, labels = (*map(grey_values, pairs[:2]), pairs[2])
    t1_means = [t1w[labels == label].mean() for label in (CSF, GREY, WHITE)]
    t2_means = [t2w[labels == label].mean() for label in (CSF, GREY, WHITE)]
    assert t1_means == sorted(t1_means)
    assert t2_means == sorted(t2_means, reverse=True)
    assert set(np.unique(labels)) == {0, CSF, GREY, WHITE}
    assert np.mean(t2w[labels == CSF] > 130) > 0.95
    assert np.mean(t1w[labels == WHITE] > 120) > 0.95


def test_arrays_have_the_promised_shape_type_and_range(pairs):
    t1w, t2w, labels = pairs
    for images in (t1w, t2w):
        assert images.shape == (6, 217, 181, 1) and images.dtype == np.float32
        assert images.min() == -1 and 0.9 < images.max() <= 1
    assert labels.shape == (6, 217, 181) and labels.dtype == np.uint8


def test_the_same_seed_gives_the_same_slices_and_another_seed_others(pairs):
    again = phantom.simulate_pairs(6, 5, heads=3)
    assert all(np.array_equal(one, two) for one, two in zip(pairs, again, strict=True))
    other = phantom.simulate_pairs(6, 6, heads=3)
    assert np.abs(pairs[0] - other[0]).mean() > 0.05


def test_heads_are_individuals_without_mirror_symmetry(pairs, nominal):
    def asymmetry(images):
        return np.abs(images - images[:, :, ::-1]).mean()

    assert asymmetry(grey_values(pairs[1])) > 2 * asymmetry(nominal[1])
    first, second, third = pairs[0][::2]
    assert min(np.abs(first - second).mean(), np.abs(second - third).mean()) > 0.05


def test_the_nose_is_up():
    stripped = phantom.Physics(skull=False)
    labels = phantom.simulate_pairs(1, 0, 1, NO_VARIATION, stripped, slices=(20, 22))[2][0]
    widths = (labels > 0).sum(1)[(labels > 0).any(1)]
    assert widths.argmax() > len(widths) / 2  # a brain is widest behind its middle


def test_the_layers_of_the_rim_are_skin_fat_bone_and_fluid(nominal):
    t1w, t2w = rim_profile(*nominal[:2])
    skin = t2w[:4].argmax()
    fat = t1w[:10].argmax()
    bone = fat + t1w[fat:18].argmin()
    assert skin < fat < bone
    assert t2w[skin] > 180 and t1w[skin] < 70
    assert t1w[fat] > 130 and t2w[fat] < 100
    assert t1w[bone] < 40
    assert t2w[bone:].max() > 110


def test_stripped_heads_have_nothing_outside_the_brain(nominal):
    t1w, t2w, labels = phantom.simulate_pairs(4, 0, 1, NO_VARIATION, phantom.Physics(skull=False))
    far = np.stack([~ndimage.binary_dilation(one > 0, iterations=4) for one in labels])
    assert t1w[far].max() < -0.99 and t2w[far].max() < -0.99
    assert np.mean(nominal[0][far] > 20) > 0.1
    mixed = replace(NO_VARIATION, stripped=1)
    assert np.array_equal(phantom.simulate_pairs(4, 0, 1, mixed)[0], t1w)


def test_a_wrong_physics_changes_the_contrast_but_not_the_scale(nominal):
    wrong = phantom.Physics(
        physics.TISSUES_3T,
        phantom.PROTOCOLS | {"t2": (physics.spin_echo_signal, physics.Sequence(tr=3000, te=80))},
    )
    t1w, t2w, labels = phantom.simulate_pairs(4, 0, 1, NO_VARIATION, wrong)
    assert np.array_equal(labels, nominal[2])
    pure = np.stack([ndimage.binary_erosion(one == WHITE, iterations=2) for one in labels])
    assert np.median(grey_values(t1w)[pure]) == pytest.approx(151, rel=0.02)
    assert np.median(grey_values(t2w)[pure]) > np.median(nominal[1][pure]) + 10


@pytest.mark.parametrize("simulator", phantom.SIMULATORS)
def test_every_simulator_has_fluid_grey_and_white_matter_in_their_order(simulator):
    options = phantom.SIMULATORS[simulator]
    t1w, t2w, labels = phantom.simulate_pairs(8, 4, heads=4, **options)
    for t1, t2, tissue in zip(t1w[..., 0], t2w[..., 0], labels, strict=True):
        in_t1, in_t2 = ([np.median(x[tissue == k]) for k in (CSF, GREY, WHITE)] for x in (t1, t2))
        assert in_t1[0] < in_t1[1] < in_t1[2] and in_t2[0] > in_t2[1] > in_t2[2]


def test_a_slice_between_two_heights_keeps_the_heads_anatomy():
    near = phantom.simulate_pairs(2, 3, heads=1, slices=(19, 21))[2]
    far = phantom.simulate_pairs(2, 3, heads=1, slices=(0, 40))[2]
    assert np.mean(near[0] != near[1]) < 0.5 * np.mean(far[0] != far[1])


def test_zero_slices_or_heads_are_refused():
    with pytest.raises(InputError, match="at least 1, found count 0"):
        phantom.simulate_pairs(0, 0)
    with pytest.raises(InputError, match="heads 0"):
        phantom.simulate_pairs(1, 0, heads=0)


def test_the_data_set_has_the_published_layout_and_the_truth_aside(tmp_path):
    folder = phantom.write_dataset(tmp_path / "data", seed=1, x_count=6, y_count=4)
    names = {f.relative_to(folder).as_posix() for f in folder.rglob("*.png")}
    expected = {f"Tr2/TrainT2/Image #{k}.png" for k in range(70, 74)}
    for part in ("Tr1/TrainT1", "Truth/T2", "Truth/labels"):
        expected |= {f"{part}/Image #{k}.png" for k in range(10, 16)}
    assert names == expected
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

    t1w, truth, labels = (
        np.stack([iio.imread(folder / part / f"Image #{k}.png") for k in range(10, 16)])
        for part in ("Tr1/TrainT1", "Truth/T2", "Truth/labels")
    )
    t2w = np.stack([iio.imread(folder / f"Tr2/TrainT2/Image #{k}.png") for k in range(70, 74)])
    assert {a.dtype for a in (t1w, truth, t2w, labels)} == {np.dtype(np.uint8)}
    # The truth shows the T1w slice's anatomy; no T2w slice of the training set does.
    assert t1w[labels == WHITE].mean() > t1w[labels == GREY].mean() > t1w[labels == CSF].mean()
    assert truth[labels == CSF].mean() > 200 > truth[labels == WHITE].mean()
    distances = [np.abs(t2.astype(float) - one).mean() for t2 in t2w for one in truth]
    assert min(distances) > 10


def test_the_data_set_is_the_same_bytes_each_time_and_never_overwritten(tmp_path):
    first = phantom.write_dataset(tmp_path / "one", seed=2, x_count=2, y_count=1)
    second = phantom.write_dataset(tmp_path / "two", seed=2, x_count=2, y_count=1)
    for path in first.rglob("*.png"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    with pytest.raises(InputError, match="exists already"):
        phantom.write_dataset(first, seed=3)


def test_a_data_set_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    write, calls = phantom.write_image, []

    def full_disk(path, image):
        calls.append(path)
        if len(calls) > 2:
            raise OSError("no space left on device")
        write(path, image)

    monkeypatch.setattr(phantom, "write_image", full_disk)
    with pytest.raises(InputError, match="data cannot be written .*no space"):
        phantom.write_dataset(tmp_path / "data", seed=0, x_count=2, y_count=1)
    assert list(tmp_path.iterdir()) == []


def test_the_rim_resembles_the_published_slices(real_data):
    t1w, t2w = (
        np.stack([iio.imread(real_data / part / f"Image #{k}.png") for k in numbers]).astype(float)
        for part, numbers in (("Tr1/TrainT1", (12, 24, 36)), ("Tr2/TrainT2", (72, 84, 96)))
    )
    simulated = phantom.simulate_pairs(12, 0, heads=6, slices=(0, 35))
    real_t1, real_t2 = rim_profile(t1w, t2w)
    t1, t2 = rim_profile(*map(grey_values, simulated[:2]))
    assert np.abs(t1 - real_t1).mean() < 25
    assert np.abs(t2 - real_t2).mean() < 30
