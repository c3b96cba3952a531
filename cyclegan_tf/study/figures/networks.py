"""The picture of the networks: a box for every stage."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ...runs import Run
from ..stages import STAGES, Stage, find_stages
from .drawing import save


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
    tops = [stage.rows / rows for stage in stages]
    axis.plot([0, rights[-1] + 0.1], [0, 0], color="0.6", zorder=0)
    font = {"ha": "center", "fontsize": 7.5}
    for number, (stage, middle, top) in enumerate(zip(stages, middles, tops, strict=True)):
        colour, width = STAGES[stage.kind][1], widths[number]
        axis.add_patch(Rectangle((middle - width / 2, -top), width, 2 * top, color=colour))
        axis.text(middle, top + 0.04, stage.channels, va="bottom", **font)
        axis.text(middle, -top - 0.05, stage.kernel, va="top", **font)
        if not number or stage.rows != stages[number - 1].rows:
            axis.text(middle, -1.35, stage.rows, va="bottom", color="0.4", **font)
        for source in stage.shortcuts:
            level = max(tops[source : number + 1]) + 0.4
            x = middles[source] + 0.04, middle - 0.04
            y = tops[source] + 0.22, top + 0.22
            axis.plot(np.repeat(x, 2), [y[0], level, level, y[1]], color=colour)
            axis.plot(x[1], y[1], "v", color=colour, markersize=5)
    return rights[-1]
