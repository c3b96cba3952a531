"""A translation of a DICOM series goes back as a DICOM series that lies where its source lies."""

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import test_translate
from test_translate import refusal, scan
from test_volumes import changed, save, series_of

from cyclegan_tf import InputError
from cyclegan_tf.scans.series import KEPT, write_series
from cyclegan_tf.scans.volumes import read_volume, whole_numbers
from cyclegan_tf.translation.translate import translate_scans

run, loaded_once = test_translate.run, test_translate.loaded_once
TITLE = "T2w synthetic, not for diagnosis"
PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientID": "JD4711",
    "PatientBirthDate": "19700101",
    "StudyInstanceUID": "1.2.3.4",
    "StudyDate": "20200101",
    "AccessionNumber": "A77",
    "FrameOfReferenceUID": "1.2.3.5",
    "InstitutionName": "Somewhere",
}
VOLUME = scan(sizes=(0.9, 1.1, 2.5))


@pytest.fixture
def series(tmp_path):
    return save(changed(list(series_of(VOLUME)), **PATIENT), tmp_path / "series")


def headers(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]


def itk(folder):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_a_derived_series_is_read_voxel_for_voxel_in_the_same_place(series, tmp_path):
    like = read_volume(series)
    data = np.random.default_rng(0).uniform(-1, 1, like.shape).astype(np.float32)
    write_series(tmp_path / "out", data, like, "synthetic contrast, a test", TITLE)
    again = read_volume(tmp_path / "out")
    np.testing.assert_allclose(again.affine, like.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asanyarray(again.dataobj), whole_numbers(data))
    ours, source = itk(tmp_path / "out"), itk(series)
    for name in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(ours, name)(), getattr(source, name)(), atol=1e-4)
    expected = np.asanyarray(again.dataobj).transpose()  # (W, H, S) -> (S, H, W)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(ours), expected)
    assert whole_numbers(data).min() >= 0 and whole_numbers(data).max() <= 1000


def test_a_derived_series_is_of_the_patient_the_study_and_the_space_but_has_uids_of_its_own(
    series, run, tmp_path
):
    (job,) = translate_scans(series, tmp_path / "out", run, dicom=True, trust=True)
    assert job.targets == [tmp_path / "out", tmp_path / "out_trust"]
    source = pydicom.dcmread(next(series.iterdir()))
    sources = {pydicom.dcmread(path).SOPInstanceUID for path in series.iterdir()}
    numbers = set()
    for folder in job.targets:
        images = headers(folder)
        assert len(images) == len(sources)
        for image in images:
            for name in {*PATIENT} & {*KEPT}:
                assert image[name].value == source[name].value
            assert "InstitutionName" not in image
            assert image.ImageType[:2] == ["DERIVED", "SECONDARY"]
            assert TITLE in image.SeriesDescription and len(image.SeriesDescription) <= 64
            assert image.BurnedInAnnotation == "NO"
        uids = {image.SOPInstanceUID for image in images}
        assert len(uids) == len(images) and not uids & sources
        (uid,) = {image.SeriesInstanceUID for image in images}
        assert uid != source.SeriesInstanceUID
        numbers.add((uid, images[0].SeriesNumber, images[0].SeriesDescription))
    assert len({uid for uid, *_ in numbers}) == 2
    assert len({text for *_, text in numbers}) == 2
    # Run again, it makes nothing anew.
    translate_scans(series, tmp_path / "out", run, dicom=True, trust=True)
    assert headers(tmp_path / "out")[0].SeriesInstanceUID in {uid for uid, *_ in numbers}


def test_what_is_doubtful_stands_in_every_image_of_a_derived_series(tmp_path, run):
    source = save(changed(list(series_of(VOLUME)), Modality="CT"), tmp_path / "series")
    (job,) = translate_scans(source, tmp_path / "out", run, dicom=True)
    assert "These are CT images, not MR." in job.warnings
    for image in headers(tmp_path / "out"):
        made_by, *doubts = image.DerivationDescription.splitlines()
        assert made_by.startswith("synthetic contrast, cyclegan_tf ") and doubts == job.warnings
    translate_scans(source, tmp_path / "nobody", run, dicom=True, anonymous=True)
    for image in headers(tmp_path / "nobody"):  # as a doubt may quote the source
        assert image.DerivationDescription == made_by


def test_an_anonymous_series_takes_over_the_geometry_alone(series, run, tmp_path):
    (tmp_path / "out").mkdir()  # an empty folder is no series that is there already
    translate_scans(series, tmp_path / "out", run, dicom=True, anonymous=True)
    for path in (tmp_path / "out").iterdir():
        raw = path.read_bytes()
        for value in (*PATIENT.values(), "1.2.3", "MPRAGE"):
            assert value.encode() not in raw
    image = headers(tmp_path / "out")[0]
    assert image.PatientIdentityRemoved == "YES" and image.PatientName == "Anonymous"
    assert len({image.StudyInstanceUID for image in headers(tmp_path / "out")}) == 1
    np.testing.assert_allclose(
        read_volume(tmp_path / "out").affine, read_volume(series).affine, atol=1e-4
    )


def test_a_source_that_is_no_dicom_and_an_output_of_something_else_are_refused(
    series, run, tmp_path
):
    path = tmp_path / "a.nii.gz"
    nibabel.save(VOLUME, path)
    assert "is no DICOM: expected a DICOM series" in refusal(path, tmp_path / "o", run, dicom=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "holds something else" in refusal(series, tmp_path / "full", run, dicom=True)
    assert "expected --dicom, too" in refusal(series, tmp_path / "o", run, anonymous=True)
    assert "is the name of a file" in refusal(series, tmp_path / "o.nii.gz", run, dicom=True)
    assert [*(tmp_path / "full").iterdir()] == [tmp_path / "full" / "notes.txt"]


def test_a_disk_that_is_full_leaves_no_half_series(series, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.Dataset, "save_as", full)
    like = read_volume(series)
    with pytest.raises(InputError, match="out cannot be written .No space"):
        write_series(tmp_path / "out", np.zeros(like.shape), like, "", TITLE)
    assert [path.name for path in tmp_path.iterdir()] == ["series"]
