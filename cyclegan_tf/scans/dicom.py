"""DICOM files → a volume: one series of a file, a folder, or a disk of folders."""

import os
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from .. import InputError
from .geometry import check_geometry
from .images import SUFFIXES, check_there, is_dead, natural_order, passed_over
from .quiet import reading

LPS = np.diag([-1, -1, 1, 1])  # RAS+ to DICOM's axes (left, posterior, superior), and back
EVEN = 0.05  # of the gap between two slices: how far one may be from its place
PREAMBLE = 132  # bytes, with the letters that end it
LISTED = 8  # values in a sentence
UID = "SeriesInstanceUID"

# What is read of a header. Enhanced files have what is of a frame in functional groups, some of it
# under other names (PS3.3, C.7.6.16 and C.8.13.5).
ONCE = {  # attributes of a slice, and how many numbers each is; the first four are alike in all
    "Rows": 1,
    "Columns": 1,
    "PixelSpacing": 2,
    "ImageOrientationPatient": 6,
    "ImagePositionPatient": 3,
    "RescaleSlope": 1,
    "RescaleIntercept": 1,
}
# What tells the frames of a series apart. No volume is made of several values of the first three.
CHOICES = (
    *("EchoTime", "InversionTime", "DiffusionBValue", "EchoNumbers", "FlipAngle"),
    *("ImageType", "ComplexImageComponent", "TemporalPositionIdentifier", "TriggerTime"),
    *("AcquisitionNumber", "AcquisitionTime", "StackID"),
)
IN_GROUPS = {
    "FrameType": "ImageType",
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionDateTime": "AcquisitionTime",
}
PER_FRAME, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
GE = 0x00430010, 0x0043102F  # the one private element that is read: GE's only mark of phase
NO_AGENT = re.compile(r"\W*(no(ne|t)?\b.*|n\W?a|w(ithout|\W?o)\b.*|0)?\W*", re.IGNORECASE)
OVERLAY = 0x60000102  # OverlayBitPosition: in old files bits beyond the stored ones hold overlays
HEADER = (
    *(*ONCE, *CHOICES, PER_FRAME, SHARED, UID, "SeriesNumber", "SeriesDescription"),
    *("Modality", "NumberOfFrames", "InstanceNumber", "PhotometricInterpretation"),
    *("SliceThickness", "SpacingBetweenSlices", "ContrastBolusAgent", "ContrastBolusAgentSequence"),
    "ModalityLUTSequence",
)
PIXELS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)

COMPONENTS = ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")  # GE's 0 to 3
# Of ImageType from its third value on, and of ComplexImageComponent: what is no magnitude image, or
# no slice of the series.
NO_MAGNITUDE = re.compile(
    r"MOSAIC|LOCALIZER|SCREEN SAVE|(.+ )?M(AX|I?N)?[ _]?IP([ _].+)?|PROJECTION IMAGE|FLOW|"
    r"SUB(TRACT(ION)?)?|[PRI](_.+)?|REAL|IMAGINARY|B[01]|QUANTITY|STD_?DEV.*"
    r"|(?!(IN|OPP|OUT)\w*PHASE).*(PHASE|VELOCITY|FIELD|MAP).*"  # fat in or out of phase is no phase
    r"|E?ADC|FA|TRACEW?|(REL|[CR])?[CM]B[FV]|MTT|TTP|TMAX|PERFUSION|ASL|SWI|(PD)?FF|FAT_?FRAC(TION)?"
    r"|R[12]|[RT]2_?(STAR|[*])|TEMPERATURE|DIVISION"
)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM, with a preamble or without; a disk's DICOMDIR does not count.

    Without one, the first attribute is of group 2 or 8: its number, then its type or its length.
    """
    name = path.name.upper()
    if is_dead(path):  # reading it says so
        return name.endswith((".DCM", ".IMA"))
    if passed_over(name) or name == "DICOMDIR" or not path.is_file():
        return False
    if name.lower().endswith((*SUFFIXES, ".nii", ".gz")):
        return False
    with path.open("rb") as file:
        start = file.read(PREAMBLE)
    if start[128:] == b"DICM":
        return True
    first = start[:2] in (b"\2\0", b"\x08\0", b"\0\x08") and len(start) == PREAMBLE
    return first and (start[4:6].isalpha() or int.from_bytes(start[4:8], "little") < 128)


def _is_cut(path: Path) -> bool:
    """Whether a file whose name may be that of a DICOM file holds nothing, or nothing but zeros."""
    ending = path.suffix[1:].upper()
    named = ending in ("", "DCM", "IMA") or ending.isdecimal()
    return named and path.stat().st_size <= PREAMBLE and not path.read_bytes().strip(b"\0")


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder as a whole is to be read as DICOM, one of its series.

    It holds DICOM files itself; or a DICOMDIR, and they lie below; or nothing but folders, and
    the DICOM files below it are in one of them or of one study.
    """
    entries = [path for path in folder.iterdir() if not passed_over(path.name)]
    if any(map(is_dicom, entries)):
        return True
    disk = any(path.name.upper() == "DICOMDIR" for path in entries)
    if not disk and not all(path.is_dir() for path in entries):
        return False
    first = {}  # file of every folder
    for path in _below(folder):
        if path.parent not in first and is_dicom(path):
            first[path.parent] = path
    if disk or len(first) < 2:
        return bool(first)
    uid = "StudyInstanceUID"
    studies = {read_attributes(path, [uid]).get(uid) for path in first.values()}
    return len(studies) == 1 and None not in studies


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder and in all below it but hidden ones."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not passed_over(name))
        yield from (Path(place, name) for name in files if not passed_over(name))


def read_attributes(path: Path, attributes: Sequence[str | int], **options) -> pydicom.Dataset:
    """These attributes of a file, as far as it has them: one that is empty is absent."""
    with reading(path):
        dataset = pydicom.dcmread(path, force=True, specific_tags=[*attributes], **options)
        for element in list(dataset):
            if _is_empty(element.value):
                del dataset[element.tag]
    return dataset


def _is_empty(value: object) -> bool:
    items = [value] if isinstance(value, (str, bytes)) or not np.iterable(value) else value
    return all(i is None or i == b"" or (isinstance(i, str) and not i.strip()) for i in items)


def read_dicom(path: Path, series: str) -> nibabel.Nifti1Image:
    """As `read_volume`; `image.extra["warnings"]` has the sentences on what is doubtful.

    `image.extra["said"]` is what the series says of its contrast: its description, and the agent.
    """
    name, *wanted = re.split(rf"[\s,]*\b({'|'.join(CHOICES)})=", series.strip())
    wanted = dict(zip(wanted[::2], wanted[1::2], strict=True))
    below = sorted(_below(path), key=natural_order) if path.is_dir() else [path]
    files = _choose_series(path, below, name)
    frames = [frame for file, header in files.items() for frame in _frames(file, header)]
    frames, doubts = _choose_frames(path, frames, wanted)
    modality = {header.get("Modality", "MR") for header in files.values()} - {"MR"}
    doubts += [f"These are {' and '.join(modality)} images, not MR."] if modality else []
    uid = next(iter(files.values())).get(UID, path)  # a path is in no file
    if gone := [*_not_there(path, below, uid)]:
        doubts.append(f"DICOMDIR lists {len(gone)} files of it that are not there, as {gone[0]}.")
    near = path.parent.iterdir() if path.is_file() else ()
    beside = (p for p in near if p != path and is_dicom(p))
    if uid in (read_attributes(p, [UID]).get(UID) for p in islice(beside, LISTED)):
        doubts.append("Other files of its series lie beside it: their folder is the whole scan.")
    volume = _stack(path, frames)
    if not volume.header["qform_code"]:
        doubts.append("Slices lie aslant, as of a tilted gantry, which no qform can say.")
    apart = nibabel.affines.voxel_sizes(volume.affine)[2]
    said, thick = (
        abs(float(np.ravel(frames[0].get(name, apart))[0]))
        for name in ("SpacingBetweenSlices", "SliceThickness")
    )
    # Some say the gap between two instead.
    if min(abs(said - apart), abs(said + thick - apart)) > 0.1 * apart:
        doubts.append(f"Slices lie {apart:.3g} mm apart, SpacingBetweenSlices says {said:g}.")
    elif apart > 1.5 * thick and _lacks_instances(files.values()):
        gaps = f"Slices of {thick:g} mm lie {apart:.3g} mm apart"
        doubts.append(f"{gaps}, and instance numbers between them are missing: are some files?")
    said = _text(frames[0], "SeriesDescription"), _agent(frames[0])
    volume.extra |= {"warnings": doubts, "file": frames[0]["file"], "said": said}
    return volume


def _agent(frame: dict) -> str:
    """The contrast agent that an image was taken after, by its header; "" for none."""
    agents = frame.get("ContrastBolusAgentSequence", [])
    names = [_text(frame, "ContrastBolusAgent"), *(str(a.get("CodeMeaning", "")) for a in agents)]
    given = frame.get("ContrastBolusAgentAdministered") != "NO"  # which enhanced files say of each
    return next((name for name in names if given and not NO_AGENT.fullmatch(name)), "")


def _choose_series(path: Path, below: list[Path], name: str) -> dict[Path, pydicom.Dataset]:
    """The files, with their headers, of the series that `name` names, or of the only one."""
    for file in below:
        check_there(file)
        if _is_cut(file):
            raise InputError(f"{file} is empty or cut short: expected all files of a series.")
    known = defaultdict(dict)
    for file in filter(is_dicom, below):
        header = read_attributes(file, [*HEADER, *GE], stop_before_pixels=True)
        if "Rows" in header or "PhotometricInterpretation" in header:  # it is no report
            known[header.get(UID, str(file.parent))][file] = header
    if not known:
        raise InputError(f"{path} holds no DICOM image: expected a series of them.")
    texts = {}
    for uid, files in known.items():
        header = next(iter(files.values()))
        texts[uid] = str(header.get("SeriesNumber", "")), str(header.get("SeriesDescription", ""))
    exact = [uid for uid, said in texts.items() if name and name in (uid, *said)]
    chosen = exact or [uid for uid, (_, text) in texts.items() if name.lower() in text.lower()]
    if len(chosen) == 1:
        return known[chosen[0]]
    names = [*texts.values()]
    there = [
        f"{number} {text!r}" + f" UID {uid}" * (names.count((number, text)) > 1)
        for uid, (number, text) in texts.items()
    ]
    if len(there) > LISTED and len({*names}) == 1:  # as where each file has a UID of its own
        there[3:] = "…"
    found = f", found {name!r}" if name else ""
    raise InputError(
        f"{path} holds {len(known)} DICOM series ({', '.join(there)}): expected one, or by "
        f"--series the number, UID or a part of the description of one{found}."
    )


def _not_there(folder: Path, below: list[Path], uid: str) -> Iterator[str]:
    """The files of a series that the DICOMDIR in a folder lists and that are not below it."""
    # Mounted, a disk may have its names in small letters.
    there = {path.relative_to(folder).as_posix().upper(): path for path in below}
    disk, series = pydicom.dcmread(there["DICOMDIR"], force=True) if "DICOMDIR" in there else {}, ""
    for record in disk.get("DirectoryRecordSequence", []):
        series = record.get(UID, series)  # its images come after it
        name = "/".join(np.atleast_1d(record.get("ReferencedFileID", [])))
        if name and series == uid and name.upper() not in there:
            yield name


def _lacks_instances(headers: Iterable[pydicom.Dataset]) -> bool:
    """Whether a series has gaps in its InstanceNumbers."""
    numbers = {int(header.get("InstanceNumber", 0)) for header in headers}
    return max(numbers) - min(numbers) >= len(numbers)


def _frames(file: Path, header: pydicom.Dataset) -> list[dict]:
    """What a file says of each of its frames, by keyword; private groups have no say."""
    per_frame = header.get(PER_FRAME, [None])
    count = int(header.get("NumberOfFrames", 1))
    if count != len(per_frame):
        found = f"{count} frames and says of {len(per_frame)} where they lie"
        raise InputError(f"{file} holds {found}: expected a functional group for each.")
    frames = []
    for number, own in enumerate(per_frame):
        frame = {"file": file, "number": number, "RescaleSlope": 1, "RescaleIntercept": 0}
        places = [] if own is None else [*header.get(SHARED, [])[:1], own]
        groups = [group for place in places for group in place if group.VR == "SQ"]
        items = [item for group in groups if not group.tag.is_private for item in group.value]
        for element in (element for item in (header, *items) for element in item):
            value = element.value
            if element.VR == "DS" and isinstance(value, str):  # no number, such as 3,0
                value = value.replace(",", ".")
            if not _is_empty(value):
                frame[IN_GROUPS.get(element.keyword, element.keyword)] = value
        creator, component = (getattr(header.get(tag), "value", None) for tag in GE)
        if creator == "GEMS_PARM_01" and component in range(len(COMPONENTS)):
            frame["ComplexImageComponent"] = COMPONENTS[component]
        frames.append(frame)
    return frames


def _choose_frames(
    path: Path, frames: list[dict], wanted: dict[str, str]
) -> tuple[list[dict], list[str]]:
    """The magnitude images, one a place, and what there is to say of it.

    `wanted` are attributes in CHOICES and their values. Raises InputError where these name no
    frame, or more is to be chosen.
    """
    for name, value in wanted.items():
        known = _values(frames, name)
        frames = [f for f in frames if value.strip() in (t := _text(f, name), *t.split("\\"))]
        if not frames:
            raise InputError(f"{path} has no {name}={value}: expected {_list(known)}.")
    doubts, kinds = [], [_no_magnitude(frame) for frame in frames]
    if any(kinds) and not {"ImageType", "ComplexImageComponent"} & set(wanted):
        found = " and ".join(sorted({*kinds} - {""}))
        if all(kinds):
            raise InputError(f"{path} holds images of type {found}: expected magnitude images.")
        frames = [frame for frame, kind in zip(frames, kinds, strict=True) if not kind]
        doubts = [f"{len(kinds) - len(frames)} images of type {found} are left out."]
    places = [_text(frame, "ImagePositionPatient") for frame in frames]
    found = {}
    for name in CHOICES:
        values = _values(frames, name)
        apart = {(place, _text(f, name)) for place, f in zip(places, frames, strict=True)}
        if len(values) > 1 and (name in CHOICES[:3] or len(apart) > len(set(places))):
            found[name] = values
    if found:
        name = min(found, key=lambda name: len(found[name]))
        raise InputError(
            f"{path} holds {len(frames)} images in {len(set(places))} places, of {name} "
            f"{_list(found[name])}: expected one of these, chosen by --series "
            f"'{name}={found[name][0]}'."
        )
    return frames, doubts


def _no_magnitude(frame: dict) -> str:
    """What an image is, if it is none of magnitude."""
    kinds = [*_text(frame, "ImageType").split("\\")[2:], _text(frame, "ComplexImageComponent")]
    return next((kind for kind in kinds if NO_MAGNITUDE.fullmatch(kind.upper())), "")


def _text(frame: dict, name: str) -> str:
    """An attribute as a sentence has it, "none" if it is absent."""
    value = frame.get(name, "none")
    items = [value] if isinstance(value, str) or not np.iterable(value) else value
    return "\\".join(f"{i:g}" if isinstance(i, (int, float)) else str(i) for i in items)[:100]


def _values(frames: list[dict], name: str) -> list[str]:
    return sorted({_text(frame, name) for frame in frames}, key=lambda t: natural_order(Path(t)))


def _list(values: list[str]) -> str:
    few = values if len(values) <= LISTED else [*values[:3], "…", values[-1]]
    return ", ".join(few[:-1]) + " or " * (len(few) > 1) + few[-1]


def _stack(path: Path, frames: list[dict]) -> nibabel.Nifti1Image:
    """The volume of frames that are one evenly spaced stack, in whatever order they come."""
    _check_attributes(path, frames)
    names = [*ONCE][:4]
    same = np.array([np.concatenate([np.ravel(f[n]) for n in names]) for f in frames], float)
    if np.ptp(same, axis=0).max() > 1e-3:
        found = f"{len(frames)} slices of {len(np.unique(same, axis=0))} sizes or orientations"
        stacks = _values(frames, "StackID")
        chosen = f", chosen by --series StackID={stacks[0]}" * (len(stacks) > 1)
        raise InputError(f"{path} holds {found}: expected slices of one{chosen}.")
    rows, columns = same[0, :2].astype(int)
    spacing, (across, down) = same[0, 2:4], same[0, 4:].reshape(2, 3)
    if not np.abs([across @ across - 1, down @ down - 1, across @ down]).max() <= 0.01:  # or NaN
        found = _text(frames[0], "ImageOrientationPatient")
        raise InputError(f"{path} has ImageOrientationPatient {found}: expected unit vectors.")
    normal = np.cross(across, down)
    frames = sorted(frames, key=lambda frame: np.array(frame["ImagePositionPatient"]) @ normal)
    even = _even_places(path, frames, normal)
    affine = np.eye(4)
    affine[:3, :2] = np.transpose([across * spacing[1], down * spacing[0]])
    affine[:3, 2:] = np.transpose([even[1] - even[0], even[0]])
    affine = LPS @ affine
    check_geometry(path, (columns, rows, len(frames)), affine, spacing)

    data = np.empty((len(frames), rows, columns), np.float32)
    of_file = defaultdict(list)
    for place, frame in enumerate(frames):
        of_file[frame["file"]].append((place, frame))
    for file, those in of_file.items():
        pixels = _decode(file, [frame["number"] for _, frame in those])
        for (place, frame), stored in zip(those, pixels, strict=True):
            slope, intercept = np.float32([frame["RescaleSlope"], frame["RescaleIntercept"]])
            data[place] = stored * slope + intercept
    volume = nibabel.Nifti1Image(data.T, affine)  # (S, H, W) -> (W, H, S)
    volume.set_sform(affine, "scanner")
    step = (even[1] - even[0]) / np.linalg.norm(even[1] - even[0])
    # A qform has right angles alone, and would put them elsewhere.
    slanted = np.abs([across @ step, down @ step]).max() > 0.01
    volume.set_qform(affine, "unknown" if slanted else "scanner")
    return volume


def _check_attributes(path: Path, frames: list[dict]) -> None:
    """Raises InputError for frames that are no grey values, or do not say where they lie."""
    kinds = {_text(f, "PhotometricInterpretation") for f in frames}
    kinds |= {"MOSAIC" for f in frames if "MOSAIC" in _text(f, "ImageType").split("\\")}
    if kinds != {"MONOCHROME2"}:
        found = " and ".join(kinds)
        raise InputError(f"{path} holds images of kind {found}: expected MONOCHROME2.")
    for frame in frames:
        if "ModalityLUTSequence" in frame:
            found = "its grey values in a ModalityLUTSequence"
            raise InputError(f"{frame['file']} has {found}: expected a RescaleSlope, or none.")
        for name, count in ONCE.items():
            size = 0
            with suppress(KeyError, ValueError, TypeError):  # absent, or no numbers
                size = np.array(frame[name], float).size
            if size != count:
                found = f"{name} {_text(frame, name)}" if name in frame else f"no {name}"
                numbers = "one number" if count == 1 else f"{count} numbers"
                raise InputError(f"{frame['file']} has {found}: expected {numbers}.")


def _even_places(path: Path, frames: list[dict], normal: np.ndarray) -> np.ndarray:
    """(S, 3) mm: where the first pixels of frames lie that are evenly spaced along the normal.

    Of a single frame there are two: the other one is where the next would lie. Raises InputError
    for frames that are not evenly spaced.
    """
    positions = np.array([frame["ImagePositionPatient"] for frame in frames], float)
    if len(frames) == 1:
        step = frames[0].get("SpacingBetweenSlices") or frames[0].get("SliceThickness")
        if not step:
            raise InputError(f"{path} is one slice without SliceThickness: expected that, or more.")
        return np.array([positions[0], positions[0] + abs(float(step)) * normal])
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    even = np.linspace(positions[0], positions[-1], len(positions))
    if np.linalg.norm(positions - even, axis=1).max() > EVEN * gaps.mean():
        raise InputError(
            f"{path} holds {len(frames)} slices {gaps.min():.3g} to {gaps.max():.3g} mm apart: "
            "expected all at the same distance, none missing and none twice."
        )
    return even


def _decode(file: Path, numbers: list[int]) -> list[np.ndarray]:
    """The stored values (H, W) of the frames of these numbers, decompressed."""
    dataset = read_attributes(file, [*PIXELS, OVERLAY])
    bits, high = dataset.get("BitsStored"), dataset.get("HighBit")
    for name, value in (("BitsStored", bits), ("HighBit", high)):
        if isinstance(value, Sequence):  # of a damaged file, perhaps hundreds
            raise InputError(f"{file} has several values of {name}: expected one.")
    if None not in (bits, high) and high != bits - 1:
        raise InputError(f"{file} has HighBit {high} of {bits} bits: expected {bits - 1}.")
    with reading(file):
        implicit, little = dataset.original_encoding
        # A file without preamble does not say how it is encoded; pydicom has found out.
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        found = ImplicitVRLittleEndian if implicit else explicit
        syntax = dataset.file_meta.get("TransferSyntaxUID") or found
        dataset.file_meta.TransferSyntaxUID = syntax
        plugin, refusal = "", None
        if syntax.is_encapsulated:
            decoder = get_decoder(syntax)
            needed = " or ".join(decoder.missing_dependencies)
            found = f"compressed by {syntax.name}"
            refusal = InputError(f"{file} is {found}: expected a decoder, so install {needed}.")
            if not decoder.is_available:
                raise refusal
            # GDCM ends the process on some damaged files, so it has what no other decodes.
            plugin = min(decoder.available_plugins, key=lambda name: name == "gdcm")
        if plugin == "gdcm":  # JPEG lossless or JPEG-LS
            _check_jpeg(dataset)
        options = {"indices": numbers, "decoding_plugin": plugin}
        cut = OVERLAY in dataset or bool(dataset.get("PixelRepresentation"))
        try:
            pixels = list(iter_pixels(dataset, **options, correct_unused_bits=cut))
        except RuntimeError as error:  # of 12 bits, where JPEG of 8 is decoded
            raise refusal if "does not support" in str(error) else error from None
        if bits and (most := max(map(np.max, pixels))) >= 2**bits:
            raise InputError(f"{file} holds {most}: expected no more than {bits} bits, BitsStored.")
        return pixels


def _check_jpeg(dataset: pydicom.Dataset) -> None:
    """Raises ValueError where a frame's JPEG header says anything else than the file's own."""
    count = dataset.get("NumberOfFrames", 1)
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        place = 2
        while frame[place + 1] not in (0xC3, 0xF7):  # of a frame; other markers state their length
            place += 2 + max(int.from_bytes(frame[place + 2 : place + 4], "big"), 2)
        bits, *sides = struct.unpack_from(">BHH", frame, place + 4)
        if bits > dataset.BitsAllocated or sides != [dataset.Rows, dataset.Columns]:
            raise ValueError(f"JPEG of {sides[1]} x {sides[0]} pixels of {bits} bits in it")
