"""What the pictures have in common: titles, scales, rows of images, the way into a file."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ...learning.snapshots import IMAGES
from ...runs import Run, write_file

TITLES = {"real": "{}", "fake": "synthetic {}", "cycled": "{} there and back"}
GREY = {"cmap": "gray", "vmin": -1, "vmax": 1}
TILE = 1.4  # width of an image, inches: a little more than the pixels it has
COLOURS = 64  # of a picture: nobody sees more in it, and a file of these is half as large
TITLE_SIZE = 6.5  # points: the longest fits above an image


def titles(run: Run) -> dict[str, str]:
    """What is written above the arrays of a snapshot, by `snapshots.IMAGES`."""
    labels, parts = run.preset.contrasts.labels, (name.split("_") for name in IMAGES)
    return {f"{kind}_{side}": TITLES[kind].format(labels[side]) for kind, side in parts}


def after(epoch: int) -> str:
    """The heading of a snapshot."""
    return f"Epoch {epoch}" if epoch else "Untrained networks"


def grid(
    rows: Sequence[Sequence[tuple[str, np.ndarray | None]]],
    heading: str,
    labels: Sequence[str] = (),
    styles: Sequence[Mapping] = (),
    tile: float = TILE,
) -> Figure:
    """Rows of titled images, (h, w) or (h, w, 1), or of blanks for None.

    `labels` stand left of the rows; `styles`, one a column, are `imshow`'s, GREY by default. An
    image is `tile` inches wide.
    """
    shapes = [next(image.shape for _, image in row if image is not None) for row in rows]
    heights, count = [shape[0] / shape[1] for shape in shapes], len(rows[0])
    size = tile * count, tile * sum(heights) + 0.6
    options = {"figsize": size, "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(len(rows), count, height_ratios=heights, **options)
    styles = styles or [GREY] * count
    for axis_row, row in zip(axes, rows, strict=True):
        for axis, (title, image), style in zip(axis_row, row, styles, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.set_title(title, fontsize=TITLE_SIZE, parse_math=False)  # file names may hold a $
            if image is not None:
                axis.imshow(image, **style)
    for axis, label in zip(axes[:, 0], labels, strict=False):
        axis.set_ylabel(label[-28:], fontsize=7, parse_math=False)
    figure.suptitle(heading, fontsize=11)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return figure


def columns(titled: Mapping[str, Sequence[np.ndarray | None]], heading: str, **options) -> Figure:
    """`grid` of a column of images for each title, which stands above it."""
    rows = zip(*titled.values(), strict=True)  # columns of images -> rows of images
    cells = [[("", image) for image in row] for row in rows]
    cells[0] = [(title, image) for title, (_, image) in zip(titled, cells[0], strict=True)]
    return grid(cells, heading, **options)


def save(figure: Figure, place: Run | Path, name: str) -> Figure:
    """Write the figure as `name`.png into the `figures/` of a run, or into a folder."""
    path = place.path("figures", f"{name}.png") if isinstance(place, Run) else place / f"{name}.png"
    write_file(path, encode(figure, dpi=150))
    return closed(figure)


def closed(figure: Figure) -> Figure:
    """The figure as a notebook is to get it: shown once, by its last line, and in few bytes."""
    plt.close(figure)  # a notebook would show an open one twice
    figure._ipython_display_ = lambda: IPython.display.display(
        IPython.display.Image(encode(figure, bbox_inches="tight"))
    )
    return figure


def encode(figure: Figure, **options) -> bytes:
    """The figure as PNG; `options` are `savefig`'s."""
    drawn, picture = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, pil_kwargs={"compress_level": 0}, **options)  # fast
    few = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(picture, "png")
    return picture.getvalue()
