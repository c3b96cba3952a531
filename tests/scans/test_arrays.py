"""What stands in for scipy and scikit-image does what they do."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_li
from skimage.segmentation import clear_border
from skimage.transform import resize as reference_resize

from cyclegan_tf.scans.arrays import (
    _filter,
    boxcar,
    depths,
    enclosed,
    filtered,
    gaussian,
    interpolation,
    label,
    li_threshold,
    resize,
    steepness,
    zoom,
)

RNG = np.random.default_rng(0)
IN_SLICES = np.zeros((3, 3, 3))
IN_SLICES[1] = ndimage.generate_binary_structure(2, 1)
NEIGHBOURS = {
    (False, False): IN_SLICES,
    (True, False): None,
    (True, True): np.ones((3, 3, 3)),
}


def masks():
    for shape in ((3, 4, 5), (1, 1, 7), (6, 30, 31), (20, 40, 30)):
        for share in (0.0, 0.1, 0.35, 0.6, 0.9):
            yield RNG.random(shape) < share


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
def test_connected_parts_are_those_of_scipy(neighbours):
    for mask in masks():
        found = label(mask, *neighbours)
        expected, count = ndimage.label(mask, NEIGHBOURS[neighbours])
        both = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
        assert both.shape[1] == count + (not mask.all()) and not found[~mask].any()


def test_what_reaches_no_border_is_enclosed():
    for mask in masks():
        filled = np.stack([ndimage.binary_fill_holes(image) for image in mask])
        np.testing.assert_array_equal(mask | enclosed(~mask), filled)
        if min(mask.shape) > 2:
            cleared = clear_border(mask)
            np.testing.assert_array_equal(enclosed(mask, through=True, corners=True), cleared)


def test_depths_are_distances_to_the_nearest_false_of_the_slice():
    for mask in masks():
        part = mask[~mask.all(axis=(1, 2))]
        if len(part):
            expected = [ndimage.distance_transform_edt(image) for image in part]
            np.testing.assert_allclose(depths(part), expected, rtol=1e-6)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(
    "old, new", [((217, 181), (256, 256)), ((256, 256), (217, 181)), ((300, 9), (20, 3))]
)
def test_resizing_is_that_of_skimage_larger_and_smaller(old, new, order):
    images = RNG.random((2, *old)).astype(np.float32)
    expected = reference_resize(images, (2, *new), order=order, clip=False)
    np.testing.assert_allclose(resize(images, new, order), expected, atol=1e-6)


@pytest.mark.parametrize("old, new", [(256, 230), (94, 166), (128, 256)])
def test_no_weight_is_so_small_that_float32_computes_slowly_with_it(old, new):
    weights = interpolation(old, new, 3)
    small = (weights != 0) & (np.abs(weights) < np.finfo(np.float32).tiny)
    assert not small.any() and (weights == 0).mean() > 0.5
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-7)


def test_filters_are_those_of_scipy():
    images = RNG.random((4, 40, 30)).astype(np.float32)
    mean = ndimage.uniform_filter(images, (1, 17, 17), mode="mirror")
    np.testing.assert_allclose(filtered(images, boxcar(17)), mean, atol=1e-6)
    blurred = ndimage.gaussian_filter(images, (0, 0.5, 0.5), mode="mirror")
    np.testing.assert_allclose(filtered(images, gaussian(0.5)), blurred, atol=1e-6)


def test_the_threshold_is_that_of_skimage():
    values = np.r_[RNG.normal(100, 10, 5000), RNG.normal(500, 90, 4000)].astype(np.float32)
    expected = threshold_li(values.copy(), tolerance=0.5)
    assert li_threshold(values, 0.5) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_zoom_and_steepness_are_those_of_scipy(factor):
    image = RNG.random((31, 24)).astype(np.float32)
    np.testing.assert_allclose(zoom(image, factor), ndimage.zoom(image, factor, order=1), atol=1e-5)
    np.testing.assert_allclose(
        steepness(image), ndimage.gaussian_gradient_magnitude(image, 1), atol=1e-5
    )


def test_the_weights_of_a_filter_are_found_once():
    assert boxcar(17) is boxcar(17) and gaussian(0.4) is gaussian(0.4)
    assert _filter(boxcar(17), 40) is _filter(boxcar(17), 40)
