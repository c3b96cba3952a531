"""The original experiment, transcribed in plain TensorFlow operations to test the library against.

A network is a function of its weights: a list of tensors in the order of its layers, kernel before
bias, scale before offset. As published but for one thing: the four losses of a step are written
out once, where the notebook repeats them. Nothing here is meant to be fast.
"""

import math

import tensorflow as tf

CYCLE_WEIGHT, IDENTITY_WEIGHT = 10.0, 0.5
RATE, BETA_1, BETA_2, EPSILON = 2e-4, 0.5, 0.999, 1e-7
EPOCHS, DECAY_EPOCH = 200, 100


def convolve(x, kernel, strides=1, padding="SAME"):
    return tf.nn.conv2d(x, kernel, strides, padding)


def convolve_transpose(x, kernel):
    n, h, w, _ = x.shape
    return tf.nn.conv2d_transpose(x, kernel, [n, 2 * h, 2 * w, kernel.shape[2]], 2, "SAME")


def instance_norm(x, scale, offset):
    mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-5) * scale + offset


def leaky_relu(x):
    return tf.nn.leaky_relu(x, 0.3)


def pad(x):
    return tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])


def generator(weights, x, blocks):
    w = iter(weights).__next__
    x = convolve(x, w()) + w()
    for _ in range(2):
        x = leaky_relu(instance_norm(convolve(x, w(), 2), w(), w()))
    for _ in range(blocks):
        branch = tf.nn.relu(instance_norm(convolve(x, w()) + w(), w(), w()))
        branch = instance_norm(convolve(branch, w()) + w(), w(), w())
        x = tf.concat([branch, x], axis=-1)
    for _ in range(2):
        x = tf.nn.relu(instance_norm(convolve_transpose(x, w()), w(), w()))
    return tf.tanh(convolve(x, w()) + w())


def discriminator(weights, x):
    w = iter(weights).__next__
    x = leaky_relu(convolve(x, w(), 2))
    for _ in range(2):
        x = leaky_relu(instance_norm(convolve(x, w(), 2), w(), w()))
    x = leaky_relu(instance_norm(convolve(pad(x), w(), padding="VALID"), w(), w()))
    return convolve(pad(x), w(), padding="VALID") + w()


def gradients(weights, x, y, blocks):
    """Losses and gradients of one step; `weights` are those of G, F, D_X and D_Y."""
    weights = g, f, d_x, d_y = tf.nest.map_structure(tf.convert_to_tensor, weights)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(weights)
        fake_y, fake_x = generator(g, x, blocks), generator(f, y, blocks)
        cycled_x, cycled_y = generator(f, fake_y, blocks), generator(g, fake_x, blocks)
        same_x, same_y = generator(f, x, blocks), generator(g, y, blocks)
        real_x_score, real_y_score = discriminator(d_x, x), discriminator(d_y, y)
        fake_x_score, fake_y_score = discriminator(d_x, fake_x), discriminator(d_y, fake_y)

        cycle_x, cycle_y = mean_absolute(x - cycled_x), mean_absolute(y - cycled_y)
        identity_x, identity_y = mean_absolute(x - same_x), mean_absolute(y - same_y)
        both_cycles = CYCLE_WEIGHT * cycle_x + CYCLE_WEIGHT * cycle_y
        total_g = mean_square(fake_y_score - 1) + both_cycles + IDENTITY_WEIGHT * identity_y
        total_f = mean_square(fake_x_score - 1) + both_cycles + IDENTITY_WEIGHT * identity_x
        generators = total_g + total_f
        loss_x = 0.5 * (mean_square(real_x_score - 1) + mean_square(fake_x_score))
        loss_y = 0.5 * (mean_square(real_y_score - 1) + mean_square(fake_y_score))
    losses = {
        "generator": generators,
        "discriminator_t1": loss_x,
        "discriminator_t2": loss_y,
        "cycle": cycle_x + cycle_y,
        "identity": identity_x + identity_y,
    }
    of_each = (generators, generators, loss_x, loss_y)
    return losses, [tape.gradient(loss, w) for loss, w in zip(of_each, weights, strict=True)]


def mean_absolute(x):
    return tf.reduce_mean(tf.abs(x))


def mean_square(x):
    return tf.reduce_mean(tf.square(x))


class Adam:
    """Kingma & Ba, 2015, in the form with the bias corrections in the rate, for one tensor."""

    def __init__(self):
        self.step, self.mean, self.square = 0, 0.0, 0.0

    def __call__(self, weight, gradient):
        self.step += 1
        self.mean = BETA_1 * self.mean + (1 - BETA_1) * gradient
        self.square = BETA_2 * self.square + (1 - BETA_2) * gradient**2
        rate = RATE * math.sqrt(1 - BETA_2**self.step) / (1 - BETA_1**self.step)
        return weight - rate * self.mean / (tf.sqrt(self.square) + EPSILON)


def train(weights, batches, blocks):
    """The weights of G, F, D_X and D_Y after one step on each of `batches` (x, y)."""
    adams = [[Adam() for _ in network] for network in weights]
    for x, y in batches:
        _, slopes = gradients(weights, x, y, blocks)
        weights = [
            [adam(weight, slope) for adam, weight, slope in zip(*network, strict=True)]
            for network in zip(adams, weights, slopes, strict=True)
        ]
    return weights


def published_rate(step, steps_per_epoch):
    """The learning rate as the notebook computes it: from `start` on it rises without bound."""
    start, total = DECAY_EPOCH * steps_per_epoch, EPOCHS * steps_per_epoch
    if step < start:
        return RATE
    return RATE * (1 - math.floor(1 / (total - start))) * (step - start)


def intended_rate(step, steps_per_epoch):
    """The learning rate that was meant: linearly from RATE at `start` to 0 at the end."""
    start, total = DECAY_EPOCH * steps_per_epoch, EPOCHS * steps_per_epoch
    if step < start:
        return RATE
    return RATE * (1 - 1 / (total - start) * (step - start))
