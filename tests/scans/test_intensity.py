"""One scale that depends on nothing but the head, whatever lies around it."""

from functools import cache

import nibabel
import numpy as np
import pytest
from conftest import REPOSITORY
from scipy import ndimage, spatial
from scipy.stats import linregress

from cyclegan_tf import InputError
from cyclegan_tf.scans.geometry import to_slices
from cyclegan_tf.scans.intensity import (
    AIR,
    fill_outside,
    find_head,
    head_box,
    is_label_map,
    normalise,
)
from cyclegan_tf.simulation.phantom import Variation, simulate_pairs

CONTRASTS = ["t1", "t2"]
SEEDS = range(3)
KINDS = ["clean", "noisy", "many coils", "stripped", "ringing"]


@cache
def simulated(seed: int, stripped: bool) -> dict[str, np.ndarray]:
    variation = Variation(stripped=float(stripped))
    t1, t2, _ = simulate_pairs(6, seed=20 + seed, heads=1, variation=variation)
    return {"t1": 500 * (t1[..., 0] + 1), "t2": 500 * (t2[..., 0] + 1)}


@cache
def head(contrast: str, kind: str, seed: int = 0) -> np.ndarray:
    """Slices (6, 217, 181) as a scanner gives them: air 0 or noise, tissue up to about 1000.

    Nobody may write into them: they are made once.
    """
    stack = simulated(seed, kind == "stripped")[contrast]
    rng = np.random.default_rng(seed)
    if kind in ("noisy", "many coils"):  # Rician; sum of squares of eight coils, far above 0
        channels = 2 if kind == "noisy" else 16
        noise = rng.normal(0, 15, (channels, *stack.shape))
        noise[0] += stack
        stack = np.sqrt((noise**2).sum(axis=0))
    if kind == "ringing":
        stack = np.where(stack > 0, stack + rng.normal(0, 8, stack.shape), 0)
    stack = stack.astype(np.float32)
    stack.flags.writeable = False
    return stack


def with_doubts(stack, contrast) -> tuple[np.ndarray, list[str]]:
    return normalise(stack, contrast), fill_outside(np.float32(stack), contrast).warnings


def within(stack: np.ndarray, pad: int, value: float) -> np.ndarray:
    return np.pad(stack, ((0, 0), (pad, pad), (pad, pad)), constant_values=value)


def inner(padded: np.ndarray, pad: int) -> np.ndarray:
    return padded[:, pad : padded.shape[1] - pad, pad : padded.shape[2] - pad]


# Nothing but the head


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_any_width_with_black_changes_not_one_bit(contrast, kind):
    stack = head(contrast, kind)
    expected = normalise(stack, contrast)
    for pad in (1, 10, 30, 60):
        padded = normalise(within(stack, pad, 0), contrast)
        np.testing.assert_array_equal(inner(padded, pad), expected)
        padded[:, pad:-pad, pad:-pad] = -1
        assert (padded == -1).all()


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [-1000, -32768, -(2**31), 1e4, 1e20, "maximum"])
def test_padding_that_is_no_black_becomes_black_changes_nothing_and_is_warned_of(
    contrast, kind, value
):
    stack = head(contrast, kind)
    value = stack.max() if value == "maximum" else value
    padded, warnings = with_doubts(within(stack, 20, value), contrast)
    np.testing.assert_array_equal(inner(padded, 20), normalise(stack, contrast))
    padded[:, 20:-20, 20:-20] = -1
    assert (padded == -1).all()
    (warning,) = warnings
    assert f"background is {value:.4g}, " in warning and warning.endswith("painted black.")


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_to_the_head_changes_no_more_than_a_thousandth(contrast, kind):
    stack = head(contrast, kind)
    expected = normalise(stack, contrast)
    wide = np.pad(stack, ((0, 0), (20, 20), (20, 20)), mode="reflect")  # air goes on as it is
    box = (slice(None), *head_box(find_head(expected)))
    for cut, whole in ((stack[box], expected[box]), (wide[:, 20:-20, 20:-20], expected)):
        np.testing.assert_allclose(normalise(cut, contrast), whole, atol=2e-3)


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", KINDS)
def test_gain_and_offset_change_nothing(contrast, kind):
    stack = head(contrast, kind)
    expected, none = with_doubts(stack, contrast)
    for gain, offset in ((0.5, 0), (2, 0), (1e-3, 0), (1, -300), (3, 40), (1e-3, -1)):
        result, warnings = with_doubts(gain * stack + offset, contrast)
        np.testing.assert_allclose(result, expected, atol=2e-3)
        assert warnings == none == []


@pytest.mark.parametrize("seed", SEEDS)
def test_padding_crop_gain_and_slices_added_at_random_change_nothing(seed):
    rng = np.random.default_rng(seed)
    contrast, kind = rng.choice(CONTRASTS), rng.choice(KINDS)
    stack = head(contrast, kind, seed)
    expected = normalise(stack, contrast)
    for _ in range(5):
        pads = [tuple(rng.integers(0, 40, 2)) for _ in range(3)]
        gain = rng.uniform(0.5, 2)
        result = normalise(np.pad(gain * stack, pads), contrast)
        cut = tuple(slice(a, a + n) for (a, _), n in zip(pads, stack.shape, strict=True))
        np.testing.assert_allclose(result[cut], expected, atol=1e-4)


# A background that is no black


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("mean", "place"), [(0, "amid"), (3.5, "far below"), (8, "far below")])
def test_a_z_scored_brain_on_a_background_of_0_comes_out_as_the_brain_on_black(
    contrast, seed, mean, place
):
    stack = head(contrast, "stripped", seed)
    brain = stack > 0
    z = np.where(brain, (stack - stack[brain].mean()) / stack[brain].std() + mean, 0)
    result, warnings = with_doubts(z, contrast)
    difference = np.abs(result - normalise(stack, contrast))
    assert (result[~brain] == -1).all()
    assert difference[brain].mean() < 0.03 and difference.max() < 0.15
    assert f"background is 0, {place} the grey values" in warnings[0]


def test_of_several_backgrounds_that_are_no_black_one_is_warned_of():
    stack = head("t1", "stripped")
    brain = stack > 0
    z = np.where(brain, (stack - stack[brain].mean()) / stack[brain].std(), 0)
    result, warnings = with_doubts(within(z, 20, -1000), "t1")
    assert (inner(result, 20)[~brain] == -1).all()
    (warning,) = warnings
    assert "background is -1000, " in warning


def test_of_a_pdw_brain_0_is_black_though_nothing_in_it_is_dark():
    stack = head("t1", "stripped")
    result, warnings = with_doubts(np.where(stack > 0, 300 + 0.7 * stack, 0), "pd")
    assert not warnings and (result[stack > 0] > -0.5).all()


@pytest.mark.parametrize("value", [-9999, -2000, 65535])
def test_single_points_of_a_padding_no_head_can_have_are_padding_too(value):
    stack = head("t1", "stripped")
    holes = np.random.default_rng(1).random(stack.shape) < 2e-3
    result, warnings = with_doubts(within(np.where(holes, value, stack), 20, value), "t1")
    made, expected = inner(result, 20), normalise(stack, "t1")
    assert (made[holes] == -1).all() and np.abs(made - expected)[~holes].mean() < 5e-3
    assert "it is painted black" in warnings[0]


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_ringing_below_0_leaves_the_background_black(contrast):
    stack = head(contrast, "ringing")
    assert stack.min() < -5
    result, warnings = with_doubts(stack, contrast)
    assert (result[stack <= 0] == -1).all() and not warnings
    np.testing.assert_allclose(result, normalise(np.maximum(stack, 0), contrast), atol=0.01)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_air_of_noise_over_the_full_range_is_black_and_the_brain_as_without(seed, step):
    stack, rng = head("t1", "stripped", seed)[:, ::step, ::step], np.random.default_rng(seed)
    brain = ndimage.binary_fill_holes(stack > 0, np.ones((1, 3, 3)))
    unified = np.where(brain, stack, rng.uniform(0, stack.max(), stack.shape))
    for value, pad in ((0, 0), (0, 30), (-1, 10)):
        result, warnings = with_doubts(within(unified, pad, value), "t1")
        made, expected = inner(result, pad), normalise(stack, "t1")
        far = np.stack([ndimage.distance_transform_edt(~image) > 6 for image in brain])
        deep = np.stack([ndimage.distance_transform_edt(image) > 6 for image in brain])
        assert (made[far] == -1).mean() > 0.999 and (made[brain] > -1).mean() > 0.95
        assert np.abs(made - expected)[deep].mean() < 0.05
        assert "noise over the full range" in warnings[-1]


def test_a_noisy_brain_without_dark_tissue_that_is_cut_off_is_no_air():
    rows, columns = np.indices((90, 60))
    brain = np.hypot((rows - 45) / 40, (columns - 45) / 40) < 1  # the last 25 columns are missing
    noisy = np.float32(np.random.default_rng(0).normal(800, 150, (5, 90, 60)).clip(300) * brain)
    filled = fill_outside(noisy, "t1")
    assert "is 0, far below the grey values of the head" in "".join(filled.warnings)
    np.testing.assert_array_equal(filled.voxels > filled.black, noisy > filled.black)


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", ["ringing", "stripped"])
@pytest.mark.parametrize("blur", [0, 0.5])  # 0.5: of an interpolation
@pytest.mark.parametrize("seed", SEEDS)
def test_air_of_noise_around_0_is_as_black_as_air_is_and_the_brain_as_without(
    contrast, kind, blur, seed
):
    stack, rng = head(contrast, kind, seed), np.random.default_rng(seed)
    solid = np.stack([ndimage.binary_fill_holes(image) for image in stack > 0])
    far = np.stack([ndimage.distance_transform_edt(~image) > 6 for image in solid])
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (2, *stack.shape)), (0, 0, blur, blur))
    noise *= 60 / noise.std()
    signed, expected = np.where(solid, stack, noise[0]), normalise(stack, contrast)
    rician = np.where(solid, stack, np.hypot(*noise))
    box = (slice(None), *head_box(solid))
    for cut, pad in ((..., 0), (..., 20), (box, 0)):
        padded, warnings = with_doubts(within(3 * signed[cut], pad, 0), contrast)
        made = inner(padded, pad)
        assert np.median(made[far[cut]]) < -0.99 and (pad or not warnings)
        assert made[far[cut]].mean() < normalise(rician, contrast)[far].mean()
        assert np.abs(made - expected[cut])[solid[cut]].mean() < 0.02
        padded[:, pad : pad + made.shape[1], pad : pad + made.shape[2]] = -1
        assert (padded == -1).all()


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", KINDS)
def test_0_amid_the_grey_values_of_a_head_without_air_around_is_not_black(contrast, kind):
    stack = head(contrast, kind)[:, 60:150, 60:120]
    for middle in (stack.mean(), np.median(stack), np.quantile(stack, 0.8)):
        made = normalise(stack - middle, contrast)
        np.testing.assert_allclose(made, normalise(stack, contrast), atol=2e-3)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_what_is_nan_is_black_and_has_no_part_in_the_scale(contrast):
    stack = head(contrast, "noisy")
    padded = within(stack, 15, np.nan)
    result = normalise(padded, contrast)
    np.testing.assert_array_equal(inner(result, 15), normalise(stack, contrast))
    assert (result[np.isnan(padded)] == -1).all()
    brain = head(contrast, "stripped")
    masked = normalise(np.where(brain > 0, brain, np.nan), contrast)
    assert (masked[brain == 0] == -1).all()
    assert np.abs(masked - normalise(brain, contrast)).mean() < 0.03


def labels(seed: int) -> np.ndarray:
    """Forty regions (S, H, W) whose numbers say nothing of what lies beside them."""
    rng = np.random.default_rng(seed)
    voxels = np.stack(np.indices((60, 60, 60)), axis=-1)
    regions = spatial.KDTree(rng.uniform(0, 60, (40, 3))).query(voxels)[1]
    return rng.permutation(2000)[regions].astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_are_told_from_grey_values_however_few_these_are(seed):
    assert is_label_map(labels(seed)) and is_label_map(labels(seed) > 1000)
    for contrast in CONTRASTS:
        for kind in KINDS:
            stack = head(contrast, kind, seed)
            for levels in (16, 32, 64, 256, 4096):
                assert not is_label_map(np.floor(stack / stack.max() * (levels - 0.01)))
            enlarged = stack.repeat(3, axis=0).repeat(2, axis=1).repeat(4, axis=2)
            assert not is_label_map(enlarged)
            for levels in (32, 256):
                assert not is_label_map(np.floor(stack[2:3] / stack.max() * (levels - 0.01)))
    assert is_label_map(labels(seed).repeat(3, axis=1))
    assert is_label_map(labels(seed)[::3, ::3, ::3])  # three times as coarse
    assert not is_label_map(np.full((3, 40, 40), np.nan, np.float32))
    large = np.kron(np.arange(16.0).reshape(1, 4, 4), np.ones((200, 200)))  # its middle shows four
    assert not is_label_map(large)


@pytest.mark.parametrize(
    "kind",
    [
        "organs",
        pytest.param("pairs", marks=pytest.mark.slow),
        pytest.param("singles", marks=pytest.mark.slow),
        pytest.param("anatomies", marks=pytest.mark.slow),
    ],
)
def test_no_real_scan_is_taken_for_labels(shared, kind):
    for path in [*(shared / "data/real" / kind).rglob("*.nii.gz")][:20:3]:
        voxels = nibabel.load(path).get_fdata(dtype=np.float32)
        if kind == "anatomies" or path.name == "LESION.nii.gz":
            assert is_label_map(voxels), path
            coarse = voxels[::4, ::4, ::4]  # 4 mm
            assert is_label_map(coarse) and is_label_map(np.where(coarse < 100, coarse, 0)), path
            slices = [np.take(voxels, k, axis)[None] for k in (100, 128, 150) for axis in range(3)]
            assert kind != "anatomies" or sum(map(is_label_map, slices)) >= 8, path
            continue
        levels = np.clip(voxels / np.percentile(voxels, 99.9), 0, 1)
        for known in (voxels, *(np.floor(levels * (n - 0.01)) for n in (8, 16, 256))):
            assert not is_label_map(known), path
            assert not is_label_map(known[::4, ::4, ::4]), path
            assert not is_label_map(known[None, ..., known.shape[-1] // 2]), path


@pytest.mark.parametrize("value", [0, 5, -1000, np.nan])
def test_a_scan_of_one_grey_value_is_refused(value):
    with pytest.raises(InputError, match="expected a head"):
        normalise(np.full((3, 40, 40), value, np.float32), "t1")


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("value", [np.nan, -1000, 0])
def test_a_volume_filled_before_it_is_resized_has_no_seam(value, axes):
    brain = head("t1", "stripped")
    noise = np.random.default_rng(0).normal(0, 10, brain.shape)
    brain = np.where(brain > 0, np.maximum(brain + noise, 1), 0).transpose(axes)
    z = np.where(brain > 0, (brain - 400) / 150, value).astype(np.float32)
    filled, warnings, *_ = fill_outside(z)
    assert filled.dtype == z.dtype and len(warnings) == (not np.isnan(value))
    black = filled[brain == 0]
    assert np.ptp(black) == 0 and abs(black[0] - z[brain > 0].min()) < 0.1
    np.testing.assert_array_equal(filled[brain > 0], z[brain > 0])
    again, warnings, *_ = fill_outside(filled)
    assert again is filled and not warnings


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize(
    "value", [-(2**31), -32768, -1000, -200, 300, "maximum", 4095, 65535, 1e20]
)
@pytest.mark.parametrize("where", ["beside", "around a cylinder"])
def test_padding_that_is_no_black_is_found_beside_more_of_it(where, value, axes):
    stack = np.pad(head("t1", "clean"), ((0, 0), (9, 9), (20, 0)))
    value = stack.max() if value == "maximum" else value
    rows, columns = (np.linspace(-1, 1, side) for side in stack.shape[1:])
    outside = np.hypot(*np.meshgrid(rows, columns, indexing="ij")) > 1.1
    if where == "beside":
        outside[:] = columns < -0.95
    padded = np.where(outside, value, stack).astype(np.float32)
    filled, warnings, *_ = fill_outside(padded.transpose(axes))
    np.testing.assert_array_equal(filled, np.where(outside, 0, stack).transpose(axes))
    assert len(warnings) == 1 and f"background is {value:.4g}, " in warnings[0]


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("value", [-32768, 4095, 65535])
def test_padding_far_off_is_found_where_black_was_put_around_it(value, axes):
    stack = np.pad(head("t1", "clean"), ((0, 0), (9, 9), (20, 20))).astype(np.float32)
    padded = stack.copy()
    padded[:, :, :9] = padded[:, :, -9:] = value
    padded, stack = (within(one, 6, 0).transpose(axes) for one in (padded, stack))
    filled, warnings, *_ = fill_outside(padded)
    np.testing.assert_array_equal(filled, stack)
    assert len(warnings) == 1 and f"background is {value:.4g}, " in warnings[0]


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("value", [-32768, 4095])
def test_a_strip_of_padding_is_found_in_a_volume_of_few_slices(value, axes):
    stack = np.pad(head("t1", "clean"), ((0, 0), (9, 9), (20, 20)))[2:8].astype(np.float32)
    padded = stack.copy()
    padded[..., -3:] = value
    filled, warnings, *_ = fill_outside(padded.transpose(axes))
    np.testing.assert_array_equal(filled, stack.transpose(axes))
    assert len(warnings) == 1 and f"background is {value:.4g}, " in warnings[0]


def test_padding_a_little_below_the_air_is_not_what_black_is():
    stack = head("t1", "clean")
    padded = np.pad(stack, ((0, 0), (0, 0), (20, 0)), constant_values=-40)
    np.testing.assert_array_equal(normalise(padded, "t1")[..., 20:], normalise(stack, "t1"))


# Where the head is


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_head_is_found_wherever_the_black_around_it_ends(contrast, kind):
    result = normalise(head(contrast, kind), contrast)
    mask = find_head(result)
    assert mask[result > AIR].mean() > 0.999
    for pad in (1, 5, 30):
        padded = find_head(within(result, pad, -1))
        np.testing.assert_array_equal(inner(padded, pad), mask)
    box = (slice(None), *head_box(mask))
    assert mask[box].sum() > 0.999 * mask.sum()
    np.testing.assert_array_equal(find_head(result[box]), mask[box])


def test_a_gap_in_the_scalp_lets_no_air_reach_the_brain():
    rows, columns = np.mgrid[-50:50, -50:50]
    radius = np.hypot(rows, columns)
    image = np.where((radius < 30) | ((radius > 38) & (radius < 44)), 0.2, -1)
    image[40:46, :50] = np.where(radius > 30, -1, image)[40:46, :50]  # a gap of 6 pixels
    mask = find_head(image[None])[0]
    assert mask[(radius < 38)].all() and not mask[radius > 49].any()


def test_specks_do_not_widen_the_box_of_a_head():
    mask = np.zeros((10, 100, 100), bool)
    mask[2:9, 30:70, 40:60] = True
    mask[:, 5:8, 5:8] = mask[4, 90, 20:26] = True
    assert head_box(mask) == (slice(30, 70), slice(40, 60))
    assert head_box(np.zeros((2, 9, 8), bool)) == (slice(0, 9), slice(0, 8))


# Real heads


@pytest.fixture
def shared():
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data" / "real").is_dir():
        pytest.skip("the real heads are absent (../shared/data/real)")
    return folder


REAL = {
    "pairs/openms-mni-p07/T1": 641,
    "pairs/openms-mni-p07/T2": 940,
    "pairs/openms-long-p12-s1/T1": 1098,
    "pairs/openms-long-p04-s1/T2": 998,
    "singles/chris/T1": 223,
    "singles/niimath-bitmap/T1": 446,
    "singles/niivue-gd/T1POST": 1201,
}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow if "pairs" in x else ()) for x in REAL]
)
def test_real_heads_keep_the_scale_that_models_were_trained_with(shared, name):
    volume = nibabel.load(shared / "data" / "real" / f"{name}.nii.gz")
    stack, contrast = to_slices(volume), "t2" if "T2" in name else "t1"
    images, warnings = with_doubts(stack, contrast)
    assert not warnings
    grey = (images > -0.9) & (images < 0.9)
    gain, offset, *_ = linregress(stack[grey].astype(float), images[grey].astype(float))
    assert 2 / gain == pytest.approx(REAL[name], rel=0.025)  # white, as of versions before
    assert offset == pytest.approx(-1, abs=0.002)
    mask = find_head(images)
    assert mask[images > AIR].mean() > 0.999 and mask[:, 0].mean() < 0.05


def test_the_z_scored_brain_of_a_public_report_looks_as_the_brain_itself(shared):
    folder = shared / "cases" / "02-zscored-brain-zero-background"
    brain, z = (nibabel.load(folder / f"{name}.nii.gz") for name in ("brain", "z"))
    filled, warnings, *_ = fill_outside(np.asarray(z.dataobj, np.float32))
    expected = normalise(to_slices(brain), "t1")
    made = normalise(to_slices(nibabel.Nifti1Image(filled, z.affine)), "t1")
    assert "background is 0, amid" in warnings[0]
    inside = expected > -0.7
    assert np.corrcoef(made[inside], expected[inside])[0, 1] > 0.99
    assert np.abs(made - expected)[inside].mean() < 0.08  # its darkest is at 4 mm not quite black
    assert made[find_head(expected) == 0].max() < -0.9
