"""The picture of the networks: a box for every stage, from a model's own configuration."""

import re
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...runs import Run
from .drawing import save

STAGES = {  # what gets a box, by what a layer's class is called, the longer names first
    "Conv2DTranspose": ("transposed convolution: doubles it", "#eeca3b"),
    "Conv2D, stride 2": ("convolution, stride 2: halves the image", "#72b7b2"),
    "Conv2D": ("convolution", "#4c78a8"),
    "SpaceToDepth": ("2 × 2 pixels into channels", "#b279a2"),
    "DepthToSpace": ("channels into 2 × 2 pixels", "#ff9da6"),
    "Concat": ("concatenation with what the line brings", "#e45756"),
    "Add": ("sum with what the line brings", "#54a24b"),
}


class Stage(NamedTuple):
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
        maker = came[0]
        # A layer that is two of STAGES in one has the names of both: ConcatConv2D.
        for part in re.findall("|".join(STAGES), type(layer).__name__):
            _, rows, _, channels = shape
            if part == "Concat":
                rows, channels = incoming[0][1], sum(x[-1] for x in incoming)
            elif part == "DepthToSpace":
                channels = incoming[0][-1] // 4
            kernel = "×".join(map(str, layer.kernel.shape[:2])) if "Conv" in part else ""
            if part == "Conv2D" and getattr(layer, "strides", None) == (2, 2):
                part += ", stride 2"
            shortcuts = [k for k in came if k != len(stages) - 1]
            maker, came = len(stages), [len(stages)]
            stages.append(Stage(part, rows, channels, kernel, shortcuts))
        ends[id(layer.output)] = tuple(shape), maker
    return stages


def draw_networks(run: Run, model: Any) -> Figure:
    """A generator and a discriminator of `model` (a CycleGAN), a box for every stage.

    A box is as high as its images, whose rows are written at the bottom, and the wider the more
    channels it puts out, which are written above it. Below it stands a convolution's kernel.
    Normalisations and activations have no box. Lines lead past stages to where they are joined.
    """
    height, width = run.record["data"]["frame"]
    x, y = run.preset.contrasts.labels.values()
    shown = [  # network, title, and what goes in and comes out
        (model.G, f"Generator {x} → {y} ({y} → {x} is built alike)", x, y),
        (model.D_y, f"Discriminator of {y} (of {x} alike)", y, "scores"),
    ]
    figure, axes = plt.subplots(2, figsize=(13, 7), layout="constrained", sharex=True)
    used = {}
    for axis, (network, title, start, end) in zip(axes, shown, strict=True):
        stages = find_stages(network, (1, height, width, 1))
        right = _draw_stages(axis, stages, height)
        axis.set(ylim=(-1.4, 1.6))
        axis.set_title(f"{title}: {network.count_params():,} weights", loc="left")
        axis.text(0, 0, start, ha="right", va="center")
        axis.text(right + 0.12, 0, end, va="center")
        axis.set_axis_off()
        used |= dict.fromkeys(stage.kind for stage in stages)
    handles = [Patch(color=STAGES[kind][1], label=STAGES[kind][0]) for kind in used]
    axes[1].legend(handles=handles, loc="center right", frameon=False)
    return save(figure, run, "networks")


def _draw_stages(axis: Axes, stages: list[Stage], rows: int) -> float:
    """The boxes on one line, 2 high where an image has so many `rows`; returns where they end."""
    widths = np.array([0.11 + 0.008 * stage.channels**0.5 for stage in stages])
    rights = np.cumsum(widths + 0.12)
    middles = rights - widths / 2
    tops = np.array([stage.rows / rows for stage in stages])
    colours = [STAGES[stage.kind][1] for stage in stages]
    axis.plot([0, rights[-1] + 0.1], [0, 0], color="0.6", zorder=0)
    axis.bar(middles, 2 * tops, widths, -tops, color=colours)
    font = {"ha": "center", "fontsize": 7.5}
    for number, (stage, middle, top) in enumerate(zip(stages, middles, tops, strict=True)):
        axis.text(middle, top + 0.04, stage.channels, va="bottom", **font)
        axis.text(middle, -top - 0.05, stage.kernel, va="top", **font)
        if not number or stage.rows != stages[number - 1].rows:
            axis.text(middle, -1.35, stage.rows, va="bottom", color="0.4", **font)
        for source in stage.shortcuts:
            level = max(tops[source : number + 1]) + 0.4
            x = middles[source] + 0.04, middle - 0.04
            y = tops[source] + 0.22, top + 0.22
            axis.plot(np.repeat(x, 2), [y[0], level, level, y[1]], color=colours[number])
            axis.plot(x[1], y[1], "v", color=colours[number], markersize=5)
    return rights[-1]
