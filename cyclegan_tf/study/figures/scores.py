"""Pictures of what was measured: fidelity to the truth, and trust."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ...contrasts import arrow
from ...runs import Run
from ...scans.volumes import MAPS
from ..report import MEASURES, TRANSLATIONS
from .drawing import columns, save

Pictures = Mapping[str, Mapping[str, np.ndarray]]
"""By direction, as `evaluation.evaluate` returns them."""


def fidelity(run: Run, curves: Mapping[str, Mapping[int, float]]) -> Figure:
    """PSNR of the watched slices over the epochs: `loss_curves` has the losses beside it.

    `curves` is what `evaluation.fidelity_over_epochs` returns.
    """
    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for direction, curve in curves.items():
        axis.plot([*curve], [*curve.values()], ".-", label=arrow(direction))
        axis.legend()
    axis.set(title="PSNR, dB", xlabel="epoch")
    return save(figure, run, "fidelity")


def per_slice(run: Run, result: Mapping, pictures: Pictures, direction: str) -> Figure:
    """PSNR, or cycle error where no truth is known, of every slice; held-out slices are shaded.

    `result` is what `evaluation.evaluate` writes; its baselines are the small dots.
    """
    names = list(pictures[direction]["names"])
    measure = "psnr" if any("psnr" in x for x in result[direction].values()) else "cycle_error"
    figure, axis = plt.subplots(figsize=(12, 3.6), layout="constrained")
    for split, ours in result[direction].items():
        position = [names.index(name) for name in ours["names"]]
        rows = {"synthetic": ours} | result["baselines"][direction][split]
        for row, name in enumerate(TRANSLATIONS):
            if measure in rows.get(name, {}):
                style = {"color": f"C{row}", "markersize": 3 if row else 7}
                values = np.array(rows[name][measure]["per_slice"], float)
                axis.plot(position, values, "o", label=TRANSLATIONS[name], **style)
        for place in position if split == "held_out" else ():
            axis.axvspan(place - 0.5, place + 0.5, color="0.9")
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=6, parse_math=False)
    axis.set_title(f"{arrow(direction)}: {MEASURES[measure][0]}")
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1, 0.5))
    return save(figure, run, f"per_slice_{direction}")


def maps(
    run: Run, pictures: Pictures, direction: str, names: Sequence[str], shown: Sequence[str]
) -> Figure:
    """A row for each slice in `names`; columns are those of MAPS in `shown`, where known."""
    arrays = pictures[direction]
    grey = {key: arrays[key].astype(float) for key in ("source", "synthetic", "truth")}
    grey["error"] = np.abs(grey["synthetic"] - grey["truth"])
    grey["trust"] = 255 * arrays["trust_maps"]
    rows = [list(arrays["names"]).index(name) for name in names]  # (N, H, W) -> (names, H, W)
    unknown = ("truth", "error") if not arrays["known"][rows].all() else ()
    shown = [name for name in shown if name not in unknown]
    looks = [MAPS[name] for name in shown]
    styles = [{"cmap": look.colours, "vmin": 0, "vmax": 255 * look.top} for look in looks]
    titled = {MAPS[name].title: grey[name][rows] for name in shown}
    figure = columns(titled, arrow(direction), labels=names, styles=styles)
    return save(figure, run, f"{shown[-1]}_{direction}")
