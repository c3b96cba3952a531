"""The stages of a network: what a picture of it shows, from a model's own configuration."""

from dataclasses import dataclass
from typing import Any

STAGES = {  # a network's layers that get a box, by class and, of convolutions, stride
    "Conv2D": ("convolution", "#4c78a8"),
    "Conv2D, stride 2": ("convolution, stride 2: halves the image", "#72b7b2"),
    "Conv2DTranspose": ("transposed convolution: doubles it", "#eeca3b"),
    "SpaceToDepth": ("2 × 2 pixels into channels", "#b279a2"),
    "DepthToSpace": ("channels into 2 × 2 pixels", "#ff9da6"),
    "Concatenate": ("concatenation with what the line brings", "#e45756"),
    "Add": ("sum with what the line brings", "#54a24b"),
}

JOINT = {  # layers that are two of STAGES in one
    "ConcatConv2D": ("Concatenate", "Conv2D"),
    "ConcatConv2DTranspose": ("Concatenate", "Conv2DTranspose"),
    "DepthToSpaceConv2D": ("DepthToSpace", "Conv2D"),
}


@dataclass
class Stage:
    """A layer, or a part of one, that a picture of the network shows."""

    kind: str
    """One of STAGES."""
    rows: int
    """Height of its images in pixels."""
    channels: int
    kernel: str
    """Such as 3×3; empty for what is no convolution."""
    shortcuts: list[int]
    """Numbers of the stages, other than the one before, whose output comes in, too."""


def find_stages(network: Any, shape: tuple[int, ...]) -> list[Stage]:
    """The stages of a Keras model for images of `shape`, (1, H, W, 1), from input to output."""
    stages, ends = [], {id(network.input): (shape, -1)}  # by tensor: its shape, who made it
    for layer in network.layers[1:]:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        incoming, came = map(list, zip(*(ends[id(x)] for x in inputs), strict=True))
        shape = layer.compute_output_shape(incoming if len(incoming) > 1 else incoming[0])
        kind, maker = type(layer).__name__, came[0]
        kind += ", stride 2" if kind == "Conv2D" and layer.strides == (2, 2) else ""
        for part in JOINT.get(kind, [kind] if kind in STAGES else []):
            _, rows, _, channels = shape
            if part == "Concatenate":
                rows, channels = incoming[0][1], sum(x[-1] for x in incoming)
            elif part == "DepthToSpace":
                channels = incoming[0][-1] // 4
            kernel = "×".join(map(str, layer.kernel.shape[:2])) if "Conv" in part else ""
            before = len(stages) - 1
            stages.append(Stage(part, rows, channels, kernel, [k for k in came if k != before]))
            maker, came = before + 1, [before + 1]
        ends[id(layer.output)] = tuple(shape), maker
    return stages
