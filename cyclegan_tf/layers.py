"""Layers the framework lacks; the one place that knows Keras 2 from Keras 3."""

from __future__ import annotations

import warnings

import keras
import tensorflow as tf

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its farewell, at every import
        from tensorflow_addons.layers import InstanceNormalization as ReferenceNormalization
    GROUPS = {}
except ImportError:
    from keras.layers import GroupNormalization as ReferenceNormalization

    GROUPS = {"groups": -1}

FUSED = not tf.config.list_physical_devices("GPU")


@keras.saving.register_keras_serializable("cyclegan_tf")
class InstanceNormalization(ReferenceNormalization):
    """Instance normalisation over (H, W), per image and channel (Ulyanov et al., 2016).

    The weights, values and gradients of `tensorflow_addons.layers.InstanceNormalization` and
    `keras.layers.GroupNormalization(groups=-1)`. On CPU it runs batch normalisation's fused
    kernel on single images, which is the same thing and twice as fast. ε 1e-5, scale from
    N(1, 0.02) and offset 0 are the original experiment's.
    """

    def __init__(self, epsilon: float = 1e-5, gamma_initializer=None, **options):
        if gamma_initializer is None:
            gamma_initializer = keras.initializers.RandomNormal(1.0, 0.02)
        super().__init__(epsilon=epsilon, gamma_initializer=gamma_initializer, **GROUPS, **options)

    def get_config(self):
        config = super().get_config()
        del config["groups"]
        return config

    def call(self, inputs):
        if not FUSED:
            return super().call(inputs)
        images = tf.split(inputs, inputs.shape[0]) if inputs.shape[0] else [_fold(inputs)]
        outputs = tf.concat([self._fused(image) for image in images], axis=0)
        return outputs if inputs.shape[0] else _unfold(outputs, tf.shape(inputs))

    def _fused(self, image):
        repeats = tf.shape(image)[3] // self.gamma.shape[0]
        return tf.raw_ops.FusedBatchNormV3(
            x=image,
            scale=tf.tile(tf.cast(self.gamma, tf.float32), [repeats]),
            offset=tf.tile(tf.cast(self.beta, tf.float32), [repeats]),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            is_training=True,
        ).y


def _fold(images):
    """(N, H, W, C) → (1, H, W, N·C): a batch of unknown size as the channels of one image."""
    shape = tf.shape(images)
    return tf.reshape(tf.transpose(images, [1, 2, 0, 3]), [1, shape[1], shape[2], -1])


def _unfold(folded, shape):
    images = tf.reshape(folded, [shape[1], shape[2], shape[0], shape[3]])
    return tf.transpose(images, [2, 0, 1, 3])


@keras.saving.register_keras_serializable("cyclegan_tf")
class SpaceToDepth(keras.layers.Layer):
    """(N, H, W, C) → (N, H/2, W/2, 4·C): halves an image and loses nothing."""

    def call(self, inputs):
        return tf.nn.space_to_depth(inputs, 2)

    def compute_output_shape(self, shape):
        return (shape[0], shape[1] and shape[1] // 2, shape[2] and shape[2] // 2, 4 * shape[3])


@keras.saving.register_keras_serializable("cyclegan_tf")
class DepthToSpace(keras.layers.Layer):
    """(N, H, W, 4·C) → (N, 2·H, 2·W, C): the inverse of SpaceToDepth (Shi et al., 2016)."""

    def call(self, inputs):
        return tf.nn.depth_to_space(inputs, 2)

    def compute_output_shape(self, shape):
        return (shape[0], shape[1] and shape[1] * 2, shape[2] and shape[2] * 2, shape[3] // 4)
