import json
import re

import imageio.v3 as iio
import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.spatial import ConvexHull
from sklearn.metrics import mutual_info_score

from cyclegan_tf import metrics
from cyclegan_tf.simulation.phantom import simulate_pairs

REFERENCE_POINTS = {  # PSNR dB, SSIM, MAE of the published pairs
    "source": (10.84, -0.004, 0.196),
    "histogram_matched": (9.51, 0.019, 0.231),
    "neighbour": (23.41, 0.909, 0.033),
    "lookup_table": (25.36, 0.940, 0.028),
}


def read_folder(folder):
    numbered = {int(re.search(r"#(\d+)", path.name)[1]): path for path in folder.glob("*.png")}
    images = np.stack([iio.imread(path) for _, path in sorted(numbered.items())])
    return np.array(sorted(numbered)), (images[..., None] / 127.5 - 1).astype(np.float32)


@pytest.fixture(scope="module")
def published(real_data):
    """T1 numbers, T1 images, T2 numbers, T2 images."""
    return *read_folder(real_data / "Tr1" / "TrainT1"), *read_folder(real_data / "Tr2" / "TrainT2")


@pytest.fixture(scope="module")
def head():
    return simulate_pairs(10, seed=1, heads=1)


@pytest.fixture(scope="module")
def other_head():
    return simulate_pairs(10, seed=2, heads=1)


@pytest.fixture
def two_slices(head):
    """Two neighbouring T2w slices in [0, 1] and a mask."""
    image, truth = metrics.unit(head[1])[4:6]
    return image, truth, head[2][5] > 0


def assert_pairs(pairs, t1, t2):
    assert pairs.tolist() == [[*pair] for pair in zip(t1, t2, strict=True)]


# Pairs


def test_all_pairs_of_the_published_data_set_are_found(published):
    t1_numbers, t1, t2_numbers, t2 = published
    pairs = metrics.find_pairs(t1, t2)
    partner = t1_numbers + np.where(t1_numbers <= 40, 60, 70)
    assert_pairs(pairs, range(43), np.searchsorted(t2_numbers, partner))


def test_pairs_do_not_depend_on_the_order_of_the_images(published):
    _, t1, _, t2 = published
    order = np.random.default_rng(0).permutation(len(t2))
    plain, shuffled = metrics.find_pairs(t1[::4], t2), metrics.find_pairs(t1[::4], t2[order])
    np.testing.assert_array_equal(order[shuffled[:, 1]], plain[:, 1])
    assert len(plain) == 11


def test_the_same_head_gives_all_pairs(head):
    assert_pairs(metrics.find_pairs(head[0], head[1][::-1]), range(10), range(9, -1, -1))


def test_different_heads_give_no_pairs(head, other_head):
    assert_pairs(metrics.find_pairs(head[0], other_head[1]), [], [])
    assert_pairs(metrics.find_pairs(other_head[0], head[1]), [], [])


def test_many_heads_with_a_slice_each_give_no_pairs_with_others():
    t1, t2, _ = simulate_pairs(6, seed=3, heads=6)
    assert_pairs(metrics.find_pairs(t1, simulate_pairs(6, seed=4, heads=6)[1]), [], [])
    assert_pairs(metrics.find_pairs(t1, t2), range(6), range(6))


def test_a_simulated_head_gives_no_pairs_with_the_published_one(head, published):
    _, t1, _, t2 = published
    assert_pairs(metrics.find_pairs(t1, head[1]), [], [])
    assert_pairs(metrics.find_pairs(head[0], t2), [], [])


def test_single_images_are_judged_too(head, other_head):
    (t1, t2, _), wrong = head, other_head[1]
    assert_pairs(metrics.find_pairs(t1[3:4], t2[3:4]), [0], [0])
    assert_pairs(metrics.find_pairs(t1[3:4], t2), [0], [3])
    assert_pairs(metrics.find_pairs(t1[3:5], t2[3:5]), [0, 1], [0, 1])
    for k in range(10):
        assert_pairs(metrics.find_pairs(t1[k : k + 1], wrong[k : k + 1]), [], [])
        assert_pairs(metrics.find_pairs(t1[k : k + 1], wrong), [], [])


def test_pairs_survive_noise(head):
    rng = np.random.default_rng(0)
    t1, t2 = (x + rng.normal(0, 0.06, x.shape) for x in head[:2])
    assert_pairs(metrics.find_pairs(t1, t2), range(10), range(10))


def test_a_pair_exceeds_the_mutual_information_of_every_rival_by_a_twentieth(head):
    noise, known = np.random.default_rng(0).normal(size=(3, 217, 181, 1)), set()
    for amount in (0, 0.2, 0.4, 0.6, 1):
        images = head[0][:3] + amount * noise, head[1][:3]
        t1, t2 = ((metrics.grey_levels(x) * 48.0 // 256).astype(int) for x in images)
        expected = []
        for i in range(3):
            own = mutual_info_score(t1[i].ravel(), t2[i].ravel())
            rivals = [(t1[i], t2[k]) for k in range(3) if k != i]
            rivals += [(t1[k], t2[i]) for k in range(3) if k != i]
            moves = (2, 0), (-2, 0), (0, 2), (0, -2)
            rivals += [(t1[i], np.roll(t2[i], move, (0, 1))) for move in moves]
            best = max(mutual_info_score(x.ravel(), y.ravel()) for x, y in rivals)
            known.add(own - best > 0.05 * own)
            expected += [i] if own - best > 0.05 * own else []
        assert_pairs(metrics.find_pairs(*images), expected, expected)
    assert known == {True, False}


def test_blank_images_images_of_other_sizes_and_empty_sets_have_no_pairs(head):
    t1, t2, _ = head
    blank = np.full_like(t1[:2], -1)
    for one, other in ((blank, blank), (blank, t2), (t1, blank), (t1, t2[:, :-1]), (t1[:0], t2)):
        assert_pairs(metrics.find_pairs(one, other), [], [])


def test_sets_too_large_to_compare_are_left_alone_with_a_warning():
    many = np.zeros((501, 2, 2, 1))
    with pytest.warns(UserWarning, match="501 x 501"):
        assert_pairs(metrics.find_pairs(many, many), [], [])


# Measures, each against another implementation


@pytest.mark.parametrize("name", REFERENCE_POINTS)
def test_reference_points_of_the_published_pairs_are_reproduced(published, name):
    t1_numbers, t1, t2_numbers, t2 = published
    partner = t1_numbers + np.where(t1_numbers <= 40, 60, 70)
    pairs = np.arange(43), np.searchsorted(t2_numbers, partner)
    truth = metrics.unit(t2[pairs[1]])
    images = metrics.unit(metrics.baselines(t1, t2, pairs, t2_numbers)[name])
    found = [
        np.mean([measure(*x) for x in zip(images, truth, strict=True)])
        for measure in (metrics.psnr, metrics.ssim, metrics.mae)
    ]
    assert found[0] == pytest.approx(REFERENCE_POINTS[name][0], abs=0.005)
    assert found[1:] == pytest.approx(REFERENCE_POINTS[name][1:], abs=0.0005)


def test_psnr_and_mae_follow_their_definitions_within_a_mask(two_slices):
    image, truth, mask = two_slices
    for where in (np.ones_like(mask), mask):
        pixels = zip(image.flat, truth.flat, where.flat, strict=True)
        error = [abs(a - b) for a, b, inside in pixels if inside]
        assert metrics.mae(image, truth, where) == pytest.approx(sum(error) / len(error))
        mse = sum(e * e for e in error) / len(error)
        assert metrics.psnr(image, truth, where) == pytest.approx(-10 * np.log10(mse))
    assert metrics.psnr(image, truth) != pytest.approx(metrics.psnr(image, truth, mask), abs=0.1)


def test_ssim_follows_its_definition_within_a_mask(two_slices):
    image, truth, mask = two_slices
    a, b = (np.lib.stride_tricks.sliding_window_view(x, (7, 7)) for x in (image, truth))
    mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
    covariance = ((a * b).mean((2, 3)) - mean_a * mean_b) * 49 / 48
    variance = a.var((2, 3), ddof=1) + b.var((2, 3), ddof=1)
    luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    expected = luminance * (2 * covariance + 0.03**2) / (variance + 0.03**2)
    assert metrics.ssim(image, truth) == pytest.approx(expected.mean())
    mask[:3] = mask[-3:] = mask[:, :3] = mask[:, -3:] = False
    inner = expected[mask[3:-3, 3:-3]].mean()
    assert metrics.ssim(image, truth, mask) == pytest.approx(inner)


def test_nmi_follows_its_definition_within_a_mask(two_slices):
    image, truth, mask = two_slices
    for where in (np.ones_like(mask), mask):
        joint = np.histogram2d(image[where], truth[where], 100)[0]
        one, other, both = (stats.entropy(p.ravel()) for p in (joint.sum(0), joint.sum(1), joint))
        assert metrics.nmi(image, truth, where) == pytest.approx((one + other) / both)
    assert metrics.nmi(truth, truth) == pytest.approx(2)


def test_histogram_distance_is_the_mean_distance_of_the_sorted_grey_levels(head):
    t1, t2, _ = head
    expected = np.abs(np.sort(t1, axis=None) - np.sort(t2, axis=None)).mean() / 2
    assert metrics.histogram_distance(t1, t2) == pytest.approx(expected, abs=0.002)
    assert metrics.histogram_distance(t2[::-1], t2) == 0


def test_gradient_correlation_compares_sobel_magnitudes_within_a_mask(two_slices):
    image, truth, mask = two_slices
    one, other = (np.hypot(ndimage.sobel(x, 0), ndimage.sobel(x, 1))[mask] for x in (image, truth))
    expected = stats.pearsonr(one, other).statistic
    assert metrics.gradient_correlation(image, truth, mask) == pytest.approx(expected)
    assert metrics.gradient_correlation(1 - image, image) == pytest.approx(1)


def test_rank_correlation_is_pearsons_of_the_ranks_within_a_mask(two_slices):
    trust_map, error, mask = two_slices
    ranks = stats.rankdata(trust_map[mask]), stats.rankdata(error[mask])
    expected = np.corrcoef(*ranks)[0, 1]
    assert metrics.rank_correlation(trust_map, error, mask) == pytest.approx(expected)


def test_least_trusted_ratio_compares_the_least_trusted_tenth_with_the_rest():
    error = np.where(np.arange(100) >= 90, 6.0, 2.0)
    trust_map, mask = np.arange(100.0), np.ones(100, bool)
    assert metrics.least_trusted_ratio(trust_map, error, mask) == 3
    assert metrics.least_trusted_ratio(-trust_map, error, mask) == pytest.approx(2 / (220 / 90))
    mask[90:] = False
    assert metrics.least_trusted_ratio(trust_map, error, mask) == 1


# Masks and tissues


@pytest.mark.parametrize("noise", [0, 0.05])
def test_the_head_mask_is_the_head_in_either_contrast(head, other_head, noise):
    def area(*masks):
        return ConvexHull(np.concatenate([np.argwhere(mask) for mask in masks])).volume

    rng = np.random.default_rng(0)
    t1, t2 = (
        np.concatenate([x[::3], y[::3]]) for x, y in zip(head[:2], other_head[:2], strict=True)
    )
    for slices in zip(metrics.unit(t1), metrics.unit(t2), strict=True):
        head_itself = np.max(slices, axis=0) > 0.05
        for image in slices:
            real, imaginary = noise * rng.normal(size=(2, *image.shape))
            mask = metrics.head_mask(np.hypot(image + real, imaginary))
            assert mask.sum() > 0.92 * area(head_itself)
            assert area(head_itself, mask) < 1.01 * area(head_itself)


def test_the_brain_mask_is_conservative(head, other_head):
    many = simulate_pairs(6, seed=3, heads=6)
    for t1, _, labels in (head, other_head, many):
        for image, true in zip(metrics.unit(t1), labels > 0, strict=True):
            mask = metrics.brain_mask(image)
            assert (mask & ~true).sum() < 0.01 * mask.sum()
            assert (mask & true).sum() > 0.8 * true.sum()


def test_the_brain_mask_holds_no_scalp_and_no_bone_of_the_published_head(published):
    _, t1, _, _ = published
    areas = []
    for image in metrics.unit(t1):
        mask = metrics.brain_mask(image)
        areas.append(mask.sum())
        assert not (image[mask] > 0.8).any()
        assert (image[mask] < 0.06).mean() < 0.001
    smooth = ndimage.median_filter(np.array(areas, float), 5)
    assert np.abs(areas / smooth - 1).max() < 0.05


def test_tissues_are_those_of_the_simulation(head):
    labels = metrics.tissues(*head[:2])
    inside = labels > 0
    assert (labels == head[2])[inside].mean() > 0.93
    for tissue in (1, 2, 3):
        found, true = labels[inside] == tissue, head[2][inside] == tissue
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9


def test_the_published_slices_have_the_contrasts_of_t2_and_t1(published):
    t1_numbers, t1, t2_numbers, t2 = published
    partner = np.searchsorted(t2_numbers, t1_numbers + np.where(t1_numbers <= 40, 60, 70))
    t1, t2 = t1[::6], t2[partner][::6]
    labels = metrics.tissues(t1, t2)
    for t1_slice, t2_slice, label in zip(metrics.unit(t1), metrics.unit(t2), labels, strict=True):
        assert np.all(np.array(metrics.tissue_contrast(t2_slice, label)) > (0.3, 0.1))
        assert np.all(np.array(metrics.tissue_contrast(t1_slice, label)) < (-0.15, -0.1))


def test_tissue_contrast_is_the_difference_of_means_and_nan_without_the_tissue():
    labels = np.array([[0, 1, 1, 2, 3]])
    image = np.array([[9.0, 0.8, 1.0, 0.5, 0.2]])
    assert metrics.tissue_contrast(image, labels) == pytest.approx((0.4, 0.3))
    csf_gm, gm_wm = metrics.tissue_contrast(image, np.where(labels == 1, 0, labels))
    assert np.isnan(csf_gm) and gm_wm == pytest.approx(0.3)


def test_no_brain_gives_no_tissues():
    blank = np.full((1, 32, 32, 1), -1.0)
    assert not metrics.tissues(blank, blank).any()


# Baselines


def test_the_lookup_table_is_the_mean_truth_of_each_grey_level_interpolated_between():
    source = np.array([10, 10, 14, 200], float).reshape(1, 2, 2, 1) / 127.5 - 1
    table = metrics.lookup_table(source, np.array([-1, 0, 0.5, 1]).reshape(1, 2, 2, 1))
    assert table[[10, 12, 14, 200]] == pytest.approx([-0.5, 0, 0.5, 1])
    assert table[[0, 255]] == pytest.approx([-0.5, 1])


def test_histogram_matching_gives_an_image_the_quantiles_of_the_target_set():
    rng = np.random.default_rng(0)
    image, target = rng.uniform(-1, 1, (1, 99, 99, 1)), rng.beta(2, 5, (3, 99, 99, 1)) * 2 - 1
    matched = metrics.histogram_matched(image, target)
    quantiles = np.linspace(0.05, 0.95, 50)
    np.testing.assert_allclose(
        np.quantile(matched, quantiles), np.quantile(target, quantiles), atol=0.02
    )


def test_the_neighbour_is_the_next_slice_or_else_the_nearest():
    assert metrics.neighbours([10, 11, 12, 20, 22, 30]).tolist() == [1, 2, 1, 4, 3, 4]
    assert metrics.neighbours([12, 10, 11]).tolist() == [2, 2, 0]


def test_baselines_of_chosen_pairs_are_those_of_all_pairs(head):
    t1, t2, _ = head
    pairs = np.arange(9), np.arange(9)[::-1]
    every = metrics.baselines(t1, t2, pairs, range(10))
    chosen = metrics.baselines(t1, t2, pairs, range(10), np.array([2, 5]))
    for name, images in every.items():
        np.testing.assert_array_equal(images[[2, 5]], chosen[name])
    np.testing.assert_array_equal(every["neighbour"], t2[[9, *range(8, 0, -1)]])


# The evaluation


def test_evaluation_of_pairs_holds_every_measure_of_every_slice_and_is_json(head):
    t1, t2, labels = (x[2:5] for x in head)
    synthetic = np.clip(t2 + 0.1, -1, 1)
    trust_maps = np.abs(metrics.unit(synthetic) - metrics.unit(t2))
    found = metrics.measure(
        t1,
        synthetic,
        t2,
        target=t2,
        labels=labels,
        cycled=t1 * 0.5,
        trust_maps=trust_maps,
        names=["a", "b", "c"],
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["names"] == ["a", "b", "c"]
    one, true = metrics.unit(synthetic)[1], metrics.unit(t2)[1]
    head_of = metrics.head_mask(metrics.unit(t1)[1])
    for name, measure in metrics.FIDELITY.items():
        assert found[name]["per_slice"][1] == measure(one, true)
        assert found[f"{name}_head"]["per_slice"][1] == measure(one, true, head_of)
        assert found[f"{name}_brain"]["per_slice"][1] == measure(one, true, labels[1] > 0)
        assert found[name]["mean"] == pytest.approx(np.mean(found[name]["per_slice"]))
    assert found["cycle_error"]["mean"] == pytest.approx(np.abs(t1).mean() / 4)
    assert found["gm_wm_ratio"]["mean"] == pytest.approx(1, abs=0.01)
    assert found["order_kept"]["mean"] == 1
    assert found["trust_rank_correlation"]["mean"] == pytest.approx(1)
    assert found["histogram_distance"] == {"mean": metrics.histogram_distance(synthetic, t2)}


def test_order_is_kept_only_where_both_contrasts_have_the_sign_of_the_truth(head):
    t1, t2, labels = (x[:4] for x in head)
    for source, truth in ((t1, t2), (t2, t1)):
        right = metrics.measure(source, truth, truth, labels=labels)
        wrong = metrics.measure(source, source, truth, labels=labels)
        assert right["order_kept"]["per_slice"] == [1, 1, 1, 1]
        assert wrong["order_kept"]["per_slice"] == [0, 0, 0, 0]
        assert wrong["csf_gm_ratio"]["max"] < 0


def test_evaluation_without_truth_gives_the_unpaired_measures_alone(head):
    t1, t2, _ = head
    found = metrics.measure(t1[:2], t2[:2], target=t2, cycled=t1[:2])
    assert set(found) == {"names", "gradient_correlation", "cycle_error", "histogram_distance"}
    assert found["cycle_error"]["mean"] == 0


def test_what_cannot_be_measured_is_none_and_not_counted(head):
    t1, t2, labels = (x[:2].copy() for x in head)
    t1[1] = t2[1] = -1
    labels[1] = 0
    synthetic = t2.copy()
    synthetic[0] *= 0.9
    found = metrics.measure(t1, synthetic, t2, labels=labels)
    json.dumps(found, allow_nan=False)
    for name in ("psnr", "psnr_head", "ssim_brain", "csf_gm", "order_kept", "gradient_correlation"):
        first, second = found[name]["per_slice"]
        assert second is None and found[name]["mean"] == found[name]["min"] == first
    assert metrics.summary([np.nan, np.inf])["mean"] is None
    again = metrics.summary(found["psnr"]["per_slice"])
    assert again == found["psnr"]
