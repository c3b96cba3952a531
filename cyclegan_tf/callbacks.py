"""Callbacks of `fit`: progress and checkpoints, and how long a step waits for its images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from . import InputError
from .checkpoints import Checkpoints
from .runs import Run


class Recorder(keras.callbacks.Callback):
    """Shows progress; keeps the losses and a checkpoint after every epoch.

    `history` holds the losses of the epochs so far and grows by a dictionary an epoch, with which
    `after_epoch(history)` is called before the checkpoint is written. An epoch that ends in NaN or
    infinity is not kept: it ends the training with an InputError.
    """

    def __init__(
        self,
        run: Run,
        checkpoints: Checkpoints,
        history: list[dict],
        title: str,
        after_epoch: Callable[[list[dict]], None] | None = None,
    ):
        super().__init__()
        self.run, self.checkpoints, self.history = run, checkpoints, history
        self.title, self.after_epoch = title, after_epoch

    def on_train_begin(self, logs=None):
        steps, epochs = self.params["steps"], self.params["epochs"]
        place = {"initial": len(self.history) * steps, "total": epochs * steps, "unit": "step"}
        self.bar = tqdm(desc=self.title, mininterval=5, file=sys.stdout, **place)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        try:
            self._keep(epoch + 1, logs)
        except InputError:
            self.bar.close()  # on_train_end is not called for a training that is ended like this
            raise

    def _keep(self, epoch: int, logs: dict) -> None:
        numbers = *logs.values(), *(variable.numpy() for variable in self.checkpoints.variables)
        if not all(np.isfinite(values).all() for values in numbers):
            warning = (
                "losses or weights are NaN or infinite, so the training was stopped and stands at "
                "the epoch before: start anew with a lower rate."
            )
            self.run.warn(warning, epoch)
            raise InputError(f"Epoch {epoch}: {warning}")
        self.history.append({name: float(value) for name, value in logs.items()})
        if self.after_epoch:
            self.after_epoch(self.history)
        self.checkpoints.save(epoch, self.history)
        shown = " ".join(f"{name} {value:.3f}" for name, value in self.history[-1].items())
        self.bar.set_postfix_str(f"epoch {epoch}, {shown}", refresh=False)

    def on_train_end(self, logs=None):
        self.bar.close()


def fit_from_checkpoint(
    model: keras.Model,
    run: Run,
    stage: str,
    checkpoints: Checkpoints,
    batches: Callable[[int], tf.data.Dataset],
    steps: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    after_epoch: Callable[[list[dict]], None] | None = None,
) -> list[dict]:
    """`fit` up to `epochs` of `steps` each, from the newest checkpoint; returns all epochs' losses.

    `batches(done)` makes the batches that follow `done` epochs. The time goes into the record's
    `durations` under `stage`. Raises InputError if another process is at work in the folder.
    """
    with run.alone():  # a checkpoint may be written, or removed
        done, history = checkpoints.restore()
        if done < epochs:
            data, title = batches(done), stage.capitalize().replace("_", " ")
            with run.timed(stage):
                run.update(status="training")
                model.fit(
                    data,
                    steps_per_epoch=steps,
                    epochs=epochs,
                    initial_epoch=done,
                    callbacks=[Recorder(run, checkpoints, history, title, after_epoch), *callbacks],
                    shuffle=False,
                    verbose=0,
                )
    return history


class InputClock(keras.callbacks.Callback):
    """Measures the share of the steps that is spent waiting for their batches."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0
        with tf.device("CPU"):
            self.waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def watch(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches; the time between asking for one and having it is added up."""

        def arrived(asked, batch):
            self.waited.assign_add(tf.timestamp() - asked)
            return batch

        asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # it would ask ahead of the step
        return tf.data.Dataset.zip((asked, batches)).map(arrived).with_options(options)

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds += time.perf_counter() - self.begun

    @property
    def share(self) -> float:
        return float(self.waited.numpy()) / self.seconds
