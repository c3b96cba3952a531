"""From scans of every kind to their translations, by networks of random weights and the shipped."""

import dataclasses
import gzip
import json
import ntpath
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import keras
import nibabel
import numpy as np
import onnx
import pytest
from conftest import REPOSITORY
from nibabel import orientations
from nilearn import datasets
from PIL import Image
from scipy import ndimage
from test_notebooks import papermill, run_cells
from test_volumes import ALL_48, OBLIQUE, save, series_of

import cyclegan_tf
from cyclegan_tf import InputError, __version__
from cyclegan_tf.__main__ import PROGRAM, main
from cyclegan_tf.models import build_generator
from cyclegan_tf.presets import LAPTOP
from cyclegan_tf.runs import open_run, read_run
from cyclegan_tf.scans.frame import MULTIPLE, Frame
from cyclegan_tf.scans.geometry import to_slices
from cyclegan_tf.scans.intensity import find_head, head_box, normalise
from cyclegan_tf.scans.scan import Scan, read_scans, scan_of
from cyclegan_tf.simulation import phantom
from cyclegan_tf.study import figures
from cyclegan_tf.translation import translate
from cyclegan_tf.translation.generators import load_generator, onnx_weights, predict
from cyclegan_tf.translation.guidance import FLAT, TABLE, fill_between, guide
from cyclegan_tf.translation.handover import export_onnx, save_pretrained
from cyclegan_tf.translation.loading import (
    DIRECTIONS,
    PRETRAINED,
    _run_onnx,
    load_translator,
    read_pretrained,
)
from cyclegan_tf.translation.translate import translate_scans
from cyclegan_tf.translation.translator import Translator
from cyclegan_tf.translation.trust import trust_map, views

SIDES = (64, 64)


def head(shape=(40, 50, 24)) -> np.ndarray:
    """A bright rim, dark bone, uneven tissue in the air: 0 to 1000, no axes or directions alike."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2)
    places = np.meshgrid(*(np.linspace(-1.1, 1.15, side) for side in shape), indexing="ij")
    radius = np.linalg.norm(places, axis=0)
    tissue = 500 + 300 * noise / np.abs(noise).max() + 250 * (radius > 0.85)
    tissue[(radius > 0.78) & (radius < 0.85)] *= 0.1
    return np.rint(tissue * (radius < 1)).astype(np.float32)


def scan(data=None, sizes=(1, 1, 1), **options) -> nibabel.Nifti1Image:
    data = head() if data is None else data
    return nibabel.Nifti1Image(data, OBLIQUE @ np.diag([*sizes, 1]), **options)


def voxels(path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with small networks of random weights."""
    run = open_run(tmp_path_factory.mktemp("runs") / "mine", overrides={"filters": 4, "blocks": 1})
    run.update(data={"frame": SIDES})
    for seed, direction in enumerate(DIRECTIONS):
        keras.utils.set_random_seed(seed)
        generator = build_generator("unet", 4, 1, direction)
        generator.save(run.path("models", f"{direction}.keras"))
        generator.save_weights(run.path("models", f"{direction}.weights.h5"))
    return run.folder


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Loading and compiling a network takes longer than using it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translate, "load_translator", cache(load_translator))
        yield


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "out"


def refusal(*arguments, **options) -> str:
    with pytest.raises(InputError) as error:
        translate_scans(*arguments, **options)
    sentence = str(error.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


# Volumes


@pytest.mark.slow
def test_in_each_of_the_48_orientations_a_scan_has_the_same_translation_where_it_lies(
    run, tmp_path, outputs
):
    straight = scan(sizes=(0.9, 1.2, 3))
    straight.set_qform(straight.affine, 1)
    (tmp_path / "in").mkdir()
    for number, orientation in enumerate(ALL_48):
        turned = straight.as_reoriented(orientation)
        nibabel.save(turned, tmp_path / "in" / f"{number}_T1w.nii.gz")
    jobs = translate_scans(tmp_path / "in", outputs, run)
    assert len(jobs) == 48 and jobs[0].targets == [outputs / "0_desc-synthetic_T2w.nii.gz"]
    first = nibabel.as_closest_canonical(nibabel.load(jobs[0].targets[0]))
    assert np.ptp(first.dataobj) > 100
    for job in jobs:
        source, result = nibabel.load(job.source), nibabel.load(job.targets[0])
        assert result.shape == source.shape and result.get_data_dtype() == np.int16
        np.testing.assert_array_equal(result.affine, source.affine)
        for field in ("pixdim", "qform_code", "sform_code", "quatern_b", "srow_x"):
            np.testing.assert_array_equal(result.header[field], source.header[field])
        turned = nibabel.as_closest_canonical(result)
        np.testing.assert_array_equal(turned.dataobj, first.dataobj)
        own = orientations.io_orientation(source.affine)
        np.testing.assert_array_equal(
            orientations.apply_orientation(np.asanyarray(result.dataobj), own), first.dataobj
        )


def test_what_the_network_is_shown_are_the_scaled_slices_in_its_frame_and_air_stays_black(
    run, tmp_path, outputs
):
    nibabel.save(scan(), tmp_path / "head.nii")
    job = translate_scans(tmp_path / "head.nii", outputs / "t2.nii.gz", run, trust=True)[0]
    slices = scan_of(to_slices(scan()), "t1").slices
    filled = slices.max(axis=(1, 2)) > -0.8
    assert 0 < filled.sum() < len(slices)
    inside, solid = slices > -0.8, to_slices(scan()) > 0
    far = np.stack([ndimage.distance_transform_edt(~part) > 4 for part in solid])
    frame = Frame("pad", *SIDES)
    generator = translate.load_translator(run, "t1_to_t2").generator
    box = (slice(None), *head_box(find_head(slices)))
    framed = frame.apply(slices[box][filled])
    trust = trust_map(views(generator, framed))[..., None]
    expected = [generator(framed), 2 * trust - 1]
    for path, made in zip(job.targets, expected, strict=True):
        stack = np.full_like(slices, -1)
        stack[box][filled] = frame.invert(made, slices[box].shape[1:])
        result = to_slices(nibabel.load(path))
        np.testing.assert_allclose(result[inside], 500 * (stack[inside] + 1), atol=0.51)
        assert not result[far].any() and stack[far].max() > -1
    assert [path.name for path in job.targets] == ["t2.nii.gz", "t2_trust.nii.gz"]


def test_a_scanners_gain_and_type_of_voxel_change_nothing(run, tmp_path, outputs):
    folder = tmp_path / "in"
    folder.mkdir()
    nibabel.save(scan(), folder / "as_is.nii.gz")
    nibabel.save(scan(2 * head()), folder / "doubled.nii.gz")
    nibabel.save(scan(head().astype(np.uint16)), folder / "integer.nii")
    scaled = scan(head().astype(np.int16))
    scaled.header.set_slope_inter(0.25, -7)
    nibabel.save(scaled, folder / "slope.nii")
    first, *others = (voxels(job.targets[0]) for job in translate_scans(folder, outputs, run))
    for other in others:
        assert np.abs(other - first).max() <= 1


def test_air_around_a_head_changes_nothing_and_nor_does_a_crop_to_it(run, tmp_path, outputs):
    (tmp_path / "in").mkdir()
    inside = [np.flatnonzero(head().max(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2))]
    (left, right), (back, front) = inside
    for air in (-1, 0, 10, 30, 45, 60):
        data = np.pad(head(), ((max(air, 0), 2 * max(air, 0)), (max(air, 0), max(air, 0)), (0, 0)))
        if air < 0:
            data = head()[left : right + 1, back : front + 1]
        nibabel.save(scan(data), tmp_path / "in" / f"{air}.nii")
    results = {
        int(job.source.stem): voxels(job.targets[0])
        for job in translate_scans(tmp_path / "in", outputs, run)
    }
    plain = results.pop(0)
    cropped = results.pop(-1)
    bright = head()[left : right + 1, back : front + 1] > 100
    kept = plain[left : right + 1, back : front + 1]
    np.testing.assert_allclose(cropped[bright], kept[bright], atol=1)
    for air, padded in results.items():
        np.testing.assert_array_equal(padded[air : air + 40, air : air + 50], plain)
        assert not padded[: air - 4].any() and plain.any()


def test_what_could_not_be_translated_leaves_no_folder(run, tmp_path):
    damaged, target = tmp_path / "damaged.nii", tmp_path / "new" / "deep" / "t2.nii.gz"
    damaged.write_text("no volume")
    (job,) = translate_scans(damaged, target, run)
    assert job.error and not (tmp_path / "new").exists()


def test_the_network_is_shown_the_same_of_a_head_however_narrow_its_crop():
    # (W, H, S) -> (S, H, W), larger than the frame, so that its place in one is not a matter of it
    slices = head((250, 237, 4)).transpose(2, 1, 0)
    seen = []
    network = lambda images: seen.append(images) or images  # noqa: E731
    translator = Translator(network, DIRECTIONS[0], LAPTOP, SIDES, "a test")
    rows, columns = (np.flatnonzero(slices.max(axis=axes))[[0, -1]] for axes in ((0, 2), (0, 1)))
    for left, right, above, below in ((5, 5, 5, 5), (0, 0, 0, 0), (0, 2, 1, 0), (5, 0, 3, 1)):
        up, down = max(0, rows[0] - above), rows[1] + 1 + below
        cut = slices[:, up:down, max(0, columns[0] - left) : columns[1] + 1 + right]
        (made,) = translator([Scan.of(normalise(cut, "t1"), "t1")])
        assert made.synthetic.slices.shape == cut.shape
        np.testing.assert_array_equal(seen[-1], seen[0])


@pytest.mark.parametrize("known", [(32, 32), (80, 80), (120, 40)])
def test_a_head_has_black_around_it_unless_it_fits_the_frame_that_is_known(known):
    slices = head((77, 93, 4)).transpose(2, 1, 0)  # (W, H, S) -> (S, H, W)
    scan = Scan.of(normalise(slices, "t1"), "t1")
    seen = []
    network = lambda images: seen.append(images) or images  # noqa: E731
    (made,) = Translator(network, DIRECTIONS[0], LAPTOP, known, "a test")([scan])
    np.testing.assert_allclose(made.synthetic.slices[scan.head], scan.slices[scan.head], atol=1e-6)
    for axis, (side, least) in enumerate(zip(scan.box, known, strict=True), 1):
        shown = seen[0].shape[axis]
        (filled,) = np.nonzero((seen[0] > -1).any(axis=tuple({0, 1, 2, 3} - {axis})))
        length = side.stop - side.start
        assert shown % 8 == 0 and (shown == least or length > least)
        if length > least:  # but no more than that and what makes it a multiple
            assert min(filled[0], shown - 1 - filled[-1]) >= 8 and shown < length + 6 + 16 + 8


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_other_planes_can_be_asked_for(plane, run, tmp_path, outputs):
    nibabel.save(scan(), tmp_path / "head.nii")
    nibabel.save(scan(), tmp_path / "same.nii")
    one = translate_scans(tmp_path / "head.nii", outputs, run, plane=plane)[0]
    other = translate_scans(tmp_path / "same.nii", outputs, run)[0]
    assert (voxels(one.targets[0]) != voxels(other.targets[0])).mean() > 0.1


@pytest.mark.parametrize(("axis", "plane"), [(0, "sagittal"), (1, "coronal"), (2, "axial")])
def test_a_single_slice_is_translated_in_its_own_plane(axis, plane, run, tmp_path, outputs):
    single = scan(np.take(head(), [head().shape[axis] // 2], axis=axis))
    nibabel.save(single, tmp_path / "slice.nii.gz")
    first = translate_scans(tmp_path / "slice.nii.gz", outputs / "a", run)[0]
    asked = translate_scans(tmp_path / "slice.nii.gz", outputs / "b", run, plane=plane)[0]
    made = voxels(first.targets[0])
    assert made.shape == single.shape and np.ptp(made[single.get_fdata() > 100]) > 20
    np.testing.assert_array_equal(made, voxels(asked.targets[0]))


def test_translations_in_all_planes_are_averaged(run, tmp_path, outputs):
    nibabel.save(scan(), tmp_path / "head.nii")
    made = {
        plane: voxels(
            translate_scans(tmp_path / "head.nii", outputs / plane, run, plane=plane)[0].targets[0]
        )
        for plane in ("axial", "coronal", "sagittal", "all")
    }
    mean = np.mean([made[plane] for plane in ("axial", "coronal", "sagittal")], axis=0)
    apart = {plane: np.abs(one - mean).mean() for plane, one in made.items()}
    assert apart["all"] < min(apart[plane] for plane in ("axial", "coronal", "sagittal")) / 4


@pytest.mark.parametrize(("size", "every"), [(0.7, 3), (0.9, 2), (1, 2), (1.2, 1), (3, 1)])
def test_where_planes_are_averaged_slices_are_translated_every_2_mm(size, every, tmp_path):
    seen = []

    def network(images):
        seen.append(len(images))
        return images

    nibabel.save(scan(head((66, 70, 60)), (1, 1, size)), tmp_path / "head.nii")
    counts = []
    for planes in (["axial"], ["axial", "axial"]):
        scans = [*read_scans([tmp_path / "head.nii"], "t1", planes=planes)]
        seen.clear()
        Translator(network, DIRECTIONS[0], LAPTOP, SIDES, "a test")(scans)
        counts.append(sum(seen))
    (filled,) = np.nonzero(scans[0].head.any(axis=(1, 2)))
    assert counts == [len(filled), 2 * (-(-(len(filled) - 1) // every) + 1)]


def test_slices_between_others_lie_on_the_line_between_them():
    ramp = np.arange(11.0).reshape(1, 11, 1, 1) * np.ones((2, 1, 3, 4))
    slices = np.full_like(ramp, -1)
    known = np.array([2, 4, 7, 8])
    slices[:, known] = ramp[:, known]
    fill_between(slices, known)
    np.testing.assert_allclose(slices[:, 2:9], ramp[:, 2:9])
    assert (slices[:, :2] == -1).all() and (slices[:, 9:] == -1).all()


@pytest.mark.slow
def test_a_head_enlarged_comes_out_as_the_head_itself_enlarged(bids, run, tmp_path):
    data = ndimage.gaussian_filter(head((60, 70, 51)), 1)
    large = data.repeat(2, 0).repeat(2, 1).repeat(2, 2)[..., :-1]
    first, second, _ = sorted(bids.rglob("*_T1w.nii.gz"))
    nibabel.save(scan(data), first)
    nibabel.save(scan(large, (0.5, 0.5, 0.5)), second)
    translate_scans(bids, tmp_path / "out", run, trust=True, plane="all")
    for kind in ("synthetic", "trust"):
        plain, made = (
            voxels(path) for path in sorted((tmp_path / "out").rglob(f"*{kind}_T2w.nii.gz"))[:2]
        )
        assert made.shape == large.shape and np.ptp(plain[data > 300]) > 5
        means = made[..., :-1].reshape(60, 2, 70, 2, 50, 2).mean(axis=(1, 3, 5))
        near = np.abs(means - plain[..., :-1])[data[..., :-1] > 300]
        assert near.max() <= 1 and not made[:4, :4].any()  # air
    known = [
        json.loads(path.read_text()) for path in sorted((tmp_path / "out").rglob("sub-*.json"))
    ]
    assert [one["VoxelsTogether"] for one in known[:4]] == 2 * [[1, 1, 1]] + 2 * [[2, 2, 2]]


def random_pair(shape=(30, 90, 80)) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)


@pytest.mark.parametrize("apart", [0, 1, 2.5])
def test_the_fine_structure_around_a_head_has_no_part_in_it(apart):
    source, made = random_pair()
    head = np.zeros(source.shape, bool)
    head[8:24, 25:70, 30:60] = True
    expected = np.where(head, guide(made, source, head, 0.8, apart), made)
    box = (slice(None), *head_box(head))
    made[box] = guide(*(x[box] for x in (made, source, head)), 0.8, apart)
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_the_fine_structure_is_that_of_the_guided_filter_and_of_the_table(monkeypatch):
    source, made = random_pair()
    head = ndimage.gaussian_filter(source, 4) > 0
    inner = ndimage.binary_erosion(head, iterations=3)
    assert inner.sum() > 1000

    def mean(x):  # in windows of 25 mm: 25 pixels, and 13 slices that are 2 mm apart
        total = ndimage.uniform_filter(np.where(inner, x, 0.0), (13, 25, 25), mode="constant")
        return total / ndimage.uniform_filter(1.0 * inner, (13, 25, 25), mode="constant")

    with np.errstate(invalid="ignore", divide="ignore"):
        spread, level = mean(source**2.0) - mean(source) ** 2, mean(source)
        slope = (mean(source * made) - level * mean(made)) / (spread + FLAT)
        lines = np.clip(mean(slope) * source + mean(mean(made) - slope * level), -1, 1)
    grey = ((source + 1) * 63.5).astype(int)
    table = ndimage.mean(made, np.where(inner, grey, -1), range(128))[grey]
    expected = (1 - TABLE) * (made + 0.5 * (lines - made)) + TABLE * table
    found = guide(made, source, head, 0.5, 2)
    np.testing.assert_array_equal(found[~inner], made[~inner])
    assert np.abs(found - expected)[inner].mean() < 0.01 * np.abs(expected - made)[inner].mean()
    monkeypatch.setattr("cyclegan_tf.translation.guidance.CELL", 1)  # a window for every pixel
    np.testing.assert_allclose(guide(made, source, head, 0.5, 2)[inner], expected[inner], atol=1e-4)


def test_the_mean_of_planes_is_sharpened_inside_a_head_of_thin_slices():
    source, made = random_pair()
    head = ndimage.gaussian_filter(source, 4) > 0
    inner = ndimage.binary_erosion(head, iterations=3)
    for apart, share in ((2, 0.4), (0, 0), (3, 0)):  # 0: images that lie nowhere
        plain, sharp = (guide(made, source, head, 0.5, apart, s) for s in (0, 0.4))
        finest = plain - np.stack([ndimage.gaussian_filter(image, 1) for image in plain])
        expected = np.where(inner, plain + share * finest, plain)
        np.testing.assert_allclose(sharp, expected, atol=1e-4)


def test_images_that_lie_nowhere_are_guided_each_by_itself():
    source, made = random_pair()
    head = np.ones(source.shape, bool)
    alone = [guide(*(x[None] for x in one), 0.8)[0] for one in zip(made, source, head, strict=True)]
    # All share one table, of which there is little.
    assert np.abs(guide(made, source, head, 0.8) - alone).mean() < 0.1 * TABLE
    assert np.abs(guide(made, source, head, 0.8, 1) - alone).mean() > 0.3 * TABLE


def test_what_came_out_black_is_an_error_and_no_result(run, tmp_path, outputs, capsys):
    (tmp_path / "in").mkdir()
    nibabel.save(scan(), tmp_path / "in" / "head.nii.gz")
    known = translate.load_translator(run, "t1_to_t2")
    black = dataclasses.replace(known, generator=lambda images: np.full_like(images, -1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translate, "load_translator", lambda *_: black)
        jobs = translate_scans(tmp_path / "in", outputs)
        assert "head.nii.gz came out black: expected" in jobs[0].error
        assert jobs[0].error in capsys.readouterr().err and not jobs[0].done
        folder = write_images(
            tmp_path / "images", to_slices(scan())[10:12].astype(np.uint16), ".png"
        )
        assert "slice 0.png came out black: expected a scan" in refusal(folder, outputs / "images")
        with pytest.raises(InputError, match="The array came out black: expected a scan"):
            cyclegan_tf.translate(to_slices(scan()))
    assert not list(outputs.rglob("*.*"))


def test_slices_beyond_the_head_stay_black_beside_others(run, tmp_path, outputs):
    slices = np.rint(0.25 * to_slices(scan())[[0, 12]]).astype(np.uint8)
    assert not slices[0].any()
    jobs = translate_scans(write_images(tmp_path / "in", slices, ".png"), outputs, run)
    empty, filled = (np.asarray(Image.open(job.targets[0])) for job in jobs)
    assert not empty.any() and filled.any()


def test_doubts_are_said_in_the_terminal_and_in_the_sidecar(bids, run, tmp_path, capsys):
    path = next(bids.rglob("sub-01_T1w.nii.gz"))
    data = head()
    nibabel.save(scan(np.where(data > 0, (data - 500) / 200, 0)), path)  # as z-scored
    translate_scans(bids, tmp_path / "out", run)
    (sidecar,) = tmp_path.joinpath("out").rglob("sub-01*_desc-synthetic_T2w.json")
    doubt, other = json.loads(sidecar.read_text())["Warnings"]
    assert "cannot be told whether this is T1w" in other  # the head is too small to say
    assert "background" in doubt and str(tmp_path) not in doubt
    assert f"{path}: {doubt}" in capsys.readouterr().err.replace("\n", " ")


def test_a_dicom_series_becomes_nifti_of_its_geometry_that_names_nobody(run, tmp_path, outputs):
    volume = scan(sizes=(1, 1, 2))
    job = translate_scans(save(series_of(volume), tmp_path / "series"), outputs, run)[0]
    assert job.targets == [outputs / "series_desc-synthetic_T2w.nii.gz"]
    result = nibabel.load(job.targets[0])
    assert sorted(result.shape) == sorted(volume.shape)
    np.testing.assert_allclose(
        nibabel.as_closest_canonical(result).affine, volume.affine, atol=1e-3
    )
    raw = gzip.decompress(job.targets[0].read_bytes())
    assert b"Doe" not in raw and b"mine, preset laptop" in raw


# In memory


def test_a_nibabel_image_becomes_what_its_file_becomes_in_the_same_space(run, tmp_path, outputs):
    source = scan(sizes=(1, 1.2, 2)).as_reoriented(ALL_48[11])
    nibabel.save(source, tmp_path / "head.nii.gz")
    job = translate_scans(tmp_path / "head.nii.gz", outputs, run)[0]
    result = cyclegan_tf.translate(source, model=run)
    np.testing.assert_array_equal(result.dataobj, voxels(job.targets[0]))
    np.testing.assert_array_equal(result.affine, source.affine)
    other = nibabel.MGHImage(source.get_fdata(dtype=np.float32), source.affine)
    np.testing.assert_allclose(cyclegan_tf.translate(other, model=run).dataobj, result.dataobj)
    metres = nibabel.Nifti1Image(head(), np.diag([0.001, 0.001, 0.002, 1]))
    metres.header.set_xyzt_units("meter")
    result = cyclegan_tf.translate(metres, model=run)
    assert result.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(result.affine, np.diag([1, 1, 2, 1]), atol=1e-6)


def test_of_a_nifti_image_the_version_stays_without_a_word(run, caplog):
    result = cyclegan_tf.translate(nibabel.Nifti2Image(head(), np.eye(4)), model=run)
    assert type(result) is nibabel.Nifti2Image and not caplog.records


def test_an_array_is_translated_as_the_slices_of_a_head_in_any_unit(run, tmp_path, outputs):
    stack = to_slices(scan())
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    job = translate_scans(tmp_path / "head.nii.gz", outputs, run)[0]
    made = cyclegan_tf.translate(3 * stack, model=run)
    assert made.dtype == np.float32 and made.shape == stack.shape
    np.testing.assert_allclose(made, to_slices(nibabel.load(job.targets[0])), atol=1.01)
    assert cyclegan_tf.translate(stack[12], "t1_to_t2", run).shape == stack.shape[1:]
    noise = np.random.default_rng(0).uniform(0, stack.max(), (len(stack), 9, stack.shape[2]))
    flat = cyclegan_tf.translate(np.asmatrix(stack[12]), model=run)
    np.testing.assert_array_equal(flat, cyclegan_tf.translate(stack[12], model=run))
    masked = np.ma.array(np.concatenate([noise, stack], axis=1), mask=False)
    masked[:, :9] = np.ma.masked
    np.testing.assert_allclose(cyclegan_tf.translate(masked, model=run)[:, 9:], made, atol=1)


def test_what_is_doubtful_of_a_scan_in_memory_is_said_as_of_a_file(run, capsys):
    other = scan()  # turned over, on black
    voxels = np.asarray(other.dataobj, np.float32)
    voxels = np.where(voxels > voxels.max() / 20, 1.2 * voxels.max() - voxels, 0)
    image = nibabel.Nifti1Image(voxels, other.affine)
    for given, name in ((image, "The image"), (to_slices(image), "The array")):
        cyclegan_tf.translate(given, model=run)
        said = capsys.readouterr().err.splitlines()
        assert said and all(line.startswith(f"{name}: ") and "/" not in line for line in said)
    hole = to_slices(scan()).astype(np.float32)
    hole[tuple(slice(side // 2, side // 2 + 3) for side in hole.shape)] = np.nan
    with pytest.raises(InputError, match="The array holds .* NaN inside"):
        cyclegan_tf.translate(hole, model=run)
    mask = np.zeros((9, 64, 64), np.uint8)
    mask[:, 16:48, 16:48] = 1
    with pytest.raises(InputError, match="The array holds few values"):
        cyclegan_tf.translate(mask, model=run)


def test_an_image_in_memory_may_have_no_affine(run):
    voxels = np.asarray(scan().dataobj)
    made = cyclegan_tf.translate(nibabel.Nifti1Image(voxels, None), model=run)
    assert made.shape == voxels.shape


def test_the_only_scan_of_a_folder_becomes_the_file_that_is_named(run, tmp_path):
    folder, target = tmp_path / "in", tmp_path / "out.nii.gz"
    folder.mkdir()
    nibabel.save(scan(), folder / "T1.nii.gz")
    (job,) = translate_scans(folder, target, run)
    assert job.targets == [target] and target.is_file()
    nibabel.save(scan(), folder / "other_T1.nii.gz")
    with pytest.raises(InputError, match="is the name of a file: expected that of a folder"):
        translate_scans(folder, tmp_path / "all.nii.gz", run)


def test_an_empty_file_is_no_translation(run, tmp_path):
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    (tmp_path / "out.nii.gz").touch()
    translate_scans(tmp_path / "head.nii.gz", tmp_path / "out.nii.gz", run)
    assert nibabel.load(tmp_path / "out.nii.gz").shape == scan().shape


def test_where_there_is_no_dicom_no_series_is_chosen_and_that_is_said(run, tmp_path, capsys):
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    translate_scans(tmp_path / "head.nii.gz", tmp_path / "out.nii.gz", run, series=5)
    assert "holds no DICOM: there is no series 5 to choose" in capsys.readouterr().err


NO_ARRAYS = (
    np.zeros(3),
    np.zeros((4, 4)),
    np.full((64, 64), np.inf),
    1j * np.eye(8),
    np.array([["a"]]),
    np.dstack([head()[8]] * 3),  # colours
)


@pytest.mark.parametrize("array", [*NO_ARRAYS, "a.nii.gz", [[1, 2], [3, 4]], None])
def test_an_array_that_is_no_scan_is_one_sentence(array, run):
    with pytest.raises(InputError, match="expected"):
        cyclegan_tf.translate(array, model=run)
    image = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(InputError, match="The image is 0.0 everywhere"):
        cyclegan_tf.translate(image, model=run)


def test_a_runs_model_loads_in_a_plain_script(run):
    path = run / "models" / "t1_to_t2.keras"
    code = f"from cyclegan_tf import load_generator; print(load_generator({str(path)!r}).name)"
    assert python("-c", code).stdout == "t1_to_t2\n"
    with pytest.raises(AttributeError, match="'no_such_name'"):
        cyclegan_tf.no_such_name  # noqa: B018


# Images


def write_images(folder, images, suffix):
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"slice {number}{suffix}")
    return folder


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg"])
def test_an_8_bit_image_comes_back_with_its_name_size_and_bits(suffix, run, tmp_path, outputs):
    slices = to_slices(scan())[8:16]
    images = np.rint(255 * slices / slices.max()).astype(np.uint8)
    folder = write_images(tmp_path / "in", images, suffix)
    jobs = translate_scans(folder, outputs, run)
    generator, frame = translate.load_translator(run, "t1_to_t2").generator, Frame("pad", *SIDES)
    for job in jobs:
        source = np.asarray(Image.open(job.source))
        image = source[None].astype(np.float32) / 127.5 - 1
        box = (0, *head_box(find_head(image)))
        made = np.full(source.shape, -1.0)
        output = generator(frame.apply(image[box][None]))
        made[box[1:]] = frame.invert(output, image[box].shape)[0]
        result = Image.open(job.targets[0])
        assert job.targets == [outputs / job.source.name]
        assert result.size == (40, 50) and result.mode == "L"
        error = np.abs(np.asarray(result) - 127.5 * (made + 1))[source > 26]
        assert error.mean() < (2 if suffix == ".jpg" else 0.51)


def test_the_trust_map_of_an_image_lies_beside_it_and_changes_nothing(run, tmp_path, outputs):
    folder = write_images(tmp_path / "in", to_slices(scan())[10:12].astype(np.uint16), ".png")
    plain = translate_scans(folder, outputs / "plain", run)
    for job, alone in zip(translate_scans(folder, outputs, run, trust=True), plain, strict=True):
        result, trust = (np.asarray(Image.open(path)) for path in job.targets)
        assert job.targets[1] == outputs / f"{job.source.stem}_trust.png"
        np.testing.assert_array_equal(result, np.asarray(Image.open(alone.targets[0])))
        assert trust.dtype == np.uint16 and 0 < np.median(trust) < 0.3 * 65535


def test_16_bit_slices_are_one_head_and_translated_as_its_volume_is(run, tmp_path, outputs):
    slices = to_slices(scan()).astype(np.uint16)
    folder = write_images(tmp_path / "in", slices, ".tif")
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    volume = translate_scans(tmp_path / "head.nii.gz", outputs, run)[0]
    expected = to_slices(nibabel.load(volume.targets[0]))
    jobs = translate_scans(folder, outputs / "tif", run)
    for job, slice_of_volume in zip(jobs, expected, strict=True):
        image = np.asarray(Image.open(job.targets[0]))
        assert image.dtype == np.uint16
        np.testing.assert_allclose(image / 65.535, slice_of_volume, atol=0.51)


def test_images_of_several_sizes_and_a_single_one_are_translated(run, tmp_path, outputs):
    slices = np.rint(0.25 * to_slices(scan())[8:12]).astype(np.uint8)
    folder = write_images(tmp_path / "in", [slices[0], slices[1][:, :30], slices[2]], ".png")
    jobs = translate_scans(folder, outputs, run)
    assert [Image.open(job.targets[0]).size for job in jobs] == [(40, 50), (30, 50), (40, 50)]
    alone = translate_scans(folder / "slice 2.png", tmp_path / "alone.png", run)[0]
    np.testing.assert_array_equal(
        np.asarray(Image.open(alone.targets[0])), np.asarray(Image.open(jobs[2].targets[0]))
    )


# Data sets


@pytest.fixture
def bids(tmp_path):
    """A BIDS data set of two subjects, one of them with two sessions."""
    root = tmp_path / "raw"
    for name in (
        "sub-01/anat/sub-01_T1w",
        "sub-01/anat/sub-01_T2w",
        "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w",
        "sub-02/ses-b/anat/sub-02_ses-b_run-1_T1w",
    ):
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(scan(), path)
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text('{"PatientName": "Doe"}')
    (root / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.10.0"}')
    (root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    return root


def test_a_data_set_on_another_drive_is_named_whole(bids, run, tmp_path, monkeypatch):
    def apart(*_):
        return ntpath.relpath("D:\\raw", "C:\\derived")  # raises what it does on Windows

    monkeypatch.setattr("cyclegan_tf.translation.translate.os.path.relpath", apart)
    translate_scans(bids, tmp_path / "derived", run)
    description = json.loads((tmp_path / "derived" / "dataset_description.json").read_text())
    assert description["DatasetLinks"]["raw"] == bids.as_uri()


@pytest.mark.parametrize("place", ["derived", "raw/derivatives/cyclegan_tf"])
def test_a_bids_data_set_gets_a_derivatives_data_set(place, bids, run, tmp_path):
    target = tmp_path / place
    translate_scans(bids, target, run, trust=True)
    made = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    expected = ["dataset_description.json"]
    for stem in (
        "sub-01/anat/sub-01",
        "sub-02/ses-a/anat/sub-02_ses-a_run-1",
        "sub-02/ses-b/anat/sub-02_ses-b_run-1",
    ):
        for kind in ("synthetic", "trust"):
            expected += [f"{stem}_desc-{kind}_T2w.json", f"{stem}_desc-{kind}_T2w.nii.gz"]
    assert made == sorted(expected)
    description = json.loads((target / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["BIDSVersion"]
    assert description["GeneratedBy"] == [{"Name": "cyclegan_tf", "Version": __version__}]
    source = target / description["DatasetLinks"]["raw"]
    assert description["SourceDatasets"] == [{"URL": description["DatasetLinks"]["raw"]}]
    for path in target.rglob("sub-*.json"):
        sidecar = json.loads(path.read_text())
        dataset, relative = sidecar["Sources"][0].removeprefix("bids:").split(":")
        assert dataset == "raw" and (source / relative).samefile(bids / relative)
        assert sidecar["Model"] == "mine, preset laptop, seed 1"
        assert sidecar["Version"] == f"cyclegan_tf {__version__}"
        unit = "spread of the views" if "trust" in path.name else "0 (black) to 1000 (white)"
        assert unit in sidecar["IntensityScale"]
        assert "Doe" not in path.read_text() and str(tmp_path) not in path.read_text()


def test_t2_to_t1_takes_the_t2_scans(bids, run, tmp_path):
    jobs = translate_scans(bids, tmp_path / "out", run, "t2_to_t1")
    assert [job.targets[0].name for job in jobs] == ["sub-01_desc-synthetic_T1w.nii.gz"]


def test_what_is_there_is_not_made_again_and_what_is_missing_is(bids, run, tmp_path, capsys):
    target = tmp_path / "derived"
    jobs = translate_scans(bids, target, run)
    times = [job.targets[0].stat().st_mtime_ns for job in jobs]
    jobs[1].targets[0].unlink()
    capsys.readouterr()
    translate_scans(bids, target, run)
    assert "2 of 3 are there already: skipped." in capsys.readouterr().out
    again = [job.targets[0].stat().st_mtime_ns for job in jobs]
    assert (again[0], again[2]) == (times[0], times[2]) and again[1] > times[1]
    translate_scans(bids, target, run / "absent")  # nothing is left to need a model
    assert "3 of 3" in capsys.readouterr().out


# What goes wrong


def test_one_bad_volume_is_reported_and_the_rest_goes_on(bids, run, tmp_path, capsys):
    bad = bids / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_run-1_T1w.nii.gz"
    bad.write_bytes(bad.read_bytes()[:2000])
    words = ["translate", str(bids), str(tmp_path / "out"), "--model", str(run)]
    with pytest.raises(SystemExit) as exit:
        main(words)
    assert exit.value.code == "1 of 3 could not be translated."  # and so the status is 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "nii.gz" in line]
    errors = [line for line in errors if "cannot be told whether this is T1w" not in line]
    assert len(errors) == 1 and str(bad) in errors[0] and errors[0].endswith(".")
    made = {path.name for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert len(made) == 2 and not any("ses-a" in name for name in made)
    assert not list((tmp_path / "out").rglob(".partial-*"))


def test_one_bad_image_is_reported_and_the_rest_goes_on(run, tmp_path, outputs, capsys):
    slices = to_slices(scan())[8:12].astype(np.uint16)
    folder = write_images(tmp_path / "in", slices, ".png")
    bad = folder / "slice 1.png"
    bad.write_bytes(bad.read_bytes()[:100])
    jobs = translate_scans(folder, outputs, run)
    assert [bool(job.error) for job in jobs] == [False, True, False, False]
    assert str(bad) in capsys.readouterr().err
    assert sorted(path.name for path in outputs.iterdir()) == [f"slice {n}.png" for n in (0, 2, 3)]


def test_an_output_never_replaces_an_input(bids, run, tmp_path):
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    folder = write_images(tmp_path / "in", [np.eye(50, dtype=np.uint8)], ".png")
    (tmp_path / "link").symlink_to(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for source, target in (
        (tmp_path / "head.nii.gz", tmp_path / "head.nii.gz"),
        (folder, folder),
        (folder, tmp_path / "link"),
        (folder / "slice 0.png", folder),
        (bids, bids),
    ):
        assert "expected another output" in refusal(source, target, run)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_sidecar_of_another_program_is_kept_and_no_translation_lies_beside_it(run, tmp_path):
    nibabel.save(scan(), tmp_path / "t1.nii.gz")
    (tmp_path / "t2.json").write_text(json.dumps({"EchoTime": 0.1}))
    (job,) = translate_scans(tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz", run)
    assert job.error.endswith("t2.json was made by another program: expected an output without it.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t1.nii.gz", "t2.json"]
    assert json.loads((tmp_path / "t2.json").read_text()) == {"EchoTime": 0.1}
    (tmp_path / "t2.json").unlink()
    for _ in range(2):  # its own is written anew
        (job,) = translate_scans(tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz", run)
        assert job.done and "0 (black) to 1000" in (tmp_path / "t2.json").read_text()
        (tmp_path / "t2.nii.gz").unlink()


def test_mistakes_are_refused_in_one_sentence_before_anything_is_written(bids, run, tmp_path):
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    (tmp_path / "twice").mkdir()
    nibabel.save(scan(), tmp_path / "twice" / "a.nii.gz")
    nibabel.save(scan(), tmp_path / "twice" / "a.nii")
    notes = tmp_path / "notes.keras"
    notes.write_text("no model")
    images = write_images(tmp_path / "in", np.zeros((2, 40, 40), np.uint8), ".png")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "notes.txt").write_text("no scan")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dataset_description.json").write_text('{"Name": "another"}')
    before = sorted(tmp_path.rglob("*"))
    volume, new = tmp_path / "head.nii.gz", tmp_path / "new"
    models = run / "models"
    other = models / "t2_to_t1.keras"
    assert "is a generator t2_to_t1: expected t1_to_t2" in refusal(volume, new, other, "t1_to_t2")
    assert "no model" in refusal(volume, new, notes)
    assert "is not there" in refusal(volume, new, tmp_path)
    assert "expected .nii.gz or a folder" in refusal(volume, tmp_path / "t2.png", run)
    assert "plane cannot be 'oblique'" in refusal(volume, new, run, plane="oblique")
    assert "a.nii and a.nii.gz would both become" in refusal(tmp_path / "twice", new, run)
    assert "made by another program" in refusal(bids, tmp_path / "other", run)
    assert "slice 0.png came out black" in refusal(images, new, run)
    assert "notes.txt is no image" in refusal(tmp_path / "mixed", new, run)
    for path in (volume, images / "slice 1.png"):  # the model, to be read next, is not there
        target = tmp_path / "notes.keras" / "deep" / path.name
        said = refusal(path, target, tmp_path / "gone")
        assert "notes.keras cannot be written to (Not a directory)" in said
    for path in bids.rglob("*_T2w.nii.gz"):
        path.unlink()
    assert "holds no T2w" in refusal(bids, new, run, "t2_to_t1")
    assert not new.exists() and not list(tmp_path.rglob(".partial-*"))
    assert {path for path in before if "_T2w.nii.gz" not in path.name} == set(tmp_path.rglob("*"))


def test_the_command_translates_and_says_where(run, tmp_path, capsys):
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    words = ["translate", str(tmp_path / "head.nii.gz"), str(tmp_path / "t2.nii.gz")]
    assert main([*words, "--model", str(run), "--trust"]) == 0
    assert str(tmp_path / "t2.nii.gz") in capsys.readouterr().out
    assert main([*words, "--model", str(run / "models" / "t2_to_t1.keras")]) == 0  # it is there
    assert main(["translate", str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    assert "absent is not there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["translate", "", str(tmp_path / "out")])  # a variable that is not set
    assert "A path is empty: expected a file or a folder" in capsys.readouterr().err


def python(*words):
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )


def test_help_and_mistakes_do_not_load_tensorflow():
    code = (
        "import contextlib, sys\n"
        "from cyclegan_tf.__main__ import main\n"
        "for words in (['--help'], ['a'], ['a', 'b', '--plane', 'up'], ['a', 'b', '--tr']):\n"
        "    with contextlib.suppress(SystemExit): main(['translate', *words])\n"
        "main(['translate', 'absent', 'out'])\n"
        "print({'tensorflow', 'numpy', 'papermill'} & set(sys.modules))\n"
    )
    result = python("-c", code)
    assert result.stdout.splitlines()[-1] == "set()"
    assert "choose from" in result.stderr and "absent is not there" in result.stderr


# Models


def test_a_generator_of_the_other_framework_generation_is_built_anew(run, tmp_path):
    copy = open_run(tmp_path / "copy", overrides={"filters": 4, "blocks": 1})
    path = run / "models" / "t1_to_t2.keras"
    foreign = copy.path("models", path.name)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(foreign, "w") as new:
        new.writestr("metadata.json", json.dumps({"keras_version": "1.2.3"}))
        new.writestr("config.json", old.read("config.json"))
    with pytest.raises(InputError, match="no model"):
        load_generator(foreign)
    weights = path.with_suffix(".weights.h5")
    foreign.with_suffix(".weights.h5").write_bytes(weights.read_bytes())
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 1)).astype(np.float32)
    expected = predict(load_generator(path), images)
    np.testing.assert_allclose(predict(load_generator(foreign), images), expected, atol=1e-6)


def test_what_ships_is_a_run_in_half_precision(run, tmp_path, monkeypatch):
    save_pretrained(run, "2.1", tmp_path / "pretrained")
    monkeypatch.setattr("cyclegan_tf.translation.loading.PRETRAINED", tmp_path / "pretrained")
    for direction in DIRECTIONS:
        ours, theirs = translate.load_translator(run, direction), load_translator(None, direction)
        assert theirs.sides == ours.sides and theirs.preset == ours.preset
        assert theirs.contrasts.x == direction[:2]
        assert "version 2.1" in theirs.name and "simulated heads only" in theirs.name
        single = load_generator(run / "models" / f"{direction}.keras").get_weights()
        for half, full in zip(onnx_weights(read_pretrained(direction)), single, strict=True):
            np.testing.assert_allclose(half, full, rtol=1e-3, atol=1e-7)


def test_what_has_learned_in_frames_of_many_sizes_ships_with_the_least(run, tmp_path):
    varied = tmp_path / "varied"
    shutil.copytree(run, varied)
    begun = read_run(varied / "run.json")
    begun.update(preset=begun.record["preset"] | {"simulator": "varied"})
    save_pretrained([run, varied], "1", tmp_path / "pretrained")
    shipped = load_translator(tmp_path / "pretrained" / "t1_to_t2.onnx")
    assert shipped.sides == (MULTIPLE, MULTIPLE)


def test_of_two_runs_the_mean_of_their_weights_ships(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    path = other / "models" / "t1_to_t2.keras"
    network = load_generator(path)
    network.set_weights([3 * x for x in network.get_weights()])
    network.save(path)
    save_pretrained([run, other], "1", tmp_path / "pretrained")
    mean = onnx_weights((tmp_path / "pretrained" / "t1_to_t2.onnx").read_bytes())
    single = load_generator(run / "models" / "t1_to_t2.keras").get_weights()
    for half, full in zip(mean, single, strict=True):
        np.testing.assert_allclose(half, 2 * full, rtol=1e-3, atol=1e-7)


def test_one_direction_of_what_ships_is_renewed_and_the_other_stays(run, tmp_path):
    save_pretrained(run, "1", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = tmp_path / "other"
    shutil.copytree(run, other)
    save_pretrained(other, "2", tmp_path, DIRECTIONS[:1])
    record, old = (
        json.loads(content)
        for content in ((tmp_path / "pretrained.json").read_bytes(), before["pretrained.json"])
    )
    kept = "t2_to_t1.onnx"
    assert (tmp_path / kept).read_bytes() == before[kept]
    assert record["version"] == "2" and record["sha256"][kept] == old["sha256"][kept]
    assert record["run"]["t2_to_t1"] == old["run"]["t2_to_t1"]
    assert record["run"]["t1_to_t2"].startswith("other, ")


def test_the_shipped_pair_is_small_and_two_files_with_their_checksums():
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) < 5e6
    names = {f"{direction}.onnx" for direction in DIRECTIONS}
    assert {path.name for path in PRETRAINED.iterdir()} == {
        *names,
        "pretrained.json",
        "gate.json",
        "calibration.json",
    }
    assert json.loads((PRETRAINED / "pretrained.json").read_text())["sha256"].keys() == names


def test_a_run_that_goes_on_from_the_shipped_pair_translates_as_that_does(run, tmp_path):
    shipped = load_translator(None, "t1_to_t2")
    # Of a run that has learned one scanner since, the shipped pair's ways would spoil the images.
    alone = {"warm_start_epochs": 0, "simulation_weight": 0}  # no pairs were simulated
    cases = ("varied", {}, True), ("brainweb", {}, False), ("varied", alone, False)
    for number, (simulator, more, alike) in enumerate(cases):
        values = {"start": "shipped", "simulator": simulator} | more
        begun = open_run(tmp_path / str(number), overrides=values)
        begun.update(data={"frame": SIDES})
        shutil.copytree(run / "models", begun.folder / "models")
        ours = load_translator(begun.folder, "t1_to_t2")
        assert (ours.planes == shipped.planes) == alike and len(shipped.planes) > 1
        assert ours.guidance == alike * shipped.guidance and shipped.guidance
        assert ours.sharpening == alike * shipped.sharpening and shipped.sharpening


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux gives a process some")
def test_slices_are_translated_on_the_cores_that_the_process_was_given(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    threads = set()

    def run(_, named):
        threads.add(threading.get_ident())
        time.sleep(0.01)
        return [named["image"]]

    _run_onnx(SimpleNamespace(run=run), np.zeros((16, 32, 32, 1), np.float32))
    assert len(threads) <= 2


def test_a_package_without_its_weights_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclegan_tf.translation.loading.PRETRAINED", tmp_path)
    save_pretrained(run, "1", tmp_path)
    for name in ("t1_to_t2.onnx", "pretrained.json"):
        whole = (tmp_path / name).read_bytes()
        for damage in (Path.unlink, lambda path: path.write_bytes(b"")):
            damage(tmp_path / name)
            with pytest.raises(InputError, match="missing or damaged .* install cyclegan_tf again"):
                load_translator(None, "t1_to_t2")
        (tmp_path / name).write_bytes(whole)
    assert load_translator(None, "t1_to_t2").direction == "t1_to_t2"


@pytest.mark.parametrize("form", ["unet", "published"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_an_exported_generator_is_the_same_to_a_thousandth_of_the_range(form, policy, tmp_path):
    keras.mixed_precision.set_global_policy(policy)
    keras.utils.set_random_seed(3)
    generator = build_generator(form, 4, 2, "t2_to_t1")
    keras.mixed_precision.set_global_policy("float32")
    generator.save(tmp_path / "t2_to_t1.keras")
    export_onnx(tmp_path / "t2_to_t1.keras", tmp_path / "x.onnx", "t2_to_t1")
    images = np.random.default_rng(1).uniform(-1, 1, (9, 48, 72, 1)).astype(np.float32)
    found = load_translator(tmp_path / "x.onnx", "t2_to_t1").generator(images)
    expected = predict(generator, images)
    assert np.ptp(expected) > 0.1
    atol = 2e-3 if policy == "float32" else 0.05  # bfloat16 has three digits, float32 seven
    np.testing.assert_allclose(found, expected, atol=atol)


def test_a_scan_is_translated_by_an_exported_generator_as_by_its_run(run, tmp_path, outputs):
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    model = tmp_path / "mine.onnx"
    assert main(["export", str(run), str(model)]) == 0
    for name, which in (("a", run), ("b", model)):
        translate_scans(tmp_path / "head.nii.gz", outputs / f"{name}.nii.gz", which, trust=True)
    for end in (".nii.gz", "_trust.nii.gz"):
        theirs, ours = (voxels(outputs / f"{name}{end}").astype(int) for name in "ab")
        assert np.ptp(theirs) > 10 and np.abs(theirs - ours).max() <= 1
    with pytest.raises(InputError, match="is a generator t1_to_t2: expected t2_to_t1"):
        load_translator(model, "t2_to_t1")
    with pytest.raises(InputError, match="is ONNX: expected"):
        export_onnx(model, tmp_path / "again.onnx")


def test_an_export_takes_no_other_files_place(run, tmp_path, capsys):
    model = tmp_path / "t1_to_t2.keras"
    shutil.copy(run / "models" / model.name, model)
    before = model.read_bytes()
    for target in (model, tmp_path / "without"):
        assert main(["export", str(model), str(target)]) == 2
        assert f"{target} is not named as ONNX: expected" in capsys.readouterr().err
    assert model.read_bytes() == before and [*tmp_path.iterdir()] == [model]


def described(path, **known):
    """Another ONNX file, which says something else of itself."""
    model = onnx.load(path)
    had = json.loads(model.metadata_props[0].value)
    del model.metadata_props[:]
    if known:
        onnx.helper.set_model_props(model, {"cyclegan_tf": json.dumps(had | known)})
    onnx.save(model, path.with_name("other.onnx"))
    return path.with_name("other.onnx")


def test_an_onnx_file_that_cannot_be_used_is_one_sentence(run, tmp_path):
    export_onnx(run, tmp_path / "mine.onnx")
    newer = described(tmp_path / "mine.onnx", format=9, version="7.0")
    found = f"has format 9, of cyclegan_tf 7.0: expected 1, of cyclegan_tf {__version__}"
    with pytest.raises(InputError, match=found):
        load_translator(newer, "t1_to_t2")
    for known in (
        {},
        {"preset": 3},
        {"preset": {"name": "laptop", "fliters": 2}},
        {"guidance": "-"},
    ):
        with pytest.raises(InputError, match="other.onnx is no generator of this project"):
            load_translator(described(tmp_path / "mine.onnx", **known), "t1_to_t2")
    newer.write_bytes(b"no protobuf")
    with pytest.raises(InputError, match="other.onnx is no ONNX file"):
        load_translator(newer, "t1_to_t2")


@pytest.mark.slow
def test_through_slices_the_shipped_pair_is_no_rougher_than_the_truth():
    still = phantom.Variation(gain=0)  # else each slice would have its own brightness
    t1, t2, _ = phantom.simulate_pairs(40, 901, heads=1, variation=still, slices=(10, 50))
    truth, images = t2[..., 0], t1[..., 0]
    (translation,) = load_translator(None, "t1_to_t2")([Scan.of(images, "t1")])
    synthetic = translation.synthetic.slices
    inside = np.maximum(images, truth)[1:-1] > -0.9

    def roughness(volume):
        return np.abs(np.diff(volume, 2, axis=0))[inside].mean()

    assert roughness(synthetic) < 1.1 * roughness(truth)


PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_the_template_gets_bright_fluid_and_dark_white_matter_within_2_gb(tmp_path):
    source, result = translate.example_scan(tmp_path), tmp_path / "t2.nii.gz"
    process = python("-c", PEAK, *PROGRAM[1:], "translate", str(source), str(result))
    assert process.returncode == 0, process.stderr
    assert "simulated heads only" in process.stdout
    assert int(process.stdout.split()[-1]) < 2e6  # kB
    grey, white, mask = (
        load(resolution=1).get_fdata()
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    )
    fluid, synthetic = mask - grey - white, voxels(result)
    medians = [np.median(synthetic[tissue > 0.5]) for tissue in (fluid, grey, white)]
    assert medians == sorted(medians, reverse=True) and medians[0] > 1.2 * medians[1]


def test_three_planes_show_left_at_the_left_and_nose_and_top_up():
    data = np.zeros((30, 40, 20), np.float32)
    data[3, 35, 18] = 1000  # left, in front, on top
    volume = nibabel.Nifti1Image(data, np.eye(4)).as_reoriented(ALL_48[7])
    figure = figures.three_planes({"source": volume, "synthetic": volume}, 3 / 29, 35 / 39, 18 / 19)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["source", "synthetic"]
    planes = [axis.images[0].get_array() for axis in figure.axes[1::2]]
    places = [np.unravel_index(plane.argmax(), plane.shape) for plane in planes]
    assert places == [(4, 3), (1, 3), (1, 35)]  # axial, coronal, sagittal: row, column
    assert all(axis.images[0].origin == "upper" for axis in figure.axes)


@pytest.mark.slow
def test_the_notebook_shows_source_translation_and_trust_map(run, tmp_path):
    nibabel.save(scan(), tmp_path / "head.nii.gz")
    parameters = {"scan": tmp_path / "head.nii.gz", "output": tmp_path / "out", "model": run}
    words = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    result = papermill("05_translation.ipynb", tmp_path / "out.ipynb", *words)
    assert result.returncode == 0, result.stderr
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    shown = [kind for c in cells for o in c.get("outputs", []) for kind in o.get("data", {})]
    assert shown.count("image/png") >= 1
    assert shown.count("text/html") == 1
    assert len([*(tmp_path / "out").glob("*.nii.gz")]) == 2


def test_the_notebook_takes_an_image_as_a_volume(run, tmp_path):
    source = tmp_path / "head.png"
    Image.fromarray((to_slices(scan())[12] / 4).astype(np.uint8)).save(source)
    made = run_cells("05_translation", scan=source, output=tmp_path / "out", model=run)
    assert {*made["shown"]} == {"source", "synthetic", "trust"}
    assert len(list((tmp_path / "out").iterdir())) == 2
