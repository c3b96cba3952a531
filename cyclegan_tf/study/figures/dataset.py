"""Pictures of what is learned from: the images, their frames, the contrast of their sequences."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ... import metrics
from ...dataset.sets import Sets
from ...presets import LAPTOP, PAPER
from ...runs import Run
from ...scans.frame import Frame
from ...scans.volumes import MAPS
from ...simulation import physics
from .drawing import closed, grid, save


def samples(run: Run, sets: Sets, count: int = 6) -> Figure:
    """Up to `count` slices of each set, spread evenly over it, as the networks see them."""
    count = min(count, len(sets.x), len(sets.y))
    rows = []
    for images in (sets.x, sets.y):
        chosen = np.linspace(0, len(images) - 1, count).astype(int)
        rows.append([(str(images.names[k])[-28:], images[k]) for k in chosen])
    x, y = run.preset.contrasts.labels.values()
    heading = f"{len(sets.x)} {x} images (above) and {len(sets.y)} {y} images (below)"
    return save(grid(rows, heading), run, "samples")


def round_trip(run: Run, sets: Sets) -> Figure:
    """A target image in the frames of both presets and back at its size, with the error's PSNR."""
    image = sets.y.images[len(sets.y) // 2]  # (H, W)
    rows, name, error = [], run.preset.contrasts.labels["y"], MAPS["error"]
    for preset, title in ((PAPER, "resized to"), (LAPTOP, "padded to")):
        frame = Frame.of([image.shape], preset)
        framed = frame.apply(image)  # (H, W) -> (h, w, 1)
        back = frame.invert(framed, image.shape)
        with np.errstate(divide="ignore"):  # nothing is lost by padding
            psnr = metrics.psnr((back + 1) / 2, (image + 1) / 2)
        row = [
            (f"true {name}, {image.shape[1]} × {image.shape[0]}", image),
            (f"{title} {frame.width} × {frame.height}", framed),
            (f"and back: {psnr:.1f} dB", back),
            (error.title, np.abs(back - image) / error.top - 1),  # black: none
        ]
        rows.append(row)
    return save(grid(rows, f"A true {name} there and back"), run, "round_trip")


def spin_echoes(run: Run, fractions: Mapping[str, np.ndarray]) -> Figure:
    """One slice of tissue `fractions` (`average.Head.fractions`) under `physics.SPIN_ECHOES`."""
    return save(_spin_echoes(fractions, physics.SPIN_ECHOES), run, "spin_echoes")


def spin_echo(fractions: Mapping[str, np.ndarray], tr: float, te: float) -> Figure:
    """The same slice for any TR and TE, in ms."""
    return closed(_spin_echoes(fractions, {"Spin echo": physics.Sequence(tr, te)}))


def _spin_echoes(
    fractions: Mapping[str, np.ndarray], sequences: Mapping[str, physics.Sequence]
) -> Figure:
    cells, styles = [], []
    for name, sequence in sequences.items():
        image = physics.acquire(fractions, physics.spin_echo_signal, sequence)
        cells.append((f"{name}\nTR {sequence.tr:.0f} ms, TE {sequence.te:.0f} ms", image))
        styles.append({"cmap": "gray", "vmin": 0, "vmax": image.max()})
    figure = grid([cells], "", styles=styles, tile=2.5)
    tissues = {"fluid": "csf", "grey": "grey", "white": "white"}
    for axis, sequence in zip(figure.axes, sequences.values(), strict=True):
        signals = (physics.spin_echo_signal(physics.TISSUES[x], sequence) for x in tissues.values())
        text = [f"{name} {value:.2f}" for name, value in zip(tissues, signals, strict=True)]
        axis.set_xlabel(", ".join(text), fontsize=9)
    return figure
