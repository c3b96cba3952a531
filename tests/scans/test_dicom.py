"""DICOM as scanners, archives and disks hand it over becomes the right volume, or a sentence."""

import copy
import os
import shutil
from pathlib import Path

import gdcm
import nibabel
import numpy as np
import pydicom
import pytest
from conftest import REPOSITORY
from pydicom.data import get_testdata_file
from pydicom.fileset import FileSet
from pydicom.uid import JPEGLosslessSV1, RLELossless
from test_volumes import (
    SIZES,
    changed,
    decimals,
    dicom,
    enhanced,
    image,
    one_sentence,
    save,
    series_of,
    smooth,
    values,
)

from cyclegan_tf import InputError
from cyclegan_tf.scans.dicom import GE, HEADER, PIXELS, is_dicom, read_dicom
from cyclegan_tf.scans.folders import find_scans
from cyclegan_tf.scans.volumes import is_volume, read_volume, write_volume

SCAN = image(smooth((8, 9, 4)), sizes=SIZES)


@pytest.fixture
def cases() -> Path:
    """Folder of real files and bug reports, which is not part of the project."""
    folder = REPOSITORY.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the cases are absent")
    return folder


def slices(**attributes) -> list[pydicom.Dataset]:
    return changed(list(series_of(SCAN)), **attributes)


def refusal(path: Path, series="", longest=300) -> str:
    with pytest.raises(InputError) as raised:
        read_volume(path, series)
    return one_sentence(raised, path, longest)


def assert_is_scan(volume: nibabel.Nifti1Image, data=None) -> None:
    np.testing.assert_allclose(volume.affine, SCAN.affine, atol=1e-4)
    np.testing.assert_array_equal(values(volume), values(SCAN) if data is None else data)


# Where it lies


def test_every_voxel_lies_where_another_reader_has_it(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    folder = save(series_of(SCAN), tmp_path / "series")
    place = {path: pydicom.dcmread(path).ImagePositionPatient[2] for path in folder.iterdir()}
    theirs = sitk.ReadImage([str(path) for path in sorted(place, key=place.get)])
    ours = read_volume(folder)
    for index in np.ndindex(ours.shape):
        right, front, up = nibabel.affines.apply_affine(ours.affine, index)
        at = theirs.TransformPhysicalPointToIndex((-right, -front, up))
        assert theirs[at] == pytest.approx(values(ours)[index], abs=1e-3)


def test_private_groups_of_a_frame_have_no_say_in_where_it_lies(tmp_path):
    head = enhanced(image(sizes=SIZES))
    for frame in head.PerFrameFunctionalGroupsSequence:
        block = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        lie = dicom(ImagePositionPatient=[1, 2, 3], PixelSpacing=[9, 9], RescaleSlope="7")
        block.add_new(0x0F, "SQ", [lie])
    volume = read_volume(save([head], tmp_path / "philips"))
    np.testing.assert_allclose(volume.affine, image(sizes=SIZES).affine, atol=1e-4)
    np.testing.assert_array_equal(values(volume), smooth())


def test_a_philips_series_lies_by_its_public_positions(cases):
    expected = nibabel.load(cases / "01-philips-private-position/expected_geometry.nii.gz")
    volume = read_volume(cases / "01-philips-private-position/series")
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)


def test_a_single_slice_is_as_thick_as_it_says(tmp_path):
    one = slices(SliceThickness="5", SpacingBetweenSlices="")[1:2]
    volume = read_volume(save(one, tmp_path / "one"))
    assert volume.shape == (8, 9, 1)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(volume.affine), [0.9, 1.1, 5], rtol=1e-5)
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], SCAN.affine @ [0, 0, 1, 1], atol=1e-4)


def test_a_thickness_with_a_comma_is_read(tmp_path):
    for said in (slices(SliceThickness="5.0"), slices(SliceThickness="5.0")[:1]):
        folder = save(said, tmp_path / f"{len(said)}")
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes().replace(b"5.0 ", b"5,0 "))
        volume = read_volume(folder)
        apart = 5 if len(said) == 1 else SIZES[2]
        assert nibabel.affines.voxel_sizes(volume.affine)[2] == pytest.approx(apart)


def test_an_overlay_in_the_bits_beyond_those_stored_changes_nothing(tmp_path):
    datasets = slices()
    for dataset in datasets:
        pixels = np.frombuffer(dataset.PixelData, np.uint16)
        assert pixels.max() < 2**12
        dataset.PixelData = (pixels | 2**12).tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.add_new(0x60000102, "US", 12)
    assert_is_scan(read_volume(save(datasets, tmp_path / "old")))


def test_slices_that_lie_otherwise_than_they_say_lie_by_their_positions_and_are_doubted(tmp_path):
    said = slices(SpacingBetweenSlices="2.5")
    assert not read_volume(save(said, tmp_path / "whole")).extra["warnings"]
    volume = read_volume(save(said[::2], tmp_path / "half"))
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(volume.affine)[2], 5, rtol=1e-5)
    (doubt,) = volume.extra["warnings"]
    assert doubt == "Slices lie 5 mm apart, SpacingBetweenSlices says 2.5."
    gaps = slices(SpacingBetweenSlices="0.5", SliceThickness="2")  # as some scanners have it
    assert not read_volume(save(gaps, tmp_path / "gaps")).extra["warnings"]


@pytest.mark.parametrize("said", ["", "2.5"])  # no distance, or one that might be a gap's
def test_a_series_of_which_every_second_slice_is_lost_is_doubted(said, tmp_path):
    whole = slices(SpacingBetweenSlices=said, SliceThickness="2.5")
    for number, one in enumerate(whole, 1):
        one.InstanceNumber = number
    assert not read_volume(save(whole, tmp_path / "whole")).extra["warnings"]
    (doubt,) = read_volume(save(whole[::2], tmp_path / "half")).extra["warnings"]
    assert "instance numbers between them are missing" in doubt
    for number, one in enumerate(whole[::2], 1):  # so acquired, with gaps
        one.InstanceNumber = number
    assert not read_volume(save(whole[::2], tmp_path / "gaps")).extra["warnings"]


@pytest.mark.parametrize("degrees", [0, 2, 20])
def test_slices_of_a_tilted_gantry_lie_nowhere_else_by_a_qform(degrees, tmp_path):
    datasets = slices()
    for number, dataset in enumerate(datasets):
        shift = 2.5 * number * np.tan(np.radians(degrees))
        down = np.array(dataset.ImageOrientationPatient[3:], float)
        place = np.array(dataset.ImagePositionPatient, float) + shift * down
        dataset.ImagePositionPatient = decimals(place)
    volume = read_volume(save(datasets, tmp_path / "series"))
    write_volume(tmp_path / "a.nii", values(volume) / 500 - 1, volume, "")
    header = nibabel.load(tmp_path / "a.nii").header
    doubts = "".join(volume.extra["warnings"])
    assert header["sform_code"] == 1 and header["qform_code"] == (degrees == 0)
    assert ("Slices lie aslant" in doubts) == (degrees > 0)
    if header["qform_code"]:
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)


@pytest.mark.parametrize("first", [2, np.nan])
def test_directions_that_are_no_unit_vectors_are_refused(first, tmp_path):
    folder = save(slices(ImageOrientationPatient=[first, 0, 0, 0, 1, 0]), tmp_path / "series")
    found = f"ImageOrientationPatient {first}\\0\\0\\0\\1\\0"
    assert f"{found}: expected unit vectors" in refusal(folder)


def test_frames_that_do_not_say_where_they_lie_are_refused(tmp_path):
    folder = save([slices(NumberOfFrames=2)[0]], tmp_path / "two")
    assert "holds 2 frames and says of 1 where they lie" in refusal(folder)


# Attributes

SOUND = {
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    **dict.fromkeys(["EchoTime", "InversionTime", "TriggerTime", "FlipAngle"], decimals(4.5)[0]),
    **dict.fromkeys(["SliceThickness", "SpacingBetweenSlices"], decimals(2.5)[0]),
    **dict.fromkeys(["AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier"], 1),
    "AcquisitionTime": "101010",
    "DiffusionBValue": 0.0,
    "ComplexImageComponent": "MAGNITUDE",
    "Modality": "MR",
}


GROUPS = {  # and the attribute there, where it has another name
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "ImageType": "MRImageFrameTypeSequence.FrameType",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "EchoTime": "MREchoSequence.EffectiveEchoTime",
    "InversionTime": "MRModifierSequence.InversionTimes",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "TemporalPositionIdentifier": "FrameContentSequence.TemporalPositionIndex",
    "TriggerTime": "CardiacSynchronizationSequence.NominalCardiacTriggerDelayTime",
    "AcquisitionNumber": "FrameContentSequence.FrameAcquisitionNumber",
    "AcquisitionTime": "FrameContentSequence.FrameAcquisitionDateTime",
}


def whole() -> pydicom.Dataset:
    """An enhanced file with something in every functional group that is read."""
    head = enhanced(SCAN)
    for frame in head.PerFrameFunctionalGroupsSequence:
        for name, group in GROUPS.items():
            group, _, other = group.partition(".")
            if group not in frame:
                setattr(frame, group, [dicom()])
            value = "20200101101010" if other.endswith("DateTime") else SOUND[name]
            setattr(frame[group][0], other or name, value)
    return head


def spoil(dataset: pydicom.Dataset, name: str, empty: bool) -> bool:
    """Empties an attribute, or deletes it, in the file and in every functional group."""
    found = False
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"  # else pydicom looks at BitsAllocated
    for element in list(dataset):
        if element.keyword == name:
            found = True
            if empty:
                dataset[element.tag] = pydicom.DataElement(element.tag, element.VR, None)
            else:
                del dataset[element.tag]
        elif element.VR == "SQ":
            found |= any([spoil(item, name, empty) for item in element.value])
    return found


def outcome(datasets, folder: Path):
    try:
        volume = read_volume(save(datasets, folder))
        result = volume.affine.tolist(), values(volume).tolist(), volume.extra["warnings"]
    except InputError as error:
        result = str(error)
    shutil.rmtree(folder)
    return result


def keywords() -> list[str]:
    others = [group.partition(".") for group in GROUPS.values()]
    parts = {part for group, _, other in others for part in (group, other)} - {""}
    return sorted({*HEADER, *PIXELS, *parts})


@pytest.mark.parametrize("make", [lambda: slices(**SOUND), lambda: [whole()]])
def test_every_attribute_that_is_empty_is_as_if_it_were_not_there(tmp_path, make):
    sound, tried = make(), 0
    for name in keywords():
        results, found = [], False
        for empty in (True, False):
            datasets = copy.deepcopy(sound)
            found |= any([spoil(dataset, name, empty) for dataset in datasets])
            results.append(outcome(datasets, tmp_path / "series") if found else None)
        assert results[0] == results[1], name
        assert "cannot be read" not in str(results[0]) or name in PIXELS, results[0]
        tried += found
    assert tried > 25


def test_an_optional_attribute_that_is_empty_changes_nothing(tmp_path):
    optional = {
        *SOUND,
        "SeriesNumber",
        "SeriesDescription",
        "RescaleIntercept",
        "SeriesInstanceUID",
    }
    expected = outcome(slices(**SOUND, RescaleIntercept=""), tmp_path / "series")
    assert isinstance(expected, tuple)
    for name in optional:
        datasets = slices(**SOUND, RescaleIntercept="")
        assert all([spoil(dataset, name, empty=True) for dataset in datasets])
        assert outcome(datasets, tmp_path / "series") == expected, name


# Which frames


@pytest.mark.parametrize(
    "kind",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", kind, "ND"]}
        for kind in (
            *("P", "R", "I", "PHASE", "PHASE MAP", "B0", "VELOCITY MAP", "T1 MAP", "ADC"),
            *("RELCBV", "SWI", "FF", "FAT_FRACTION", "R1", "R2STAR", "T2_STAR", "PERFUSION"),
        )
    ]
    + [
        {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "P"]},
        {"ImageType": ["DERIVED", "PRIMARY", "FIELD_MAP", "NONE"]},
        {"ComplexImageComponent": "PHASE"},
        {"ComplexImageComponent": "REAL"},
    ],
)
def test_what_is_no_magnitude_image_is_refused_alone_and_left_out_beside_one(tmp_path, kind):
    name, value = next(iter(kind.items()))
    folder = save(slices(**kind), tmp_path / "alone")
    assert ": expected magnitude images" in refusal(folder)
    mixed = save([*slices(**SOUND), *slices(**SOUND | kind)], tmp_path / "mixed")
    volume = read_volume(mixed)
    assert_is_scan(volume)
    assert "4 images of type" in volume.extra["warnings"][0]
    value = "\\".join(value) if name == "ImageType" else value
    assert_is_scan(read_volume(folder, f"{name}={value}"))  # who asks for it has it


@pytest.mark.parametrize(
    "kind",
    [
        *("MOSAIC", "LOCALIZER", "SCREEN SAVE", "PROJECTION IMAGE", "STDDEV_SAG", "SUBTRACT"),
        *("MIP", "MIP_TRA", "MNIP", "MIN IP", "MAX_IP", "CSA MIP THIN"),
    ],
)
def test_overviews_among_slices_are_left_out_and_said_to_be(tmp_path, kind):
    overview = slices(ImageType=["DERIVED", "SECONDARY", kind], ImagePositionPatient=[9, 9, 9])[0]
    volume = read_volume(save([*slices(), overview], tmp_path / "series"))
    assert_is_scan(volume)
    assert volume.extra["warnings"] == [f"1 images of type {kind} are left out."]


@pytest.mark.parametrize("kind", ["IN_PHASE", "OPP_PHASE", "OUT_PHASE", "WATER", "MPR", "MAG"])
def test_fat_in_phase_or_out_of_phase_with_water_is_of_magnitude(tmp_path, kind):
    folder = save(slices(ImageType=["DERIVED", "PRIMARY", "M", "NORM", kind]), tmp_path / "dixon")
    assert_is_scan(read_volume(folder))


def test_grey_values_of_a_table_are_refused(tmp_path):
    table = dicom(LUTDescriptor=[4, 0, 16], ModalityLUTType="US", LUTData=b"\3\0\2\0\1\0\0\0")
    folder = save(slices(ModalityLUTSequence=[table]), tmp_path / "series")
    assert "has its grey values in a ModalityLUTSequence: expected" in refusal(folder)


def test_a_number_that_is_several_is_refused(tmp_path):
    several = save(slices(RescaleSlope=["1", "2"]), tmp_path / "several")
    assert "has RescaleSlope 1\\2: expected one number" in refusal(several)


def test_ge_has_its_mark_of_phase_in_a_private_element(tmp_path):
    for component, name in enumerate(("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")):
        datasets = slices()
        for dataset in datasets:
            dataset.add_new(GE[0], "LO", "GEMS_PARM_01")
            dataset.add_new(GE[1], "SS", component)
        folder = save(datasets, tmp_path / name)
        if component:
            assert f"holds images of type {name}" in refusal(folder)
        else:
            assert_is_scan(read_volume(folder))


@pytest.mark.parametrize(
    "one, other, listed",
    [
        ({"EchoTime": "2.46"}, {"EchoTime": "4.92"}, "EchoTime 2.46 or 4.92"),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, "DiffusionBValue 0 or 1000"),
        ({"InversionTime": "700"}, {"InversionTime": "2500"}, "InversionTime 700 or 2500"),
        (
            {"TemporalPositionIdentifier": 1},
            {"TemporalPositionIdentifier": 2},
            "TemporalPositionIdentifier 1 or 2",
        ),
        ({"EchoNumbers": 1}, {"EchoNumbers": 2}, "EchoNumbers 1 or 2"),
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, "AcquisitionNumber 1 or 2"),
        ({"TriggerTime": "0"}, {"TriggerTime": "500"}, "TriggerTime 0 or 500"),
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "M", "W"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "M", "F"]},
            "ImageType ORIGINAL\\PRIMARY\\M\\F or ORIGINAL\\PRIMARY\\M\\W",
        ),
    ],
)
def test_several_images_in_one_place_are_listed_and_one_is_chosen(tmp_path, one, other, listed):
    scan = image(1000 - values(SCAN), sizes=SIZES)
    second = changed(list(series_of(scan)), **other)
    folder = save([*slices(**one), *second], tmp_path / "both")
    said = refusal(folder)
    assert f"8 images in 4 places, of {listed}: expected one" in said
    name, value = next(iter(one.items()))
    assert f"chosen by --series '{name}=" in said
    for start in ("", "2 ", "MPRAGE, ", "1.2.3,"):
        value = value if isinstance(value, (str, int, float)) else value[-1]
        chosen = f"{value:g}" if isinstance(value, float) else value
        assert_is_scan(read_volume(folder, f"{start}{name}={chosen}"))
    assert f"has no {name}=7: expected" in refusal(folder, f"{name}=7")


def test_a_series_whose_halves_have_different_echoes_is_no_volume(tmp_path):
    halves = [*slices(EchoTime="2")[:2], *slices(EchoTime="4")[2:]]
    assert "EchoTime 2 or 4" in refusal(save(halves, tmp_path / "halves"))


def test_attributes_that_change_from_slice_to_slice_are_no_reason_to_choose(tmp_path):
    datasets = slices()
    for number, dataset in enumerate(datasets):
        dataset.TriggerTime, dataset.AcquisitionNumber = str(10 * number), number
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", f"N{number}"]
    assert_is_scan(read_volume(save(datasets, tmp_path / "series")))


def test_many_values_are_listed_in_short(tmp_path):
    times = [s for n in range(1, 13) for s in slices(TemporalPositionIdentifier=n)]
    assert "1, 2, 3, … or 12: expected one" in refusal(save(times, tmp_path / "times"))


def test_echoes_of_an_enhanced_file_are_chosen_too(tmp_path):
    head = whole()
    frames = head.PerFrameFunctionalGroupsSequence
    for frame in frames[::2]:  # echoes in the places of one
        frame.MREchoSequence[0].EffectiveEchoTime = 9.0
    folder = save([head], tmp_path / "echoes")
    assert "EchoTime 4.5 or 9: expected one of these" in refusal(folder)


def test_of_several_stacks_of_an_enhanced_file_one_is_chosen(tmp_path):
    one, other = whole(), whole()
    (shared,) = other.SharedFunctionalGroupsSequence
    for stack, frames in enumerate((one, other), start=1):
        for frame in frames.PerFrameFunctionalGroupsSequence:
            frame.FrameContentSequence[0].StackID = str(stack)
    assert "StackID 1 or 2: expected one of these" in refusal(save([one, other], tmp_path / "same"))
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = decimals([1, 0, 0, 0, 0, -1])
    for number, frame in enumerate(other.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = decimals([0, 7 * number, 0])
    folder = save([one, other], tmp_path / "turned")
    assert "orientations: expected slices of one, chosen by --series StackID=1" in refusal(folder)
    assert_is_scan(read_volume(folder, "StackID=1"))


def test_a_phase_series_is_refused(cases):
    assert "holds images of type P" in refusal(cases / "05-part-phase-taken-for-T1w/phase_series")


def test_what_is_not_mr_is_doubted(tmp_path):
    volume = read_volume(save(slices(Modality="CT"), tmp_path / "ct"))
    assert volume.extra["warnings"] == ["These are CT images, not MR."]


# From the shelf


COMPRESSED = ("JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless")


def compress(path: Path, kind: str) -> None:
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
    assert reader.Read()
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_slices_are_the_same_voxels(tmp_path, kind, signed):
    folder = save(slices(PixelRepresentation=signed), tmp_path / "series")
    for path in folder.iterdir():
        compress(path, kind)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_encapsulated
    assert_is_scan(read_volume(folder))


def test_jpeg_lossless_is_decoded(cases):
    folder = cases / "11-jpeg-lossless/series"
    first = pydicom.dcmread(next(folder.iterdir()))
    assert first.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    volume = read_volume(folder)
    plain = read_volume(cases / "13-dicom-without-preamble/series")
    np.testing.assert_array_equal(values(volume), values(plain) + 100)  # it has no intercept
    np.testing.assert_array_equal(volume.affine, plain.affine)


def test_a_compression_that_is_not_decoded_is_named_with_what_to_install(tmp_path):
    folder = save(series_of(SCAN), tmp_path / "series")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        dataset.save_as(path)
    with pytest.raises(InputError) as raised:
        read_volume(folder)
    message = one_sentence(raised, folder)
    assert "is compressed by High-Throughput JPEG 2000" in message and "damaged" not in message
    assert message.endswith("pylibjpeg-openjpeg>=2.0.")


def test_jpeg_of_12_bits_is_named_with_what_to_install(tmp_path):
    dataset = pydicom.dcmread(get_testdata_file("JPGExtended.dcm"))
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
    dataset.save_as(tmp_path / "one.dcm")
    message = refusal(tmp_path / "one.dcm")
    assert "is compressed by JPEG Extended" in message
    assert message.endswith("pylibjpeg-libjpeg>=2.1.")


@pytest.mark.parametrize(
    "kind, marker", [(COMPRESSED[0], b"\xff\xc3"), (COMPRESSED[1], b"\xff\xf7")]
)
def test_a_jpeg_of_other_sides_or_bits_than_its_file_says_is_refused(tmp_path, kind, marker):
    for change in ({3: 18}, {4: 255}, {7: 255}):  # bits, and high bytes of rows and columns
        folder = save(series_of(SCAN), tmp_path / "series")
        for path in folder.iterdir():
            compress(path, kind)
        content = bytearray(path.read_bytes())
        start = content.index(marker) + 1
        for place, value in change.items():
            content[start + place] = value
        path.write_bytes(content)
        assert "JPEG of " in refusal(folder)


def without_preamble(folder: Path, **encoding) -> Path:
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        if encoding.get("little_endian") is False:
            dataset.PixelData = dataset.pixel_array.astype(">u2").tobytes()
        del dataset.file_meta
        dataset.preamble = None
        pydicom.dcmwrite(path, dataset, force_encoding=True, **encoding)
    return folder


@pytest.mark.parametrize("implicit, little", [(True, True), (False, True), (False, False)])
def test_files_without_a_preamble_are_read(tmp_path, implicit, little):
    folder = save(series_of(SCAN), tmp_path / "series")
    without_preamble(folder, implicit_vr=implicit, little_endian=little)
    assert all(map(is_dicom, folder.iterdir()))
    assert all(path.read_bytes()[128:132] != b"DICM" for path in folder.iterdir())
    assert is_volume(folder)
    assert_is_scan(read_volume(folder))


def test_other_files_are_not_taken_for_dicom_without_preamble(tmp_path):
    for content in (
        b"",
        b"\x08\0",
        b"\x89PNG\r\n" + bytes(200),
        b"\0\0\1\0" + bytes(200),
        b"a" * 200,
    ):
        (tmp_path / "x").write_bytes(content)
        assert not is_dicom(tmp_path / "x")


# Folders


def disk(root: Path, studies=("1.1", "1.1"), places=("PA1/ST1/SE1", "PA1/ST1/SE2")) -> Path:
    second = image(1000 - values(SCAN), sizes=SIZES)
    made = [series_of(SCAN), series_of(second, "1.2.4", 3, "T2 TSE")]
    for datasets, study, place in zip(made, studies, places, strict=False):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        save(changed(list(datasets), StudyInstanceUID=study), root / place)
    return root


def test_series_of_a_disk_are_listed_and_one_is_chosen(tmp_path):
    root = disk(tmp_path / "cd", studies=("", ""))
    shutil.copy(get_testdata_file("DICOMDIR"), root)
    for path in (root, root / "DICOMDIR"):
        assert is_volume(path)
        assert_is_scan(read_volume(path, "T1"))
    assert find_scans(root, "T1w").scans == [root]
    assert "2 DICOM series (2 'T1 MPRAGE', 3 'T2 TSE'): expected one" in refusal(root)
    assert "found" not in refusal(root)  # as nothing was asked for


def test_one_file_of_a_series_is_said_to_be_a_part_of_it(tmp_path):
    thick = {"SliceThickness": SIZES[2]}
    save(slices(**thick), tmp_path / "a")
    save(changed(list(series_of(SCAN, uid="1.2.9")), **thick), tmp_path / "b")
    one, *others = sorted((tmp_path / "a").iterdir())
    (doubt,) = read_volume(one).extra["warnings"]
    assert "Other files of its series lie beside it" in doubt
    assert not read_volume(tmp_path / "a").extra["warnings"]
    for path in others:
        path.unlink()
    (tmp_path / "b" / "0.dcm").write_bytes(one.read_bytes())  # of another series
    for path in (one, tmp_path / "b" / "0.dcm"):
        assert not read_volume(path).extra["warnings"]


def test_files_that_are_a_series_each_are_listed_in_short(tmp_path):
    files = [one for n in range(3) for one in series_of(SCAN, uid=f"1.2.{n}")]
    for number, one in enumerate(files):
        one.SeriesInstanceUID = f"1.2.3.{number}"
    assert "holds 12 DICOM series (2 'T1 MPRAGE' UID 1.2.3." in refusal(save(files, tmp_path / "a"))


def test_series_of_one_study_below_a_folder_are_chosen_from_those_of_several_are_several(tmp_path):
    one = disk(tmp_path / "one")
    assert is_volume(one) and find_scans(one, "T1w").scans == [one]
    assert_is_scan(read_volume(one, "2"))
    for number, studies in enumerate([("1.1", "1.2"), ("", "")]):
        two = disk(tmp_path / f"two {number}", studies)
        assert not is_volume(two)
        assert find_scans(two, "T1w").scans == [two / "PA1/ST1/SE1", two / "PA1/ST1/SE2"]


def test_one_series_however_deep_is_the_folder(tmp_path):
    root = disk(tmp_path / "deep", studies=[""])
    assert is_volume(root) and find_scans(root, "T1w").scans == [root]
    assert_is_scan(read_volume(root))
    (root / "notes.txt").write_text("beside other files it is one of several")
    assert find_scans(root, "T1w").scans == [root / "PA1"]


def test_links_in_circles_are_not_followed(tmp_path):
    root = disk(tmp_path / "deep", studies=("1.1", "1.2"))
    (root / "PA1" / "round").symlink_to(root)
    assert len(find_scans(root, "T1w").scans) == 2


def test_a_series_with_links_that_lead_nowhere_is_refused(tmp_path):
    folder = save(series_of(SCAN), tmp_path / "series")
    last = sorted(folder.iterdir())[-1]
    last.unlink()
    last.symlink_to(tmp_path / "annex")
    assert f"{last.name} is a link that leads nowhere: expected a file" in refusal(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "1.dcm").symlink_to(tmp_path / "annex")
    assert is_volume(folder)
    assert "1.dcm is a link that leads nowhere" in refusal(folder)


@pytest.mark.parametrize("name", ["last", "last.dcm"])
@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "is empty or cut short: expected all files of a series"),
        (bytes(100), "is empty or cut short: expected all files of a series"),
        (b"/annex/objects/MD5E-s9--0.dcm\n", "is a pointer of git-annex or Git LFS"),
    ],
)
def test_a_series_with_files_without_content_is_refused(tmp_path, content, found, name):
    folder = save(series_of(SCAN), tmp_path / "series")
    sorted(folder.iterdir())[-1].unlink()
    (folder / name).write_bytes(content)
    assert f"{name} {found}" in refusal(folder)
    assert find_scans(folder, "T1w").scans == [folder]


@pytest.mark.parametrize("filler", [b"x", b" "])
def test_a_position_that_is_no_number_is_named_with_its_file(filler, tmp_path):
    save(slices(), tmp_path)
    file = sorted(tmp_path.iterdir())[2]
    one = str(pydicom.dcmread(file).ImagePositionPatient[1]).encode()
    file.write_bytes(file.read_bytes().replace(b"\\" + one, b"\\" + len(one) * filler))
    with pytest.raises(InputError, match=f"{file.name} has ImagePositionPatient .*: expected 3"):
        read_volume(tmp_path)


def test_notes_and_reports_beside_a_series_are_no_slices(tmp_path):
    folder = save(series_of(SCAN), tmp_path / "series")
    (folder / "VERSION").write_text("1.0")
    report = dicom(SeriesInstanceUID=slices()[0].SeriesInstanceUID, Modality="SR")
    save([report], folder / "reports")
    assert_is_scan(read_volume(folder))


def test_a_disk_is_read_as_the_series_on_it(cases):
    root = cases / "14-disk-with-dicomdir/cd"
    volume = read_volume(root)
    assert volume.shape == (49, 58, 12) and find_scans(root.parent, "T1w").scans == [root]


def test_files_that_a_disk_lists_and_has_not_are_said(tmp_path, monkeypatch):
    root, disk = tmp_path / "cd", FileSet()
    said = {"PatientID": "1", "StudyID": "1", "StudyDate": "20200101", "StudyTime": "101010"}
    said |= {"StudyInstanceUID": "1.1"}
    whole = slices(Modality="MR", SeriesNumber=1, **said)
    for number, one in enumerate(whole, 1):
        one.InstanceNumber = number
    for path in save(whole, tmp_path / "files").iterdir():
        disk.add(path)
    disk.write(root)
    assert not read_volume(root).extra["warnings"]
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.parent != root)
    files[-1].unlink()
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: listed.append(place) or scandir(place))
    (doubt,) = read_dicom(root, "").extra["warnings"]
    assert [*map(Path, listed)].count(root) == 1
    assert doubt.startswith("DICOMDIR lists 1 files of it that are not there, as ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    root = disk(tmp_path / "cd")
    (root / "PA1/ST1/SE2").chmod(0)
    with pytest.raises(InputError, match="SE2 cannot be read .*Permission denied"):
        read_volume(root)
    (root / "PA1/ST1/SE2").chmod(0o755)
