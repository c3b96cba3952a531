"""The training loop, on one device or several: its progress and its checkpoints."""

import sys
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from .. import InputError
from ..machines.devices import strategy, together
from ..runs import Run
from .checkpoints import Checkpoints


def fit_from_checkpoint(
    model: keras.Model,
    again: Callable[[], tuple[keras.Model, list]],
    run: Run,
    stage: str,
    checkpoints: Checkpoints,
    batches: Callable[[int], tf.data.Dataset],
    steps: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    after_epoch: Callable[[list[dict]], None] = lambda history: None,
) -> list[dict]:
    """Train up to `epochs` of `steps` each, from the newest checkpoint; returns all epochs' losses.

    It ends earlier if the checkpoints' patience does. After every epoch `after_epoch(history)` is
    called, and then a checkpoint is kept. An epoch that ends in NaN or infinity is not kept; it
    ends the training with an InputError.

    `batches(done)` makes the batches that follow `done` epochs; `again()` makes the model anew, and
    its variables in the order of the checkpoints', for several devices to share. The time goes
    into the record's `durations` under `stage`. Raises InputError if another process is at work in
    the folder, or if one that trains with this one is gone.
    """
    with run.alone(), together():  # a checkpoint may be written, or removed
        done, history = checkpoints.restore()
        if done >= epochs or checkpoints.over(history):
            return history
        title = stage.capitalize().replace("_", " ")
        place = {"initial": done * steps, "total": epochs * steps, "unit": "step"}
        with run.timed(stage), tqdm(desc=title, mininterval=5, file=sys.stdout, **place) as bar:

            def keep(epoch, logs):
                _check_finite(run, epoch + 1, logs, checkpoints.variables)
                history.append({name: float(value) for name, value in logs.items()})
                after_epoch(history)
                checkpoints.save(epoch + 1, history)
                shown = " ".join(f"{name} {value:.3f}" for name, value in history[-1].items())
                bar.set_postfix_str(f"epoch {epoch + 1}, {shown}", refresh=False)

            run.update(status="training")
            recorder = keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: bar.update(), on_epoch_end=keep
            )
            hooks = keras.callbacks.CallbackList(
                [recorder, *callbacks], model=model, epochs=epochs, steps=steps
            )
            devices, stream = strategy(run.preset), iter(batches(done))
            trained, own, step = _on_devices(devices, model, checkpoints.variables, again)
            # What `model.fit` does, which fails on Keras 3 where several machines train.
            hooks.on_train_begin()
            for epoch in range(done, epochs):
                trained.reset_metrics()
                hooks.on_epoch_begin(epoch)
                for number in range(steps):
                    hooks.on_train_batch_begin(number)
                    losses = step(stream)
                    hooks.on_train_batch_end(number)
                logs = {k: float(devices.reduce("MEAN", x, axis=None)) for k, x in losses.items()}
                if trained is not model:
                    _copy(own, checkpoints.variables)
                hooks.on_epoch_end(epoch, logs)
                if checkpoints.over(history):
                    break
            hooks.on_train_end()
    return history


def _check_finite(run: Run, epoch: int, losses: dict[str, float], variables: list) -> None:
    numbers = *losses.values(), *(variable.numpy() for variable in variables)
    if not all(np.isfinite(values).all() for values in numbers):
        warning = (
            "losses or weights are NaN or infinite, so the training was stopped and stands at the "
            "epoch before: start anew with a lower rate."
        )
        run.warn(warning, epoch)
        raise InputError(f"Epoch {epoch}: {warning}")


def _on_devices(
    devices: tf.distribute.Strategy, model: keras.Model, variables: list, again: Callable
) -> tuple[keras.Model, list, Callable]:
    """The model that is trained, its variables, and a function that takes a step with a batch.

    Several devices train another model, whose state is copied into `model` after every epoch:
    everything else is done with `model`, as on one device.
    """
    count = devices.num_replicas_in_sync
    if count == 1:
        model.make_train_function()
        return model, variables, model.train_function
    with devices.scope():
        trained, own = again()
    _copy(variables, own)

    def share(x):  # (N, H, W, 1) -> (N / count, H, W, 1)
        place = tf.distribute.get_replica_context().replica_id_in_sync_group
        part = tf.shape(x)[0] // count
        return x[place * part : (place + 1) * part]

    def train(batch):
        return trained.train_step(tf.nest.map_structure(share, batch))

    return trained, own, tf.function(lambda batches: devices.run(train, (next(batches),)))


def _copy(variables: list, to: list) -> None:
    for source, target in zip(variables, to, strict=True):
        target.assign(source.numpy())
