"""Layers that Keras does not have."""

import keras
import tensorflow as tf

from .compat import GROUPS, ON_CPU, ReferenceNormalization


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
        if not ON_CPU:
            return super().call(inputs)
        weights = tf.cast(self.gamma, tf.float32), tf.cast(self.beta, tf.float32)
        if inputs.shape[0]:
            images = tf.split(inputs, inputs.shape[0])
            return tf.concat([self._fused(image, *weights) for image in images], axis=0)
        # A batch of unknown size as the channels of one image, and back:
        # (N, H, W, C) -> (H, W, N, C) -> (1, H, W, N C) -> (H, W, N, C) -> (N, H, W, C)
        aside = tf.transpose(inputs, [1, 2, 0, 3])
        shape = tf.shape(aside)
        repeated = (tf.tile(weight, shape[2:3]) for weight in weights)
        image = tf.reshape(aside, [1, shape[0], shape[1], -1])
        return tf.transpose(tf.reshape(self._fused(image, *repeated), shape), [2, 0, 1, 3])

    def _fused(self, image, scale, offset):
        inputs = {"x": image, "scale": scale, "offset": offset, "epsilon": self.epsilon}
        unknown = {"mean": tf.zeros([0]), "variance": tf.zeros([0]), "is_training": True}
        return tf.raw_ops.FusedBatchNormV3(**inputs, **unknown, exponential_avg_factor=1.0).y


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
        return _doubled(shape, shape[3] // 4)


def _doubled(shape, channels):
    """The shape of images of twice the height and width, either of which may be unknown."""
    count, height, width, _ = shape
    return (count, height and 2 * height, width and 2 * width, channels)


class _Convolution(keras.layers.Layer):
    """A convolution: `plain` defines it in the framework's operations, `convolve` computes it."""

    use_bias = True

    def __init__(self, filters: int, kernel_size: int, kernel_initializer, **options):
        super().__init__(**options)
        self.filters, self.kernel_size = filters, kernel_size
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        own = {"filters": self.filters, "kernel_size": self.kernel_size}
        return super().get_config() | own | {"kernel_initializer": initializer}

    def build(self, shapes):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, *self.channels(shapes)),
            initializer=self.kernel_initializer,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        self.built = True  # or Keras 2 builds it again when it is loaded

    def call(self, inputs):
        kernel = tf.cast(self.kernel, self.compute_dtype)
        x = self.convolve(kernel, *tf.nest.flatten(inputs))
        return tf.nn.bias_add(x, tf.cast(self.bias, x.dtype)) if self.use_bias else x


@keras.saving.register_keras_serializable("cyclegan_tf")
class ConcatConv2D(_Convolution):
    """Convolution of several inputs side by side: (N, H, W, C1), (N, H, W, C2), … → (N, H, W, F).

    The weights, values and gradients of `keras.layers.Concatenate` and `keras.layers.Conv2D` with
    padding "same" and a bias. Training keeps the inputs, which are kept anyway, and not their
    concatenation (Pleiss et al., 2017). It computes the kernel's gradient for one input after the
    other, as a CPU is slow with thousands of channels at once (notebook 06: `paper in float32`).
    """

    def channels(self, shapes):
        return sum(shape[-1] for shape in shapes), self.filters

    @staticmethod
    def plain(kernel, *inputs):
        return tf.nn.conv2d(tf.concat(inputs, axis=-1), kernel, 1, "SAME")

    @staticmethod
    @tf.custom_gradient
    def convolve(kernel, *inputs):
        def gradients(by_output):
            channels = [x.shape[-1] for x in inputs]
            shape = tf.concat([tf.shape(by_output)[:3], [sum(channels)]], axis=0)
            by_inputs = tf.nn.conv2d_transpose(by_output, kernel, shape, 1)
            by_kernel = [
                _by_kernel(x, [*kernel.shape[:2], x.shape[-1], by_output.shape[-1]], by_output, 1)
                for x in inputs
            ]
            return tf.concat(by_kernel, axis=2), *tf.split(by_inputs, channels, axis=-1)

        return ConcatConv2D.plain(kernel, *inputs), gradients

    def compute_output_shape(self, shapes):
        return (*shapes[0][:-1], self.filters)


@keras.saving.register_keras_serializable("cyclegan_tf")
class ConcatConv2DTranspose(_Convolution):
    """Like ConcatConv2D for `keras.layers.Conv2DTranspose` of stride 2: → (N, 2·H, 2·W, F).

    Without a bias, and the kernel's gradient from all inputs at once.
    """

    use_bias = False

    def channels(self, shapes):
        return self.filters, sum(shape[-1] for shape in shapes)

    @staticmethod
    def plain(kernel, *inputs):
        count, height, width, _ = tf.unstack(tf.shape(inputs[0]))
        shape = [count, 2 * height, 2 * width, kernel.shape[2]]
        return tf.nn.conv2d_transpose(tf.concat(inputs, axis=-1), kernel, shape, 2)

    @staticmethod
    @tf.custom_gradient
    def convolve(kernel, *inputs):
        def gradients(by_output):
            with tf.control_dependencies([by_output]):  # else the graph would keep the first one
                joint = tf.concat(inputs, axis=-1)
            by_inputs = tf.nn.conv2d(by_output, kernel, 2, "SAME")
            by_kernel = _by_kernel(by_output, kernel.shape, joint, 2)
            return by_kernel, *tf.split(by_inputs, [x.shape[-1] for x in inputs], axis=-1)

        return ConcatConv2DTranspose.plain(kernel, *inputs), gradients

    def compute_output_shape(self, shapes):
        return _doubled(shapes[0], self.filters)


def _by_kernel(x, shape, by_output, stride):
    """The gradient of a convolution's kernel of `shape`."""
    options = {"filter_sizes": shape, "strides": [1, stride, stride, 1], "padding": "SAME"}
    return tf.raw_ops.Conv2DBackpropFilter(input=x, out_backprop=by_output, **options)


@keras.saving.register_keras_serializable("cyclegan_tf")
class DepthToSpaceConv2D(_Convolution):
    """DepthToSpace and a 5 × 5 convolution: (N, H, W, 4·C) → (N, 2·H, 2·W, F).

    The weights, values and gradients of `DepthToSpace` and `keras.layers.Conv2D` with padding
    "same"; `kernel_size` is 5. It is computed at half the resolution, by 3 × 3 kernels for the
    four places of a pixel: 1.4 times the arithmetic, but enough channels to keep a processor busy.
    """

    def channels(self, shape):
        return shape[-1] // 4, self.filters

    @staticmethod
    def plain(kernel, x):
        return tf.nn.conv2d(tf.nn.depth_to_space(x, 2), kernel, 1, "SAME")

    @staticmethod
    def convolve(kernel, x):
        channels, filters = kernel.shape[2:]
        places = [(row, column) for row in range(2) for column in range(2)]
        shifted = [tf.pad(kernel, [(i, 1 - i), (j, 1 - j), (0, 0), (0, 0)]) for i, j in places]
        # four of (6, 6, C, F) -> (3, 2, 3, 2, C, 4 F) -> (3, 3, 2, 2, C, 4 F) -> (3, 3, 4 C, 4 F)
        coarse = tf.reshape(tf.stack(shifted, axis=3), [3, 2, 3, 2, channels, 4 * filters])
        coarse = tf.transpose(coarse, [0, 2, 1, 3, 4, 5])
        coarse = tf.reshape(coarse, [3, 3, 4 * channels, 4 * filters])
        return tf.nn.depth_to_space(tf.nn.conv2d(x, coarse, 1, "SAME"), 2)

    def compute_output_shape(self, shape):
        return _doubled(shape, self.filters)
