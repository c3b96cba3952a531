"""A volume → a derived DICOM series that lies where its DICOM source lies."""

import datetime
from pathlib import Path

import nibabel
import numpy as np
from pydicom import Dataset
from pydicom.pixels import set_pixel_data
from pydicom.uid import MRImageStorage, generate_uid
from pydicom.valuerep import DSfloat

from .. import __version__
from ..runs import write_atomically
from .dicom import LPS, read_attributes
from .volumes import WHITE, whole_numbers

# What is taken over from the source: whose images they are, of which study, and in which space.
KEPT = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate"),
    *("PatientSex", "PatientAge", "PatientSize", "PatientWeight", "StudyInstanceUID", "StudyDate"),
    *("StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
UNKNOWN = (  # has to be there, and may be empty (PS3.3, A.4)
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
    *("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
    "PatientPosition",
)
OFFSET = 9000  # between the numbers of a source's series and the one derived from it


def write_series(
    path: Path,
    data: np.ndarray,
    like: nibabel.Nifti1Image,
    description: str,
    title: str,
    anonymous: bool = False,
) -> None:
    """Write data in [-1, 1] as a folder of MR images, one a slice, on the grid of `like`.

    `like` is what `read_volume` makes of a DICOM series, and the images are of its patient, study
    and frame of reference, with UIDs of their own; `anonymous` takes over the geometry alone, and
    of the description its first line, for others may quote the source.
    Pixels are those of `volumes.write_volume`, and no text is written into them. `title`, 40
    characters at most, and the first words of the description are the SeriesDescription.
    """
    source = read_attributes(like.extra["file"], (*KEPT, "SeriesNumber"))
    common = Dataset()
    for name in UNKNOWN:
        setattr(common, name, None)
    if anonymous:
        description = description.partition("\n")[0]
        common.PatientName, common.PatientIdentityRemoved = "Anonymous", "YES"
        common.DeidentificationMethod = "Only the geometry of the source is taken over"
    else:
        for name in KEPT:
            if name in source:
                common[name] = source[name]
        now = datetime.datetime.now()
        common.ContentDate = common.SeriesDate = now.strftime("%Y%m%d")
        common.ContentTime = common.SeriesTime = now.strftime("%H%M%S")
        common.SeriesNumber = OFFSET + int(source.get("SeriesNumber", 0))
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID"):
        if name not in common:
            setattr(common, name, generate_uid())
    common.SOPClassUID, common.Modality = MRImageStorage, "MR"
    common.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    kind = description.partition(",")[0]  # synthetic contrast, trust map
    common.SeriesDescription, common.DerivationDescription = f"{title} ({kind})", description[:1024]
    common.BurnedInAnnotation = "NO"
    common.Manufacturer = common.ManufacturerModelName = "cyclegan_tf"
    common.SoftwareVersions = __version__
    common.ScanningSequence, common.SequenceVariant = "RM", "NONE"  # research mode

    across, down, step, origin = (LPS @ like.affine)[:3].T
    sides = np.linalg.norm([across, down, step], axis=1)
    common.PixelSpacing = _decimals([sides[1], sides[0]])  # between rows, between columns
    common.SliceThickness = common.SpacingBetweenSlices = _decimals(sides[2:])[0]
    common.ImageOrientationPatient = _decimals([*across / sides[0], *down / sides[1]])
    common.WindowCenter, common.WindowWidth = WHITE // 2, WHITE

    with write_atomically(path) as partial:
        partial.mkdir()
        for number, pixels in enumerate(whole_numbers(data).T):  # (W, H, S) -> (S, H, W)
            image = Dataset(common)
            image.InstanceNumber = number + 1
            image.ImagePositionPatient = _decimals(origin + number * step)
            set_pixel_data(image, pixels.astype("<u2"), "MONOCHROME2", 16)  # and a UID of its own
            image.save_as(partial / f"{number + 1:04}.dcm", enforce_file_format=True)


def _decimals(numbers: np.ndarray) -> list[DSfloat]:
    return [DSfloat(float(number), auto_format=True) for number in numbers]
