"""A trained generator, loaded and applied to scans."""

from __future__ import annotations

import dataclasses
import json
import textwrap
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import h5py
import keras
import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from . import InputError
from .models import build_generator
from .parameters import user_path
from .presets import LAPTOP, Preset, get_preset
from .runs import Run, open_run, write_atomically
from .scans.frame import Frame
from .scans.scan import Scan
from .trust import Calibration

DIRECTIONS = ("t1_to_t2", "t2_to_t1")
PRETRAINED = Path(__file__).parent / "pretrained"
CHUNK = 32  # slices at a time: the views of all that a volume has would not fit in memory
# Axes that are mirrored, pixels it is moved by, gain: of eight such views the four that tell most.
VIEWS = ((), 0, 1.0), ((2,), 0, 1.0), ((2,), 1, 0.9), ((1, 2), 1, 0.9)
GUIDE, FLAT = 17, 8e-4  # pixels of the window; variance in [-1, 1] that counts as none
GUIDANCE = 0.6  # of the shipped pair, chosen on validation heads
SIDES = (224, 192)  # the frame of 217 × 181 pixels


def load_generator(path: Path) -> keras.Model:
    """A generator from the `.keras` file of a run, in safe mode: no code in the file is run.

    Where the other framework generation (Keras 2 or 3) has written it, it is built anew, by the
    preset in the run's `run.json`, and takes the `.weights.h5` beside it. Raises InputError for
    a file that is no model, or no generator of this project.
    """
    try:
        with zipfile.ZipFile(path) as file:
            _bound(path, (member.file_size for member in file.infolist()))
            written_by = json.loads(file.read("metadata.json"))["keras_version"]
            ours = written_by.split(".")[0] == keras.__version__.split(".")[0]
            weights = path if ours else path.with_suffix(".weights.h5")
            with file.open("model.weights.h5") if ours else weights.open("rb") as stream:
                _bound(weights, _array_sizes(stream))
        if ours:
            generator = keras.saving.load_model(path, compile=False, safe_mode=True)
        else:
            generator = _build(_run(path).preset, path.stem)
            generator.load_weights(weights)
        shapes = generator.input_shape, generator.output_shape
    except Exception as error:  # whatever a file that is no model makes the readers raise
        reason = textwrap.shorten(str(error) or type(error).__name__, 150)
        raise InputError(f"{path} is no model that can be loaded safely ({reason}).") from None
    if shapes != ((None, None, None, 1),) * 2:
        raise InputError(f"{path} maps {shapes[0]} to {shapes[1]}: expected grey images to grey.")
    return generator


def _bound(path: Path, sizes: Iterable[int]) -> None:
    """Raises ValueError where a file claims to hold more bytes than it has: Keras packs nothing."""
    if (claimed := sum(sizes)) > path.stat().st_size:
        raise ValueError(f"{path.name} claims to hold {claimed} bytes and has fewer")


def _array_sizes(stream: IO[bytes]) -> list[int]:
    """Bytes of the arrays in an HDF5 file."""
    sizes = []
    with h5py.File(stream) as file:
        file.visititems(lambda _, item: sizes.append(getattr(item, "nbytes", 0)))
    return sizes


def _build(preset: Preset, direction: str) -> keras.Model:
    return build_generator(preset.generator, preset.filters, preset.blocks, direction)


def _run(path: Path) -> Run | None:
    """The run in whose `models/` a file lies, if it does."""
    folder = path.absolute().parent.parent
    return open_run(folder) if (folder / "run.json").is_file() else None


def translate(generator: keras.Model, images: np.ndarray) -> np.ndarray:
    """The generator's output for framed images (N, h, w, 1) in [-1, 1], same shape and range."""
    return generator.predict(images, batch_size=8, verbose=0)


def views(generator: keras.Model, images: np.ndarray) -> np.ndarray:
    """Translations (VIEWS, N, h, w, 1) of framed images, to compare.

    Of the images as they are, mirrored left-right, and mirrored left-right or both ways and then
    moved by a pixel (which the generators, working at half resolution, see differently) and
    darkened by a tenth; each output is set back in place. The first is that of `translate`.
    """
    outputs = []
    for axes, pixels, gain in VIEWS:
        moved = np.roll(np.flip(images, axes), pixels, axis=(1, 2))
        output = translate(generator, gain * moved + (gain - 1))
        outputs.append(np.flip(np.roll(output, -pixels, axis=(1, 2)), axes))
    return np.stack(outputs)


def trust_map(views: np.ndarray) -> np.ndarray:
    """Where a translation is likely wrong: (N, h, w), the higher the less it is to trust.

    The standard deviation of the views on the intensity scale [0, 1], blurred by half a pixel:
    where the anatomy does not decide the output, an accident of the view does (test-time
    augmentation: Wang et al., Neurocomputing 338:34, 2019).
    """
    return ndimage.gaussian_filter(views[..., 0].std(axis=0) / 2, (0, 0.5, 0.5))


def guide(synthetic: np.ndarray, source: np.ndarray, head: np.ndarray) -> np.ndarray:
    """The synthetic slices with the fine structure of their source, both (S, H, W) in [-1, 1].

    The guided filter (He, Sun & Tang, IEEE Trans. Pattern Anal. 35:1397, 2013): in every window of
    17 x 17 pixels the straight line of the source that fits the synthetic image best. Only pixels
    of the `head`, booleans of the same shape, count and change.
    """
    # `find_head` adds 3 pixels of air, in which both are black whatever the tissues beside them.
    inner = ndimage.binary_erosion(head, np.ones((1, 3, 3)), iterations=4).astype(np.float32)

    def blur(images):
        return ndimage.uniform_filter(images, (1, GUIDE, GUIDE), mode="nearest")

    whole = blur(inner) + 1e-6

    def mean(images):
        return blur(images * inner) / whole

    level, made = mean(source), mean(synthetic)
    spread = mean(source**2) - level**2
    slope = (mean(source * synthetic) - level * made) / (spread + FLAT)
    lines = mean(slope) * source + mean(made - slope * level)
    return np.where(inner > 0, np.clip(lines, -1, 1), synthetic)


@dataclass(frozen=True)
class Translation:
    """What the generators make of a scan: scans that lie where it lies, air black."""

    synthetic: Scan
    """In the other contrast."""
    trust: Scan | None = None
    """The expected error or, uncalibrated, `trust_map`: of a range of 1, brought to [-1, 1]."""


@dataclass(frozen=True)
class Translator:
    """A generator and what else has to be known to use it."""

    generator: keras.Model
    preset: Preset
    sides: tuple[int, int]
    """Height and width of the frame in which it has learned."""
    name: str
    """What model it is, as the files say that are made with it."""
    guidance: float = 0.0
    """Share of `guide` in a translation: what has learned from simulated heads alone needs some."""
    calibration: Calibration | None = None
    """What makes an expected error of the trust map."""

    @property
    def contrast(self) -> str:
        """What it translates: `t1` or `t2`."""
        return self.generator.name[:2]

    def __call__(self, scans: Sequence[Scan], trust: bool = False) -> list[Translation]:
        """The translations of scans; with `trust` all of a Translation, at four times the work.

        Of each scan the networks are shown the box of its head, in the middle of a frame that is
        at least the one in which they have learned: so the black around a head and its place in
        the image change nothing. Air stays black, for generators draw things into slices that
        hold little else.
        """
        boxes = [scan.box if self.preset.fit == "pad" else np.s_[:, :] for scan in scans]
        results = [np.full((1 + trust, *x.slices.shape), -1, np.float32) for x in scans]
        framed = defaultdict(list)  # the slices that show a head, by their frame
        for number, (scan, box) in enumerate(zip(scans, boxes, strict=True)):
            frame = Frame.of([self.sides, scan.slices[0][box].shape], self.preset)
            filled = np.flatnonzero(scan.head.any(axis=(1, 2)))
            framed[frame] += [(number, k) for k in filled]
        chunks = [
            (frame, places[k : k + CHUNK])
            for frame, places in framed.items()
            for k in range(0, len(places), CHUNK)
        ]
        for frame, chunk in tqdm(
            chunks, unit=f"{CHUNK} slices", leave=False, disable=len(chunks) < 2
        ):
            shown = [scans[number].slices[k][boxes[number]] for number, k in chunk]
            # n x (H, W) -> (n, h, w, 1)
            outputs = self._outputs(np.stack([*map(frame.apply, shown)]), trust)
            for (number, k), image, *made in zip(chunk, shown, *outputs, strict=True):
                for result, output in zip(results[number], made, strict=True):
                    result[k][boxes[number]] = frame.invert(output, image.shape)
        for scan, result in zip(scans, results, strict=True):
            for k in range(0, len(scan.slices) * bool(self.guidance), CHUNK):
                part = slice(k, k + CHUNK)  # of many slices it would take ten times their memory
                guided = guide(result[0, part], scan.slices[part], scan.head[part])
                result[0, part] += self.guidance * (guided - result[0, part])
            for k in range(0, len(scan.slices) * bool(trust and self.calibration), CHUNK):
                made, spread = result[:, k : k + CHUNK]
                spread[:] = 2 * self.calibration.expected_error((spread + 1) / 2, made) - 1
            for made in result:
                made[~scan.head] = -1
        other = "t1" if self.contrast == "t2" else "t2"
        return [
            Translation(*(replace(scan, slices=made, contrast=other) for made in result))
            for scan, result in zip(scans, results, strict=True)
        ]

    def _outputs(self, framed: np.ndarray, trust: bool) -> list[np.ndarray]:
        if not trust:
            return [translate(self.generator, framed)]
        seen = views(self.generator, framed)
        return [seen[0], 2 * trust_map(seen)[..., None] - 1]


def load_translator(model: str | Path | None, direction: str) -> Translator:
    """The generator of a run's folder, of a `.keras` file or, for None, the one that ships.

    A file outside of a run is taken for one of preset `laptop` and the published data set's size.
    Raises InputError where there is none, or only one of the other of DIRECTIONS.
    """
    if model in (None, ""):
        return _load_pretrained(direction)
    path = user_path(model)
    path = path / "models" / f"{direction}.keras" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} is not there: expected a .keras file or a run's folder.")
    generator, run = load_generator(path), _run(path)
    if generator.name != direction:
        raise InputError(f"{path} is a generator {generator.name}: expected {direction}.")
    if run is None:
        return Translator(generator, LAPTOP, SIDES, path.name)
    name = f"{run.folder.name}, preset {run.preset.name}, seed {run.preset.seed}"
    calibration = Calibration.read(path.parent, direction)
    frame = tuple(run.record["data"]["frame"])
    return Translator(generator, run.preset, frame, name, calibration=calibration)


def _load_pretrained(direction: str) -> Translator:
    known = json.loads((PRETRAINED / "preset.json").read_text())
    preset = get_preset(known["preset"].pop("name"), known["preset"])
    generator = _build(preset, direction)
    with np.load(PRETRAINED / "generators.npz", allow_pickle=False) as file:
        names = [name for name in file.files if name.startswith(direction)]
        generator.set_weights([file[name].astype(np.float32) for name in names])
    name = "the one that ships, trained on simulated heads only"
    calibration = Calibration.read(PRETRAINED, direction)
    return Translator(
        generator, preset, tuple(known["frame"]), name, known["guidance"], calibration
    )


def save_pretrained(run: Path, folder: Path = PRETRAINED) -> None:
    """Write both generators of a run as they ship: weights in half precision, and the preset."""
    pair = [load_translator(run, direction) for direction in DIRECTIONS]
    weights = {
        f"{one.generator.name}_{number:03d}": array.astype(np.float16)
        for one in pair
        for number, array in enumerate(one.generator.get_weights())
    }
    preset = dataclasses.asdict(pair[0].preset) | {"anatomies": ""}  # a folder of one machine
    known = {"preset": preset, "frame": pair[0].sides, "guidance": GUIDANCE}
    folder.mkdir(exist_ok=True)
    with write_atomically(folder / "generators.npz") as partial:
        np.savez_compressed(partial, **weights)
    with write_atomically(folder / "preset.json") as partial:
        partial.write_text(json.dumps(known, indent=1) + "\n")
