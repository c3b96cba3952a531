"""Volumes of one head in three planes on one crosshair, to be looked through in a browser.

`viewer.html` does the drawing, without network or kernel, so the same frame stands in reports,
notebooks and pages.
"""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from nibabel import Nifti1Image, as_closest_canonical
from nibabel.affines import voxel_sizes
from PIL import Image

from ..scans.geometry import to_slices
from ..scans.volumes import MAPS, window

SPACING = 1.5  # mm: a head is half a megabyte a volume, and shows what a network has drawn
QUALITY = 80  # of WebP


def viewer(scans: Mapping[str, Nifti1Image]) -> str:
    """HTML of volumes by their names in MAPS, all on one grid, in a frame of its own.

    A click sets the crosshair in all, wheel and drag move it, a drag with the right button sets
    the window of the grey ones, and one may be laid over the others. An image, of one slice, has
    one plane.
    """
    volumes = []
    for name, volume in scans.items():
        look = MAPS[name]
        canonical = as_closest_canonical(volume)
        deep = voxel_sizes(canonical.affine)[2]
        step = max(1, round(SPACING / deep))
        # (X, Y, Z) -> (S, H, W), from the top; 8 bits from black to what is brightest
        stack = to_slices(canonical.slicer[:, :, ::step], "axial", SPACING)[::-1]
        low, high = window(name, volume)
        grey = np.rint(255 * np.clip((stack - low) / max(high - low, 1e-9), 0, 1))
        shown = {"title": look.title, "grey": look.colours == "gray", "data": _tiled(grey)}
        volumes.append(shown)
    facts = {"shape": stack.shape, "size": [step * deep, SPACING, SPACING], "volumes": volumes}
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    page = html.escape(page.replace("FACTS", json.dumps(facts)))
    frame = "border: 0; width: 100%; height: 80vh"
    return f'<div><iframe title="three planes" style="{frame}" srcdoc="{page}"></iframe></div>'


def html_page(title: str, body: Sequence[str]) -> str:
    """A page with a title above its parts, which are HTML."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return page.replace("TITLE", html.escape(title)).replace("BODY", "\n".join(body))


def _tiled(stack: np.ndarray) -> str:
    """A stack (S, H, W) of 0 to 255 as one picture, its slices row by row in a square of tiles."""
    count, height, width = stack.shape
    side = math.ceil(math.sqrt(count))
    tiles = np.pad(stack, [(0, side**2 - count), (0, 0), (0, 0)]).astype(np.uint8)
    # (side, side, H, W) -> (side H, side W)
    tiles = tiles.reshape(side, side, height, width).swapaxes(1, 2).reshape(side * height, -1)
    file = io.BytesIO()
    Image.fromarray(tiles).save(file, "webp", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
