"""Generators as they are handed on: as ONNX files, and as the pair that ships."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np

from .. import InputError, __version__
from ..parameters import user_path
from ..runs import write_file, write_json
from ..scans.frame import MULTIPLE
from .generators import predict, to_onnx
from .loading import AS_SHIPPED, DIRECTIONS, FORMAT, PRETRAINED, load_onnx, load_translator
from .translator import Translator

TOLERANCE = 2e-3  # 1e-3 of the range of [-1, 1]


def export_onnx(model: str | Path, target: str | Path, direction: str = "") -> None:
    """Write the generator of a run's folder or a `.keras` file as ONNX.

    It says of itself what `load_translator` has to know. Raises InputError where there is none, and
    for a target that is not named `.onnx`: the name says what a file is, and it may be the model.
    """
    target = user_path(target)
    if target.suffix.lower() != ".onnx":
        raise InputError(f"{target} is not named as ONNX: expected a name such as model.onnx.")
    one = load_translator(model, direction)
    if not isinstance(one.generator, partial) or one.generator.func is not predict:
        raise InputError(f"{model} is ONNX: expected a run's folder or a .keras file.")
    write_file(target, _content(one, one.generator.args[0], target))


def save_pretrained(
    runs: str | Path | Sequence[str | Path],
    version: str,
    folder: Path = PRETRAINED,
    directions: Sequence[str] = DIRECTIONS,
    power: float = 1.0,
) -> None:
    """Write generators of a run as they ship: ONNX, weights in half precision, checksums.

    Of several runs, of which one went on from the other, it is the mean of their weights, which
    errs less than either (Wortsman et al., Model soups, ICML 2022). `version` is that of the pair;
    `pretrained.json` records it and the run of each generator. Only the files of the given
    `directions` are written; the others in the `folder` stay. `power` is as in `Translator`: a mean
    of weights may give brighter or darker images than either run.
    """
    runs = [runs] if isinstance(runs, (str, Path)) else runs
    name = f"the one that ships, version {version}, trained on simulated heads only"
    path = folder / "pretrained.json"
    record = json.loads(path.read_text()) if path.is_file() else {"run": {}, "sha256": {}}
    for direction in directions:
        one, *others = (load_translator(run, direction) for run in runs)
        network, target = one.generator.args[0], folder / f"{direction}.onnx"
        weights = [x.generator.args[0].get_weights() for x in (one, *others)]
        names = [x.name for x in (one, *others)]
        means = [np.mean(same, axis=0) for same in zip(*weights, strict=True)]
        network.set_weights([np.float32(np.float16(mean)) for mean in means])
        # A warm start on many scanners shows heads in frames of any size.
        varied = any(x.preset.simulator == "varied" for x in (one, *others))
        sides = (MULTIPLE,) * 2 if varied else one.sides
        known = {"name": name, "sides": sides, "power": power}
        ours = dataclasses.replace(one, **known, **AS_SHIPPED[direction])
        write_file(target, content := _content(ours, network, target, half=True))
        record["run"][direction] = " and ".join(names)
        record["sha256"][target.name] = hashlib.sha256(content).hexdigest()
    write_json(path, record | {"version": version})


def _content(one: Translator, network: keras.Model, path: Path, half: bool = False) -> bytes:
    """The ONNX file of a translator, once it has given the same as Keras in float32."""
    known = {
        "version": __version__,
        "format": FORMAT,
        "direction": one.direction,
        "preset": dataclasses.asdict(one.preset) | {"anatomies": ""},  # a folder of one machine
        "frame": one.sides,
        "name": one.name,
        "guidance": one.guidance,
        "sharpening": one.sharpening,
        "power": one.power,
        "planes": one.planes,
    }
    content = to_onnx(network, half, cyclegan_tf=json.dumps(known))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 96, 1)).astype(np.float32)
    exact = keras.models.clone_model(network, clone_function=_in_float32)
    exact.set_weights(network.get_weights())
    found = load_onnx(path, content, one.direction).generator(images)
    if (error := np.abs(found - predict(exact, images)).max()) > TOLERANCE:
        raise InputError(f"{path} would be {error:.2g} off Keras: expected {TOLERANCE} at most.")
    return content


def _in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
    return type(layer).from_config(layer.get_config() | {"dtype": "float32"})
