"""The algorithm in small, for notebook 02: on one slice, and in a minute's training."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import getsource
from textwrap import dedent
from typing import Any

import keras
import numpy as np
from IPython.display import Code, Markdown
from matplotlib.figure import Figure
from tqdm import tqdm

from ..contrasts import NAMES
from ..cyclegan import CycleGAN
from ..dataset.sets import Sets
from ..learning.batches import unpaired_batches
from ..learning.schedules import PublishedRate
from ..presets import PUBLISHED_EPOCH, PUBLISHED_STEPS, get_preset, published_rate
from ..runs import Run
from ..training import compiled_cyclegan, watched_images
from . import figures
from .report import markdown_table

SLICES = 16  # of each contrast, to learn from
EPOCHS = 3  # at the original's rate, of PUBLISHED_STEPS each
SMALL = {  # of preset `paper`, a four-hundredth of the arithmetic and more
    "filters": 16,
    "blocks": 3,
    "discriminator_filters": 16,
    "size": 64,
    "batch_size": 1,
    "learning_rate": 1e-3,
}
NONE = "Nothing is practised here: `practice_steps` is 0."


def show_source(*functions) -> Code:
    """The source of functions as they run here, highlighted."""
    return Code("\n\n".join(dedent(getsource(x)) for x in functions), language="python")


def shapes_on_the_way(network: keras.Model, image: np.ndarray) -> str:
    """A Markdown table: what each layer makes of `image` (1, H, W, 1), and its weights."""
    outputs = keras.Model(network.inputs[0], [layer.output for layer in network.layers])(image)
    rows = [
        (type(layer).__name__, " × ".join(map(str, x.shape[1:])), f"{layer.count_params():,}")
        for layer, x in zip(network.layers, outputs, strict=True)
    ]
    return markdown_table([("layer", "height × width × channels", "weights"), *rows])


def one_step(model: CycleGAN, *batch: np.ndarray) -> str:
    """A Markdown table: the losses of a batch before and after one training step on it."""
    before, *_ = model.losses_and_gradients(*batch)
    model.train_step(batch)
    after, *_ = model.losses_and_gradients(*batch)
    rows = [(name, f"{before[name]:.4f}", f"{after[name]:.4f}") for name in before]
    return markdown_table([("loss", "before the step", "after it"), *rows])


class Practice:
    """Small networks of the published form, and small slices of a run's, to try things on.

    `settings` are those of a preset. After `practice_steps` steps it is as if epoch 145 of the
    original had ended: what is trained further is trained at its rate. Nothing of the run is
    changed. If `practice_steps` is 0 there are no networks, and nothing takes any time.
    """

    def __init__(self, sets: Sets, **settings):
        names = {"source": NAMES[sets.contrasts.x], "target": NAMES[sets.contrasts.y]}
        self.preset = get_preset("paper", SMALL | names | settings)
        frame = replace(sets.frame, fit="resize", height=self.preset.size, width=self.preset.size)
        x, y = (replace(one, frame=frame) for one in (sets.x, sets.y))
        self.sets = replace(sets, x=x, y=y)
        self.model: CycleGAN | None = None
        if self.preset.practice_steps:
            rate = PublishedRate(self.preset.learning_rate, self.preset.practice_steps)
            self.model = compiled_cyclegan(self.preset, rate)
        self.done = 0  # steps
        self.x, self.y = (
            x[np.linspace(0, len(x) - 1, min(len(x), SLICES), dtype=int)] for x in self.sets.train
        )
        """Float32 (up to SLICES, size, size, 1)."""

    def look(self, show: Callable[[CycleGAN, np.ndarray, np.ndarray], Any]) -> Any:
        """What `show` makes of the model and a slice of each contrast, (1, size, size, 1)."""
        return show(self.model, self.x[:1], self.y[:1]) if self.model else Markdown(NONE)

    def train(self, steps: int | None = None) -> dict[str, np.ndarray]:
        """Train on, unpaired, `practice_steps` unless told; returns the `watched_images`.

        If `practice_steps` is 0 there are none.
        """
        if not self.model:
            return {}
        steps = steps or self.preset.practice_steps
        first, self.done = self.done, self.done + steps
        batches = unpaired_batches(self.x, self.y, self.preset, first, self.done)
        with tqdm(desc="Practice", total=steps, unit="step", mininterval=5, file=sys.stdout) as bar:
            step = keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: bar.update()
            )
            self.model.fit(batches, callbacks=[step], shuffle=False, verbose=0)
        return watched_images(self.model, self.sets)


def try_published_rate(practice: Practice) -> dict[str, dict[str, np.ndarray]]:
    """`watched_images` by title: of networks that have practised, then at the original's rate.

    At that rate they go on for EPOCHS. Of networks that have not practised there are none.
    """
    if not practice.model:
        return {}
    images = {"as trained": watched_images(practice.model, practice.sets)}
    for epoch in range(PUBLISHED_EPOCH + 1, PUBLISHED_EPOCH + EPOCHS + 1):
        rate = published_rate(epoch * PUBLISHED_STEPS - 1)
        images[f"epoch {epoch}, rate to {rate:.4f}"] = practice.train(PUBLISHED_STEPS)
    return images


def show_tried(
    run: Run, name: str, heading: str, titled: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure | Markdown:
    """`figures.tried` of what was practised, by title."""
    practised = {title: images for title, images in titled.items() if images}
    return figures.tried(run, name, heading, practised) if practised else Markdown(NONE)
