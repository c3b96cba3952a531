"""Pictures that follow sliders, and the sliders that they follow."""

from collections.abc import Callable, Mapping

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from nibabel import Nifti1Image

from ...runs import Run
from ...scans.geometry import AXES, slice_of
from ...scans.volumes import MAPS, window
from .drawing import GREY, after, closed, columns, encode, grid, titles


def dials(draw: Callable[..., Figure], **controls: ipywidgets.ValueWidget) -> ipywidgets.Widget:
    """The picture that `draw` makes of the values of `controls`, under them; it follows them.

    In place of `ipywidgets.interact`, whose captured output now and then leaves a notebook that is
    run headlessly waiting for ever (jupyter/nbclient, issue 312).
    """
    picture = ipywidgets.Image()

    def redraw(change=None):
        picture.value = encode(draw(**{name: x.value for name, x in controls.items()}))

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls.values(), picture], layout={"align_items": "flex-start"})


def watch(
    run: Run, snapshots: Mapping[int, Mapping[str, np.ndarray]], epoch: int, image: int
) -> Figure:
    """Watched image number `image`, from 1, of both contrasts after `epoch`, there and back.

    `snapshots` are those of `read_snapshots`.
    """
    shown = [(title, snapshots[epoch][name][image - 1]) for name, title in titles(run).items()]
    return closed(grid([shown[:3], shown[3:]], after(epoch), tile=2))


def wipe(source: np.ndarray, synthetic: np.ndarray, border: float = 0.5) -> Figure:
    """Images (N, H, W, 1) side by side: left of the border `source`, right of it `synthetic`.

    `border` runs from 0, where all is synthetic, to 1, where all is source.
    """
    count, height, width, _ = source.shape
    column = round(border * width)
    # (N, H, W, 1) -> (N, H, W) -> (H, N W)
    shown = np.concatenate([source[:, :, :column], synthetic[:, :, column:]], axis=2)[..., 0]
    figure, axis = plt.subplots(figsize=(2.4 * count, 2.4 * height / width))
    axis.imshow(np.concatenate(list(shown), axis=1), **GREY)
    borders = np.arange(count) * width + column - 0.5
    axis.vlines(borders, -0.5, height - 0.5, color="C1", linewidth=1)
    axis.set_axis_off()
    return closed(figure)


def three_planes(
    scans: Mapping[str, Nifti1Image], x: float = 0.4, y: float = 0.5, z: float = 0.5
) -> Figure:
    """Axial, coronal, sagittal slices of what `translate.read_result` returns, left at the left.

    x, y and z say where to cut, from 0 (left, back, bottom) to 1. Written to no file.
    """
    planes = dict(zip(AXES, (z, y, x), strict=True))
    if scans["source"].shape[2] == 1:  # an image
        planes = {"axial": z}
    titled, styles = {}, []
    for name, volume in scans.items():
        look = MAPS[name]
        titled[look.title] = [slice_of(volume, place, plane) for plane, place in planes.items()]
        low, high = window(name, volume)
        styles.append({"cmap": look.colours, "vmin": low, "vmax": high})
    return closed(columns(titled, "", styles=styles, tile=2.4))
