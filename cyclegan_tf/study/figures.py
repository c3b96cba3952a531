"""Every picture that the notebooks show, from arrays and run folders; nothing is computed here.

All images are drawn on one grey scale, -1 black and 1 white, the way up that the files have. The
functions write a PNG into the run's `figures/` and return the figure; those that take no run are
for sliders, and only return it.
"""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from nibabel import Nifti1Image

from .. import InputError
from ..data import Sets, watched
from ..presets import LAPTOP, PAPER, PUBLISHED_EPOCH, PUBLISHED_STEPS, published_rate
from ..runs import Run, write_atomically
from ..scans.frame import Frame
from ..scans.geometry import AXES, to_slices
from ..scans.volumes import WHITE
from ..simulation import phantom
from . import metrics
from .report import MEASURES, TRANSLATIONS

TITLES = {
    "real_t1": "T1",
    "fake_t2": "synthetic T2",
    "cycled_t1": "T1 there and back",
    "real_t2": "T2",
    "fake_t1": "synthetic T1",
    "cycled_t2": "T2 there and back",
}
ARROWS = {"t1_to_t2": "T1 → T2", "t2_to_t1": "T2 → T1"}
ENDS = {"t1_to_t2": ("real_t1", "fake_t2"), "t2_to_t1": ("real_t2", "fake_t1")}
LOSSES = {
    "Generators, in all": ["generator", "adversarial"],
    "Generators, mean absolute error": ["cycle", "identity", "simulation"],
    "Discriminators": ["discriminator_t1", "discriminator_t2"],
}

MAPS = {  # title, colours and, on the intensity scale [0, 1], what is brightest
    "source": ("source", "gray", 1),
    "synthetic": ("synthetic", "gray", 1),
    "truth": ("true", "gray", 1),
    "error": ("absolute error, 0 to 0.2", "inferno", 0.2),
    "trust": ("trust map, 0 to 0.1", "inferno", 0.1),
}

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

TILE = 1.4  # width of an image, inches: a little more than the pixels it has
MOST_FRAMES = 40
TITLE_SIZE = 6.5  # points: the longest fits above an image
FRAME_TIME = 300  # ms
LAST_FRAME_TIMES = 9  # that the last frame stays longer than the others


def samples(run: Run, sets: Sets, count: int = 6) -> Figure:
    """Up to `count` slices of each set, spread evenly over it, as the networks see them."""
    count = min(count, len(sets.t1), len(sets.t2))
    rows = []
    for images, names in ((sets.t1, sets.t1_names), (sets.t2, sets.t2_names)):
        chosen = np.linspace(0, len(images) - 1, count).astype(int)
        rows.append([(str(names[k])[-28:], images[k]) for k in chosen])
    heading = f"{len(sets.t1)} T1 images (above) and {len(sets.t2)} T2 images (below)"
    return _save(_grid(rows, heading), run, "samples")


def round_trip(run: Run, sets: Sets) -> Figure:
    """A T2 image in the frames of both presets and back at its own size, with the error's PSNR."""
    image = sets.t2_images[len(sets.t2_images) // 2]
    rows = []
    for preset, title in ((PAPER, "resized to"), (LAPTOP, "padded to")):
        frame = Frame.of([image.shape], preset)
        framed = frame.apply(image)
        back = frame.invert(framed, image.shape)
        error = np.abs(back - image) / MAPS["error"][2] - 1  # black: none
        with np.errstate(divide="ignore"):
            psnr = metrics.psnr(*metrics.unit(np.stack([back, image])[..., None]))
        cells = {
            f"true T2, {image.shape[1]} × {image.shape[0]}": image,
            f"{title} {frame.width} × {frame.height}": framed[..., 0],
            f"and back: {psnr:.1f} dB": back,
            MAPS["error"][0]: error,
        }
        rows.append([(name, cell[..., None]) for name, cell in cells.items()])
    return _save(_grid(rows, "A true T2 there and back"), run, "round_trip")


def spin_echoes(run: Run, fractions: Mapping[str, np.ndarray]) -> Figure:
    """One slice of tissue `fractions` (`phantom.Head.fractions`) under `phantom.SPIN_ECHOES`."""
    count = len(phantom.SPIN_ECHOES)
    figure, axes = plt.subplots(1, count, figsize=(2.5 * count, 3.6), layout="constrained")
    for axis, (name, sequence) in zip(axes, phantom.SPIN_ECHOES.items(), strict=True):
        _draw_spin_echo(axis, fractions, sequence, name)
    return _save(figure, run, "spin_echoes")


def spin_echo(fractions: Mapping[str, np.ndarray], tr: float, te: float) -> Figure:
    """The same slice for any TR and TE, in ms."""
    figure, axis = plt.subplots(figsize=(3.4, 4.4))
    _draw_spin_echo(axis, fractions, phantom.Sequence(tr, te), "Spin echo")
    plt.close(figure)
    return figure


def _draw_spin_echo(
    axis: Axes, fractions: Mapping[str, np.ndarray], sequence: phantom.Sequence, name: str
) -> None:
    image = phantom.acquire(fractions, phantom.spin_echo_signal, sequence)
    axis.imshow(image, cmap="gray", vmin=0, vmax=image.max())
    axis.set_title(f"{name}\nTR {sequence.tr:.0f} ms, TE {sequence.te:.0f} ms", fontsize=10)
    tissues = {"fluid": "csf", "grey": "grey", "white": "white"}
    signals = {
        label: phantom.spin_echo_signal(phantom.TISSUES[tissue], sequence)
        for label, tissue in tissues.items()
    }
    text = ", ".join(f"{label} {signal:.2f}" for label, signal in signals.items())
    axis.set(xticks=[], yticks=[], xlabel=text)


def networks(run: Run, model: Any) -> Figure:
    """A generator and a discriminator of `model` (a CycleGAN), a box for every stage.

    A box is as high as its images, with the rows written at the bottom, and the wider the more
    channels it puts out, which are written above it; below stands a convolution's kernel.
    Normalisations and activations have no box. Lines lead past stages to where they are joined.
    """
    height, width = run.record["data"]["frame"]
    shown = [  # network, title, and what goes in and comes out
        (model.t1_to_t2, "Generator T1 → T2 (T2 → T1 is built alike)", "T1", "T2"),
        (model.discriminator_t2, "Discriminator of T2 (of T1 alike)", "T2", "scores"),
    ]
    drawn = [_stages(network, (1, height, width, 1)) for network, *_ in shown]
    figure, axes = plt.subplots(2, figsize=(13, 7), layout="constrained")
    for axis, stages, (network, title, start, end) in zip(axes, drawn, shown, strict=True):
        _draw_stages(axis, stages, height)
        axis.set(xlim=(-0.5, drawn[0][-1]["right"] + 0.5), ylim=(-1.4, 1.6))
        axis.set_title(f"{title}: {network.count_params():,} weights", loc="left")
        axis.text(0, 0, start, ha="right", va="center")
        axis.text(stages[-1]["right"] + 0.12, 0, end, va="center")
        axis.set_axis_off()
    used = dict.fromkeys(stage["kind"] for stages in drawn for stage in stages)
    handles = [Patch(color=STAGES[kind][1], label=STAGES[kind][0]) for kind in used]
    axes[1].legend(handles=handles, loc="center right", frameon=False)
    return _save(figure, run, "networks")


def _stages(network: Any, shape: tuple[int, ...]) -> list[dict]:
    """The stages of a Keras model that `networks` draws, for images of `shape`.

    "shortcuts" are the numbers of stages, other than the one before, whose output comes in.
    """
    shapes, owner, stages, right = {}, {}, [], 0.0
    for entry in network.get_config()["layers"]:
        name, layer = entry["name"], network.get_layer(entry["name"])
        # Keras 2 and 3 nest differently here; in both a layer's sources are there by name.
        words = re.findall(r'"(.*?)"', json.dumps(entry["inbound_nodes"]))
        sources = [word for word in words if word in shapes]
        incoming = [shapes[source] for source in sources]
        if incoming:
            shape = layer.compute_output_shape(incoming if len(incoming) > 1 else incoming[0])
        shapes[name] = tuple(shape)
        kind = type(layer).__name__
        kind += ", stride 2" if kind == "Conv2D" and layer.strides == (2, 2) else ""
        owner[name] = owner[sources[0]] if sources else -1
        came = [owner[source] for source in sources]
        for part in JOINT.get(kind, [kind] if kind in STAGES else []):
            _, rows, _, channels = shapes[name]
            if part == "Concatenate":
                rows, channels = incoming[0][1], sum(x[-1] for x in incoming)
            elif part == "DepthToSpace":
                channels = incoming[0][-1] // 4
            left, right = right + 0.12, right + 0.23 + 0.008 * channels**0.5
            stage = {"kind": part, "rows": rows, "channels": channels, "left": left, "right": right}
            kernel = layer.kernel.shape[:2] if "Conv" in part else ()
            stage["kernel"] = "×".join(map(str, kernel))
            before = len(stages) - 1
            stage["shortcuts"] = [k for k in came if k != before]
            stages.append(stage)
            owner[name], came = before + 1, [before + 1]
    return stages


def _draw_stages(axis: Axes, stages: list[dict], rows: int) -> None:
    """The boxes on one line, 2 high where an image has so many `rows`."""
    axis.plot([0, stages[-1]["right"] + 0.1], [0, 0], color="0.6", zorder=0)
    middles = [(stage["left"] + stage["right"]) / 2 for stage in stages]
    tops = [stage["rows"] / rows for stage in stages]
    font = {"ha": "center", "fontsize": 7.5}
    for number, (stage, middle, top) in enumerate(zip(stages, middles, tops, strict=True)):
        colour = STAGES[stage["kind"]][1]
        width = stage["right"] - stage["left"]
        axis.add_patch(Rectangle((stage["left"], -top), width, 2 * top, color=colour))
        axis.text(middle, top + 0.04, stage["channels"], va="bottom", **font)
        axis.text(middle, -top - 0.05, stage["kernel"], va="top", **font)
        if not number or stage["rows"] != stages[number - 1]["rows"]:
            axis.text(middle, -1.35, stage["rows"], va="bottom", color="0.4", **font)
        for source in stage["shortcuts"]:
            level = max(tops[source : number + 1]) + 0.4
            x = middles[source] + 0.04, middle - 0.04
            y = tops[source] + 0.22, top + 0.22
            axis.plot(np.repeat(x, 2), [y[0], level, level, y[1]], color=colour)
            axis.plot(x[1], y[1], "v", color=colour, markersize=5)


def snapshot(run: Run, epoch: int | None = None) -> Figure:
    """What both generators make of the watched slices after `epoch` epochs, or the newest.

    Epoch 0 is untrained.
    """
    snapshots = read_snapshots(run)
    epoch = max(snapshots) if epoch is None else epoch
    columns = {title: snapshots[epoch][name] for name, title in TITLES.items()}
    figure = _columns(columns, f"Epoch {epoch}" if epoch else "Untrained networks")
    return _save(figure, run, f"epoch_{epoch:03d}")


def cycles(run: Run) -> Figure:
    """The two cycles, with the newest snapshot's images: who translates, and who judges."""
    snapshots = read_snapshots(run)
    newest = snapshots[max(snapshots)]
    figure, axes = plt.subplots(2, 3, figsize=(7, 5.4), gridspec_kw={"wspace": 0.5})
    for row, names, arrows, other in zip(
        axes, np.reshape(list(TITLES), (2, 3)), ("GF", "FG"), ("T2", "T1"), strict=True
    ):
        for axis, name in zip(row, names, strict=True):
            axis.imshow(newest[name][1, ..., 0], cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.set_title(TITLES[name], fontsize=10)
        for start, end, label in zip(row, row[1:], arrows, strict=False):
            ends = {"xycoords": end.transAxes, "textcoords": start.transAxes}
            arrow = {"arrowstyle": "->", "linewidth": 1.5}
            end.annotate("", (-0.02, 0.5), (1.02, 0.5), **ends, arrowprops=arrow)
            end.text(-0.25, 0.55, f"${label}$", transform=end.transAxes, ha="center", fontsize=13)
        row[1].set_xlabel(f"$D_{{{other}}}$: is it a real {other}?", fontsize=10)
        row[2].set_xlabel("cycle loss: is it\nthe first again?", fontsize=10)
    return _save(figure, run, "cycles")


def epochs(run: Run, sets: Sets, direction: str) -> Figure:
    """The epochs of the preset's `snapshot_epochs` side by side, between input and known truth.

    `direction` is `t1_to_t2` or `t2_to_t1`; the last snapshot is always shown.
    """
    snapshots = read_snapshots(run)
    source, synthetic = ENDS[direction]
    shown = {k for k in snapshots if k in run.preset.snapshot_epochs} | {max(snapshots)}
    columns = {f"{TITLES[source]} (input)": snapshots[max(snapshots)][source]}
    for epoch in sorted(shown - {0}) or [0]:
        columns[f"{TITLES[synthetic]}, epoch {epoch}"] = snapshots[epoch][synthetic]
    forth = direction == "t1_to_t2"
    shown, truth = (sets.t1, sets.true_t2) if forth else (sets.t2, sets.true_t1)
    numbers = watched(sets.t1_train if forth else sets.t2_train)
    truth = [None if truth[k] is None else shown.cut(k, truth[k]) for k in numbers]
    if any(image is not None for image in truth):
        name = "true T2" if forth else "true T1"
        columns[name] = [None if x is None else sets.frame.apply(x) for x in truth]
    return _save(_columns(columns, ARROWS[direction]), run, f"epochs_{direction}")


def loss_curves(run: Run) -> Figure:
    """The losses of `losses.csv`: each epoch's means, on three axes."""
    path = run.folder / "losses.csv"
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for axis, (title, names) in zip(axes, LOSSES.items(), strict=True):
        for name in names:
            values = [float(row[name]) for row in rows if name in row]
            if any(values):
                axis.plot([int(row["epoch"]) for row in rows], values, label=name)
                axis.legend()
        axis.set(title=title, xlabel="epoch", ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
    if not rows:
        figure.suptitle("No epoch was trained")
    return _save(figure, run, "losses")


def learning_rates(run: Run) -> Figure:
    """The learning rate that the original code computed, the one it meant, and this run's."""
    steps = np.arange(PAPER.epochs * PUBLISHED_STEPS)
    published = [published_rate(step) for step in steps]
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    axis.plot(steps / PUBLISHED_STEPS, published, label="original, as it ran")
    for preset, label in ((PAPER, "original, as it was meant"), (run.preset, "this run")):
        corners = [0, min(preset.decay_epoch, preset.epochs), preset.epochs]
        epoch = np.linspace(0, preset.epochs, 1000)
        rate = np.interp(epoch, corners, [preset.learning_rate, preset.learning_rate, 0])
        axis.plot(epoch, rate, label=label)
    axis.axvline(
        PUBLISHED_EPOCH, color="black", linestyle=":", label="epoch 145, the published result"
    )
    axis.set(yscale="log", ylim=(1e-6, 1), xlabel="epoch", ylabel="learning rate")
    axis.legend(loc="upper left")
    return _save(figure, run, "learning_rates")


def exploding_rate(run: Run, images: Mapping[int, Mapping[str, np.ndarray]]) -> Figure:
    """What `training.exploding_rate` returns: two T1 images, and their synthetic T2 images.

    The cycle error is the mean over the watched T1 images, on the intensity scale [0, 1].
    """
    columns = {"T1 (input)": images[PUBLISHED_EPOCH]["real_t1"][1:3]}
    for epoch, arrays in images.items():
        ends = metrics.unit(arrays["cycled_t1"]), metrics.unit(arrays["real_t1"])
        rate = published_rate(epoch * PUBLISHED_STEPS - 1)
        title = "as trained" if epoch == PUBLISHED_EPOCH else f"epoch {epoch}, rate to {rate:.4f}"
        columns[f"{title}\ncycle error {metrics.mae(*ends):.3f}"] = arrays["fake_t2"][1:3]
    heading = "This run's networks at the original's rate"
    return _save(_columns(columns, heading), run, "exploding_rate")


def watch(snapshots: Mapping[int, Mapping[str, np.ndarray]], epoch: int, image: int) -> Figure:
    """Watched image number `image`, from 1, of both contrasts after `epoch`, there and back.

    `snapshots` are those of `read_snapshots`.
    """
    figure, axes = plt.subplots(2, 3, figsize=(6, 5.2))
    for axis, (name, title) in zip(axes.flat, TITLES.items(), strict=True):
        axis.imshow(snapshots[epoch][name][image - 1, ..., 0], cmap="gray", vmin=-1, vmax=1)
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
    figure.suptitle(f"Epoch {epoch}" if epoch else "Untrained networks", fontsize=11)
    plt.close(figure)
    return figure


def wipe(source: np.ndarray, synthetic: np.ndarray, border: float = 0.5) -> Figure:
    """Images (N, H, W, 1) side by side: left of the border `source`, right of it `synthetic`.

    `border` runs from 0, where all is synthetic, to 1, where all is source.
    """
    count, height, width, _ = source.shape
    column = round(border * width)
    shown = np.concatenate([source[:, :, :column], synthetic[:, :, column:]], axis=2)[..., 0]
    figure, axis = plt.subplots(figsize=(2.4 * count, 2.4 * height / width))
    axis.imshow(np.concatenate(list(shown), axis=1), cmap="gray", vmin=-1, vmax=1)
    borders = np.arange(count) * width + column - 0.5
    axis.vlines(borders, -0.5, height - 0.5, color="C1", linewidth=1)
    axis.set_axis_off()
    plt.close(figure)
    return figure


def dials(draw: Callable[..., Figure], **controls: ipywidgets.ValueWidget) -> ipywidgets.Widget:
    """The picture that `draw` makes of the values of `controls`, under them; it follows them.

    In place of `ipywidgets.interact`, whose captured output now and then leaves a notebook that is
    run headlessly waiting for ever (jupyter/nbclient, issue 312).
    """
    picture = ipywidgets.Image()

    def redraw(change=None):
        file = io.BytesIO()
        draw(**{name: control.value for name, control in controls.items()}).savefig(file)
        picture.value = file.getvalue()

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls.values(), picture], layout={"align_items": "flex-start"})


def animation(run: Run, slices: Sequence[int] = (1, 2)) -> Path:
    """Both directions over the epochs of the snapshots, as an animated GIF; returns its path."""
    snapshots = read_snapshots(run)
    count = min(len(snapshots), MOST_FRAMES)
    shown = np.array(list(snapshots))[np.linspace(0, len(snapshots) - 1, count).astype(int)]
    frames = []
    for epoch in shown:
        names = [name for ends in ENDS.values() for name in ends]
        columns = {TITLES[name]: snapshots[epoch][name][list(slices)] for name in names}
        figure = _columns(columns, f"Epoch {epoch}")
        figure.set_dpi(75)
        figure.canvas.draw()
        frames.append(np.asarray(figure.canvas.buffer_rgba())[..., 0] // 4 * 4)
        plt.close(figure)
    frames += frames[-1:] * LAST_FRAME_TIMES
    path = run.path("figures", "training.gif")
    with write_atomically(path) as partial:
        iio.imwrite(partial, np.stack(frames), extension=".gif", duration=FRAME_TIME, loop=0)
    return path


def read_snapshots(run: Run) -> dict[int, dict[str, np.ndarray]]:
    """The arrays of `training.write_snapshot`, float32 (slices, h, w, 1) in [-1, 1], by epoch.

    Raises InputError where there are none, or one is damaged.
    """
    snapshots = {}
    for path in sorted((run.folder / "snapshots").glob("epoch_*.npz")):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                stored = {name: arrays[name].astype(np.float32) for name in TITLES}
        except Exception as error:  # a damaged zip file raises almost anything
            reason = textwrap.shorten(str(error), 150)
            raise InputError(f"{path} is damaged ({reason}): delete it to go without.") from None
        snapshots[int(path.stem.removeprefix("epoch_"))] = stored
    if not snapshots:
        raise InputError(f"{run.folder} holds no snapshots: run 02_training first.")
    return snapshots


def _columns(columns: Mapping[str, Sequence[np.ndarray | None]], heading: str) -> Figure:
    """A row for each slice, a column for each title."""
    rows = zip(*columns.values(), strict=True)
    grid = [[("", image) for image in row] for row in rows]
    grid[0] = [(title, image) for title, (_, image) in zip(columns, grid[0], strict=True)]
    return _grid(grid, heading)


def _grid(rows: Sequence[Sequence[tuple[str, np.ndarray | None]]], heading: str) -> Figure:
    """Titled images (H, W, 1), or blanks for None, on the one grey scale."""
    height, width, _ = rows[0][0][1].shape
    figure, axes = plt.subplots(
        len(rows),
        len(rows[0]),
        figsize=(TILE * len(rows[0]), TILE * height / width * len(rows) + 0.6),
        layout="constrained",
        squeeze=False,
    )
    for axis, (title, image) in zip(axes.flat, (cell for row in rows for cell in row), strict=True):
        axis.set_axis_off()
        axis.set_title(title, fontsize=TITLE_SIZE, parse_math=False)  # a file name may hold a $
        if image is not None:
            axis.imshow(image[..., 0], cmap="gray", vmin=-1, vmax=1)
    figure.suptitle(heading, fontsize=11)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return figure


def _save(figure: Figure, run: Run, name: str) -> Figure:
    return _write(figure, run.path("figures", f"{name}.png"))


def _write(figure: Figure, path: Path) -> Figure:
    with write_atomically(path) as partial:
        figure.savefig(partial, dpi=150)
    plt.close(figure)  # a notebook would show an open one twice
    return figure


def fidelity(run: Run, curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """PSNR of the watched slices over the epochs, and the losses beside it.

    `curves` is what `evaluation.fidelity_over_epochs` returns.
    """
    figure, (psnr, loss) = plt.subplots(1, 2, figsize=(12, 3.2), layout="constrained")
    for direction, curve in curves.items():
        psnr.plot(curve["epoch"], curve["psnr"], ".-", label=ARROWS[direction])
        psnr.legend()
    psnr.set(title="PSNR, dB", xlabel="epoch")
    path = run.folder / "losses.csv"
    rows = np.genfromtxt(path, delimiter=",", names=True, ndmin=1) if path.is_file() else []
    for name in ("generator", "cycle") if len(rows) else ():
        loss.plot(rows["epoch"], rows[name] / rows[name][0], label=name)
        loss.legend()
    loss.set(title="losses, times those of the first epoch", xlabel="epoch")
    return _save(figure, run, "fidelity")


def per_slice(run: Run, result: Mapping, direction: str) -> Figure:
    """PSNR, or cycle error where no truth is known, of every slice; held-out slices are shaded.

    `result` is what `evaluation.evaluate` returns; its baselines are the small dots.
    """
    names = list(_evaluated(run, direction)["names"])
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
    axis.set_title(f"{ARROWS[direction]}: {MEASURES[measure][0]}")
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1, 0.5))
    return _save(figure, run, f"per_slice_{direction}")


def maps(run: Run, direction: str, names: Sequence[str], shown: Sequence[str]) -> Figure:
    """A row for each slice in `names`; columns are those of MAPS in `shown`, where known."""
    arrays = _evaluated(run, direction)
    grey = {key: arrays[key].astype(float) for key in ("source", "synthetic", "truth")}
    grey |= {
        "error": np.abs(grey["synthetic"] - grey["truth"]),
        "trust": 255 * arrays["trust_maps"],
    }
    rows = [list(arrays["names"]).index(name) for name in names]
    unknown = ("truth", "error") if not arrays["known"][rows].all() else ()
    shown = [name for name in shown if name not in unknown]
    _, height, width = grey["source"].shape
    figure, axes = plt.subplots(
        len(rows),
        len(shown),
        figsize=(TILE * len(shown), TILE * height / width * len(rows) + 0.6),
        layout="constrained",
        squeeze=False,
    )
    for axis_row, row, slice_name in zip(axes, rows, names, strict=True):
        axis_row[0].set_ylabel(slice_name[-28:], fontsize=7, parse_math=False)
        for axis, name in zip(axis_row, shown, strict=True):
            title, colours, top = MAPS[name]
            axis.imshow(grey[name][row], cmap=colours, vmin=0, vmax=255 * top)
            axis.set(xticks=[], yticks=[])
            if row == rows[0]:
                axis.set_title(title, fontsize=TITLE_SIZE)
    figure.suptitle(ARROWS[direction], fontsize=11)
    return _save(figure, run, f"{shown[-1]}_{direction}")


def three_planes(
    scans: Mapping[str, Nifti1Image], x: float = 0.4, y: float = 0.5, z: float = 0.5
) -> Figure:
    """Axial, coronal, sagittal slices of what `translation.read_result` returns, left at the left.

    x, y and z say where to cut, from 0 (left, back, bottom) to 1. Written to no file.
    """
    planes = dict(zip(AXES, (z, y, x), strict=True))
    if scans["source"].shape[2] == 1:  # an image
        planes = {"axial": z}
    figure, axes = plt.subplots(
        len(planes),
        len(scans),
        figsize=(2.4 * len(scans), 2.4 * len(planes)),
        layout="constrained",
        squeeze=False,
    )
    for column, (name, volume) in zip(axes.T, scans.items(), strict=True):
        title, colours, top = MAPS[name]
        white = np.percentile(volume.dataobj, 99.9) if name == "source" else WHITE
        column[0].set_title(title, fontsize=TITLE_SIZE)
        for axis, (plane, place) in zip(column, planes.items(), strict=True):
            slices = to_slices(volume, plane)
            shown = slices[round(place * (len(slices) - 1))]
            axis.imshow(shown, cmap=colours, vmin=0, vmax=top * white)
            axis.set_axis_off()
    plt.close(figure)
    return figure


def benchmark(run: Run, result: Mapping) -> Figure:
    """Seconds of a training step beside those of its convolutions alone, and PSNR over minutes.

    `result` is what `benchmark.write` returns.
    """
    figure, (cost, fidelity) = plt.subplots(1, 2, figsize=(12, 3.2), layout="constrained")
    names, rows = list(result["steps"]), list(result["steps"].values())
    seconds = np.array([row["seconds"] for row in rows])
    cost.barh(names, seconds, label="a step on one pair")
    alone = seconds * [row["share_of_limit"] for row in rows]
    cost.plot(alone, names, "k|", markersize=14, label="its convolutions alone")
    cost.set(title="seconds", xscale="log")
    cost.invert_yaxis()
    cost.legend()
    for name, row in result["race"].items():
        fidelity.plot(*np.transpose(row["curve"]), ".-", label=name)
    fidelity.set(title="PSNR of held-out slices, T1 → T2, dB", xlabel="minutes")
    fidelity.legend()
    return _save(figure, run, "benchmark")


def _evaluated(run: Run, direction: str) -> dict[str, np.ndarray]:
    """One direction's arrays of `evaluation.npz`; raises InputError where there are none."""
    path = run.folder / "evaluation.npz"
    if not path.is_file():
        raise InputError(f"{path} is not there: evaluate the run first.")
    with np.load(path) as stored:
        prefix = f"{direction}_"
        return {k.removeprefix(prefix): stored[k] for k in stored.files if k.startswith(prefix)}


def comparison(
    path: Path, found: Mapping, names: Sequence[str], minutes: Sequence[float]
) -> Figure:
    """Fidelity of runs and their minutes of training, a row each, written to `path`.

    `found` is what `report.compare` returns; the lines are its oracles. Fidelity is that of each
    direction's first split.
    """
    size = (12, 1.5 + 0.3 * len(names))
    figure, axes = plt.subplots(1, 3, figsize=size, sharey=True, layout="constrained")
    for axis, measure in zip(axes, ("psnr", "ssim"), strict=False):
        for colour, (way, arrow) in enumerate(ARROWS.items()):
            split, ours = next(iter(found[way].items()))
            style = {"color": f"C{colour}"}
            if measure in ours:
                values = np.array(ours[measure]["of_runs"], float)
                axis.plot(values, range(len(names)), "o", label=f"{arrow}, {split}", **style)
            for name, line in (("lookup_table", ":"), ("supervised", "--")):
                oracle = found["baselines"][way][split].get(name, {})
                if measure in oracle:
                    label = f"{arrow}, {TRANSLATIONS[name]}"
                    axis.axvline(oracle[measure]["mean"], linestyle=line, label=label, **style)
        axis.set_title(MEASURES[measure][0])
        axis.grid(axis="y", alpha=0.3)
    axes[2].barh(range(len(names)), minutes, height=0.5, color="0.7")
    axes[2].set_title("minutes of training")
    axes[0].set_yticks(range(len(names)), names, parse_math=False)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return _write(figure, path)
