"""Translators from files: of a run, ONNX, or what ships."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import InputError, __version__
from ..contrasts import NAMES, T1_T2
from ..machines.machine import cores_here
from ..parameters import parse, user_path
from ..presets import LAPTOP, PLANES, get_preset
from ..runs import intact, open_run, read_run
from .translator import Translator
from .trust import Calibration

DIRECTIONS = T1_T2.directions  # of what ships
PRETRAINED = Path(__file__).parents[1] / "pretrained"
SHIPPED = "shipped"  # the name of what lies there
FORMAT = 1  # of what an ONNX file says of itself
AT_ONCE = 8  # slices, one a thread, on however many cores: each takes some 15 MB
AS_SHIPPED = {
    direction: {"guidance": guidance, "sharpening": sharpening, "planes": ("", *PLANES)}
    for direction, guidance, sharpening in zip(DIRECTIONS, (0.8, 0.4), (0.4, 0.0), strict=True)
}
"""How the pair that ships is used; the shares were chosen on validation heads."""
SIDES = (224, 192)  # the frame of 217 × 181 pixels


def choose_direction(model: str | Path | None, direction: str) -> str:
    """The direction of a run or of what ships, by default from its source to its target.

    `-` may stand for `_`. It is "" for a file, which has only one. Raises InputError for another.
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
    # A run that began with the pair that ships, and saw many scanners, is used like that pair.
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

    options = onnxruntime.SessionOptions()
    # A slice a thread: threads that share one wait for each other, a quarter of the time.
    options.intra_op_num_threads = 1
    expected, fault = "expected one that the command export wrote", "no ONNX file that can be run"
    with intact(path, expected, fault), redirect_stdout(None):  # of a damaged file it prints much
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(content, options, providers=providers)
        known = session.get_modelmeta().custom_metadata_map
    try:
        known = json.loads(known["cyclegan_tf"])
        if known["format"] != FORMAT:
            raise InputError(
                f"{path} has format {known['format']}, of cyclegan_tf {known['version']}: "
                f"expected {FORMAT}, of cyclegan_tf {__version__}."
            )
        direction = _check(path, str(known["direction"]), direction)
        with intact(path, expected, "no generator of this project"):  # of a setting, by its name
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
        raise InputError(f"{path} is no generator of this project: {expected}.") from None


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
