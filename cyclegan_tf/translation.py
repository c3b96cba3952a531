"""Scans translated where they lie: images, volumes, folders of them, BIDS data sets."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel import Nifti1Image
from tqdm.auto import tqdm

from . import InputError, __version__
from .runs import write_atomically
from .scans.geometry import from_slices, to_slices
from .scans.images import SUFFIXES, list_images, read_image, write_image
from .scans.intensity import scale_intensities
from .scans.volumes import WHITE, find_volumes, is_bids, is_volume, read_volume, write_volume
from .translate import CHUNK, DIRECTIONS, Translator, load_translator

KINDS = ("synthetic contrast", "trust map")


@dataclass
class Job:
    """An image or a volume to translate, and what became of it."""

    source: Path
    targets: list[Path]
    """The translation's and, where it is wanted, the trust map's."""
    error: str = ""

    @property
    def done(self) -> bool:
        return all(path.exists() for path in self.targets)

    @contextmanager
    def reported(self) -> Iterator[None]:
        """What goes wrong in the block is said, and ends this job alone."""
        try:
            yield
        except (InputError, OSError) as error:
            self.error = str(error)
            tqdm.write(self.error, file=sys.stderr)


def translate_scans(
    source: str | Path,
    target: str | Path,
    model: str | Path | None = None,
    direction: str = DIRECTIONS[0],
    plane: str = "axial",
    series: str = "",
    trust: bool = False,
) -> list[Job]:
    """Translate an image, a volume, a folder of either or a BIDS data set; returns what was done.

    `target` is a file or a folder for one image or volume, a folder for several, the derivatives
    data set for a BIDS one. A volume's translation has its geometry and the intensities of
    `volumes.write_volume`, an image's has its size, name, format and bits (8 or 16). `trust` adds
    trust maps on the same scale, white for 1. What is there already is not made again.

    Images all of 8 bits are taken as they are; others in a folder are slices of *one* head, and
    scaled together as a volume's are. `model` is as in `load_translator`, `plane` and `series` as
    in `scans`. Raises InputError where there is nothing to translate, or a source would be lost.
    """
    source, target = Path(source), Path(target)
    source = source.resolve() if source.is_dir() else source  # "." has no name
    jobs = _jobs(source, target, direction, trust)
    todo = [job for job in jobs if not job.done]
    if len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} are there already: skipped.")
    if not todo:
        return jobs
    translator = load_translator(model, direction)
    print(f"Model: {translator.name}.")
    if not is_volume(todo[0].source):
        _translate_images(translator, jobs)
        return jobs
    dataset = source if is_bids(source) else None
    if dataset:
        _describe_dataset(dataset, target)
    for job in tqdm(todo, unit="volume", disable=len(todo) < 2):
        with job.reported():
            volume = read_volume(job.source, series)
            _translate_volume(translator, job, volume, plane, dataset)
    return jobs


def _jobs(source: Path, target: Path, direction: str, trust: bool) -> list[Job]:
    own, other = (f"{contrast.upper()}w" for contrast in direction.split("_to_"))
    single = source.is_file() or is_volume(source)
    sources = [source] if single else find_volumes(source, own)
    if not sources and is_bids(source):
        raise InputError(f"{source} holds no scan that is named *_{own}.nii.gz, as BIDS has it.")
    sources = sources or list_images(source)
    if single and target.suffix and not target.is_dir():
        suffixes = (".nii", ".nii.gz") if is_volume(source) else tuple(SUFFIXES)
        if not target.name.lower().endswith(suffixes):
            raise InputError(f"{target} cannot be written: expected {suffixes[0]} or a folder.")
        results = [target]
    else:
        root = source.parent if single else source
        results = [
            target / path.relative_to(root).with_name(_name(path, own, other)) for path in sources
        ]
    jobs = [
        Job(path, [result, _beside(result)][: 1 + trust])
        for path, result in zip(sources, results, strict=True)
    ]
    made = Counter(path.resolve() for job in jobs for path in job.targets)
    for path in {source.resolve(), *(path.resolve() for path in sources)}:
        if path in made or path == target.resolve():
            raise InputError(f"{path} is the input: expected another output.")
    for path, count in made.items():
        if count > 1:
            raise InputError(f"{path} would be made {count} times: expected inputs of other names.")
    return jobs


def _name(path: Path, own: str, other: str) -> str:
    """What the translation of a file is called in a folder: an image as it is, a volume as BIDS."""
    if not is_volume(path):
        return path.name
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    return f"{re.sub(rf'(_desc-[^_]+)?_{own}$', '', stem)}_desc-synthetic_{other}.nii.gz"


def _beside(result: Path) -> Path:
    """Where the trust map of a translation goes."""
    if "_desc-synthetic_" in result.name:
        return result.with_name(result.name.replace("_desc-synthetic_", "_desc-trust_"))
    return result.with_name(re.sub(r"((\.nii)?\.[^.]+)$", r"_trust\1", result.name))


def _translate_volume(
    translator: Translator, job: Job, volume: Nifti1Image, plane: str, dataset: Path | None
) -> None:
    slices = scale_intensities(to_slices(volume, plane), translator.contrast)
    results = translator(np.stack(slices), trust=len(job.targets) > 1)
    for path, result, what in zip(job.targets, results, KINDS, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        if dataset:
            sidecar = {
                "Description": f"{what}, not for clinical use",
                "Sources": [f"bids:raw:{job.source.relative_to(dataset).as_posix()}"],
                "Model": translator.name,
                "Version": f"cyclegan_tf {__version__}",
                "IntensityScale": f"0 (black) to {WHITE} (white)",
            }
            _write_json(path.with_name(path.name.replace(".nii.gz", ".json")), sidecar)
        description = f"{what}, cyclegan_tf {__version__}, {translator.name}"
        write_volume(path, from_slices(result, volume, plane), volume, description)


def _describe_dataset(source: Path, target: Path) -> None:
    """What makes a folder a BIDS derivatives data set."""
    path, link = target / "dataset_description.json", Path(os.path.relpath(source, target))
    if path.is_file() and "cyclegan_tf" not in path.read_text():
        raise InputError(f"{path} is of another data set: expected a folder for this one.")
    description = {
        "Name": "Synthetic MRI contrast, not for clinical use",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "cyclegan_tf", "Version": __version__}],
        "SourceDatasets": [{"URL": link.as_posix()}],
        "DatasetLinks": {"raw": link.as_posix()},
    }
    target.mkdir(parents=True, exist_ok=True)
    _write_json(path, description)


def _translate_images(translator: Translator, jobs: list[Job]) -> None:
    read, images = [], []
    for job in tqdm(jobs, "reading", unit="image", disable=len(jobs) < 200):
        with job.reported():
            images.append(read_image(job.source))
            read.append(job)
    if images and all(image.min() == image.max() for image in images):
        raise InputError(f"{read[0].source} is the same everywhere: expected an image of a head.")
    bits = [np.uint8 if image.dtype == np.uint8 else np.uint16 for image in images]
    one_head = np.uint16 in bits
    if one_head:
        images = scale_intensities(images, translator.contrast)
    alike = defaultdict(list)
    for job, image, dtype in zip(read, images, bits, strict=True):
        alike[image.shape].append((job, image, dtype))
    size = len(jobs) if one_head else CHUNK
    blocks = [group[k : k + size] for group in alike.values() for k in range(0, len(group), size)]
    for block in tqdm(blocks, unit=f"{CHUNK} images", disable=len(blocks) < 2):
        if all(job.done for job, _, _ in block):
            continue
        stack = np.stack([image for _, image, _ in block])
        stack = stack if one_head else stack / np.float32(127.5) - 1
        results = translator(stack, trust=len(jobs[0].targets) > 1)
        for (job, _, dtype), *made in zip(block, *results, strict=True):
            with job.reported():
                for path, image in zip(job.targets, made, strict=True):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_image(path, image, dtype)


def read_result(job: Job, series: str = "") -> dict[str, Nifti1Image]:
    """What a job was given and has made, by `figures.MAPS`; an image as a volume of one slice."""
    volumes = {}
    names = ("source", "synthetic", "trust")
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

    path = Path(folder) / "template_T1w.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial:
        load_mni152_template(resolution=1).to_filename(partial)
    return path


def _write_json(path: Path, content: dict) -> None:
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
