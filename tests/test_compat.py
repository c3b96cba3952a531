import keras
import numpy as np
import tensorflow as tf

from cyclegan_tf.compat import Adam, LeakyReLU

SHAPES = [(3, 3, 4, 8), (8,), (1, 1, 8, 2)]


def rate():
    return keras.optimizers.schedules.ExponentialDecay(1e-2, 2, 0.5)


def optimised(optimizer, steps):
    """Weights and state after `steps` on the same gradients of very different sizes."""
    rng = np.random.default_rng(1)
    weights = [tf.Variable(rng.normal(size=shape).astype("float32")) for shape in SHAPES]
    optimizer.build(weights)
    apply = tf.function(
        lambda gradients: optimizer.apply_gradients(zip(gradients, weights, strict=True))
    )
    for _ in range(steps):
        scale = 10.0 ** rng.integers(-6, 2)
        apply([tf.constant((scale * rng.normal(size=shape)).astype("float32")) for shape in SHAPES])
    return [*weights, *optimizer.variables]


def test_adam_takes_the_steps_of_keras_and_keeps_its_state_in_the_same_order():
    found = optimised(Adam(rate(), beta_1=0.5), 7)
    expected = optimised(keras.optimizers.Adam(rate(), beta_1=0.5), 7)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        # 1 - 0.999 in float32 is known to 1.3e-5 of itself.
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-6)


def test_leaky_relu_in_bfloat16_is_that_of_float32_rounded_and_so_is_its_gradient():
    x = tf.cast(np.linspace(-3, 3, 200, dtype="float32"), tf.bfloat16)
    layer = LeakyReLU()
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    exact = np.array(tf.cast(x, tf.float32))
    exact = np.where(exact > 0, exact, 0.3 * exact)  # 0.3: Keras's default, as published
    np.testing.assert_allclose(tf.cast(y, tf.float32), exact, rtol=2**-7)
    slope = np.where(exact > 0, 1, 0.3)
    np.testing.assert_allclose(tf.cast(tape.gradient(y, x), tf.float32), slope, rtol=2**-7)
