"""The losses of CycleGAN (Zhu et al., 2017), each beside its equation. All are means: scalars.

G: x → y and F: y → x are the generators, D the discriminator of the contrast at hand.
"""

import tensorflow as tf


def adversarial_loss(fake_scores: tf.Tensor) -> tf.Tensor:
    """Least squares, E[(D(G(x)) − 1)²]: the generator wants its images scored as real."""
    return tf.reduce_mean(tf.square(fake_scores - 1.0))


def discriminator_loss(real_scores: tf.Tensor, fake_scores: tf.Tensor) -> tf.Tensor:
    """½ · (E[(D(y) − 1)²] + E[D(G(x))²]): real images to 1, synthetic ones to 0."""
    return 0.5 * (
        tf.reduce_mean(tf.square(real_scores - 1.0)) + tf.reduce_mean(tf.square(fake_scores))
    )


def cycle_loss(real: tf.Tensor, cycled: tf.Tensor) -> tf.Tensor:
    """E[|F(G(x)) − x|]: there and back again leads to the same image."""
    return tf.reduce_mean(tf.abs(cycled - real))


def identity_loss(real: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
    """E[|G(y) − y|]: what has the contrast keeps it."""
    return tf.reduce_mean(tf.abs(same - real))


def simulation_loss(truth: tf.Tensor, synthetic: tf.Tensor) -> tf.Tensor:
    """E[|G(x) − y|] over simulated pairs (x, y): supervision by physics, not part of CycleGAN."""
    return tf.reduce_mean(tf.abs(synthetic - truth))
