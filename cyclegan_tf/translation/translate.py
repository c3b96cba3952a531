"""Scans translated where they lie: images, volumes, folders of them, BIDS data sets."""

import io
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import nibabel
import numpy as np
from nibabel import Nifti1Image
from tqdm.auto import tqdm

from .. import InputError, __version__
from ..contrasts import SPOKEN, WITH_AGENT, Contrasts
from ..parameters import parse, user_path
from ..presets import PLANES
from ..runs import check_writable, claimed, write_atomically, write_json
from ..scans.folders import Found, find_scans, identify, is_bids
from ..scans.geometry import joined_voxels
from ..scans.images import MINIMUM_SIDE, SUFFIXES, read_image
from ..scans.scan import Scan, read_scans, scan_of, write_scan
from ..scans.series import write_series
from ..scans.volumes import (
    WHITE,
    check_pair,
    holds_dicom,
    is_volume,
    read_volume,
    volume_name,
    write_volume,
)
from .gate import Verdict, judge, judge_each
from .loading import choose_direction, load_translator
from .translator import CHUNK, Translation, Translator
from .trust import COVERED

KINDS = {"synthetic": "synthetic contrast", "trust": "trust map"}  # of a Translation
NIFTI = (".nii", ".nii.gz")
BLACK = -0.99  # no brighter than the black of a file


@dataclass
class Job:
    """An image or a volume to translate, and what became of it."""

    source: Path
    targets: list[Path]
    """The translation's and, where it is wanted, the trust map's."""
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    """What was doubtful about the source."""

    @property
    def done(self) -> bool:
        return all(
            any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size
            for path in self.targets
        )


Image = TypeVar("Image", np.ndarray, nibabel.spatialimages.SpatialImage)


def translate(image: Image, direction: str = "", model: str | Path | None = None) -> Image:
    """The other contrast of a scan in memory, from 0 (black) to 1000 (white), as files hold it.

    A nibabel image → a NIfTI image (int16) in the same space, voxel for voxel. An array, one slice
    (H, W) or the slices of one head (S, H, W), grey in any unit, pixels of about 1 mm → float32 of
    the same shape. `model` and `direction` are as in `load_translator`. What is doubtful is said on
    stderr. Raises InputError for what is no scan.
    """
    if isinstance(image, np.ndarray):
        small = min(image.shape[-2:], default=0) < MINIMUM_SIDE  # as where the last are colours
        if image.ndim not in (2, 3) or small or not image.size or image.dtype.kind not in "biuf":
            expected = f"real numbers (H, W) or (S, H, W), {MINIMUM_SIDE} or more a side of a slice"
            raise InputError(f"The array is {image.dtype} {image.shape}: expected {expected}.")
        translator = load_translator(model, direction)
        stack = np.asarray(np.ma.filled(image.astype(np.float32), np.nan))  # no matrix, either
        stack = stack.reshape(-1, *image.shape[-2:])
        scan = scan_of(stack, translator.contrasts.x, part := translator.preset.body_part)
        _say("The array", [*scan.warnings, judge([scan], part).warning])
        (made,) = translator([scan])
        if wrong := _wrong("The array", made, part):
            raise InputError(wrong)
        return ((made.synthetic.slices + 1) * (WHITE / 2)).reshape(image.shape)
    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        found = type(image).__name__
        raise InputError(f"A scan in memory is no {found}: expected a nibabel image or an array.")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, target = Path(folder, "image.nii"), Path(folder, "translated.nii")
        nibabel.save(image, source)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            (job,) = translate_scans(source, target, model, direction)
        _say("The image", job.warnings)
        if job.error:
            raise InputError(job.error.replace(str(source), "The image"))
        result = nibabel.load(target, mmap=False)
        known = image.affine is not None  # and not in metres
        alike = known and np.allclose(result.affine, image.affine, atol=1e-3)
        affine = image.affine if alike else result.affine
        return type(result)(np.asanyarray(result.dataobj), affine, result.header)


def _wrong(what: Path | str, made: Translation, body_part: str) -> str:
    """A sentence on a translation in which nothing shows."""
    shown = (made.synthetic.slices > BLACK).any()
    return "" if shown else f"{what} came out black: expected a scan of a {body_part}."


def _say(what: str, doubts: Sequence[str]) -> None:
    for doubt in filter(None, doubts):
        print(f"{what}: {doubt}", file=sys.stderr)


def translate_scans(
    source: str | Path,
    target: str | Path,
    model: str | Path | None = None,
    direction: str = "",
    plane: str = "",
    series: str = "",
    trust: bool = False,
    strict: bool = False,
    dicom: bool = False,
    anonymous: bool = False,
    only: Callable[[Path], bool] = lambda path: True,
) -> list[Job]:
    """Translate an image, a volume, a folder of either or a BIDS data set; returns what was done.

    `target` is a file or a folder for one image or volume, a folder for several, the derivatives
    data set for a BIDS one. A volume's translation has its geometry and the intensities of
    `volumes.write_volume`, an image's has its size, name, format and bits (8 or 16). `trust` adds
    trust maps on the same scale: the expected absolute error, white for 100 % of the range, or the
    spread of the views where the model has no calibration. What is there is not made again.

    Scans are read as `read_scans` does it. `plane` is that of a volume's slices, by default those
    that the model knows; `all` averages the translations of all three (`choose_planes`). `model`
    and `direction` are as in `load_translator`, `series` as in `read_volume`. What is doubtful,
    such as another contrast (`gate.judge`), is said in the terminal, in the jobs and in the
    sidecars; with `strict` what is no head in the wanted contrast is not translated.
    `dicom` writes a derived DICOM series for each, a folder, instead of NIfTI, `anonymous` without
    anything about the patient. `only` says of a source whether it is wanted. Several processes may
    work on one output side by side: a volume is left to the one that has begun it. Raises
    InputError where there is nothing to translate, nothing can be written, a source would be lost,
    or the only one is refused; what goes wrong with one scan of several ends that one alone.
    """
    source, target, series = user_path(source), user_path(target), parse("series", series, "str")
    plane = parse("plane", plane, "str", choices=("", "all", *PLANES))
    trust, dicom = parse("trust", trust, "bool"), parse("dicom", dicom, "bool")
    anonymous = parse("anonymous", anonymous, "bool")
    if anonymous and not dicom:
        raise InputError("NIfTI never names the patient: expected --dicom, too.")
    source = source.resolve() if source.is_dir() else source  # "." has no name
    load = cache(partial(load_translator, model, direction))  # if there is something to do
    contrasts = Contrasts.of(choose_direction(model, direction) or load().direction)
    jobs = [job for job in _jobs(source, target, contrasts, trust, dicom) if only(job.source)]
    if not jobs:
        raise InputError(f"{source} holds no scan of what was chosen: expected one.")
    if series and not any(is_volume(job.source) and holds_dicom(job.source) for job in jobs):
        print(f"{source} holds no DICOM: there is no series {series} to choose.", file=sys.stderr)
    todo = [job for job in jobs if not job.done]
    if len(todo) < len(jobs):
        there = f"{len(jobs) - len(todo)} of {len(jobs)} are there already: skipped."
        print(f"{there} Remove what is to be made anew, as from another scan or model.")
    if not todo:
        return jobs
    for folder in {path.parent for job in todo for path in job.targets}:
        check_writable(folder)
    translator = load()
    print(f"Model: {translator.name}.")
    if not is_volume(todo[0].source):
        todo = jobs  # for images may be slices of one head, to be scaled together
    dataset = source if is_bids(source) else None
    if dataset:
        _describe_dataset(dataset, target)
    planes = {"": translator.planes, "all": PLANES}.get(plane, (plane,))
    title = f"{SPOKEN[translator.contrasts.y]} synthetic, not for diagnosis"
    save = partial(write_series, title=title, anonymous=anonymous) if dicom else write_volume
    by_source = {job.source: job for job in todo}
    _translate(by_source, translator, planes, series, trust, strict, dataset, save)
    if others := sum(not (job.done or job.error) for job in jobs):
        print(f"{others} of {len(jobs)} are left to another process, which has begun them.")
    return jobs


def _translate(
    jobs: dict[Path, Job],
    translator: Translator,
    planes: Sequence[str],
    series: str,
    trust: bool,
    strict: bool,
    dataset: Path | None,
    save: Callable[..., None],
) -> None:
    """Do the jobs, given by source; what goes wrong with one is printed and kept in the job."""

    @contextmanager
    def reported(*sources: Path) -> Iterator[None]:
        try:
            yield
        except (InputError, OSError) as error:
            for path in sources:
                jobs[path].error = str(error)
            tqdm.write(str(error), file=sys.stderr)

    def write(made: Translation, wrong: str = "") -> None:
        sources = made.synthetic.sources
        with reported(*sources):
            if wrong:
                raise InputError(wrong)
            _write([jobs[path] for path in sources], made, translator, verdict, dataset, save)

    def begun() -> Iterator[Path]:
        """The sources, each volume only while no other process is at work on it."""
        for path, job in tqdm(jobs.items(), unit="scan", disable=len(jobs) < 2):
            with claimed(job.targets[0]) if is_volume(path) else nullcontext(True) as free:
                if free and not (is_volume(path) and job.done):
                    yield path

    contrast, body_part = translator.contrasts.x, translator.preset.body_part
    calibration = translator.calibration
    scans = read_scans(begun(), contrast, body_part, planes, series, reported)
    todo = (scan for scan in scans if not all(jobs[path].done for path in scan.sources))
    black = []  # slices beyond the head, if others show it
    for batch in _batches(todo):
        verdict, odd = judge_each(batch, body_part)
        doubts = [*filter(None, [verdict.warning, trust and calibration and calibration.doubt])]
        batch = [
            replace(scan, warnings=(*scan.warnings, *doubts, *filter(None, [own])))
            for scan, own in zip(batch, odd, strict=True)
        ]
        sources = {path: None for scan in batch for path in scan.sources}
        if strict and verdict.wrong:
            refusal = f"{batch[0].sources[0]} is not translated. {verdict.warning}"
            if len(jobs) == 1:
                raise InputError(refusal)
            with reported(*sources):
                raise InputError(refusal)
            continue
        for one in batch:
            for path in one.sources:
                jobs[path].warnings = [*one.warnings]  # of a volume alike in all planes
        for doubt in dict.fromkeys(doubt for scan in batch for doubt in scan.doubts):
            tqdm.write(doubt, file=sys.stderr)
        for one in translator(batch, trust):
            wrong = _wrong(one.synthetic.sources[0], one, body_part)
            if wrong and not one.synthetic.grid:
                black.append((one, wrong))
            else:
                write(one, wrong)
    if black and not any(job.done for job in jobs.values()):
        raise InputError(black[0][1])
    for one, _ in black:
        write(one)


def _batches(scans: Iterable[Scan]) -> Iterator[list[Scan]]:
    """A volume in all its planes, or images together: translating takes CHUNK slices at once."""
    batch = []
    for scan in scans:
        batch.append(scan)
        slices = sum(len(one.slices) for one in batch)
        if len(batch) == len(scan.grid.planes) if scan.grid else slices >= CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch


def _jobs(source: Path, target: Path, contrasts: Contrasts, trust: bool, dicom: bool) -> list[Job]:
    own, other = (SPOKEN[contrast] for contrast in contrasts)
    found = find_scans(source, own) if source.is_dir() else _alone(source, own)
    sources, single = found.scans, found.scans == [source]
    for sentence in found.sentences:
        print(sentence)
    named = target.name.lower().endswith((*NIFTI, *SUFFIXES)) and not target.is_dir()
    if named and (dicom or (not single and (len(sources) > 1 or is_bids(source)))):
        raise InputError(f"{target} is the name of a file: expected that of a folder.")
    if named:
        (source,), single = sources, True
    ending = "" if dicom else ".nii.gz"
    for path in sources if dicom else ():
        if not (is_volume(path) and holds_dicom(path)):
            raise InputError(f"{path} is no DICOM: expected a DICOM series for one to be derived.")
    if single and dicom:
        inside = {p.suffix for p in target.iterdir()} if target.is_dir() else set()
        if target.is_file() or not inside <= {".dcm"}:
            raise InputError(f"{target} holds something else: expected a new folder.")
        results = [target]
    elif single and target.suffix and not target.is_dir():
        suffixes = NIFTI if is_volume(source) else SUFFIXES
        if not target.name.lower().endswith(suffixes):
            like = suffixes[-1] if is_volume(source) else source.suffix
            raise InputError(f"{target} cannot be written: expected {like} or a folder.")
        results = [target]
    else:
        root = source.parent if single else source
        results = [
            # A folder of DICOM files may hold NIfTI files, too.
            target / path.relative_to(root).parent / _name(path, own, other, ending)
            for path in sources
        ]
    jobs = [
        Job(path, [result, _beside(result)][: 1 + trust])
        for path, result in zip(sources, results, strict=True)
    ]
    made = defaultdict(list)
    for job in jobs:
        for path in job.targets:
            made[path.resolve()].append(job.source)
    for path in {source.resolve(), *(path.resolve() for path in sources)}:
        if path in made or path == target.resolve():
            raise InputError(f"{path} is the input: expected another output.")
    for path, of in made.items():
        if len(of) > 1:
            raise InputError(f"{of[0]} and {of[1].name} would both become {path}: expected one.")
    return jobs


def _alone(source: Path, contrast: str) -> Found:
    """A single file is taken whatever its name says; a doubt says if that is another contrast."""
    said = identify(source).contrast
    check_pair(source)
    if not (is_volume(source) or source.suffix.lower() in SUFFIXES):
        found = "no image and no volume, going by its name" if source.exists() else "not there"
        raise InputError(f"{source} is {found}: expected an image or a volume.")
    doubt = f"{source} is named as {said}: it is taken for a {contrast} scan."
    return Found([source], [doubt] if said not in ("", contrast) else [])


def _name(path: Path, own: str, other: str, ending: str) -> str:
    """What the translation of a file is called in a folder: an image as it is, a volume as BIDS."""
    if not is_volume(path):
        return path.name
    bids = {WITH_AGENT: "T1w"}
    stem = re.sub(f"_{bids.get(own, own)}$", "", volume_name(path))
    stem = re.sub("_ce-[^_]+", "", stem) if own == WITH_AGENT else stem
    described = re.sub("_desc-([^_]+)$", r"_desc-\1Synthetic", stem)
    described = described if described != stem else f"{stem}_desc-synthetic"
    described = described.replace("_desc-", "_ce-agent_desc-") if other == WITH_AGENT else described
    return f"{described}_{bids.get(other, other)}{ending}"


def _beside(result: Path) -> Path:
    """Where the trust map of a translation goes."""
    for synthetic, trust in (("synthetic_", "trust_"), ("Synthetic_", "Trust_")):
        if re.search(f"_desc-[^_]*{synthetic}", result.name):
            return result.with_name(result.name.replace(synthetic, trust))
    return result.with_name(re.sub(r"((\.nii)?\.[^.]+)?$", r"_trust\1", result.name, count=1))


def _write(
    jobs: Sequence[Job],
    made: Translation,
    translator: Translator,
    verdict: Verdict,
    dataset: Path | None,
    save: Callable[..., None],
) -> None:
    """Write the translation of a volume, or of images, one a job."""
    known, model = translator.calibration, translator.name
    scales = {
        "synthetic": f"0 (black) to {WHITE} (white)",
        "trust": f"0 to {WHITE}: spread of the views, {WHITE} is from black to white; uncalibrated",
    }
    if known:
        scales["trust"] = (
            f"expected absolute error, {WHITE // 100} is 1 per cent of the range from black to "
            f"white; {known.quantile:.2f} times that is half of a {COVERED:.0%} interval"
        )
    for (name, what), *targets in zip(KINDS.items(), *(job.targets for job in jobs), strict=False):
        scan = getattr(made, name)
        if targets[0].name.lower().endswith(NIFTI):
            sidecar = {
                "Description": f"{what}, not for clinical use",
                "Model": model,
                "Version": f"cyclegan_tf {__version__}",
                "IntensityScale": scales[name],
                "Planes": [*scan.grid.planes],
                "VoxelsTogether": joined_voxels(scan.grid.volume.affine),
                "SourceContrast": verdict.named,
                "SkullStripped": False,  # nothing is taken away here
                "Warnings": [*scan.warnings],
            }
            if dataset:  # elsewhere a name may be a patient's
                within = jobs[0].source.relative_to(dataset).as_posix()
                sidecar["Sources"] = [f"bids:raw:{within}"]
            _write_own(targets[0].with_name(f"{volume_name(targets[0])}.json"), sidecar)
        made_by = f"{what}, cyclegan_tf {__version__}, {model}."
        write_scan(scan, targets, "\n".join([made_by, *scan.warnings]), save)


def _describe_dataset(source: Path, target: Path) -> None:
    """What makes a folder a BIDS derivatives data set."""
    path = target / "dataset_description.json"
    try:
        link = Path(os.path.relpath(source, target)).as_posix()
    except ValueError:  # on another drive of Windows
        link = source.as_uri()
    description = {
        "Name": "Synthetic MRI contrast, not for clinical use",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "cyclegan_tf", "Version": __version__}],
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {"raw": link},
    }
    _write_own(path, description)


def _write_own(path: Path, content: dict) -> None:
    if path.is_file() and b"cyclegan_tf" not in path.read_bytes():
        raise InputError(f"{path} was made by another program: expected an output without it.")
    write_json(path, content)


def read_result(job: Job, series: str = "") -> dict[str, Nifti1Image]:
    """What a job was given and has made, by `volumes.MAPS`; an image as a volume of one slice."""
    volumes, names = {}, ("source", "synthetic", "trust")
    for name, path in zip(names, [job.source, *job.targets], strict=False):
        if is_volume(path):
            volumes[name] = read_volume(path, series)
        else:
            image = read_image(path)
            scale = WHITE / (255 if image.dtype == np.uint8 else 65535)
            volumes[name] = Nifti1Image((scale * image).T[:, ::-1, None], np.eye(4))
    return volumes


def example_scan(folder: str | Path) -> Path:
    """The T1 template that nilearn brings, skull-stripped, 1 mm, as a file in the folder."""
    from nilearn.datasets import load_mni152_template

    path = user_path(folder) / "template_T1w.nii.gz"
    with write_atomically(path) as aside:
        load_mni152_template(resolution=1).to_filename(aside)
    return path
