"""Learning rates: the linear decay of CycleGAN, and what the original's code made of it."""

from __future__ import annotations

import keras
import tensorflow as tf

from .presets import PUBLISHED_EPOCH, PUBLISHED_STEPS, published_rate


@keras.saving.register_keras_serializable("cyclegan_tf")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`rate` up to step `start`, then linearly down to 0 at step `end` (CycleGAN, section 4)."""

    def __init__(self, rate: float, start: int, end: int):
        self.rate, self.start, self.end = rate, start, end

    def __call__(self, step):
        left = (self.end - tf.cast(step, tf.float32)) / max(self.end - self.start, 1)
        return self.rate * tf.clip_by_value(left, 0.0, 1.0)

    def get_config(self):
        return {"rate": self.rate, "start": self.start, "end": self.end}


class PublishedRate(keras.optimizers.schedules.LearningRateSchedule):
    """The rate that the original's code computed from epoch 146 on, which is step `begun` here."""

    def __init__(self, begun: int, steps: int):
        first = PUBLISHED_EPOCH * PUBLISHED_STEPS
        self.begun = begun
        self.rates = [published_rate(step) for step in range(first, first + steps)]

    def __call__(self, step):
        # Keras asks once for the rate of step 0, whatever step it goes on from.
        return tf.gather(self.rates, tf.maximum(tf.cast(step, tf.int32) - self.begun, 0))
