"""Three planes of each real head, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..runs import write_atomically


def draw_heads(path: Path, heads: Mapping[str, Mapping[str, Sequence[np.ndarray]]]) -> Figure:
    """Write a PNG with three planes (H, W) of every volume, a row a head; returns the figure.

    `heads`: by name what `heads.measure_head` returns. Grey from 0 to 1, errors from 0 to 0.2.
    """
    titles = [title for title in next(iter(heads.values())) if title != "aspects"]
    size = (3 * 1.4 * len(titles), 1.9 * len(heads) + 0.3)
    figure, axes = plt.subplots(
        len(heads), 3 * len(titles), figsize=size, squeeze=False, layout="constrained"
    )
    for cells, (name, volumes) in zip(axes, heads.items(), strict=True):
        cells[0].set_ylabel(name, fontsize=7)
        for number, cell in enumerate(cells):
            title, plane = titles[number // 3], number % 3
            error = title == "absolute error"
            look = {"cmap": "inferno", "vmax": 0.2} if error else {"cmap": "gray", "vmax": 1}
            aspect = volumes["aspects"][plane]
            cell.imshow(volumes[title][plane], vmin=0, aspect=aspect, **look)
            cell.set(xticks=[], yticks=[])
            if cells is axes[0] and plane == 1:
                cell.set_title(f"{title}, 0 to 0.2" if error else title, fontsize=9)
    with write_atomically(path) as partial:
        figure.savefig(partial, dpi=110)
    plt.close(figure)
    return figure
