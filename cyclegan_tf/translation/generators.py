"""A generator's files: the `.keras` of a run, and ONNX, which is translated with anywhere."""

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import h5py
import keras
import numpy as np
import onnx
from onnx import TensorProto, helper

from .. import InputError
from ..layers import (
    ConcatConv2DTranspose,
    DepthToSpace,
    DepthToSpaceConv2D,
    InstanceNormalization,
    SpaceToDepth,
)
from ..models import build_generator
from ..parameters import user_path
from ..runs import intact, open_run

OPSET = {"ir_version": 8, "opset_imports": [helper.make_opsetid("", 17)]}  # of 2022: read anywhere
PLAIN = {keras.layers.Add: "Add", keras.layers.ReLU: "Relu", keras.layers.Activation: "Tanh"}
"""Layers without weights that are one node each, and what ONNX calls it."""


def load_generator(path: str | Path) -> keras.Model:
    """A generator from the `.keras` file of a run, in safe mode: no code in the file is run.

    Where the other framework generation (Keras 2 or 3) has written it, it is built anew, by the
    preset in the run's `run.json`, and takes the `.weights.h5` beside it. Raises InputError for
    a file that is no model, or no generator of this project.
    """
    path = user_path(path)
    with intact(path, "expected a run's .keras file", "no model that can be loaded safely"):
        with zipfile.ZipFile(path) as file:
            _bound(path, (member.file_size for member in file.infolist()))
            written_by = json.loads(file.read("metadata.json"))["keras_version"]
            ours = written_by.split(".")[0] == keras.__version__.split(".")[0]
            weights = path if ours else path.with_suffix(".weights.h5")
            if ours:
                _check_order(json.loads(file.read("config.json"))["config"]["layers"])
            with file.open("model.weights.h5") if ours else weights.open("rb") as stream:
                _bound(weights, _array_sizes(stream))
        if ours:
            generator = keras.saving.load_model(path, compile=False, safe_mode=True)
        else:
            preset = open_run(path.absolute().parent.parent, begin=False).preset
            generator = build_generator(preset.generator, preset.filters, preset.blocks, path.stem)
            generator.load_weights(weights)
        shapes = generator.input_shape, generator.output_shape
    if shapes != ((None, None, None, 1),) * 2:
        raise InputError(f"{path} maps {shapes[0]} to {shapes[1]}: expected grey images to grey.")
    return generator


def _bound(path: Path, sizes: Iterable[int]) -> None:
    """Raises ValueError where a file claims to hold more bytes than it has: Keras packs nothing."""
    if (claimed := sum(sizes)) > path.stat().st_size:
        raise ValueError(f"{path.name} claims to hold {claimed} bytes and has fewer")


def _check_order(layers: list[dict]) -> None:
    """Raises ValueError for a layer with an input that none before it makes.

    Keras 2 would wait for that for ever.
    """
    known = set()
    for layer in layers:
        for name, *place in _inputs(layer["inbound_nodes"]):
            if name not in known or place != [0, 0]:
                raise ValueError(f"layer {layer['name']} waits for {name} {place}")
        known.add(layer["name"])


def _inputs(node: object) -> Iterator[list]:
    """Layer, node and tensor of each input, wherever in Keras's description these three stand."""
    items = [*node.values()] if isinstance(node, dict) else node if isinstance(node, list) else []
    if len(items) > 2 and isinstance(items[0], str) and isinstance(node, list):
        yield items[:3]
    else:
        for item in items:
            yield from _inputs(item)


def _array_sizes(stream: IO[bytes]) -> list[int]:
    """Bytes of the arrays in an HDF5 file."""
    sizes = []
    with h5py.File(stream) as file:
        file.visititems(lambda _, item: sizes.append(getattr(item, "nbytes", 0)))
    return sizes


def predict(generator: keras.Model, images: np.ndarray) -> np.ndarray:
    """The generator's output for framed images (N, h, w, 1) in [-1, 1], same shape and range."""
    return generator.predict(images, batch_size=8, verbose=0)


class _Graph:
    """The nodes of an ONNX graph and the weights that they read."""

    def __init__(self, generator: keras.Model, half: bool):
        self.nodes, self.weights = [], []
        self.half = half
        self.numbers = {id(weight): k for k, weight in enumerate(generator.weights)}

    def add(self, kind: str, *inputs: str, **attributes) -> str:
        name = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, variable) -> str:
        """A weight of Keras under its number, with the channels first; in half precision a cast."""
        array = np.asarray(variable).astype(np.float16 if self.half else np.float32)
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        name = f"weight_{self.numbers[id(variable)]:03d}"
        self.weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return self.add("Cast", name, to=TensorProto.FLOAT) if self.half else name

    def layer(self, layer: keras.layers.Layer, *x: str) -> str:
        """The nodes that compute what a layer does, with the channels first."""
        if len(x) > 1 and not isinstance(layer, keras.layers.Add):
            x = (self.add("Concat", *x, axis=1),)
        if isinstance(layer, (keras.layers.Concatenate, keras.layers.InputLayer)):
            return x[0]
        if isinstance(layer, SpaceToDepth):
            return self.add("SpaceToDepth", *x, blocksize=2)
        if isinstance(layer, DepthToSpace):
            return self.add("DepthToSpace", *x, blocksize=2, mode="DCR")
        if type(layer) in PLAIN:
            return self.add(PLAIN[type(layer)], *x)
        if isinstance(layer, keras.layers.LeakyReLU):
            options = layer.get_config()  # Keras 2 and 3 name it differently
            alpha = float(options.get("negative_slope", options.get("alpha")))
            return self.add("LeakyRelu", *x, alpha=alpha)
        weights = [self.weight(weight) for weight in layer.weights]
        if isinstance(layer, DepthToSpaceConv2D):
            x = (self.add("Conv", *x, *self.coarse(*weights), auto_pad="SAME_UPPER"),)
            return self.add("DepthToSpace", *x, blocksize=2, mode="DCR")
        if isinstance(layer, InstanceNormalization):
            return self.add("InstanceNormalization", *x, *weights, epsilon=layer.epsilon)
        if isinstance(layer, (keras.layers.Conv2DTranspose, ConcatConv2DTranspose)):
            return self.add("ConvTranspose", *x, *weights, strides=[2, 2], pads=[0, 0, 1, 1])
        strides = [*getattr(layer, "strides", (1, 1))]
        return self.add("Conv", *x, *weights, strides=strides, auto_pad="SAME_UPPER")

    def constant(self, *values: int) -> str:
        return self.add("Constant", value_ints=values)

    def coarse(self, kernel: str, bias: str) -> tuple[str, str]:
        """What `DepthToSpaceConv2D` computes with at half the resolution: a tenth less time in all.

        The nodes are computed when the file is loaded, so it has the weights as they are in Keras.
        """
        filters, channels = self.weights[-2].dims[:2]
        places = [(row, column) for row in range(2) for column in range(2)]
        shifted = [
            self.add("Pad", kernel, self.constant(0, 0, i, j, 0, 0, 1 - i, 1 - j))
            for i, j in places
        ]
        # four of (F, C, 6, 6) -> (4 F, C, 3, 2, 3, 2) -> (4 F, 2, 2, C, 3, 3) -> (4 F, 4 C, 3, 3)
        shape = 4 * filters, channels, 3, 2, 3, 2
        wide = self.add("Reshape", self.add("Concat", *shifted, axis=0), self.constant(*shape))
        wide = self.add("Transpose", wide, perm=[0, 3, 5, 1, 2, 4])
        shape = self.constant(4 * filters, 4 * channels, 3, 3)
        return self.add("Reshape", wide, shape), self.add("Concat", *[bias] * 4, axis=0)


def to_onnx(generator: keras.Model, half: bool = False, **known: str) -> bytes:
    """A generator as an ONNX file: `image` (N, H, W, 1) → `synthetic`, both float32 in [-1, 1].

    With `half` its weights are stored in half precision; it always computes in float32. `known`
    becomes the file's metadata. The weights are named by their number in Keras.
    """
    graph, names = _Graph(generator, half), {}
    names[id(generator.input)] = graph.add("Transpose", "image", perm=[0, 3, 1, 2])
    for layer in generator.layers[1:]:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        names[id(layer.output)] = graph.layer(layer, *(names[id(x)] for x in inputs))
    last = helper.make_node(
        "Transpose", [names[id(generator.output)]], ["synthetic"], perm=[0, 2, 3, 1]
    )
    image, synthetic = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "H", "W", 1])
        for name in ("image", "synthetic")
    )
    nodes = [*graph.nodes, last]
    body = helper.make_graph(nodes, generator.name, [image], [synthetic], graph.weights)
    model = helper.make_model(body, producer_name="cyclegan_tf", **OPSET)
    helper.set_model_props(model, known)
    return model.SerializeToString()


def onnx_weights(content: bytes) -> list[np.ndarray]:
    """The weights in an ONNX file of `to_onnx`, float32, for `set_weights` of Keras."""
    tensors = onnx.ModelProto.FromString(content).graph.initializer
    arrays = {x.name: onnx.numpy_helper.to_array(x).astype(np.float32) for x in tensors}
    return [a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for _, a in sorted(arrays.items())]
