"""Checkpoints: the state of a training, from which it goes on bit for bit."""

import json
import os
from pathlib import Path

import numpy as np

from .. import InputError
from ..machines.devices import agree, leads
from ..runs import intact, write_atomically
from .snapshots import epoch_of


class Checkpoints:
    """The state of a training after its newest epochs, as `.npz` files of plain arrays.

    `variables` are saved and restored in order. Two files are kept: whatever happens while one is
    written, the other is whole. Of several processes that train together the chief writes them.

    With `patience` the best epoch's state is kept, too. The best is the epoch with the least
    `validation` in the history, or 0, the state before the first epoch, if it never fell below
    `begun`. After `patience` epochs without a better one the training is over. This is decided by
    the history alone, so a resumed training ends at the same epoch.
    """

    def __init__(self, folder: Path, variables: list, patience: int = 0, begun: float = 0.0):
        self.folder = folder
        self.variables = variables
        self.patience, self.begun = patience, begun

    def best(self, history: list[dict]) -> int:
        """The best epoch so far; without patience the last."""
        if not self.patience:
            return len(history)
        errors = [self.begun, *(row["validation"] for row in history)]
        return errors.index(min(errors))

    def over(self, history: list[dict]) -> bool:
        """Whether the patience is used up."""
        return 0 < self.patience <= len(history) - self.best(history)

    def save(self, epoch: int, history: list[dict]) -> None:
        """Write the state after `epoch` epochs, with the losses of these epochs."""
        if not leads():
            return
        arrays = {f"variable_{i:04d}": v.numpy() for i, v in enumerate(self.variables)}
        with write_atomically(self._path(epoch)) as partial:
            np.savez(partial, history=json.dumps(history), **arrays)
        for old in self._kept()[:-2]:
            if old != self._path(self.best(history)):
                os.truncate(old, 0)  # Google Drive keeps deleted files and counts their size
                old.unlink()

    def restore(self) -> tuple[int, list[dict]]:
        """Restore the newest state that is whole; returns its epoch and the losses up to it.

        If there is none, the present state is kept as that of epoch 0, so that a training that is
        stopped in its first epoch begins again with the same model. Workers restore after the
        chief, what it has found. Raises InputError if they find something else.
        """
        agreed = None if leads() else agree(0)
        done, history = self._newest()
        if leads():
            agree(done)
        elif done != agreed:
            raise InputError(
                f"{self.folder.resolve()} holds epoch {done} for this worker and {agreed} for the "
                "chief: expected a disk that both share."
            )
        return done, history

    def take(self, epoch: int) -> None:
        """Take the state of an epoch that is kept. Raises InputError if it is damaged."""
        with intact(f"{self._path(epoch)}, the best epoch,", "start anew with --fresh"):
            self._load(self._path(epoch))

    def _newest(self) -> tuple[int, list[dict]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in reversed(self._kept()):
            try:
                history = self._load(path)
                return len(history), history
            except Exception as error:  # a damaged zip file raises almost anything
                print(f"{path} is damaged ({error}): going on from the checkpoint before it.")
                if leads():
                    path.unlink()
        self.save(0, [])
        return 0, []

    def _kept(self) -> list[Path]:
        return sorted(self.folder.glob("epoch_*.npz"), key=epoch_of)

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch:04d}.npz"

    def _load(self, path: Path) -> list[dict]:
        with np.load(path, allow_pickle=False) as stored:
            history = [dict(row) for row in json.loads(str(stored["history"]))]
            arrays = [
                np.reshape(stored[f"variable_{i:04d}"], variable.shape)
                for i, variable in enumerate(self.variables)
            ]
        for variable, array in zip(self.variables, arrays, strict=True):
            variable.assign(array)
        return history
