"""A trained generator applied to scans, with TensorFlow or without."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .. import InputError, __version__
from ..contrasts import HEAD, NAMES, T1_T2, Contrasts
from ..machines.machine import cores_here
from ..parameters import parse, user_path
from ..presets import LAPTOP, PLANES, Preset, get_preset
from ..runs import open_run, read_run
from ..scans.arrays import filtered, gaussian
from ..scans.frame import MULTIPLE, Frame
from ..scans.intensity import bounds, cut_margins
from ..scans.scan import Scan, in_plane
from .trust import Calibration

DIRECTIONS = T1_T2.directions  # of what ships
PRETRAINED = Path(__file__).parents[1] / "pretrained"
SHIPPED = "shipped"  # the name of what lies there
FORMAT = 1  # of what an ONNX file says of itself
AT_ONCE = 8  # slices, one a thread, on however many cores: each takes some 15 MB
CHUNK = 32  # slices at a time: the views of all that a volume has would not fit in memory
# Axes that are mirrored, pixels it is moved by, gain: of eight such views the four that tell most.
VIEWS = ((), 0, 1.0), ((2,), 0, 1.0), ((2,), 1, 0.9), ((1, 2), 1, 0.9)
GUIDE, FLAT = 25, 8e-4  # pixels (mm) of the window; variance in [-1, 1] that counts as none
CELL = 3  # pixels (mm) from window to window
EVERY = 2.1  # mm: how far apart slices are translated where planes are averaged
THICK = 2  # mm from slice to slice: what lies farther apart is too coarse for `guide`'s lines
TABLE = 0.25  # share of `guide`'s table, chosen as the guidance was
AS_SHIPPED = {
    direction: {"guidance": guidance, "sharpening": sharpening, "planes": ("", *PLANES)}
    for direction, guidance, sharpening in zip(DIRECTIONS, (0.8, 0.4), (0.4, 0.0), strict=True)
}
"""How what ships is to be translated with; the shares were chosen on validation heads."""
SIDES = (224, 192)  # the frame of 217 × 181 pixels
AROUND = 8  # pixels of black around a head larger than `sides`: openms-mni-p07 loses 0.2 dB without
STRIDE = 8  # pixels: a side of a frame has to be a multiple of what the networks halve

Network = Callable[[np.ndarray], np.ndarray]  # framed images (N, h, w, 1) in [-1, 1] -> the same


def views(generator: Network, images: np.ndarray) -> np.ndarray:
    """Translations (VIEWS, N, h, w, 1) of framed images, to compare.

    Of the images as they are, mirrored left-right, and mirrored left-right or both ways and then
    moved by a pixel (which the generators, working at half resolution, see differently) and
    darkened by a tenth; each output is set back in place. The first is the plain one.
    """
    outputs = []
    for axes, pixels, gain in VIEWS:
        moved = np.roll(np.flip(images, axes), pixels, axis=(1, 2))
        output = generator(gain * moved + (gain - 1))
        outputs.append(np.flip(np.roll(output, -pixels, axis=(1, 2)), axes))
    return np.stack(outputs)


def trust_map(views: np.ndarray) -> np.ndarray:
    """Where a translation is likely wrong: (N, h, w), the higher the less it is to trust.

    The standard deviation of the views on the intensity scale [0, 1], blurred by half a pixel:
    where the anatomy does not decide the output, an accident of the view does (test-time
    augmentation: Wang et al., Neurocomputing 338:34, 2019).
    """
    return filtered(views[..., 0].std(axis=0) / 2, gaussian(0.5))


def guide(
    synthetic: np.ndarray,
    source: np.ndarray,
    head: np.ndarray,
    share: float,
    apart: float = 0,
    sharpening: float = 0,
) -> np.ndarray:
    """The synthetic slices with the fine structure of their source, both (S, H, W) in [-1, 1].

    It comes from two regressions of the synthetic image on the source. One is the guided filter
    (He, Sun & Tang, IEEE Trans. Pattern Anal. 35:1397, 2013), of which the result has the `share`:
    in every window of GUIDE mm the straight line that fits best. Windows so wide are much alike, so
    there is one every CELL mm (He & Sun, arXiv:1505.00996). The slices are `apart` mm, or 0 if each
    is to have windows of its own; more than THICK apart they get no lines. The other is a table:
    the mean synthetic value of every grey of the source in the whole head. Slices that get lines
    and are `apart` are of a mean of planes, which is blurred: `sharpening` times what is finer in
    it than a Gaussian of a pixel is added. Only pixels of the `head`, booleans of the same shape,
    count and change.
    """
    result = np.array(synthetic)
    if not head.any():
        return result
    box = bounds(head)  # so that windows lie the same whatever is around it
    made, source, head, near = (x[box] for x in (synthetic, source, head, result))
    # `find_head` adds 3 pixels of air, in which both are black whatever the tissues beside them.
    inner = np.pad(head, 3)
    for _ in range(3):
        beside = [(step, axis) for step in (-1, 1) for axis in ((0, 1, 2) if apart else (1, 2))]
        inner = np.all([inner, *(np.roll(inner, *place) for place in beside)], axis=0)
    inner = inner[3:-3, 3:-3, 3:-3]
    # (S, H, W) -> (N,): the 128 greys of the pixels inside
    greys = ((source[inner] + 1) * 63.5).astype(np.uint8)
    count = np.maximum(np.bincount(greys, minlength=128), 1)
    near[inner] *= 1 - TABLE
    near[inner] += TABLE * (np.bincount(greys, made[inner], 128) / count)[greys]
    if apart > THICK:
        return result
    steps = apart / GUIDE or 1, 1 / GUIDE, 1 / GUIDE
    windows, cells, between = zip(*map(_windows, inner.shape, steps), strict=True)
    mask = inner.astype(np.float32)
    whole = _along(windows, mask) + 1e-6

    def mean(images):  # (S, H, W) -> in each window
        return _along(windows, images * mask) / whole

    level, brightness = mean(source), mean(made)
    spread = mean(source**2) - level**2
    slope = (mean(source * made) - level * brightness) / (spread + FLAT)
    counted = _along(cells, mask)  # windows count by how much of the head they stand for
    # In each window -> (S, H, W): of a pixel's lines, one for each window around it, the mean
    slopes, offsets = (_along(between, counted * x) for x in (slope, brightness - slope * level))
    lines = (slopes * source + offsets) / (_along(between, counted) + 1e-6)
    near[inner] += (1 - TABLE) * share * (np.clip(lines, -1, 1) - made)[inner]
    if apart and sharpening:
        near[inner] += sharpening * (near - filtered(near, gaussian(1)))[inner]
    return result


def fill_between(slices: np.ndarray, known: np.ndarray) -> None:
    """Make the slices (N, S, H, W) between those of the `known` numbers, which rise, linearly."""
    for before, after in pairwise(known):
        for k in range(before + 1, after):
            share = (k - before) / (after - before)
            slices[:, k] = (1 - share) * slices[:, before] + share * slices[:, after]


def _windows(side: int, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows along a side of pixels, of which each is a `step` of a window from the next.

    (W, side): which pixels are in each, and which lie nearest to its middle; (side, W): of how many
    windows around a pixel each is one, between the middles linearly.
    """
    cell = max(1, round(CELL / GUIDE / step))
    pixels = np.arange(side)
    middles = np.arange(min(cell, side) // 2, side, cell)
    far = np.abs(middles[:, None] - pixels)
    beside = np.abs(middles[:, None] - middles) * step < 0.5
    nearest = far.argmin(axis=0) == np.arange(len(middles))[:, None]
    between = np.stack([np.interp(pixels, middles, row) for row in beside.astype(float)], axis=1)
    return tuple(x.astype(np.float32) for x in (far * step < 0.5, nearest, between))


def _along(matrices: Sequence[np.ndarray], images: np.ndarray) -> np.ndarray:
    """(S, H, W) -> (S', H', W'): each axis times its matrix, (S', S), (H', H) and (W', W)."""
    through, down, across = matrices
    return np.tensordot(through, down @ (images @ across.T), 1)


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

    generator: Network
    direction: str
    """As in `Contrasts.directions`."""
    preset: Preset
    sides: tuple[int, int]
    """Height and width of the frame in which it has learned, of several the least."""
    name: str
    """What model it is, as the files say that are made with it."""
    guidance: float = 0.0
    """Share of the lines of `guide`: what has learned from simulated heads alone needs some."""
    sharpening: float = 0.0
    """As in `guide`."""
    power: float = 1.0
    """What the output, as a signal in [0, 1], is raised to: so its mean is neither too bright nor
    too dark."""
    calibration: Calibration | None = None
    """What makes an expected error of the trust map."""
    planes: tuple[str, ...] = ("",)
    """Those whose slices it knows, as `choose_planes` takes them: a volume's are averaged."""

    @property
    def contrasts(self) -> Contrasts:
        """What it translates, and what it makes of it."""
        return Contrasts.of(self.direction)

    def of_heads(self) -> Translator:
        """Itself, to be tried on simulated heads. Raises InputError if it is of another part."""
        if (part := self.preset.body_part) != HEAD:
            raise InputError(f"{self.name} is of body part {part}: expected {HEAD}.")
        return self

    def __call__(self, scans: Sequence[Scan], trust: bool = False) -> list[Translation]:
        """The translations of scans; with `trust` all of a Translation, at four times the work.

        Scans of one volume in several planes, which follow each other, have one translation, their
        mean, in the first plane. Of each scan the networks are shown the box of its head, in the
        middle of a frame: that in which they have learned or, of a larger head, one with AROUND
        pixels around. So the black around a head and its place in the image change nothing. Air
        stays black, for generators draw things into slices that hold little else. Where planes are
        averaged, slices nearer than EVERY are made from their neighbours: it halves the work on a
        head of 1 mm, and costs 0.04 dB and 0.002 SSIM of openms-mni-p07, nothing of
        openms-long-p12.
        """
        boxes = [scan.box if self.preset.fit == "pad" else np.s_[:, :] for scan in scans]
        margins = [
            cut_margins(scan.slices, scan.head, box)  # none of a slice that is shown whole
            for scan, box in zip(scans, boxes, strict=True)
        ]
        results = [np.full((1 + trust, *x.slices.shape), -1, np.float32) for x in scans]
        framed = defaultdict(list)  # the slices to be translated, by their frame
        known = []  # the same, by their scan
        for number, (scan, box) in enumerate(zip(scans, boxes, strict=True)):
            whole = np.add(scan.slices[0][box].shape, np.sum(margins[number], axis=1))
            frame = self._frame(whole)
            filled = np.flatnonzero(scan.head.any(axis=(1, 2)))
            averaged = scan.grid and len(scan.grid.planes) > 1
            step = max(1, int(EVERY / scan.grid.apart)) if averaged else 1
            known.append(np.union1d(filled[::step], filled[-1:]))
            framed[frame] += [(number, k) for k in known[-1]]
        chunks = [
            (frame, places[k : k + CHUNK])
            for frame, places in framed.items()
            for k in range(0, len(places), CHUNK)
        ]
        few = len(chunks) < 2
        for frame, chunk in tqdm(chunks, unit=f"{CHUNK} slices", leave=False, disable=few):
            shown = [
                np.pad(scans[number].slices[k][boxes[number]], margins[number], constant_values=-1)
                for number, k in chunk
            ]
            # n x (H, W) -> (n, h, w, 1)
            outputs = self._outputs(np.stack([*map(frame.apply, shown)]), trust)
            for (number, k), image, *made in zip(chunk, shown, *outputs, strict=True):
                for result, output in zip(results[number], made, strict=True):
                    part = result[k][boxes[number]]  # without the margins
                    (above, _), (left, _) = margins[number]
                    whole = frame.invert(output, image.shape)
                    part[:] = whole[above:, left:][: part.shape[0], : part.shape[1]]
        for result, numbers in zip(results, known, strict=True):
            fill_between(result, numbers)
        translations = []
        while scans:
            planes = len(scans[0].grid.planes) if scans[0].grid else 1
            translations.append(self._finish(scans[:planes], results[:planes]))
            scans, results = scans[planes:], results[planes:]
        return translations

    def _frame(self, shape: np.ndarray) -> Frame:
        """What slices of a shape (H, W) are shown in."""
        sides = np.where(shape > self.sides, shape + 2 * AROUND, self.sides)
        multiple = STRIDE if self.preset.fit == "pad" else MULTIPLE
        return Frame.of([sides], self.preset, multiple)

    def _finish(self, scans: Sequence[Scan], made: Sequence[np.ndarray]) -> Translation:
        """The translation of one head from what was made of its planes, (1 or 2, S, H, W) each."""
        for scan, images in zip(scans, made, strict=True):
            np.copyto(images, -1, where=~scan.head)
        scan, mean = scans[0], made[0]
        for other, images in zip(scans[1:], made[1:], strict=True):
            mean += [in_plane(scan.grid, other.grid, image) for image in images]
        mean /= len(scans)
        synthetic, *spread = mean
        if self.guidance:
            apart = scan.grid.apart if scan.grid else 0
            sharpening = self.sharpening if len(scans) > 1 else 0
            given = scan.slices, scan.head, self.guidance, apart, sharpening
            synthetic[:] = guide(synthetic, *given)
        if self.power != 1:
            np.clip(synthetic, -1, 1, out=synthetic)
            shown = synthetic > -1  # air stays 0, and most of a volume is air
            synthetic[shown] = 2 * ((synthetic[shown] + 1) / 2) ** self.power - 1
        for map_ in spread if self.calibration else []:
            error = self.calibration.expected_error((map_ + 1) / 2, synthetic)
            map_[:] = np.where(scan.head, 2 * error - 1, -1)
        return Translation(*(replace(scan, slices=x, contrast=self.contrasts.y) for x in mean))

    def _outputs(self, framed: np.ndarray, trust: bool) -> list[np.ndarray]:
        if not trust:
            return [self.generator(framed)]
        seen = views(self.generator, framed)
        return [seen[0], 2 * trust_map(seen)[..., None] - 1]


def choose_direction(model: str | Path | None, direction: str) -> str:
    """The direction of a run or of what ships, by default from its source to its target.

    `-` is as good as `_`. It is "" for a file, which has but one. Raises InputError for another.
    """
    path = user_path(model or SHIPPED)
    record = path / "run.json"
    has = read_run(record).preset.contrasts.directions if record.is_file() else DIRECTIONS
    chosen = str(direction or has[0]).replace("-", "_")
    return "" if path.is_file() else parse("direction", chosen, "str", choices=has)


def load_translator(model: str | Path | None = None, direction: str = "") -> Translator:
    """The generator of a run's folder, of a `.keras` or `.onnx` file or, without one, what ships.

    A `.keras` file outside of a run is taken for one of preset `laptop` and the published data
    set's size. `direction` is as in `choose_direction`; a file has to have it, if one is given.
    Raises InputError where there is none, or only one of another direction, and for a `.keras`
    file where there is no TensorFlow.
    """
    path, chosen = user_path(model or SHIPPED), choose_direction(model, direction)
    direction = chosen or str(direction).replace("-", "_")
    if chosen and str(path) == SHIPPED:
        return load_onnx(PRETRAINED / f"{direction}.onnx", read_pretrained(direction))
    path = path / "models" / f"{direction}.keras" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} is not there: expected a .keras or .onnx file, or a run.")
    if path.suffix == ".onnx":
        return load_onnx(path, path.read_bytes(), direction)
    try:
        from .generators import load_generator, predict
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} cannot be read without {error.name}: expected an .onnx file (made by the "
            f"command export), or pip install 'cyclegan_tf[train]'."
        ) from None
    network, folder = load_generator(path), path.absolute().parent.parent
    direction = _check(path, network.name, direction)
    generator = partial(predict, network)
    if not (folder / "run.json").is_file():
        return Translator(generator, direction, LAPTOP, SIDES, path.name)
    run = open_run(folder)
    preset, frame = run.preset, tuple(run.record["data"]["frame"])
    name = f"{folder.name}, preset {preset.name}, seed {preset.seed}"
    calibration = Calibration.read(path.parent, direction)
    # What started from what ships, and was kept to many scanners, knows what that knew.
    kept = preset.simulator == "varied" and (preset.simulation_weight or preset.warm_start_epochs)
    way = AS_SHIPPED.get(direction, {}) if preset.start == "shipped" and kept else {}
    return Translator(generator, direction, preset, frame, name, calibration=calibration, **way)


def _check(path: Path, found: str, wanted: str) -> str:
    """The direction of a generator that is found in a file, if it is the one wanted, or any."""
    if found not in ({wanted} if wanted else {f"{x}_to_{y}" for x in NAMES for y in NAMES}):
        raise InputError(f"{path} is a generator {found}: expected {wanted or DIRECTIONS[0]}.")
    return found


def load_onnx(path: Path, content: bytes, direction: str = "") -> Translator:
    """The generator in an ONNX file of `handover.export_onnx`, run on the processor.

    Raises InputError where `content`, which `path` holds, is none, or is of another direction.
    """
    import onnxruntime  # here, as training has no use for it

    try:
        with redirect_stdout(None):  # of a damaged file it prints more than one would read
            options = onnxruntime.SessionOptions()
            # A slice a thread: threads that share one wait for each other, a quarter of the time.
            options.intra_op_num_threads = 1
            providers = ["CPUExecutionProvider"]
            session = onnxruntime.InferenceSession(content, options, providers=providers)
        known = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # whatever a file that is no model makes the reader raise
        reason = textwrap.shorten(str(error), 150)
        raise InputError(f"{path} is no ONNX file that can be run ({reason}).") from None
    try:
        known = json.loads(known["cyclegan_tf"])
        if known["format"] != FORMAT:
            raise InputError(
                f"{path} has format {known['format']}, of cyclegan_tf {known['version']}: "
                f"expected {FORMAT}, of cyclegan_tf {__version__}."
            )
        direction = _check(path, str(known["direction"]), direction)
        preset = get_preset(known["preset"].pop("name"), known["preset"])
        return Translator(
            partial(_run_onnx, session),
            direction,
            preset,
            sides=tuple(map(int, known["frame"])),
            name=str(known["name"]),
            guidance=float(known["guidance"]),
            sharpening=float(known.get("sharpening", 0)),
            power=float(known.get("power", 1)),
            calibration=Calibration.read(path.parent, direction),
            planes=tuple(map(str, known["planes"])),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no generator of this project: expected one that its command export wrote."
        ) from None


def _run_onnx(session: Any, images: np.ndarray) -> np.ndarray:
    def run(image):  # (1, h, w, 1)
        return session.run(None, {"image": image})[0]

    with ThreadPoolExecutor(min(AT_ONCE, cores_here())) as pool:
        return np.concatenate([*pool.map(run, images[:, None])])


def read_pretrained(direction: str) -> bytes:
    """The ONNX file that ships. Raises InputError if it is not what its checksum says."""
    path = PRETRAINED / f"{direction}.onnx"
    try:
        record = json.loads((PRETRAINED / "pretrained.json").read_text())
        content, expected = path.read_bytes(), record["sha256"][path.name]
    except (OSError, KeyError, ValueError):
        content, expected = b"", "a file"
    found = hashlib.sha256(content).hexdigest() if content else "none"
    if found != expected:
        raise InputError(
            f"{path}, which ships, is missing or damaged (found SHA-256 {found[:12]}, expected "
            f"{expected[:12]}): install cyclegan_tf again, or name a model (--model)."
        )
    return content
