"""Scans of every kind become the same slices, and slices go back to where the scan lies."""

import gzip
import itertools
import logging
import os
import resource
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel import orientations
from nibabel.testing import data_path as nibabel_data
from nilearn.datasets import load_mni152_template
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat
from scipy import ndimage
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from cyclegan_tf import InputError
from cyclegan_tf.presets import PLANES
from cyclegan_tf.scans.folders import find_scans, is_bids
from cyclegan_tf.scans.geometry import coarsened, from_slices, refined, to_slices
from cyclegan_tf.scans.volumes import is_volume, read_volume, volume_name, write_volume

ALL_48 = [
    np.stack([axes, flips], axis=1)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix()
OBLIQUE[:3, 3] = -70, -95, -30


def smooth(shape=(20, 24, 16)) -> np.ndarray:
    """Whole numbers from 0 to 1000, no two axes or directions alike."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 1.5)
    return np.rint(1000 * (noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def image(data=None, affine=OBLIQUE, sizes=(1, 1, 1), **options) -> nibabel.Nifti1Image:
    data = smooth() if data is None else data
    return nibabel.Nifti1Image(data, affine @ np.diag([*sizes, 1]), **options)


def values(volume: nibabel.Nifti1Image) -> np.ndarray:
    return np.asanyarray(volume.dataobj)


# Slices and back


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (0.9, 1.2, 3)])
def test_each_of_the_48_orientations_gives_the_same_slices_and_takes_them_back(plane, sizes):
    straight = image(smooth((9, 12, 7)), sizes=sizes)
    expected = to_slices(straight, plane)
    result = from_slices(expected, straight, plane)
    assert len(ALL_48) == 48
    for orientation in ALL_48:
        turned = straight.as_reoriented(orientation)
        slices = to_slices(turned, plane)
        np.testing.assert_array_equal(slices, expected)
        back = from_slices(slices, turned, plane)
        assert back.shape == turned.shape and back.dtype == np.float32
        np.testing.assert_array_equal(back, orientations.apply_orientation(result, orientation))


@pytest.mark.parametrize("plane", PLANES)
def test_at_one_millimetre_the_round_trip_is_exact(plane):
    for orientation in ALL_48:
        volume = image().as_reoriented(orientation)
        back = from_slices(to_slices(volume, plane), volume, plane)
        np.testing.assert_array_equal(back, values(volume))


@pytest.mark.parametrize("plane", PLANES)
def test_every_voxel_lies_where_the_world_has_it(plane):
    """Rows from front or top, columns from the left or the back, slices rising: checked in mm."""
    affine = np.array([[0, -1, 0, 9], [0, 0, 1, -4], [-1, 0, 0, 6], [0, 0, 0, 1.0]])
    volume = image(smooth((7, 8, 9)), affine)
    slices = to_slices(volume, plane)
    world = nibabel.affines.apply_affine(affine, np.indices((7, 8, 9)).reshape(3, -1).T)
    right, front, up = (world - world.min(0)).round().astype(int).T
    index = {
        "axial": (up, front.max() - front, right),
        "coronal": (front, up.max() - up, right),
        "sagittal": (right, up.max() - up, front),
    }[plane]
    np.testing.assert_array_equal(slices[index], values(volume).ravel())


def test_pixels_come_to_the_spacing_and_slices_stay_as_many():
    volume = image(sizes=(0.5, 0.8, 3))
    assert to_slices(volume).shape == (16, 19, 10)
    assert to_slices(volume, "coronal").shape == (24, 48, 10)
    assert to_slices(volume, "sagittal", spacing=0.5).shape == (20, 96, 38)


def test_resampling_keeps_place_and_intensity():
    """A blob's centre, width and mean, in mm, whatever the size of the pixels."""
    for sizes in [(0.5, 0.5, 2), (2, 0.7, 1), (1.5, 1.5, 1.5)]:
        shape = np.ceil(60 / np.array(sizes)).astype(int)
        place = (np.indices(shape).T + 0.5) * sizes
        data = 100 * np.exp(-((place - [31, 26, 29]) ** 2).sum(-1) / (2 * 6**2)).T
        slices = to_slices(image(data.astype(np.float32), np.eye(4), sizes))
        middle = slices[round(29 / sizes[2])]
        rows, columns = np.indices(middle.shape) + 0.5
        extent = shape[1] * sizes[1]
        assert np.average(columns, weights=middle) == pytest.approx(31, abs=0.3)
        assert extent - np.average(rows, weights=middle) == pytest.approx(26, abs=0.3)
        assert np.sqrt(np.average((columns - 31) ** 2, weights=middle)) == pytest.approx(6, abs=0.3)
        assert middle.max() == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("sizes", [(0.7, 0.7, 1), (1.3, 1, 1), (0.94, 0.94, 5)])
def test_a_volume_survives_other_pixels_nearly_whole(sizes):
    volume = image(ndimage.gaussian_filter(smooth((60, 70, 10)), 1), sizes=sizes)
    difference = from_slices(to_slices(volume), volume) - values(volume)
    assert np.sqrt(np.mean(difference**2)) < 0.02 * np.ptp(values(volume))


def test_voxels_repeated_are_one_again_where_they_lie_in_any_orientation():
    for orientation in ALL_48[::7]:
        turned = image().as_reoriented(orientation)
        data = values(turned).repeat(2, 0).repeat(3, 2)
        affine = turned.affine @ np.diag([0.5, 1, 1 / 3, 1])
        affine[:3, 3] -= turned.affine[:3, :3] @ (0.25, 0, 1 / 3)  # the middle of a voxel stays
        coarse = coarsened(nibabel.Nifti1Image(data, affine))
        np.testing.assert_allclose(values(coarse), values(turned), rtol=1e-6)
        np.testing.assert_allclose(coarse.affine, turned.affine, atol=1e-6)


@pytest.mark.parametrize("shape", [(60, 70, 50), (61, 70, 51)])
def test_what_is_coarsened_comes_back_in_its_own_shape_nearly_whole(shape):
    volume = image(ndimage.gaussian_filter(smooth(shape), 2), sizes=(0.5, 1, 0.4))
    coarse = values(coarsened(volume))
    assert coarse.shape == (-(-shape[0] // 2), 70, -(-shape[2] // 2))
    fine = refined(coarse, volume)
    again = coarsened(nibabel.Nifti1Image(fine, volume.affine))
    np.testing.assert_allclose(values(again)[:-1, :, :-1], coarse[:-1, :, :-1], atol=0.5)
    difference = fine - values(volume)
    assert difference.dtype == np.float32
    assert np.sqrt(np.mean(difference**2)) < 0.03 * np.ptp(values(volume))


def test_no_wave_is_drawn_into_the_air_around_what_is_coarsened():
    data = np.zeros((61, 70, 51), np.float32)
    data[20:40, 10:60, 20:40] = 1000
    volume = image(data, sizes=(0.5, 1, 0.4))
    fine = refined(values(coarsened(volume)), volume)
    assert not fine[data == 0].any() and fine[24:36, 10:60, 24:36].min() > 900


@pytest.mark.parametrize("sizes", [(1, 1, 1), (0.9, 0.9, 3), (0.66, 0.7, 0.66)])
def test_of_voxels_that_are_not_fine_nothing_is_averaged(sizes):
    volume = image(sizes=sizes)
    np.testing.assert_array_equal(values(coarsened(volume)), values(volume))
    np.testing.assert_array_equal(refined(values(volume), volume), values(volume))


# NIfTI


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "b.NII.GZ"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_type_of_voxel_is_read(tmp_path, name, kind):
    data = (smooth() / 4).astype(kind)
    nibabel.save(image(data, dtype=kind), tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert values(volume).dtype == np.float32
    np.testing.assert_array_equal(values(volume), data.astype(np.float32))
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-6)


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("byte_order", "<>")
def test_scale_factors_are_applied_in_both_versions_and_byte_orders(tmp_path, version, byte_order):
    header = version.header_class(endianness=byte_order)
    header.set_data_dtype(np.int16)
    scan = version(smooth().astype(np.int16), OBLIQUE, header)
    scan.header.set_slope_inter(0.25, -7)
    nibabel.save(scan, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert type(volume) is version and values(volume).dtype == np.float32
    np.testing.assert_array_equal(values(volume), 0.25 * smooth() - 7)


def test_a_fourth_dimension_of_one_frame_is_dropped(tmp_path):
    nibabel.save(image(smooth()[..., None]), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(values(volume), smooth())
    assert volume.header.get_data_shape() == smooth().shape


def test_the_template_goes_through_files_and_slices_unchanged(tmp_path):
    nibabel.save(load_mni152_template(resolution=1), tmp_path / "template.nii.gz")
    volume = read_volume(tmp_path / "template.nii.gz")
    slices = to_slices(volume)
    assert slices.shape == (189, 233, 197)
    np.testing.assert_array_equal(from_slices(slices, volume), values(volume))
    middle = slices[80]
    assert middle[:60].mean() < middle[60:170].mean(), "the frame above the nose is dark"


def test_nibabels_own_scans_are_read_or_refused_in_one_sentence():
    folder = Path(nibabel_data)
    anatomical = read_volume(folder / "anatomical.nii")
    np.testing.assert_array_equal(
        values(anatomical), nibabel.load(folder / "anatomical.nii").get_fdata()
    )
    for plane in PLANES:
        back = from_slices(to_slices(anatomical, plane), anatomical, plane)
        assert back.shape == anatomical.shape
    for name, found in {
        "functional.nii": "has 17 x 21 x 3 x 20 voxels: expected one volume of three dimensions",
        "example_nifti2.nii.gz": "has 32 x 20 x 12 x 2 voxels",
        "row_major.dconn.nii": "Cifti2Image",
        "test.mgz": "has 3 x 4 x 5 x 2 voxels",
        "minc1_4d.mnc": "is a Minc1Image: expected a NIfTI, FreeSurfer, Analyze or DICOM volume",
    }.items():
        with pytest.raises(InputError, match=found):
            read_volume(folder / name)


# Writing


def written_like(tmp_path, scan: nibabel.Nifti1Image, name="scan.nii.gz"):
    """The scan read from a file, and the file that is written from its slices."""
    nibabel.save(scan, tmp_path / name)
    volume = read_volume(tmp_path / name)
    data = from_slices(to_slices(volume) / 500 - 1, volume)
    write_volume(tmp_path / "out.nii.gz", data, volume, "synthetic T2")
    return nibabel.load(tmp_path / name), nibabel.load(tmp_path / "out.nii.gz")


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 4), (1, 1), (2, 3)])
def test_what_is_written_lies_where_the_scan_lies_to_the_last_digit(tmp_path, version, codes):
    scan = version(smooth(), OBLIQUE @ np.diag([0.1 + 0.7, 1 / 3, 2.2, 1]))
    scan.set_qform(scan.affine, codes[0])
    moved = scan.affine @ nibabel.affines.from_matvec(np.eye(3), [0.1, 0.2, 0.3])
    scan.set_sform(moved, codes[1])
    scan, result = written_like(tmp_path, scan)
    assert type(result) is version and result.shape == scan.shape
    np.testing.assert_array_equal(result.affine, scan.affine)
    for form in ("get_qform", "get_sform"):
        np.testing.assert_array_equal(getattr(result, form)(), getattr(scan, form)())
    for field in ("qform_code", "sform_code", "pixdim", "dim", "quatern_b", "srow_x"):
        np.testing.assert_array_equal(result.header[field], scan.header[field])


def test_black_is_0_white_is_1000_in_whole_numbers(tmp_path):
    data = np.linspace(-1.5, 1.5, 7)[:, None, None] * np.ones((7, 2, 2))
    write_volume(tmp_path / "a.nii.gz", data, image(data), "a test")
    result = nibabel.load(tmp_path / "a.nii.gz")
    assert result.get_data_dtype() == np.int16 and result.header["descrip"] == b"a test"
    assert result.dataobj.slope == 1 and result.dataobj.inter == 0
    np.testing.assert_array_equal(result.get_fdata()[:, 0, 0], [0, 0, 250, 500, 750, 1000, 1000])


def test_no_text_of_the_scan_travels_on(tmp_path):
    scan = image()
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        scan.header[field] = b"Jane Doe"
    scan.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    scan, result = written_like(tmp_path, scan)
    assert b"Jane Doe" in gzip.decompress((tmp_path / "scan.nii.gz").read_bytes())
    assert b"Jane" not in gzip.decompress((tmp_path / "out.nii.gz").read_bytes())


def test_a_disk_that_is_full_leaves_the_earlier_volume_and_nothing_else(tmp_path):
    write_volume(tmp_path / "a.nii.gz", smooth() / 500 - 1, image(), "")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match="a.nii.gz cannot be written"):
            write_volume(tmp_path / "a.nii.gz", 1 - smooth() / 500, image(), "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["a.nii.gz"]
    np.testing.assert_array_equal(nibabel.load(tmp_path / "a.nii.gz").get_fdata(), smooth())


# DICOM

SIZES = (0.9, 1.1, 2.5)


def dicom(**attributes) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def decimals(numbers) -> list:
    return [DSfloat(float(number), auto_format=True) for number in np.ravel(numbers)]


def series_of(volume: nibabel.Nifti1Image, uid="1.2.3", number=2, text="T1 MPRAGE", slope=0.5):
    """Classic DICOM files of a volume whose voxels are whole numbers, feet first."""
    to_patient = np.diag([-1, -1, 1, 1]) @ volume.affine
    sizes = nibabel.affines.voxel_sizes(to_patient)
    directions = to_patient[:3, :3] / sizes
    for index, plane in enumerate(np.moveaxis(values(volume), 2, 0)):
        pixels = np.rint((plane.T + 100) / slope).astype(np.uint16)
        yield dicom(
            SOPClassUID=MRImageStorage,
            SOPInstanceUID=f"{uid}.{index}",
            SeriesInstanceUID=uid,
            SeriesNumber=number,
            SeriesDescription=text,
            PatientName="Doe^Jane",
            InstanceNumber=7,
            Rows=pixels.shape[0],
            Columns=pixels.shape[1],
            PixelSpacing=decimals([sizes[1], sizes[0]]),
            ImageOrientationPatient=decimals(directions[:, :2].T),
            ImagePositionPatient=decimals(to_patient[:3, 3] + index * to_patient[:3, 2]),
            RescaleSlope=decimals(slope)[0],
            RescaleIntercept=decimals(-100)[0],
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            BitsAllocated=16,
            BitsStored=16,
            HighBit=15,
            PixelRepresentation=0,
            PixelData=pixels.tobytes(),
        )


def save(datasets, folder: Path, seed=0) -> Path:
    """One file each, their names in no order."""
    folder.mkdir(exist_ok=True)
    datasets = list(datasets)
    for dataset, name in zip(
        datasets, np.random.default_rng(seed).permutation(1000)[: len(datasets)], strict=True
    ):
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{name}"
        dataset.save_as(folder / f"IM{name}", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "ASL", "SAR"])
def test_a_dicom_series_is_the_volume_it_was_made_of(tmp_path, axes):
    scan = image(sizes=SIZES)
    scan = scan.as_reoriented(
        orientations.ornt_transform(
            orientations.io_orientation(scan.affine), orientations.axcodes2ornt(axes)
        )
    )
    assert nibabel.aff2axcodes(scan.affine) == tuple(axes)
    volume = read_volume(save(series_of(scan), tmp_path / "series"))
    assert values(volume).dtype == np.float32
    for plane in PLANES:
        np.testing.assert_allclose(to_slices(volume, plane), to_slices(scan, plane), atol=0.05)
    if np.linalg.det(scan.affine) > 0:  # else slices are sorted the other way round
        np.testing.assert_allclose(volume.affine, scan.affine, atol=1e-4)
        np.testing.assert_array_equal(values(volume), values(scan))


def test_a_dicom_series_is_written_as_nifti_that_lies_where_it_lay(tmp_path):
    volume = read_volume(save(series_of(image(sizes=SIZES)), tmp_path / "series"))
    write_volume(tmp_path / "a.nii.gz", values(volume) / 500 - 1, volume, "")
    result = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(result.affine, image(sizes=SIZES).affine, atol=1e-4)
    assert result.header["qform_code"] == result.header["sform_code"] == 1
    np.testing.assert_array_equal(result.get_fdata(), smooth())


def test_each_slice_keeps_its_own_rescale_slope(tmp_path):
    slopes = [0.5, 0.25, 1, 0.125] * 4
    datasets = [list(series_of(image(), slope=slope)) for slope in slopes]
    folder = save((stack[i] for i, stack in enumerate(datasets)), tmp_path / "series")
    np.testing.assert_array_equal(values(read_volume(folder)), smooth())


def test_of_several_series_one_is_named_by_number_uid_or_description(tmp_path):
    t1, t2 = image(sizes=SIZES), image(1000 - smooth(), sizes=SIZES)
    folder = save(series_of(t1), tmp_path / "both", seed=1)
    save(series_of(t2, "1.2.4", 3, "T2 TSE"), folder, seed=2)
    save([dicom(SeriesInstanceUID="1.2.5")], folder, seed=3)  # a report has no image
    (folder / "README.txt").write_text("not DICOM")
    for name in ("3", "1.2.4", "T2 TSE", "t2"):
        np.testing.assert_array_equal(values(read_volume(folder, name)), values(t2))
    for name in ("", "4", "T"):
        with pytest.raises(InputError) as raised:
            read_volume(folder, name)
        assert str(folder) in str(raised.value)
        assert ("found" in str(raised.value)) == bool(name)  # nothing was asked for
        assert f"found {name!r}" in str(raised.value) or not name
        assert "holds 2 DICOM series" in str(raised.value)
        assert "2 'T1 MPRAGE'" in str(raised.value) and "3 'T2 TSE'" in str(raised.value)


def enhanced(volume: nibabel.Nifti1Image) -> Dataset:
    """The same volume as one multi-frame file, its frames in no order."""
    slices = list(series_of(volume))
    slices = [slices[i] for i in np.random.default_rng(5).permutation(len(slices))]
    head, frames = slices[0], []
    for slice_ in slices:
        position = dicom(ImagePositionPatient=slice_.ImagePositionPatient)
        scale = dicom(RescaleSlope=slice_.RescaleSlope, RescaleIntercept=slice_.RescaleIntercept)
        frames.append(
            dicom(PlanePositionSequence=[position], PixelValueTransformationSequence=[scale])
        )
    head.PixelData = b"".join(slice_.PixelData for slice_ in slices)
    measures = dicom(PixelSpacing=head.PixelSpacing)
    plane = dicom(ImageOrientationPatient=head.ImageOrientationPatient)
    shared = dicom(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])
    for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(head, name)
    head.SOPClassUID, head.NumberOfFrames = EnhancedMRImageStorage, len(slices)
    head.SharedFunctionalGroupsSequence = [shared]
    head.PerFrameFunctionalGroupsSequence = frames
    return head


def test_enhanced_dicom_is_the_same_volume(tmp_path):
    volume = read_volume(save([enhanced(image(sizes=SIZES))], tmp_path / "enhanced"))
    expected = read_volume(save(series_of(image(sizes=SIZES)), tmp_path / "classic"))
    np.testing.assert_array_equal(values(volume), values(expected))
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-6)


DICOMS = Path(get_testdata_file("DICOMDIR")).parent  # of pydicom, in its wheel


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
def test_pydicoms_own_series_lies_where_nibabels_reader_has_each_slice():
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    files = list((DICOMS / "98892001/CT5N").iterdir())
    volume = read_volume(files[0].parent)
    assert volume.shape == (16, 16, len(files)) == (16, 16, 5)
    for path in files:
        one = wrapper_from_file(path)
        pixels = np.argwhere(np.ones(one.image_shape))  # rows and columns
        patient = nibabel.affines.apply_affine(one.affine, np.pad(pixels, [(0, 0), (0, 1)]))
        ours = np.linalg.inv(volume.affine) @ np.pad(patient * [-1, -1, 1], [(0, 0), (0, 1)]).T
        voxels = (ours[:3].T + np.linalg.inv(volume.affine)[:3, 3]).round(3)
        np.testing.assert_array_equal(voxels, voxels.round())
        found = values(volume)[tuple(voxels.astype(int).T)]
        np.testing.assert_allclose(found, one.get_data().ravel(), rtol=1e-6)


@pytest.mark.parametrize(
    ("place", "found"),
    {
        "98892003/MR1": "holds 3 DICOM series (1 'FAST LOCALIZER' UID 1.3.",
        "98892003/MR700": "holds images of type PROJECTION IMAGE",
        "98892001/CT2N": "holds images of type LOCALIZER",
        "77654033/CT2": "holds 4 slices 1.25 to 202 mm apart",
        "77654033/CR1": "of kind MONOCHROME1: expected MONOCHROME2",
        "TINY_ALPHA/PT000000/ST000000/SE000000": "holds no DICOM image: expected a series",
    }.items(),
)
def test_pydicoms_other_series_are_refused_in_one_sentence(place, found):
    with pytest.raises(InputError) as raised:
        read_volume(DICOMS / place)
    assert found in one_sentence(raised, DICOMS / place, longest=400)  # three UIDs


@pytest.mark.parametrize(
    "encoding",
    ["", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_jpeg_ls_lossless"],
)
def test_every_encoding_with_a_decoder_gives_the_same_voxels(tmp_path, encoding):
    plain = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    for index in range(2):
        scan = pydicom.dcmread(get_testdata_file(f"MR_small{encoding}.dcm"))
        scan.ImagePositionPatient[2] = 5 * index
        scan.save_as(tmp_path / f"{index}.dcm")
    volume = values(read_volume(tmp_path))
    assert volume.shape == (64, 64, 2)
    for index in range(2):
        np.testing.assert_array_equal(volume[..., index].T, plain.pixel_array)


def test_tiles_of_a_mosaic_are_not_taken_for_slices(tmp_path):
    for name in ("0.dcm", "1.dcm"):
        shutil.copy(Path(nibabel_data) / name, tmp_path)
    with pytest.raises(InputError, match="holds images of type MOSAIC: expected magnitude images"):
        read_volume(tmp_path)


# Folders


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_volumes_of_a_bids_data_set_are_found_by_suffix_with_sessions_and_without(tmp_path):
    t1 = [
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/ses-a/anat/sub-2_ses-a_run-1_T1w.nii",
        "sub-2/ses-b/anat/sub-2_ses-b_T1w.nii.gz",
        "sub-10/anat/sub-10_T1w.nii.gz",
    ]
    root = touched(
        tmp_path,
        *reversed(t1),
        "sub-1/anat/sub-1_T2w.nii.gz",
        "sub-1/anat/sub-1_T1w.json",
        "sub-1/anat/._sub-1_T1w.nii.gz",
        "sub-1/anat/sub-1_inplaneT1w.nii.gz",
        "sub-1/func/sub-1_T1w.nii.gz",
        "derivatives/x/sub-1/anat/sub-1_T1w.nii.gz",
        "stray_T1w.nii.gz",
    )
    assert is_bids(root) and not is_volume(root)
    assert find_scans(root, "T1w").scans == [root / name for name in t1]
    assert find_scans(root, "T2w").scans == [root / "sub-1/anat/sub-1_T2w.nii.gz"]


def test_volumes_of_a_plain_folder_are_found_in_natural_order(tmp_path):
    touched(tmp_path, "10.nii.gz", "9.NII", ".8.nii", "notes.txt", "images/a.png", "__MACOSX/a.nii")
    save(series_of(image()), tmp_path / "series 9b")
    save(series_of(image()), tmp_path / ".hidden")
    (tmp_path / "folder.nii").mkdir()
    save([dicom(SeriesInstanceUID="1.2")], tmp_path / "a disk")
    os.rename(next((tmp_path / "a disk").iterdir()), tmp_path / "a disk" / "DICOMDIR")
    expected = ["9.NII", "10.nii.gz", "series 9b"]
    assert not is_bids(tmp_path)
    assert [path.name for path in find_scans(tmp_path, "T1w").scans] == expected
    assert all(is_volume(tmp_path / name) for name in expected)
    for other in ("notes.txt", "images", "a disk", "folder.nii", "gone.nii.gz"):
        assert not is_volume(tmp_path / other)
    assert find_scans(tmp_path / "series 9b", "T1w").scans == [tmp_path / "series 9b"]
    assert find_scans(tmp_path / "images", "T1w").scans == [tmp_path / "images/a.png"]
    assert find_scans(tmp_path / ".hidden", "T1w").scans == [tmp_path / ".hidden"], (
        "by its own name"
    )


# Bad input


def nifti(scan=None, **fields) -> bytes:
    """A good file, or one whose header says what it likes over the voxels of a good one."""
    content = bytearray((scan or image()).to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.binaryblock
    return bytes(content)


def spoilt(value: float) -> nibabel.Nifti1Image:
    data = smooth()
    data[3, 4, 5] = value
    return image(data)


def flipped(packed: bytes) -> bytes:
    """A gzip file with another checksum than that of what is in it."""
    return packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]


COLOUR = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_FILES = {
    "empty.nii": (b"", "cannot be read as"),
    "text.nii.gz": (b"this is no volume", "is not compressed by gzip: expected what its name says"),
    "cut.nii": (nifti()[:-100], "cannot be read as"),
    "cut.nii.gz": (gzip.compress(nifti())[:-100], "cannot be read as"),
    "flipped.nii.gz": (flipped(gzip.compress(nifti())), "cannot be read as"),
    "only a header.nii.gz": (gzip.compress(nifti()[:352]), "cannot be read as"),
    "not zipped.nii.gz": (nifti(), "is not compressed by gzip: expected what its name says"),
    "zipped.nii": (gzip.compress(nifti()), "is compressed by gzip: expected what its name says"),
    "no rotation.nii": (
        nifti(qform_code=1, sform_code=0, quatern_b=5),
        "cannot be read as",
    ),
    "zero.nii": (nifti(pixdim=[1, 1, 0, 1, 1, 1, 1, 1]), "voxels of 1 x 0 x 1 mm: expected 0.01"),
    "nan.nii": (nifti(pixdim=[1, 1, np.nan, 1, 1, 1, 1, 1]), "voxels of 1 x nan x 1 mm: expected"),
    "metres.nii": (nifti(pixdim=[1, 1, 1, 0.001, 1, 1, 1, 1]), "voxels of 1 x 1 x 0.001 mm"),
    "zero sform.nii": (nifti(srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4), "0 x 0 x 0 mm"),
    "nan sform.nii": (nifti(srow_x=[1, 0, 0, np.nan]), "affine without inverse: expected"),
    "flat.nii": (nifti(srow_x=[1, 0, 0, 0], srow_y=[1, 0, 0, 0]), "affine without inverse"),
    "no offset.nii": (nifti(vox_offset=0), "its vox_offset is 0, which is the header"),
    "giant.nii.gz": (gzip.compress(nifti(dim=[3, *[30000] * 3, 1, 1, 1, 1])), "2.7e+13 at 1 mm"),
    "coarse.nii": (nifti(image(sizes=(90, 90, 90))), "5.6e+09 at 1 mm: expected at most 268435456"),
    "nothing.nii": (nifti(dim=[3, 20, 0, 16, 1, 1, 1, 1]), "20 x 0 x 16 voxels"),
    "no number.nii": (nifti(spoilt(np.nan)), "holds 1 NaN inside: expected finite"),
    "infinite.nii": (nifti(spoilt(np.inf)), "holds inf: expected finite"),
    "no data.nii": (nifti(spoilt(np.finfo("f4").min)), "holds -3.403e+38: expected finite"),
    "constant.nii": (nifti(image(np.full((4, 4, 4), 3.0))), "3.0 everywhere: expected a scan"),
    "frames.nii": (nifti(image(np.zeros((4, 4, 4, 2)))), "4 x 4 x 4 x 2 voxels: expected one"),
    "colour.nii": (nifti(image(COLOUR)), "colour: expected one real number"),
    "complex.nii": (nifti(image(np.zeros((4, 4, 4), complex))), "complex numbers: expected"),
}


def one_sentence(raised, path: Path, longest=300) -> str:
    message = str(raised.value)
    assert message.startswith(str(path)) and message.endswith(".")
    assert "\n" not in message and len(message) < len(str(path)) + longest
    return message


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.filterwarnings("error")
def test_a_bad_nifti_file_is_refused_in_one_sentence_that_names_it(tmp_path, name, capfd, caplog):
    content, found = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_volume(tmp_path / name)
    assert found in one_sentence(raised, tmp_path / name)
    assert capfd.readouterr() == ("", "") and caplog.records == []


def test_a_file_of_two_dimensions_is_a_slice_that_lies_where_it_says(tmp_path):
    scan = image(smooth()[:, :, 5], sizes=SIZES)
    nibabel.save(scan, tmp_path / "slice.nii")
    volume = read_volume(tmp_path / "slice.nii")
    np.testing.assert_array_equal(values(volume)[:, :, 0], values(scan))
    np.testing.assert_allclose(volume.affine, scan.affine, atol=1e-6)
    write_volume(tmp_path / "a.nii", values(volume) / 500 - 1, volume, "")
    result = nibabel.load(tmp_path / "a.nii")
    np.testing.assert_array_equal(values(result), values(volume))
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-6)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.nii.gz .*No such file"):
        read_volume(tmp_path / "gone.nii.gz")


def changed(slices: list[Dataset], which=slice(None), **attributes) -> list[Dataset]:
    for dataset in slices[which]:
        for name, value in attributes.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
    return slices


def moved(slices: list[Dataset], distance: float) -> list[Dataset]:
    """One slice of `series_of`, a stack along OBLIQUE, by a distance in mm along the stack."""
    place = np.array(slices[5].ImagePositionPatient, float)
    along = (np.array(slices[6].ImagePositionPatient, float) - place) / SIZES[2]
    slices[5].ImagePositionPatient = decimals(place + distance * along)
    return slices


ONE = slice(5, 6)
TURNED = [0, 1, 0, 1, 0, 0]
COLOURED = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}
BAD_SERIES = {
    "missing": (lambda s: s[:5] + s[6:], "15 slices 2.5 to 5 mm apart: expected all at the same"),
    "last but one": (lambda s: s[:14] + s[15:], "15 slices 2.5 to 5 mm apart"),
    "twice": (lambda s: [*s, *list(series_of(image(sizes=SIZES)))[5:6]], "17 slices 0 to 2.5 mm"),
    "two echoes": (lambda s: [*s, *series_of(image(sizes=SIZES))], "32 slices 0 to 2.5 mm"),
    "one place": (lambda s: changed(s, ImagePositionPatient=[1, 2, 3]), "voxels of 0.9 x 1.1 x 0"),
    "shifted": (lambda s: changed(s, ONE, ImagePositionPatient=[70, 95, 20]), "mm apart: expected"),
    "jumped": (lambda s: moved(s, 0.5), "16 slices 2 to 3 mm apart: expected all at the same"),
    "sizes": (lambda s: changed(s, ONE, Rows=23), "16 slices of 2 sizes or orientations: expected"),
    "scout": (lambda s: changed(s, ONE, ImageOrientationPatient=TURNED), "16 slices of 2 sizes"),
    "single": (lambda s: s[:1], "is one slice without SliceThickness: expected that, or more"),
    "none": (lambda s: changed(s, Rows=None), "has no Rows: expected one number"),
    "colour": (lambda s: changed(s, **COLOURED), "of kind RGB: expected MONOCHROME2"),
    "bits": (lambda s: changed(s, BitsStored=12), "has HighBit 15 of 12 bits: expected 11"),
    "few bits": (lambda s: changed(s, BitsStored=8, HighBit=7), "expected no more than 8 bits"),
    "high bits": (
        lambda s: changed(s, HighBit=[15] * 200),
        "has several values of HighBit: expect",
    ),
    "stored": (
        lambda s: changed(s, BitsStored=[16, 16]),
        "has several values of BitsStored: expect",
    ),
    "no place": (
        lambda s: changed(s, ImagePositionPatient=None),
        "has no ImagePositionPatient:",
    ),
    "no spacing": (lambda s: changed(s, PixelSpacing=[0, 0]), "voxels of 0 x 0 mm: expected 0.01"),
    "mirrored": (lambda s: changed(s, PixelSpacing=[-1, 1]), "voxels of -1 x 1 mm: expected 0.01"),
    "giant": (lambda s: changed(s, Rows=60000, Columns=60000), "60000 x 60000 x 16 voxels"),
    "no pixels": (lambda s: changed(s, ONE, PixelData=None), "IM"),
    "few pixels": (lambda s: changed(s, ONE, PixelData=b"1234"), "IM"),
    "empty": (lambda s: changed(s, RescaleSlope=0), "everywhere: expected a scan of a head"),
}


@pytest.mark.parametrize("name", BAD_SERIES)
@pytest.mark.filterwarnings("error")
def test_a_bad_dicom_series_is_refused_in_one_sentence_that_names_it(tmp_path, name, capfd, caplog):
    spoil, found = BAD_SERIES[name]
    folder = save(spoil(list(series_of(image(sizes=SIZES)))), tmp_path / name)
    with pytest.raises(InputError) as raised:
        read_volume(folder)
    assert found in one_sentence(raised, folder)
    assert capfd.readouterr() == ("", "") and caplog.records == []


def test_rounded_positions_are_no_gap(tmp_path):
    folder = save(moved(list(series_of(image(sizes=SIZES))), 0.02), tmp_path / "series")
    np.testing.assert_array_equal(values(read_volume(folder)), smooth())


# Other formats, units, NaN


@pytest.mark.parametrize("unit, size", [("meter", 1000), ("mm", 1), ("micron", 0.001)])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1)])
def test_metres_and_microns_become_millimetres(tmp_path, unit, size, codes):
    small = np.diag([1 / size] * 3 + [1]) @ OBLIQUE @ np.diag([0.9, 1.1, 2.5, 1])
    scan = nibabel.Nifti1Image(smooth(), small)
    scan.set_qform(small, codes[0])
    scan.set_sform(small, codes[1])
    scan.header.set_xyzt_units(unit, "sec")
    nibabel.save(scan, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.affine, OBLIQUE @ np.diag([0.9, 1.1, 2.5, 1]), atol=1e-4)
    np.testing.assert_allclose(volume.header.get_zooms(), [0.9, 1.1, 2.5], rtol=1e-5)
    assert volume.header.get_xyzt_units() == ("mm", "sec")
    write_volume(tmp_path / "b.nii.gz", smooth() / 500 - 1, volume, "")
    written = nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_allclose(written.affine, volume.affine, rtol=1e-5)
    assert written.header.get_xyzt_units()[0] == "mm"


def test_an_unknown_unit_is_millimetres(tmp_path):
    scan = image()
    scan.header["xyzt_units"] = 0
    nibabel.save(scan, tmp_path / "a.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").affine, OBLIQUE, atol=1e-6)


OTHERS = {
    "a.mgz": nibabel.MGHImage,
    "a.mgh": nibabel.MGHImage,
    "a.img": nibabel.Nifti1Pair,
    "a.hdr": nibabel.Nifti2Pair,
    "a.img.gz": nibabel.Nifti1Pair,
    "a.hdr.gz": nibabel.Nifti1Pair,
}


@pytest.mark.parametrize("name", OTHERS)
def test_freesurfer_files_and_pairs_are_read_and_written_as_nifti(tmp_path, name):
    nibabel.save(OTHERS[name](smooth(), OBLIQUE), tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert isinstance(volume, nibabel.Nifti1Image) and values(volume).dtype == np.float32
    np.testing.assert_array_equal(values(volume), smooth())
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)
    assert not volume.extra["warnings"]
    write_volume(tmp_path / "out.nii.gz", smooth() / 500 - 1, volume, "")
    written = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(written.affine, volume.affine, atol=1e-6)
    np.testing.assert_array_equal(written.get_fdata(), smooth())
    assert is_volume(tmp_path / name)
    pair = [path for path in tmp_path.glob("a.*") if ".hdr" not in path.name]
    assert find_scans(tmp_path, "T1w").scans == [*pair, tmp_path / "out.nii.gz"]
    assert volume_name(tmp_path / name) == "a" == volume_name(tmp_path / "a.NII.gz")


def test_a_freesurfer_file_that_does_not_say_how_the_head_lies_is_doubted(tmp_path):
    nibabel.save(nibabel.MGHImage(smooth(), OBLIQUE), tmp_path / "a.mgh")
    whole = bytearray((tmp_path / "a.mgh").read_bytes())
    whole[28:30] = b"\0\0"  # goodRASFlag
    (tmp_path / "a.mgh").write_bytes(whole)
    (doubt,) = read_volume(tmp_path / "a.mgh").extra["warnings"]
    assert "does not say how the head lies" in doubt


@pytest.mark.parametrize("kind", [nibabel.AnalyzeImage, nibabel.Spm99AnalyzeImage])
def test_analyze_is_read_and_doubted(tmp_path, kind):
    nibabel.save(kind(smooth().astype(np.int16), np.diag([-1, 1, 2, 1])), tmp_path / "a.img")
    (tmp_path / "a.mat").unlink(missing_ok=True)
    volume = read_volume(tmp_path / "a.hdr")
    np.testing.assert_array_equal(values(volume), smooth())
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(volume.affine), [1, 1, 2])
    assert "does not say where left is" in volume.extra["warnings"][0]


MATRICES = {  # (what lies beside an Analyze file, the affine that SPM has of it)
    "mat": OBLIQUE,  # of SPM2
    "M": np.diag([-1, 1, 1, 1]) @ OBLIQUE,  # of SPM99, which turned the first axis over itself
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("ending", ["img", "hdr", "img.gz"])
def test_an_analyze_file_lies_as_the_mat_of_spm_beside_it_says(tmp_path, ending, name):
    packed = ".gz" if ending.endswith("gz") else ""
    nibabel.save(nibabel.AnalyzeImage(smooth().astype(np.int16), None), tmp_path / f"a.img{packed}")
    first = np.eye(4)
    first[:3, 3] = -1  # Matlab counts from 1
    with nibabel.openers.Opener(tmp_path / f"a.mat{packed}", "wb") as file:
        savemat(file, {name: OBLIQUE @ first}, format="4")
    volume = read_volume(tmp_path / f"a.{ending}")
    np.testing.assert_allclose(volume.affine, MATRICES[name], atol=1e-5)
    np.testing.assert_allclose(volume.get_sform(), MATRICES[name], atol=1e-5)
    (doubt,) = volume.extra["warnings"]
    assert f"does not say where left is, it lies as a.mat{packed} says" in doubt


def test_a_pixdim_that_disagrees_with_the_mat_of_spm_is_told(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(smooth().astype(np.int16), np.eye(4)), tmp_path / "a.img")
    savemat(tmp_path / "a.mat", {"mat": np.diag([1, 1, 2, 1])}, format="4")
    doubts = read_volume(tmp_path / "a.img").extra["warnings"]
    assert (
        "Voxels are 1 x 1 x 1 mm by pixdim and 1 x 1 x 2 mm by the mat, which is taken." in doubts
    )


@pytest.mark.parametrize("content", ["1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "scipy is absent"])
def test_a_mat_that_cannot_be_read_is_named(tmp_path, monkeypatch, content):
    nibabel.save(nibabel.AnalyzeImage(smooth().astype(np.int16), np.eye(4)), tmp_path / "a.img")
    (tmp_path / "a.mat").write_text(content)  # the first is FSL's
    if content == "scipy is absent":  # which translating does not need else
        monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(
        InputError, match="a.img cannot be read as a volume that lies as a.mat says"
    ):
        read_volume(tmp_path / "a.img")


@pytest.mark.parametrize("slope", [-0.25, 0.25])
def test_a_scale_factor_below_0_is_doubted(tmp_path, slope):
    (tmp_path / "a.nii").write_bytes(nifti(scl_slope=slope, scl_inter=300))
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(values(volume), 300 + slope * smooth())
    doubts = volume.extra["warnings"]
    expected = ["Its scale factor is below 0 (-0.25): are its grey values turned over?"]
    assert doubts == (expected if slope < 0 else [])


def test_a_head_that_does_not_say_how_it_lies_is_doubted(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(qform_code=0, sform_code=0))
    assert "does not say how the head lies" in read_volume(tmp_path / "a.nii").extra["warnings"][0]
    (tmp_path / "a.nii").write_bytes(nifti())
    assert read_volume(tmp_path / "a.nii").extra["warnings"] == []


@pytest.mark.parametrize(
    ("qform", "fields", "doubt"),
    [
        (
            np.diag([-1, 1, 1, 1]),
            {},
            "lies ('L', 'A', 'S') by the qform and ('R', 'A', 'S') by the sform, which",
        ),
        (
            np.diag([-1, -1, 1, 1]),
            {},
            "lies ('L', 'P', 'S') by the qform and ('R', 'A', 'S') by the sform, which",
        ),
        (np.eye(4), {"pixdim": [1, 2, 1, 1, 1, 1, 1, 1]}, "2 x 1 x 1 mm by pixdim and 1 x 1 x 1"),
        (np.eye(4), {"pixdim": [1, 1.1, 1, 1, 1, 1, 1, 1]}, ""),
        (np.eye(4), {"quatern_b": 5}, ""),
        (np.diag([-1, 1, 1, 1]), {"qform_code": 0}, ""),
    ],
)
def test_a_qform_or_pixdim_that_disagrees_with_the_sform_is_told(tmp_path, qform, fields, doubt):
    scan = nibabel.Nifti1Image(smooth(), np.eye(4))
    scan.set_qform(qform, "scanner")
    (tmp_path / "a.nii").write_bytes(nifti(scan, **fields))
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.affine, np.eye(4))
    assert (doubt in volume.extra["warnings"][0]) if doubt else not volume.extra["warnings"]


@pytest.mark.parametrize("gone, left", [("a.img", "a.hdr"), ("a.hdr", "a.img")])
def test_of_a_pair_it_is_the_missing_file_that_is_named(tmp_path, gone, left):
    nibabel.save(nibabel.Nifti1Pair(smooth(), OBLIQUE), tmp_path / "a.img")
    (tmp_path / gone).unlink()
    with pytest.raises(InputError) as raised:
        read_volume(tmp_path / left)
    assert f"{left} is half of a pair: expected {gone} beside it" in str(raised.value)
    assert is_volume(tmp_path / left) == (left == "a.hdr"), "a disk is an .img too"


def test_a_pair_in_capital_letters_is_a_pair(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(smooth(), OBLIQUE), tmp_path / "a.img")
    for path in [*tmp_path.iterdir()]:
        path.rename(tmp_path / path.name.upper())
    for name in ("A.HDR", "A.IMG"):
        np.testing.assert_allclose(values(read_volume(tmp_path / name)), smooth())


def test_nan_around_a_head_is_outside_of_it(tmp_path):
    data = smooth()
    data[:4], data[:, :, -2:] = np.nan, np.nan
    nibabel.save(image(data), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(values(volume), data)
    nibabel.save(image(data[:, :, :1]), tmp_path / "slice.nii.gz")
    assert np.isnan(values(read_volume(tmp_path / "slice.nii.gz"))).sum() == 4 * 24


@pytest.mark.parametrize("single", [False, True])
def test_nan_in_a_head_is_refused(tmp_path, single):
    data = smooth()[..., 5:6] if single else smooth()
    data[:4] = np.nan
    data[9:11, 9:11, 0 if single else 8] = np.nan
    nibabel.save(image(data), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="holds 4 NaN inside: expected finite voxels there"):
        read_volume(tmp_path / "a.nii.gz")
    nibabel.save(image(np.full((4, 4, 4), np.nan)), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="is nan everywhere"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_of_nan_amid_a_head_is_refused(tmp_path, axis):
    data = smooth()
    lost = np.moveaxis(data, axis, 0)[7]
    lost[:] = np.nan
    nibabel.save(image(data), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=f"holds {lost.size} NaN inside: expected finite voxels"):
        read_volume(tmp_path / "a.nii.gz")


def test_a_link_that_leads_nowhere_is_a_volume_that_is_not_there(tmp_path):
    (tmp_path / "a.nii.gz").symlink_to(".git/annex/objects/x")
    assert find_scans(tmp_path, "T1w").scans == [tmp_path / "a.nii.gz"]
    with pytest.raises(InputError, match="link that leads nowhere: expected .*git annex get"):
        read_volume(tmp_path / "a.nii.gz")


def test_nothing_is_changed_in_other_libraries():
    before = logging.getLogger("pydicom").level, 0
    with pytest.raises(InputError):
        read_volume(Path("gone.nii"))
    assert (logging.getLogger("pydicom").level, logging.root.manager.disable) == before
