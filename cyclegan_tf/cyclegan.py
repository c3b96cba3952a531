"""CycleGAN as a Keras model: two generators, two discriminators and one training step."""

from __future__ import annotations

import keras
import tensorflow as tf

from . import losses


class CycleGAN(keras.Model):
    """Unpaired translation between T1w and T2w images (Zhu et al., ICCV 2017).

    `t1_to_t2` and `t2_to_t1` are the paper's G and F, `discriminator_t1` and `discriminator_t2`
    its D_X and D_Y. A batch is `(real_t1, real_t2)`, images (N, H, W, 1) in [-1, 1], and where
    `simulation_weight` is not 0 `(real_t1, real_t2, simulated_t1, simulated_t2)`, the last two
    true pairs. A term of weight 0 is left out of the step.

    `micro_batch` is how many pairs go through the networks at once, for want of memory; it divides
    the batch. As instance normalisation does not mix images, the step is the same to rounding.
    None takes the whole batch.
    """

    def __init__(
        self,
        t1_to_t2: keras.Model,
        t2_to_t1: keras.Model,
        discriminator_t1: keras.Model,
        discriminator_t2: keras.Model,
        cycle_weight: float,
        identity_weight: float,
        simulation_weight: float = 0.0,
        micro_batch: int | None = None,
    ):
        super().__init__()
        self.t1_to_t2 = t1_to_t2
        self.t2_to_t1 = t2_to_t1
        self.discriminator_t1 = discriminator_t1
        self.discriminator_t2 = discriminator_t2
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight
        self.simulation_weight = simulation_weight
        self.micro_batch = micro_batch
        names = ["generator", "adversarial", "cycle", "discriminator_t1", "discriminator_t2"]
        names += ["identity"] * bool(identity_weight) + ["simulation"] * bool(simulation_weight)
        self.means = {name: keras.metrics.Mean(f"{name}_loss") for name in names}
        self.built = True

    def compile(self, generator_optimizer, discriminator_optimizer):
        """One optimiser over both generators, one over both discriminators, as published."""
        super().compile(optimizer=generator_optimizer)
        self.discriminator_optimizer = discriminator_optimizer
        # Unbuilt optimisers would take a restored state for granted and lose it.
        generator_optimizer.build(self.generator_variables)
        discriminator_optimizer.build(self.discriminator_variables)

    @property
    def networks(self) -> list[keras.Model]:
        return [self.t1_to_t2, self.t2_to_t1, self.discriminator_t1, self.discriminator_t2]

    @property
    def generator_variables(self) -> list:
        return self.t1_to_t2.trainable_variables + self.t2_to_t1.trainable_variables

    @property
    def discriminator_variables(self) -> list:
        return self.discriminator_t1.trainable_variables + self.discriminator_t2.trainable_variables

    @property
    def metrics(self) -> list:
        return list(self.means.values())

    def train_step(self, data):
        if self.micro_batch in (None, data[0].shape[0]):
            values, gradients = self.losses_and_gradients(data)
        else:
            values, gradients = self._means_over_parts(data)
        for optimizer, slopes, variables in (
            (self.optimizer, gradients[0], self.generator_variables),
            (self.discriminator_optimizer, gradients[1], self.discriminator_variables),
        ):
            optimizer.apply_gradients(zip(slopes, variables, strict=True))
        for name, mean in self.means.items():
            mean.update_state(values[name])
        return {name: mean.result() for name, mean in self.means.items()}

    def each(self, network: keras.Model, images: list[tf.Tensor]) -> list[tf.Tensor]:
        """The network's outputs for each of `images`, from one call on all of them."""
        return tf.split(network(tf.concat(images, axis=0), training=True), len(images))

    def losses_and_gradients(self, data) -> tuple[dict[str, tf.Tensor], tuple[list, list]]:
        """Every loss of a batch, and the gradients of the generators and of the discriminators."""
        real_t1, real_t2, *simulated = data
        to_t2, to_t1 = [real_t1], [real_t2]
        if self.identity_weight:
            to_t2.append(real_t2)
            to_t1.append(real_t1)
        if self.simulation_weight:
            simulated_t1, simulated_t2 = simulated
            to_t2.append(simulated_t1)
            to_t1.append(simulated_t2)

        with tf.GradientTape(persistent=True) as tape:
            fake_t2, *known_t2 = self.each(self.t1_to_t2, to_t2)
            fake_t1, *known_t1 = self.each(self.t2_to_t1, to_t1)
            cycled_t2 = self.t1_to_t2(fake_t1, training=True)
            cycled_t1 = self.t2_to_t1(fake_t2, training=True)
            real_t1_scores = self.discriminator_t1(real_t1, training=True)
            fake_t1_scores = self.discriminator_t1(fake_t1, training=True)
            real_t2_scores = self.discriminator_t2(real_t2, training=True)
            fake_t2_scores = self.discriminator_t2(fake_t2, training=True)

            values = {
                "adversarial": losses.adversarial_loss(fake_t1_scores)
                + losses.adversarial_loss(fake_t2_scores),
                "cycle": losses.cycle_loss(real_t1, cycled_t1)
                + losses.cycle_loss(real_t2, cycled_t2),
                "discriminator_t1": losses.discriminator_loss(real_t1_scores, fake_t1_scores),
                "discriminator_t2": losses.discriminator_loss(real_t2_scores, fake_t2_scores),
            }
            generator_loss = values["adversarial"] + self.cycle_weight * values["cycle"]
            if self.identity_weight:
                same_t2, same_t1 = known_t2.pop(0), known_t1.pop(0)
                values["identity"] = losses.identity_loss(real_t1, same_t1)
                values["identity"] += losses.identity_loss(real_t2, same_t2)
                generator_loss += self.identity_weight * values["identity"]
            if self.simulation_weight:
                values["simulation"] = losses.simulation_loss(simulated_t1, known_t1.pop())
                values["simulation"] += losses.simulation_loss(simulated_t2, known_t2.pop())
                generator_loss += self.simulation_weight * values["simulation"]
            discriminator_loss = values["discriminator_t1"] + values["discriminator_t2"]

        values["generator"] = generator_loss
        return values, (
            tape.gradient(generator_loss, self.generator_variables),
            tape.gradient(discriminator_loss, self.discriminator_variables),
        )

    def _means_over_parts(self, data):
        """`losses_and_gradients` of one part of the batch after the other, averaged."""
        size = self.micro_batch
        parts = tuple(tf.reshape(images, [-1, size, *images.shape[1:]]) for images in data)
        zeros = tf.nest.map_structure(
            lambda variable: tf.zeros(variable.shape),
            (self.generator_variables, self.discriminator_variables),
        )
        sums = tf.foldl(
            lambda sums, part: tf.nest.map_structure(tf.add, sums, self.losses_and_gradients(part)),
            parts,
            (dict.fromkeys(self.means, tf.zeros([])), zeros),
            parallel_iterations=1,
        )
        count = tf.cast(tf.shape(parts[0])[0], tf.float32)
        return tf.nest.map_structure(lambda total: total / count, sums)
