"""Every picture that the notebooks show, from arrays and run folders; nothing is computed here.

All images are drawn on one grey scale, -1 black and 1 white, nose up. The functions write a PNG
into the run's `figures/` and return the figure.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import imageio.v3 as iio
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from . import InputError
from .presets import PAPER
from .runs import Run, write_atomically

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

# The original notebook's schedule: an epoch has 11 steps; the code believed in 16, from the length
# of the path's text, and so began to decay at step 100 · 16.
PUBLISHED_STEPS = 11
PUBLISHED_START = 100 * 16
LAST_HEALTHY_EPOCH = 145

TILE = 1.9  # width of an image, inches
FRAME_TIME, LAST_FRAME_TIME = 300, 3000  # of the animation, ms


def samples(run: Run, sets, count: int = 6) -> Figure:
    """`count` slices of each set, spread evenly over it, as the networks see them."""
    rows = []
    for images, names in ((sets.t1, sets.t1_names), (sets.t2, sets.t2_names)):
        chosen = np.linspace(0, len(images) - 1, count).astype(int)
        rows.append([(names[k], images[k]) for k in chosen])
    figure = _grid(rows, f"{len(sets.t1)} T1 images (above), {len(sets.t2)} T2 images (below)")
    return _save(figure, run, "samples")


def snapshot(run: Run, epoch: int) -> Figure:
    """What both generators make of the watched slices after `epoch` epochs; 0 is untrained."""
    arrays = read_snapshots(run)[epoch]
    trained = f"after epoch {epoch}" if epoch else "before training"
    figure = _columns({title: arrays[name] for name, title in TITLES.items()}, trained)
    return _save(figure, run, f"epoch_{epoch:03d}")


def progress(run: Run, direction: str, truth: Sequence[np.ndarray | None] | None = None) -> Figure:
    """The epochs of the preset's `snapshot_epochs` side by side, between input and truth.

    `direction` is `t1_to_t2` or `t2_to_t1`; `truth` has, for each watched slice, the true image
    or None where it is unknown.
    """
    snapshots = read_snapshots(run)
    source, synthetic = ENDS[direction]
    asked = [epoch for epoch in snapshots if epoch in run.preset.snapshot_epochs]
    epochs = sorted({*asked, max(snapshots)} - {0}) or [0]
    columns = {f"{TITLES[source]} (input)": snapshots[epochs[0]][source]}
    columns |= {f"{TITLES[synthetic]}, epoch {k}": snapshots[k][synthetic] for k in epochs}
    if truth is not None:
        columns["true " + TITLES[synthetic].split()[-1]] = truth
    return _save(_columns(columns, ARROWS[direction]), run, direction)


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
        axis.set(title=title, xlabel="epoch")
    if not rows:
        figure.suptitle("no epoch was trained")
    return _save(figure, run, "losses")


def learning_rates(run: Run) -> Figure:
    """The learning rate that the original code computed, the one it meant, and this run's."""
    steps = np.arange(PAPER.epochs * PUBLISHED_STEPS)
    published = PAPER.learning_rate * np.where(
        steps < PUBLISHED_START, 1, steps - PUBLISHED_START
    )
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    axis.plot(steps / PUBLISHED_STEPS, published, label="original, as it ran")
    for preset, label in ((PAPER, "original, as it was meant"), (run.preset, "this run")):
        corners = [0, preset.decay_epoch, preset.epochs]
        epochs = np.linspace(0, preset.epochs, 1000)
        rates = np.interp(epochs, corners, [preset.learning_rate, preset.learning_rate, 0])
        axis.plot(epochs, rates, label=label)
    axis.axvline(LAST_HEALTHY_EPOCH, color="black", linestyle=":", label="end of epoch 145")
    axis.set(yscale="log", ylim=(1e-6, 1), xlabel="epoch", ylabel="learning rate")
    axis.legend(loc="upper left")
    return _save(figure, run, "learning_rates")


def animation(run: Run, slices: Sequence[int] = (1, 2)) -> Path:
    """Both directions over the epochs of all snapshots, as an animated GIF; returns its path."""
    snapshots = read_snapshots(run)
    frames = []
    for epoch, arrays in snapshots.items():
        names = [name for ends in ENDS.values() for name in ends]
        columns = {TITLES[name]: arrays[name][list(slices)] for name in names}
        figure = _columns(columns, f"epoch {epoch}")
        figure.canvas.draw()
        frames.append(np.asarray(figure.canvas.buffer_rgba())[..., 0])
        plt.close(figure)
    times = [FRAME_TIME] * (len(frames) - 1) + [LAST_FRAME_TIME]
    path = run.path("figures", "training.gif")
    with write_atomically(path) as partial:
        iio.imwrite(partial, np.stack(frames), extension=".gif", duration=times, loop=0)
    return path


def read_snapshots(run: Run) -> dict[int, dict[str, np.ndarray]]:
    """The arrays of `training.write_snapshot`, float32 (slices, h, w, 1) in [-1, 1], by epoch.

    Raises InputError where there are none.
    """
    snapshots = {}
    for path in sorted((run.folder / "snapshots").glob("epoch_*.npz")):
        with np.load(path) as arrays:
            stored = {name: arrays[name].astype(np.float32) for name in arrays.files}
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
        axis.set_title(title, fontsize=9)
        if image is not None:
            axis.imshow(image[..., 0], cmap="gray", vmin=-1, vmax=1)
    figure.suptitle(heading, fontsize=11)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return figure


def _save(figure: Figure, run: Run, name: str) -> Figure:
    with write_atomically(run.path("figures", f"{name}.png")) as partial:
        figure.savefig(partial, dpi=150)
    plt.close(figure)  # a notebook would show an open one twice
    return figure
