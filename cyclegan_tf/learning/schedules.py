"""Learning rates: the linear decay of CycleGAN, and what the original's code made of it."""

import keras
import tensorflow as tf

from ..presets import PUBLISHED_EPOCH, PUBLISHED_STEPS, published_rate


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
    """`rate` up to step `begun`, then what the original's code computed from epoch 146 on."""

    def __init__(self, rate: float, begun: int):
        self.rate, self.begun = rate, begun

    def __call__(self, step):
        since = tf.cast(step, tf.float32) - self.begun
        published = published_rate(since + PUBLISHED_EPOCH * PUBLISHED_STEPS, tf.where)
        return tf.where(since < 0, self.rate, published)
