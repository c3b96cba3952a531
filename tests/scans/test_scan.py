"""Scans: one record whatever file the slices come from, and back to where they lay."""

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from test_intensity import head as simulated
from test_intensity import labels
from test_volumes import OBLIQUE, changed, dicom, save, series_of

from cyclegan_tf import InputError
from cyclegan_tf.presets import PLANES
from cyclegan_tf.scans.geometry import to_slices
from cyclegan_tf.scans.intensity import normalise
from cyclegan_tf.scans.scan import Scan, choose_planes, in_plane, read_scans, write_scan
from cyclegan_tf.simulation.phantom import Variation, simulate_pairs

SIZES = (1.0, 1.0, 1.5)


@pytest.fixture(scope="module")
def head():
    """A bright rim around uneven tissue in the air, (48, 60, 20), 0 to 1000."""
    places = np.meshgrid(*(np.linspace(-1.2, 1.25, side) for side in (48, 60, 20)), indexing="ij")
    radius = np.linalg.norm(places, axis=0)
    tissue = 500 + 200 * np.sin(5 * places[0]) * np.cos(4 * places[1]) + 250 * (radius > 0.85)
    return np.rint(tissue * (radius < 1)).astype(np.float32)


def volume(data, sizes=SIZES):
    return nibabel.Nifti1Image(data, OBLIQUE @ np.diag([*sizes, 1]))


def images(folder, stack, kind=np.uint16):
    folder.mkdir()
    for number, image in enumerate(stack):
        tifffile.imwrite(folder / f"{number}.tif", image.astype(kind))
    return sorted(folder.iterdir(), key=lambda path: int(path.stem))


def only(scans) -> Scan:
    (scan,) = scans
    return scan


@pytest.mark.parametrize(("size", "doubts"), [(0.95, 1), (1.9, 0), (3.8, 1)])
def test_a_head_too_large_or_too_small_to_be_one_is_doubted(head, size, doubts, tmp_path):
    head = head.repeat(2, 0).repeat(2, 1).repeat(3, 2)
    nibabel.save(volume(head, (size, size, size)), tmp_path / "head.nii")
    for scan in read_scans([tmp_path / "head.nii"], "t1", planes=("", *PLANES)):
        assert sum("mm long" in warning for warning in scan.warnings) == doubts


def test_a_few_slices_near_the_crown_are_not_doubted(head, tmp_path):
    nibabel.save(volume(head[:, :, 12:14], (1.9, 1.9, 6)), tmp_path / "head.nii")
    for scan in read_scans([tmp_path / "head.nii"], "t1", planes=("", "axial", "coronal")):
        assert not any("mm long" in warning for warning in scan.warnings)


def test_a_head_is_the_same_scan_as_nifti_as_dicom_and_as_16_bit_images(head, tmp_path):
    nibabel.save(volume(head), tmp_path / "head.nii.gz")
    series = save(series_of(volume(head)), tmp_path / "series")
    slices = images(tmp_path / "images", to_slices(volume(head)))
    first, *others = (
        only(read_scans(paths, "t1")) for paths in ([tmp_path / "head.nii.gz"], [series], slices)
    )
    assert first.slices.dtype == np.float32 and first.slices.shape == (20, 60, 48)
    assert first.slices.min() == -1 and first.slices.max() <= 1
    for other in others:
        np.testing.assert_allclose(other.slices, first.slices, atol=0.002)
        np.testing.assert_array_equal(other.head, first.head)
        assert other.box == first.box
    assert others[0].grid and not others[1].grid and others[1].sources == tuple(slices)


def test_an_8_bit_image_is_the_same_scan_whatever_lies_beside_it(head, tmp_path):
    stack = to_slices(volume(head))[8:12]
    (tmp_path / "alone").mkdir()
    grey = Image.fromarray(np.rint(stack[0] / 4).astype(np.uint8))
    grey.save(tmp_path / "alone" / "a.png")
    beside = images(tmp_path / "beside", stack[1:])
    alone = only(read_scans([tmp_path / "alone" / "a.png"], "t1"))
    first, others = read_scans([beside[0], tmp_path / "alone" / "a.png", *beside[1:]], "t1")
    np.testing.assert_array_equal(first.slices, alone.slices)
    np.testing.assert_array_equal(first.slices[0], np.asarray(grey, np.float32) / 127.5 - 1)
    assert len(others.slices) == 3 and first.bits == np.uint8 and others.bits == np.uint16


@pytest.mark.parametrize(("gain", "doubts"), [(1, 0), (0.5, 0), (0.2, 1), (0.02, 0)])
def test_an_8_bit_image_that_uses_little_of_its_range_is_doubted(head, gain, doubts, tmp_path):
    (path,) = images(tmp_path / "in", gain / 4 * to_slices(volume(head))[10:11], np.uint8)
    warnings = only(read_scans([path], "t1")).warnings
    assert len(warnings) == doubts and all("brightest grey is 4" in text for text in warnings)


def test_images_of_several_sizes_share_one_scale(tmp_path):
    stack = simulated("t2", "noisy")
    expected = normalise(stack, "t2")
    sizes = [(217, 181), (200, 181), (217, 170), (217, 181), (190, 160), (217, 181)]
    paths = images(tmp_path / "t2", (x[:h, :w] for x, (h, w) in zip(stack, sizes, strict=True)))
    scans = [*read_scans(paths, "t2")]
    assert [len(scan.slices) for scan in scans] == [3, 1, 1, 1]
    for scan in scans:
        for image, path in zip(scan.slices, scan.sources, strict=True):
            h, w = sizes[paths.index(path)]
            assert image.shape == (h, w)
            np.testing.assert_allclose(image, expected[paths.index(path)][:h, :w], atol=0.02)


def test_images_of_floating_point_have_a_scale_of_their_own(head, tmp_path):
    stack = to_slices(volume(head))[8:14]
    beside = images(tmp_path / "whole", stack[:3])
    for number, image in enumerate(stack[3:]):
        path = tmp_path / f"{number}.tif"
        Image.fromarray(image / np.float32(1000)).save(path)
        beside.insert(0, path)
    floats, whole = read_scans(beside, "t1")
    for scan, slices in ((floats, stack[:2:-1]), (whole, stack[:3])):
        expected = normalise(slices, "t1")
        np.testing.assert_allclose(scan.slices, expected, atol=0.003)


@pytest.mark.parametrize(
    ("shape", "sizes", "plane"),
    [
        ((181, 217, 181), (1, 1, 1), "axial"),
        ((176, 256, 256), (1, 1, 1), "axial"),
        ((160, 256, 256), (1.2, 0.94, 0.94), "axial"),
        ((256, 256, 24), (0.9, 0.9, 5), "axial"),
        ((256, 24, 256), (0.9, 5, 0.9), "coronal"),
        ((24, 256, 256), (6, 0.9, 0.9), "sagittal"),
        ((88, 256, 256), (2, 1, 1), "sagittal"),
        ((512, 30, 512), (0.4, 2, 0.4), "coronal"),
        ((1, 109, 91), (1, 1, 1), "sagittal"),
        ((91, 1, 109), (1, 1, 1), "coronal"),
        ((91, 109, 1), (1, 1, 1), "axial"),
        ((91, 109, 3), (1, 1, 1), "axial"),
    ],
)
@pytest.mark.parametrize("turn", [None, (2, 0, 1), (1, 2, 0)])
def test_the_plane_is_the_one_that_was_scanned_whatever_the_order_of_the_axes(
    shape, sizes, plane, turn
):
    straight = nibabel.Nifti1Image(
        np.broadcast_to(np.float32(0), shape), np.diag([*map(float, sizes), 1])
    )
    if turn:
        straight = straight.as_reoriented(np.array([[axis, 1] for axis in turn], float))
    assert choose_planes(straight, [""]) == [plane]
    thin = min(np.array(shape) * np.minimum(sizes, 1)) < 40
    others = [] if thin else [other for other in PLANES if other != plane]
    assert choose_planes(straight, ["", *PLANES]) == [plane, *others]
    assert choose_planes(straight, PLANES) == [*PLANES]


@pytest.mark.parametrize("value", [0, -1000, np.nan])
def test_padding_has_no_part_in_the_choice_of_planes(head, tmp_path, value):
    for name, pad in (("head", 0), ("padded", 15)):
        padded = np.pad(head, [(0, 0), (0, 0), (pad, pad)], constant_values=value)
        nibabel.save(volume(padded), tmp_path / f"{name}.nii.gz")
    (scan,) = read_scans([tmp_path / "head.nii.gz"], "t1", planes=("", *PLANES))
    (same,) = read_scans([tmp_path / "padded.nii.gz"], "t1", planes=("", *PLANES))
    np.testing.assert_array_equal(same.slices[15:-15], scan.slices)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_in_any_plane_is_a_scan_that_shows_it(head, tmp_path, axis):
    single = np.take(head, [head.shape[axis] // 2], axis=axis)
    nibabel.save(volume(single, (1, 1, 1)), tmp_path / "slice.nii.gz")
    scan = only(read_scans([tmp_path / "slice.nii.gz"], "t1"))
    assert len(scan.slices) == 1 and scan.head.mean() > 0.3 and np.ptp(scan.slices) > 1


def test_what_is_written_lies_where_its_source_lay_from_every_plane(head, tmp_path):
    nibabel.save(volume(head), tmp_path / "head.nii.gz")
    scans = list(
        read_scans([tmp_path / "head.nii.gz"], "t1", planes=["axial", "coronal", "sagittal"])
    )
    assert [scan.grid.plane for scan in scans] == ["axial", "coronal", "sagittal"]
    for scan in scans:
        assert scan.grid.planes == ("axial", "coronal", "sagittal")
        write_scan(scan, [target := tmp_path / "new" / f"{scan.grid.plane}.nii.gz"], "a scan")
        made = nibabel.load(target)
        np.testing.assert_array_equal(made.affine, nibabel.load(tmp_path / "head.nii.gz").affine)
        inside = np.abs(np.asanyarray(made.dataobj) - made.dataobj[0, 0, 0])[head > 300]
        assert np.corrcoef(inside, head[head > 300])[0, 1] > 0.98


@pytest.mark.parametrize("sizes", [(1, 1, 1), (0.8, 1, 2.5)])
def test_slices_of_one_plane_are_those_of_another_once_turned(head, tmp_path, sizes):
    affine = np.diag([-sizes[0], sizes[1], sizes[2], 1.0])
    nibabel.save(nibabel.Nifti1Image(head, affine), tmp_path / "head.nii.gz")
    axial, *others = read_scans([tmp_path / "head.nii.gz"], "t1", planes=["axial", "coronal"])
    assert axial.grid.apart == sizes[2] and others[0].grid.apart == sizes[1]
    for scan in (axial, *others):
        turned = in_plane(axial.grid, scan.grid, scan.slices)
        assert turned.shape == axial.slices.shape
        assert np.corrcoef(turned[axial.head], axial.slices[axial.head])[0, 1] > 0.99


def test_a_volume_has_one_grey_scale_in_all_planes_whatever_its_neck_is_like(head, tmp_path):
    neck = head.repeat(2, axis=2) * np.where(np.arange(40) < 6, 3, 1)
    nibabel.save(scan := nibabel.Nifti1Image(neck, np.eye(4)), tmp_path / "head.nii.gz")
    axial, *others = read_scans([tmp_path / "head.nii.gz"], "t1", planes=PLANES)
    for other in others:
        turned = in_plane(axial.grid, other.grid, other.slices)
        np.testing.assert_allclose(turned, axial.slices, atol=1e-6)
    alone = only(read_scans([tmp_path / "head.nii.gz"], "t1", planes=["axial"]))
    np.testing.assert_array_equal(alone.slices, axial.slices)
    assert np.abs(normalise(to_slices(scan), "t1") - axial.slices).max() > 0.1


def test_nan_around_a_head_is_outside_of_it_and_changes_nothing_inside(head, tmp_path):
    rim = np.full(head.shape, np.nan, np.float32)
    rim[2:-2, 2:-2] = head[2:-2, 2:-2]
    stripped = np.where(head > 0, head, np.nan)
    for name, data in (("whole", head), ("rim", rim), ("stripped", stripped)):
        nibabel.save(volume(data), tmp_path / f"{name}.nii.gz")
    paths = [tmp_path / f"{name}.nii.gz" for name in ("whole", "rim", "stripped")]
    whole, rim, stripped = read_scans(paths, "t1")
    np.testing.assert_allclose(rim.slices, whole.slices, atol=0.005)
    bright = to_slices(volume(head)) > 300
    assert np.corrcoef(stripped.slices[bright], whole.slices[bright])[0, 1] > 0.99
    for scan in (rim, stripped):
        assert np.isfinite(scan.slices).all() and scan.slices[~scan.head].max() < -0.8


def test_images_that_are_all_the_same_are_named(tmp_path):
    paths = images(tmp_path / "in", np.full((3, 40, 40), 700))
    with pytest.raises(InputError, match=r"0\.tif shows no head, nothing stands out"):
        list(read_scans(paths, "t1"))


def test_what_the_reader_doubts_is_a_warning_of_the_scan(head, tmp_path):
    nibabel.save(nibabel.AnalyzeImage(head.astype(np.int16), np.eye(4)), tmp_path / "head.img")
    scan = only(read_scans([tmp_path / "head.img"], "t1"))
    assert "does not say where left is" in scan.warnings[0]


@pytest.mark.parametrize(
    ("said", "contrast", "doubt"),
    [
        ({"SeriesDescription": "t2_tse_tra"}, "t1", "'t2_tse_tra' says T2w: is this T1w?"),
        ({"SeriesDescription": "t2_tse_tra"}, "t2", ""),
        ({"SeriesDescription": "AX T1 POST"}, "t1", "says T1w after contrast agent: is this T1w?"),
        ({"SeriesDescription": "3D BRAIN", "ContrastBolusAgent": ""}, "t1", ""),
        ({"ContrastBolusAgent": "Gadovist"}, "t1", "'Gadovist' says T1w after contrast agent"),
        ({"ContrastBolusAgent": "Gadovist"}, "t1gd", ""),
        ({"ContrastBolusAgent": "Gadovist"}, "t2", "says T1w: is this T2w?"),
        ({"ContrastBolusAgent": "NONE"}, "t1", ""),
        ({"ContrastBolusAgentSequence": [dicom(CodeMeaning="Gadolinium")]}, "t1", "'Gadolinium'"),
    ],
)
def test_a_dicom_series_that_says_it_is_of_another_contrast_is_doubted(
    head, said, contrast, doubt, tmp_path
):
    folder = save(changed(list(series_of(volume(head))), **said), tmp_path / "series")
    warnings = [w for w in only(read_scans([folder], contrast)).warnings if " says " in w]
    assert doubt in "".join(warnings) and len(warnings) == bool(doubt)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_an_image_of_labels_is_refused_as_such(head, tmp_path, mode):
    regions = labels(0)[30].astype(np.uint16)
    image = Image.fromarray(regions if mode == "I;16" else (regions % 256).astype(np.uint8))
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(tmp_path / "labels.png")
    with pytest.raises(InputError, match="labels.png holds few values.* a mask or a label map"):
        only(read_scans([tmp_path / "labels.png"], "t1"))
    few = to_slices(volume(head))[10] / 1000 * 15  # a scan of sixteen grey values is one
    Image.fromarray((16 * np.rint(few)).astype(np.uint8)).save(tmp_path / "scan.png")
    assert only(read_scans([tmp_path / "scan.png"], "t1")).head.any()


def test_a_head_of_2_mm_in_air_of_noise_is_that_head_in_black(tmp_path):
    t1, _, _ = simulate_pairs(50, seed=3, heads=1, variation=Variation(stripped=1.0))
    stack = 500 * (t1[:, ::2, ::2, 0] + 1)
    inside = ndimage.binary_fill_holes(stack > 0, np.ones((1, 3, 3)))
    rng = np.random.default_rng(0)
    stack[inside] += rng.normal(0, 8, inside.sum())
    noise = rng.uniform(0, stack.max(), stack.shape)
    scans = []
    for name, values in (("clean", inside * stack), ("noise", np.where(inside, stack, noise))):
        # (S, H, W), nose up -> voxels of 2 mm rightwards, forwards, upwards
        voxels = values[:, ::-1].transpose(2, 1, 0).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2, 2, 2, 1])), tmp_path / f"{name}.nii")
        scans.append(only(read_scans([tmp_path / f"{name}.nii"], "t1", planes=["axial"])))
    clean, noisy = scans
    distance = np.stack([ndimage.distance_transform_edt(x == -1) for x in clean.slices])
    depth = np.stack([ndimage.distance_transform_edt(x > -1) for x in clean.slices])
    assert (noisy.slices[distance > 12] == -1).mean() > 0.99
    assert np.abs(noisy.slices - clean.slices)[depth > 6].mean() < 0.05
    assert "noise over the full range" in noisy.warnings[-1]
