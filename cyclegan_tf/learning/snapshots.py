"""Snapshots: what the generators make of the same few slices, epoch by epoch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .. import InputError
from ..runs import Run, intact, write_atomically
from ..scans.images import write_image

IMAGES = ("real_x", "fake_y", "cycled_x", "real_y", "fake_x", "cycled_y")
"""In files the contrasts stand in place of x and y: `real_t1`."""


def epoch_of(path: Path) -> int:
    """The epoch in a file's name, `epoch_145.npz`; files are in its order, not their names'."""
    return int(path.stem.removeprefix("epoch_"))


def write_snapshot(run: Run, epoch: int, images: Mapping[str, np.ndarray]) -> None:
    """Keep IMAGES, each (N, h, w, 1) in [-1, 1], as arrays (.npz) and as a tiled picture (.png).

    A row of the picture is one of IMAGES.
    """
    named = run.preset.contrasts.named
    with write_atomically(run.path("snapshots", f"epoch_{epoch:03d}.npz")) as aside:
        arrays = {named(name): images[name].astype(np.float16) for name in IMAGES}
        np.savez_compressed(aside, **arrays)
    # six of (N, h, w, 1) -> (6 h, N w)
    tiles = np.concatenate([np.concatenate(images[name][..., 0], axis=1) for name in IMAGES])
    write_image(run.path("snapshots", f"epoch_{epoch:03d}.png"), tiles)


def read_snapshots(run: Run) -> dict[int, dict[str, np.ndarray]]:
    """The arrays of `write_snapshot`, float32 (N, h, w, 1) in [-1, 1], in the order of epochs.

    Raises InputError where there are none, or one is damaged.
    """
    snapshots, named = {}, run.preset.contrasts.named
    for path in sorted((run.folder / "snapshots").glob("epoch_*.npz"), key=epoch_of):
        advice = "delete it to go without"
        with intact(path, advice), np.load(path, allow_pickle=False) as arrays:
            stored = {name: arrays[named(name)].astype(np.float32) for name in IMAGES}
        snapshots[epoch_of(path)] = stored
    if not snapshots:
        raise InputError(f"{run.folder} holds no snapshots: run 02_training first.")
    return snapshots
