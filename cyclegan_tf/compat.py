"""What differs between Keras 2 with TensorFlow Addons and Keras 3; nothing else knows of it."""

import warnings
from functools import partial

import keras
import tensorflow as tf
from keras.layers import LeakyReLU

ON_CPU = not tf.config.list_physical_devices("GPU")

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its farewell, at every import
        from tensorflow_addons.layers import InstanceNormalization as ReferenceNormalization
    GROUPS = {}
    if ON_CPU:
        # In bfloat16 its gradient takes TensorFlow 2.15 four times as long as in float32.
        LeakyReLU = partial(LeakyReLU, dtype="float32")
except ImportError:
    ReferenceNormalization = keras.layers.GroupNormalization
    GROUPS = {"groups": -1}


class Adam(keras.optimizers.Adam):
    """Keras's Adam (Kingma & Ba, 2015) in one kernel a variable instead of ten operations.

    For dense gradients, without AMSGrad. Its state has the same variables in the same order.
    """

    def update_step(self, gradient, variable, learning_rate=None):
        if GROUPS:
            index = self._get_variable_index(variable)
            moments = [slots[index].value for slots in (self._momentums, self._velocities)]
        else:
            index = self._index_dict[self._var_key(variable)]
            moments = [slots[index] for slots in (self._momentums, self._velocities)]
            learning_rate = self.learning_rate
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=moments[0].handle,
            v=moments[1].handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
