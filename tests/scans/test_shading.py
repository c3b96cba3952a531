"""Shading by a coil: found as by SimpleITK's N4, taken out, and nothing else with it."""

from functools import cache

import nibabel
import numpy as np
import pytest
import SimpleITK

from cyclegan_tf.scans.arrays import li_threshold
from cyclegan_tf.scans.scan import read_scans, scan_of
from cyclegan_tf.scans.shading import find_shading
from cyclegan_tf.simulation.average import Head

AXES = [(0, 1, 2), (2, 1, 0), (1, 2, 0)]


@cache
def head() -> np.ndarray:
    """A whole head in T1w, (48, 72, 60), voxels of 3 mm, air 0, tissue up to about 1000."""
    one = Head(np.random.default_rng(5), 1.0)
    signal = {"white": 900, "grey": 600, "csf": 200, "fat": 1100, "muscle": 500, "skin": 500}
    slices = []
    for height in np.linspace(-50, 85, 48):
        parts = one.fractions(height, True)
        slices.append(sum(signal.get(name, 0) * part for name, part in parts.items())[::3, ::3])
    stack = np.stack(slices).astype(np.float32)[:, :72, :60]
    stack *= 1 + 0.02 * np.random.default_rng(6).standard_normal(stack.shape, dtype=np.float32)
    stack[stack < 60] = 0
    stack.flags.writeable = False
    return stack


def coil(shape: tuple[int, ...], strength: float) -> np.ndarray:
    """Brighter towards one corner, smoothly: from 1 to `strength`."""
    places = np.meshgrid(*(np.linspace(0, 1, side) for side in shape), indexing="ij")
    away = np.sqrt(sum(place**2 for place in places) / 3)
    return strength ** (1 - away).astype(np.float32)


def evenness(gain: np.ndarray, field: np.ndarray) -> float:
    """Deviation of the logarithm of what is left of a field in the head."""
    return np.std(np.log(gain * field)[head() > 300])


def test_the_field_is_that_of_simpleitk():
    shaded = (head() * coil(head().shape, 3))[::2, ::3, ::2]  # few enough to be looked at all
    bright = shaded > li_threshold(shaded, 1)
    box = tuple(slice(side.min(), side.max() + 1) for side in np.nonzero(bright))
    shaded, bright = shaded[box], bright[box]
    n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50, 50, 50])
    image = SimpleITK.GetImageFromArray(shaded)
    n4.Execute(image, SimpleITK.GetImageFromArray(bright.astype(np.uint8)))
    expected = SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))[bright]
    gain = find_shading(shaded, 0.0, "t1").gain
    found = -np.log(gain[bright])
    assert expected.std() > 0.08
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=0.01)


@pytest.mark.parametrize(("strength", "doubts"), [(1.5, 0), (2, 0), (4, 1)])
def test_shading_is_taken_out_and_what_is_strong_is_doubted(strength, doubts):
    field = coil(head().shape, strength)
    shading = find_shading(head() * field, 0.0, "t1")
    assert evenness(shading.gain, field) < 0.25 * evenness(1, field)
    assert len(shading.warnings) == doubts


def test_a_head_without_shading_stays_as_it_is():
    gain = find_shading(head(), 0.0, "t1").gain
    assert evenness(gain, 1) < 0.02


@pytest.mark.parametrize("value", [0, -300])
def test_gain_offset_and_padding_change_nothing(value):
    shaded = head() * coil(head().shape, 2)
    gain = find_shading(shaded, 0.0, "t1").gain
    for factor in (0.001, 7):
        other = find_shading(factor * shaded + value, value, "t1").gain
        np.testing.assert_allclose(other, gain, rtol=2e-3)
    padded = np.pad(shaded + value, 9, constant_values=value)
    padded = find_shading(padded, value, "t1").gain
    np.testing.assert_allclose(padded[9:-9, 9:-9, 9:-9], gain, rtol=2e-3)


def test_axes_in_any_order_and_direction_have_one_field():
    shaded = head() * coil(head().shape, 2)
    gain = find_shading(shaded, 0.0, "t1").gain
    for axes in AXES:
        turned = find_shading(shaded.transpose(axes)[::-1], 0.0, "t1").gain
        turned = turned[::-1].transpose(np.argsort(axes))
        assert evenness(turned, 1 / gain) < 0.01


@pytest.mark.parametrize("darker", [0.8, 0.6])
def test_a_lesion_of_four_centimetres_keeps_its_contrast(darker):
    """0.8 and 0.6 times as bright as what was there, in the middle of the head."""
    away = 3 * np.linalg.norm(np.indices(head().shape).T - np.array([26, 36, 30]), axis=-1).T  # mm
    field = coil(head().shape, 2)
    whole = find_shading(head() * field, 0.0, "t1").gain
    ill = find_shading(head() * field * np.where(away < 20, darker, 1), 0.0, "t1").gain
    change, around = np.log(ill / whole), (away > 22) & (away < 32) & (head() > 300)
    assert abs(change[away < 20].mean() - change[around].mean()) < 0.1 * -np.log(darker)


def test_specks_have_no_shading():
    specks = np.zeros((60, 100, 100), np.float32)
    specks[[3, 50], [7, 90], [12, 81]] = 1, 2  # the corners of a box that no step hits
    specks[20, 41, 30] = 3
    assert (find_shading(np.flip(specks, 0), 0.0, "t1").gain == 1).all()


def test_air_stays_what_it_is():
    shaded = head() * coil(head().shape, 3) - 50
    even = find_shading(shaded, -50.0, "t1").taken_from(shaded)
    assert even.dtype == np.float32 and (even[head() == 0] == -50).all()


def test_strong_shading_of_an_array_is_said():
    (doubt,) = scan_of(head() * coil(head().shape, 4), "t1").warnings
    assert "times as bright as others" in doubt
    assert not scan_of(head(), "t1").warnings


@pytest.mark.parametrize("contrast", ["t1", "flair"])
def test_a_volume_is_evened_out_before_its_planes_are_cut(contrast, tmp_path):
    planes = ("axial", "coronal", "sagittal")
    scans = {}
    for name, field in (("even", 1), ("shaded", coil(head().shape, 3))):
        # (S, H, W) -> (W, H, S), from left, from behind and from below
        voxels = (head() * field)[:, ::-1].T
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([3, 3, 3, 1])), tmp_path / f"{name}.nii")
        scans[name] = [*read_scans([tmp_path / f"{name}.nii"], contrast, planes=planes)]
    for even, shaded in zip(scans["even"], scans["shaded"], strict=True):
        inside = even.slices > -0.4
        assert np.abs(even.slices - shaded.slices)[inside].mean() < 0.02, even.grid.plane


@pytest.mark.parametrize(
    ("slices", "contrast", "part"),
    [(30, "ct", "head"), (30, "t1", "other"), (30, "t2", "spine"), (8, "t1", "head")],
)
def test_what_no_coil_shades_and_what_shows_too_little_stays(slices, contrast, part):
    stack = head()[12 : 12 + slices] * coil((slices, 72, 60), 2)
    scan = scan_of(stack, contrast, part)
    shown = (scan.slices > -1) & (scan.slices < 1)
    ratio = (scan.slices[shown] + 1) / stack[shown]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
