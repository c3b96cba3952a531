"""Pictures of a training: epoch by epoch, in images, losses and learning rates."""

from collections.abc import Mapping
from pathlib import Path

import imageio.v3 as iio
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ... import metrics
from ...contrasts import arrow
from ...dataset.sets import Sets, watched
from ...learning.snapshots import read_snapshots
from ...presets import PAPER, PUBLISHED_EPOCH, PUBLISHED_STEPS, published_rate
from ...runs import Run, write_atomically
from .drawing import GREY, after, columns, save, titles

ENDS = ("real_x", "fake_y"), ("real_y", "fake_x")
LOSSES = {
    "Generators, in all": ["generator", "adversarial"],
    "Generators, mean absolute error": ["cycle", "identity", "simulation", "validation"],
    "Discriminators": ["discriminator_x", "discriminator_y"],
}
MOST_FRAMES = 40
FRAME_TIME = 300  # ms
LAST_FRAME_TIMES = 9  # that the last frame stays longer than the others


def snapshot(run: Run, epoch: int | None = None) -> Figure:
    """What both generators make of the watched slices after `epoch` epochs, 0 being untrained.

    Without `epoch` it is the newest snapshot.
    """
    snapshots = read_snapshots(run)
    epoch = max(snapshots) if epoch is None else epoch
    titled = {title: snapshots[epoch][name] for name, title in titles(run).items()}
    figure = columns(titled, after(epoch))
    return save(figure, run, f"epoch_{epoch:03d}")


def cycles(run: Run) -> Figure:
    """The two cycles, with the newest snapshot's images: who translates, and who judges."""
    snapshots = read_snapshots(run)
    newest, titled = snapshots[max(snapshots)], titles(run)
    figure, axes = plt.subplots(2, 3, figsize=(7, 5.4), gridspec_kw={"wspace": 0.5})
    for row, names, arrows, other in zip(
        axes, np.reshape(list(titled), (2, 3)), ("GF", "FG"), "yx", strict=True
    ):
        for axis, name in zip(row, names, strict=True):
            axis.imshow(newest[name][1, ..., 0], **GREY)
            axis.set(xticks=[], yticks=[])
            axis.set_title(titled[name], fontsize=10)
        for start, end, label in zip(row, row[1:], arrows, strict=False):
            ends = {"xycoords": end.transAxes, "textcoords": start.transAxes}
            style = {"arrowstyle": "->", "linewidth": 1.5}
            end.annotate("", (-0.02, 0.5), (1.02, 0.5), **ends, arrowprops=style)
            end.text(-0.25, 0.55, f"${label}$", transform=end.transAxes, ha="center", fontsize=13)
        row[1].set_xlabel(f"$D_{other}$: is it a real {titled[f'real_{other}']}?", fontsize=10)
        row[2].set_xlabel("cycle loss: is it\nthe first again?", fontsize=10)
    return save(figure, run, "cycles")


def epochs(run: Run, sets: Sets, direction: str) -> Figure:
    """The preset's `snapshot_epochs` side by side, between the input and the truth, if known.

    `direction` is one of the run's two. The last snapshot is always shown.
    """
    snapshots = read_snapshots(run)
    forth, named = direction == run.preset.contrasts.directions[0], titles(run)
    source, synthetic = ENDS[0 if forth else 1]
    shown = {k for k in snapshots if k in run.preset.snapshot_epochs} | {max(snapshots)}
    titled = {f"{named[source]} (input)": snapshots[max(snapshots)][source]}
    for epoch in sorted(shown - {0}) or [0]:
        titled[f"{named[synthetic]}, epoch {epoch}"] = snapshots[epoch][synthetic]
    own, other = "xy" if forth else "yx"
    framed, truth = getattr(sets, own), []
    for number in watched(framed.train):
        true = sets.truth_of(own, number)
        truth.append(None if true is None else sets.frame.apply(framed.cut(number, true)))
    if any(image is not None for image in truth):
        titled[f"true {named[f'real_{other}']}"] = truth
    return save(columns(titled, arrow(direction)), run, f"epochs_{direction}")


def loss_curves(run: Run) -> Figure:
    """The losses of `losses.csv`: each epoch's means, on three axes.

    From 0 up or, where they have run away, by powers of ten.
    """
    path, losses = run.folder / "losses.csv", {}
    if path.is_file():
        rows = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
        losses = {name: rows[name] for name in rows.dtype.names}
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for axis, (title, names) in zip(axes, LOSSES.items(), strict=True):
        for name in map(run.preset.contrasts.named, names):
            if any(losses.get(name, [])):  # a loss without weight is 0, or not there
                axis.plot(losses["epoch"], losses[name], label=name)
                axis.legend()
        axis.set(title=title, xlabel="epoch")
        if axis.dataLim.y1 > 1e3:
            axis.set_yscale("log")
        else:
            axis.set_ylim(0, None)
        axis.xaxis.get_major_locator().set_params(integer=True)
    if not losses:
        figure.suptitle("No epoch was trained")
    return save(figure, run, "losses")


def learning_rates(run: Run) -> Figure:
    """The learning rate that the original code computed, the one it meant, and this run's."""
    steps = np.arange(PAPER.epochs * PUBLISHED_STEPS)
    published = [published_rate(step) for step in steps]
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    axis.plot(steps / PUBLISHED_STEPS, published, label="original, as it ran")
    meant = {"original, as it was meant": PAPER}
    if run.preset.decay == "linear":  # else it is the original's as it ran
        meant["this run"] = run.preset
    for label, preset in meant.items():
        corners = [0, min(preset.decay_epoch, preset.epochs), preset.epochs]
        epoch = np.linspace(0, preset.epochs, 1000)
        rate = np.interp(epoch, corners, [preset.learning_rate, preset.learning_rate, 0])
        axis.plot(epoch, rate, label=label)
    line = {"color": "black", "linestyle": ":", "label": "epoch 145, the published result"}
    axis.axvline(PUBLISHED_EPOCH, **line)
    axis.set(yscale="log", ylim=(1e-6, 1), xlabel="epoch", ylabel="learning rate")
    axis.legend(loc="upper left")
    return save(figure, run, "learning_rates")


def tried(
    run: Run, name: str, heading: str, titled: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
    """Snapshots by what was tried: an image's translation above, what it leads back to below.

    The cycle error is the mean over the watched source images, on the intensity scale [0, 1].
    """
    named = titles(run)
    shown = {named["real_x"]: [next(iter(titled.values()))["real_x"][1], None]}
    for title, arrays in titled.items():
        ends = metrics.unit(arrays["cycled_x"]), metrics.unit(arrays["real_x"])
        title = f"{title}\ncycle error {metrics.mae(*ends):.3f}"
        shown[title] = [arrays["fake_y"][1], arrays["cycled_x"][1]]
    return save(columns(shown, heading, labels=[named["fake_y"], "there and back"]), run, name)


def animation(run: Run) -> Path:
    """Two slices in both directions, snapshot by snapshot, as an animated GIF; returns its path."""
    snapshots = read_snapshots(run)
    count = min(len(snapshots), MOST_FRAMES)
    shown = np.array(list(snapshots))[np.linspace(0, len(snapshots) - 1, count).astype(int)]
    frames = []
    for epoch in shown:
        names = [name for ends in ENDS for name in ends]
        titled = {titles(run)[name]: snapshots[epoch][name][1:3] for name in names}
        figure = columns(titled, after(epoch))
        figure.set_dpi(75)
        figure.canvas.draw()
        frames.append(np.asarray(figure.canvas.buffer_rgba())[..., 0] // 4 * 4)
        plt.close(figure)
    frames += frames[-1:] * LAST_FRAME_TIMES
    path = run.path("figures", "training.gif")
    with write_atomically(path) as aside:
        iio.imwrite(aside, np.stack(frames), extension=".gif", duration=FRAME_TIME, loop=0)
    return path
