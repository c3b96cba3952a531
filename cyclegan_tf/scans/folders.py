"""Which files of a folder are scans of a contrast, and whose: by their names, no pixel is read."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import InputError
from ..contrasts import SPOKEN, T1_T2, WITH_AGENT, Contrasts, short
from .dicom import is_dicom, is_dicom_folder
from .images import IMAGES, SUFFIXES, is_dead, natural_order, passed_over
from .quiet import reading
from .volumes import is_volume_file, other_half, volume_name

SHOWN = 5  # names in a message
ANATOMICAL = ("sub-*/anat", "sub-*/ses-*/anat")  # folders of a BIDS data set
# Kinds of volumes that are not read.
OTHERS = [".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".bz2", ".xz", ".zst", ".zip", ".par", ".brik"]

# Words of a name stand in lower case between underscores.
HOW = (
    "(?:axial|ax|tra|sag|cor|[23]d|iso|fs|tse|fse|se|ffe|tfe|gre|flash|fl|spc|space|cube|vibe|tfl"
    "|n4|blade|weighted|wi|w|mprage|mpr|bravo|f?spgr|pre|raw)*"
)
SEQUENCES = r"(?:me)?mp2?_?rage\d*|mpr\d*|mdeft|f?spgr|bravo"  # of T1w

# What in a name does not say whose head it is.
DESCRIPTION = (
    rf"{HOW}(?:t[12]{HOW})?(?:pd{HOW})?|t1(?:ce|c|n|gd|gado?|post|km)|t2f|{HOW}(?:t[12])?flair|(?:me)?mp2?rage"
    r"|st[12]w|(?:mpr|spc)\d|mdeft|haste|ct|brain|head|scan|image|img|volume|vol|mri?|anat|structural|nifti|nii|dicom|dcm"
    "|raw|orig|final|anon|defaced?|bet|stripped|skullstripped|reg|registered|coreg|std|norm|restore|ce|gd"
    r"|gad|gado|km|post|contrast|pre|se\d+|series|run\d*"
)

# A contrast agent: its name, or what is said of it behind the sequence, or first of all before T1;
# "post" at the end alone, as it may be after an operation.
WITHOUT = "(?<!_(?:pre|non|vor)_)(?<!_(?:no|wo)_)(?<!_o_)(?<!_(?:ohne|sans)_)(?<!_without_)"
AGENT = (
    rf"(?:{HOW}t1{HOW}(?:flair)?|{SEQUENCES})(?:(?:_[a-z0-9]+)*_)?{WITHOUT}(?:ce|gd|gado?|km"
    rf"|inj(?:ect[a-z]*)?|post(?=(?:_(?:\d+|{DESCRIPTION}))*_$))(?:con(?:trast)?)?|{HOW}t1{HOW}_?c"
    r"(?:ontrast(?=_$))?"
    rf"|(?<=^_)(?:post|contrast)_?(?:{HOW}_)*{HOW}t1{HOW}"
    rf"|{WITHOUT}(?:gd|gad(?:[oa][a-z]*)?|dotarem|magnevist|prohance|multihance|ce_(?!no|wo|without|pre)[a-z0-9]+"
    rf"|ce{HOW}t1{HOW}|post_?(?:con(?:trast)?|gd|gado?|km)|contrast_?enhanced|w(?:ith)?_contrast)"
)

# What a name says: the first kind that fits.
SAID = {
    "made by this program": "desc_[a-z0-9]*(?:synthetic|trust)",
    "mask or labels": r"[a-z]*seg(?:m|mentation[a-z]*)?\d*|[a-z]*mask\d*|labels?|aparc|wmparc"
    r"|ribbon|pve|(?:lesions?|rois?)\d*(?=_$)|[a-z]*c[1-6](?:t1w?|sub)"  # the last of SPM
    r"|m?[wr]?p\dsub|mixeltype|parc[a-z]*|prob(?:s|ability)?\d*(?=_$)"  # the first of CAT12
    "|(?:gm|wm|csf|atlas|edges?|bet_skull)(?=_$)",
    "phase or part of a complex image": "part_(?:phase|real|imag)|phase|imaginary"
    "|(?:real|pha?)(?=_$)",
    "deformation": r"nonlin_(?:coeff|field)|\d*(?:inverse)?warp(?:_?field)?|deformations?"
    "|displacement|[a-z]*jacobian|(?<=^_)i?y_(?:t1w?|sub)",  # the last of SPM
    "field map": "b[01](?:_?map|(?=_$))|field_?maps?|fmap|phase(?:diff|[12])|magnitude[12]"
    "|(?:tot)?bias(?:_?field(?!_corr)|_(?:32ch|bc)|(?=_$))|afi|jac(?=_$)",
    "map": "(?:t[12]w?(?:_?star)?|r[12]|pd|mt|m0|adc)_?map(?:s|ping)?|t1_?rho|mtr|mtsat"
    "|[a-z0-9]*ratio|qsm|t1w?dividedbyt2w?|[a-z]*thickness|(?:snr|noise)(?=_$)"
    "|mp2rage_(?:[a-z0-9]+_)*t1_images",  # of Siemens
    "diffusion or function": "dwi|dti|dmri|adc|tracew?|bold|fmri|p?c?asl|cbf|sbref",
    "angiography or susceptibility": "mra|tof|angio|swi|minip",
    "localizer": "locali[sz][a-z]*|scout|survey",
    "CT": r"ct(?!_\d+_t[12])",  # a group of people may be called so, too
    "T2*w": "(?:t2_?star|t2s)w?",
    "in-plane image": "inplanet[12]w?",
    "part of MP2RAGE": "unit1|inv_?[12]",
    "PDw and T2w": "pdt2w?",
    "FLAIR": f"(?<!_t1_)(?<!_t1w_){HOW}(?:t2)?{HOW}flair{HOW}|t2f|dark_?fluid",  # GE has T1 FLAIR
    "T1w": SEQUENCES,  # also of the second visit, T2
    # Of several the first.
    "T1w or T2w": f"(?P<T1w>{HOW}t1{HOW}(?:flair)?|t1n|st1w)|(?P<T2w>{HOW}t2{HOW}|st2w|haste)",
    "PDw": f"{HOW}pd{HOW}|proton_?density",  # last: also an abbreviation of Parkinson's disease
}

SESSION = (
    r"ses(?:sion)?\d*|visit\d*|v\d+|tp\d+|timepoint\d*|baseline|bl|follow|up|followup|fu\d*|mr\d"
    r"|scan\d+|st\d+|(?:day|we?e?k|month|year)\d+|preop|postop|(?:19|20)\d{6}(?:\d{6})?"
)
# Of archives: ADNI and others of LONI (PPMI_3102_MR_…_br_raw_2013…), and folders of TCIA, which are
# a patient, a study with its day, and a series, each of the last two with five digits of its UID.
LONI = r"\d{3}_S_\d{4}", r"[^/]+?(?=_MR_[^/]*_[Bb]r_(?:raw_)?\d{14})"
TCIA = r"([^/]+)/(\d\d-\d\d-\d{4}-[^/]*\d{5})/\d+\.\d+-[^/]*\d{5}(?:/|$)"
TUMOURS = r"(BraTS(?:-[A-Za-z]+)+-\d+|UPENN-GBM-\d+)[-_](\d+)"  # a patient and a visit
NUMBERED = (
    r"(?:ses(?:sion)?|visit|timepoint|followup|fu|run|mpr|restore)$"  # a number after it is its own
)
VISIT = (  # a whole folder's name: session_1, week-000-2, 2011-08-10_10_11_12.0 as of LONI
    r"(?:ses(?:sion)?|visit|time[\W_]?point|tp|day|week|month|year|follow[\W_]?up|fu"
    r"|(?:19|20)\d\d-\d\d-\d\d)[\d\W_]*"
)

# A whole folder's name, too, that says neither whose nor when: of OASIS, HCP, MSSEG.
STAGE = r"(?:raw|(?:un|pre)?processed)(?:[\W_]?data)?|\dt|mninonlinear"


@dataclass(frozen=True)
class Identity:
    """What the name of a scan says."""

    subject: str
    """Whose head it is: `sub-01` in BIDS, else what the name says besides contrast and visit."""
    visit: str
    """`ses-2`, or what else says when; "" for nothing."""
    contrast: str
    """A value of `contrasts.SPOKEN`, another key of SAID, or "" for nothing."""
    stem: str
    """The name without its ending; if it is no BIDS name, with the folders below the root."""

    @property
    def scan(self) -> str:
        """Subject and visit, which the images of one sitting have in common."""
        return "_".join(filter(None, (self.subject, self.visit)))


@dataclass
class Found:
    """What `find_scans` has found."""

    scans: list[Path]
    """In natural order, links that lead nowhere included."""
    sentences: list[str]
    """What the user has to know of this."""


def identify(path: Path, root: Path | None = None) -> Identity:
    """What the name of a file, or of the folder of a DICOM series, says of the scan in it.

    Where the name leaves something open, the folders between it and `root` are asked, too. Names
    are those of BIDS, OASIS (`OAS1_0001_MR1_mpr-1`), IXI (`IXI002-Guys-0828-T1`), BraTS
    (`BraTS_001_t1ce`), ADNI (`ADNI_002_S_0295_MR_MPR_…_Br_20070727…`) or any that hold the contrast
    as a word (`001_T2_TSE`).
    """
    stem = volume_name(path.with_suffix("") if path.suffix.lower() in SUFFIXES else path)
    folders = path.relative_to(root).parts[:-1] if root and path != root else ()
    # Of MSLesSeg P1/T2/P1_T2_T1 is a T1w, and T2 the second visit.
    above = f"{path.parent.parent.name}_{path.parent.name}_"
    rest = stem.removeprefix(above)
    own = rest if rest.lower() in ("t1", "t2", "pd", "flair") else stem
    contrast = next(filter(None, map(contrast_of, [own, *reversed(folders)])), "")
    whole, said = "/".join([*folders, stem]), "/".join([stem, *folders])  # the name says more
    if bids := re.search(r"(?:^|/)(sub-[^_/]+)(?:[_/].*?(ses-[^_/]+))?", said):
        label = stem if stem.startswith("sub-") else whole
        return Identity(bids[1], bids[2] or "", contrast, label)
    if loni := next(filter(None, (re.search(archive, said) for archive in LONI)), None):
        day = re.search(r"_br_(?:raw_)?(\d{8})", stem.lower())
        return Identity(loni[0], day[1] if day else "", contrast, whole)
    if timed := re.search(TCIA, whole) or re.search(TUMOURS, whole):
        return Identity(timed[1], timed[2], contrast, whole)
    parts = [("", f) if re.fullmatch(VISIT, f.lower()) else _whose(f) for f in folders]
    parts.append(_whose(stem))
    for place, name in enumerate(folders):  # of p07/T1/a.nii.gz and p07/T2/b.nii.gz: p07
        if place and not any(parts[place]) and contrast_of(name):
            parts = parts[:place]
            break
    subject, visit = (
        "/".join(dict.fromkeys(filter(None, side))) for side in zip(*parts, strict=True)
    )
    subject = subject or (_whose(root.name)[0] if root else "") or stem
    return Identity(subject, visit, contrast, whole)


def contrast_of(text: str) -> str:
    """The contrast that a name or a description says, as `Identity.contrast`.

    Of a name as in BIDS only the suffix counts, and the entities `part`, `ce`, `inv` and `desc`.
    """
    text = text.lower().replace("*", "star")
    text = re.sub(r"\+c(?![a-z])|(?<![a-z])c\+", "_ce", text)  # T1+C
    if text.startswith("sub-"):
        entity = r"_(?!part-|ce-|inv-|desc-\w*?(?:synthetic|trust))[a-z]+-[^_]*(?=_)"
        text = re.sub(entity, "", text.partition("_")[1] + text.partition("_")[2])
    words = f"_{re.sub(r'[^a-z0-9]+', '_', text)}_"
    # A space, or fat in phase and out of phase.
    words = re.sub(r"(?<=\w)_(?:(?:to|in)_[a-z0-9]+|(?:opp(?:osed)?|out(?:_of)?)_phase)", "", words)
    words = re.sub("(?<=[a-z0-9])(pre|post)_?contrast", r"_\1_contrast", words)
    for kind, pattern in SAID.items():
        if match := _word(pattern, words):
            kind = match.lastgroup or kind
            break
    else:
        kind = ""
    return WITH_AGENT if kind in ("T1w", "") and _word(AGENT, words) else kind


def _word(pattern: str, words: str) -> re.Match | None:
    return re.search(rf"(?<=_)(?:{pattern})(?=_)", words)


def _whose(text: str) -> tuple[str, str]:
    """What a name says besides contrast and sequence: whose head, and which visit."""
    if re.fullmatch(STAGE, text.lower()):
        return "", ""
    text = re.sub(r"((?:19|20)\d{12})_\d+", r"\1", text)  # dcm2niix: of the study, and the series
    text = unicodedata.normalize("NFC", text)  # a Mac may write ü as u and two dots
    words = re.findall(r"([^\W_]+)([\W_]*)", text)
    kept = {True: "", False: ""}  # by whether it says the visit
    numbers = sum(word.isdecimal() or bool(re.search(r"\d", word)) for word, _ in words)
    before, visit = "", False
    for word, gap in words:
        low = word.lower()
        # Of OAS1_0001_MR1_mpr-1 the last number, but the only number of T1_MPRAGE-1 is a person's.
        own = word.isdecimal() and re.match(NUMBERED, before) and numbers > 1
        visit = visit if own else bool(re.fullmatch(SESSION, low))
        if visit or not (own or re.fullmatch(DESCRIPTION, low)):
            kept[visit] += word + gap
        before = low
    return tuple(re.sub(r"^[\W_]+|[\W_]+$", "", kept[visit]) for visit in (False, True))


def same_heads(
    x: Sequence[Identity], y: Sequence[Identity]
) -> tuple[list[Identity], list[Identity]]:
    """The same identities, but with one name for a subject on both sides.

    Words that all names of one side have and none of the other's say nothing of a person
    (`BraTS_001_0000` and `BraTS_001_0002`, `anna-a` and `anna-b`); nor does a number of the series
    (`anna/3_T1`, `anna/15_T2`), where there is one in each folder. Capitals do not matter.
    """
    people = {one.subject for one in x}, {one.subject for one in y}
    cut = {name: name.rpartition("/")[0] or name for name in set.union(*people)}
    placed = [{cut[name] for name in side} for side in people]
    one_each = [*map(len, placed)] == [*map(len, people)] and len(set.union(*placed)) > 1
    if one_each and len(set.intersection(*placed)) > len(set.intersection(*people)):
        x, y = ([replace(one, subject=cut[one.subject]) for one in side] for side in (x, y))
    sides = [[re.findall(r"[^\W_]+", one.subject) for one in side] for side in (x, y)]
    lower = [[{word.lower() for word in words} for words in side] for side in sides]
    known: dict[str, str] = {}
    result = []
    for people, words, own, others in zip((x, y), sides, lower, lower[::-1], strict=True):
        alike = set.intersection(*own) - set().union(*others)
        short = ["_".join(word for word in name if word.lower() not in alike) for name in words]
        whole = [one.subject for one in people]
        differ = len({*short}) == len({*whole}) > 1  # else somebody would become another
        names = [
            known.setdefault(re.sub(r"[\W_]+", "_", name).lower(), name)
            for name in (short if alike and differ else whole)
        ]
        result.append([replace(p, subject=name) for p, name in zip(people, names, strict=True)])
    return tuple(result)


def is_bids(folder: Path) -> bool:
    """Whether the folder is a BIDS data set with anatomical scans: `sub-*/[ses-*/]anat`."""
    return any(any(folder.glob(place)) for place in ANATOMICAL)


def find_scans(folder: Path, contrast: str) -> Found:
    """The scans of a contrast (of `contrasts.SPOKEN`) in a folder or BIDS data set, by their names.

    In a BIDS data set these are the files of `sub-*/[ses-*/]anat` with that suffix. In another
    folder they are its volumes (files, and folders of DICOM), else the volumes of the folders
    below, else its images: of these, all whose names say the contrast or, if none does, all whose
    names say no contrast. Raises InputError for a folder that cannot be read, where there is no
    such scan, and for several channels of nnU-Net, whose names do not say which is which.
    """
    bids = is_bids(folder)
    with reading(folder, "folder"):
        anatomical = [path for place in ANATOMICAL for path in folder.glob(f"{place}/*")]
        paths = [*filter(_named_volume, anatomical)] if bids else _volumes(folder)
    paths.sort(key=lambda p: [natural_order(Path(q)) for q in p.relative_to(folder).parts])
    said = {p: identify(p, folder).contrast for p in paths or ([] if bids else list_images(folder))}
    if bids:  # what SPM writes beside sub-01_T1w.nii is called c1sub-01_T1w.nii
        said |= {path: "no name of BIDS" for path in paths if not path.name.startswith("sub-")}
    taken, sentences = contrast if bids or contrast in said.values() else "", []
    if contrast == "T1w" and taken not in said.values() and WITH_AGENT in said.values():
        taken = WITH_AGENT
        sentences.append(f"{folder} holds T1w after a contrast agent alone: these are taken.")
    scans = [path for path, kind in said.items() if kind == taken]
    left_out = _listed({path: kind for path, kind in said.items() if kind != taken})
    if not scans:
        found = f"no {contrast}, but {left_out}" if left_out else f"no {contrast}"
        raise InputError(f"{folder} holds {found}: expected names that say {contrast}.")
    if left_out:
        sentences.append(f"Left out of {folder}, as it is no {contrast}: {left_out}.")
    if beside := _beside(paths):
        sentences.append(f"Left out of {folder}, as volumes are beside it: {_some(beside)}.")
    if passed := _not_entered(folder, said, bids):
        sentences.append(f"Nothing is taken from these folders in {folder}: {_some(passed)}.")
    if not taken:
        _refuse_channels(folder, scans)
    return Found(scans, sentences)


def _not_entered(folder: Path, said: Iterable[Path], bids: bool) -> list[str]:
    """Folders, and links to one that is not there, of which no file is among those looked at."""
    if folder in said:  # DICOM, however deep it lies
        return []
    entered = {place for path in said for place in (path, *path.parents)}
    entries = sorted(folder.glob("sub-*" if bids else "*"), key=natural_order)
    there = [path for path in entries if path.is_dir() or is_dead(path)]
    return [path.name for path in there if path not in entered and not passed_over(path.name)]


def _beside(paths: Iterable[Path]) -> list[str]:
    """The images in the folders of volumes, and volumes of other kinds."""
    places = {path if path.is_dir() else path.parent for path in paths}
    files = sorted((file for place in places for file in place.iterdir()), key=natural_order)
    kinds = (*SUFFIXES, *OTHERS)
    return [
        file.name for file in files if file.suffix.lower() in kinds and not passed_over(file.name)
    ]


def _listed(left_out: dict[Path, str]) -> str:
    kinds: dict[str, list[str]] = {}
    for path, kind in left_out.items():
        kinds.setdefault(kind or "without a contrast in the name", []).append(path.name)
    return "; ".join(f"{len(names)} {kind}, {_some(names)}" for kind, names in kinds.items())


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:SHOWN])}{' …' if names[SHOWN:] else ''}"


def _named_volume(path: Path) -> bool:
    other = other_half(path)
    pair = other and ".hdr" in path.name.lower() and os.path.lexists(other)  # the .img is taken
    return is_volume_file(path) and not (pair or passed_over(path.name) or is_dicom(path))


def _volumes(folder: Path, seen: frozenset[Path] = frozenset()) -> list[Path]:
    """The volumes of a folder; where it holds no scan itself, those of the folders below.

    Folders of DICOM below are found beside files, too. If their names say no contrast, they are
    one volume where `is_dicom_folder` says so: which series of it is read, is chosen later.
    """
    entries = [path for path in folder.iterdir() if not passed_over(path.name)]
    files = [path for path in entries if _named_volume(path)]
    if any(map(is_dicom, entries)):
        return [folder, *(path for path in files if path.suffix.lower() not in (".dcm", ".ima"))]
    if any(path.suffix.lower() in SUFFIXES for path in entries):
        return files
    seen |= {folder.resolve()}  # a link may lead round
    deeper = [path for path in entries if path.is_dir() and path.resolve() not in seen]
    below = [path for sub in deeper for path in _volumes(sub, seen)]
    if files:
        return files + [path for path in below if path.is_dir()]
    named = any(identify(path, folder).contrast for path in below)
    return [folder] if below and not named and is_dicom_folder(folder) else below


def _refuse_channels(folder: Path, scans: Sequence[Path]) -> None:
    cases: dict[str, set[str]] = {}
    for path in scans:
        case, _, channel = volume_name(path).rpartition("_")
        cases.setdefault(case, set()).add(channel)
    channels, *others = cases.values() or [set()]
    numbered = sorted(channels) == [f"{number:04}" for number in range(len(channels))]
    if numbered and len(channels) > 1 and all(other == channels for other in others):
        raise InputError(
            f"{folder} holds {len(channels)} channels of each head, as nnU-Net numbers them (_0000 "
            f"to _{max(channels)}): expected the files of one, or names that say the contrast."
        )


def find_domains(*folders: Path, contrasts: Contrasts = T1_T2) -> tuple[Path, Path]:
    """The folders of two contrasts: those given, or found up to three levels below the one given.

    Found are, in upper or lower case, `TrainT1` and `TrainT2` (published: `Tr1/TrainT1` and
    `Tr2/TrainT2`), `trainA` and `trainB`, `T1` and `T2`, or whatever the contrasts are; the
    shallowest, where there are several. The root of a BIDS data set (`sub-*/[ses-*/]anat`) holds
    both and is returned twice, and so is a folder of volumes, or of folders of volumes, whose names
    say the contrasts. Raises InputError unless there are two folders, and two different ones, and
    where the name of one of two that are given says another contrast, as if they were exchanged.
    """
    labels = x, y = [*map(short, contrasts)]
    if len(folders) > 2:
        raise InputError(f"{len(folders)} folders of data are given: expected one, or {x} and {y}.")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: expected a folder of scans.")
    if len(folders) == 1 and is_bids(*folders):
        return folders * 2
    try:
        found = folders if len(folders) == 2 else _search(*folders, labels)
    except InputError:
        said = {identify(path, folders[0]).contrast for path in _volumes(folders[0])}
        if {SPOKEN[contrast] for contrast in contrasts} <= said:
            return folders * 2
        raise
    if os.path.samefile(*found):
        same = " and ".join(map(str, found))
        raise InputError(f"{same} are the same folder: expected one of {x} and one of {y}.")
    for place, own in zip(folders, map(SPOKEN.get, contrasts), strict=False):
        said = contrast_of(place.resolve().name.lower().removeprefix("train"))
        others = {*SPOKEN.values()} - {own, "PDw"}  # PD is also a disease
        if found == folders and said in others and not {said, own} <= {"T1w", WITH_AGENT}:
            raise InputError(f"{place} is named as {said}: expected the folder of {own}.")
    return tuple(found)


def _search(root: Path, labels: Sequence[str]) -> list[Path]:
    x, y = labels
    below = [path for depth in ("*", "*/*", "*/*/*") for path in sorted(root.glob(depth))]
    visible = [path for path in below if not any(map(passed_over, path.relative_to(root).parts))]
    layouts = ((f"Train{x}", f"Train{y}"), ("TrainA", "TrainB"), (x, y))
    for layout in layouts:
        found = {
            name: [path for path in visible if path.name.lower() == name.lower() and path.is_dir()]
            for name in layout
        }
        if not any(found.values()):
            continue
        for name, paths in found.items():
            if not paths:
                both = " and ".join(layout)
                raise InputError(f"{root} holds no folder {name}: expected both {both}.")
            if len(paths) > 1 and len(paths[0].parts) == len(paths[1].parts):
                raise InputError(f"{paths[0]} and {paths[1]} are both there: expected one {name}.")
        return [paths[0] for paths in found.values()]
    expected = ", or ".join(" and ".join(layout) for layout in layouts)
    raise InputError(f"{root} holds no folders of {x} and {y} images: expected {expected}.")


def list_images(folder: Path) -> list[Path]:
    """The PNG, JPEG, TIFF and BMP files of a folder in natural order, #9 before #10.

    Hidden files are passed over. Raises InputError for any other file and where there is no image.
    """
    with reading(folder, "folder"):
        entries = [p for p in folder.iterdir() if not passed_over(p.name)]
        files = [p for p in entries if p.is_file() or not p.exists()]  # a link that leads nowhere
    others = sorted((p for p in files if p.suffix.lower() not in SUFFIXES), key=natural_order)
    if others or not files:
        count = len(entries) - len(files)
        found = f"{others[0].name} is no image" if others else f"folders below: {count}"
        expected = f"{IMAGES} files alone, or NIfTI or DICOM files"
        raise InputError(f"{folder} is no folder of scans ({found}): expected {expected}.")
    return sorted(files, key=natural_order)
