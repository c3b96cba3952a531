"""CycleGAN as a Keras model: two generators, two discriminators and one training step."""

import keras
import tensorflow as tf

from .losses import (
    adversarial_loss,
    cycle_loss,
    discriminator_loss,
    identity_loss,
    simulation_loss,
)


class CycleGAN(keras.Model):
    """Unpaired translation between T1w and T2w images (Zhu et al., ICCV 2017).

    `t1_to_t2` and `t2_to_t1` are the paper's G and F, `discriminator_t1` and `discriminator_t2`
    its D_X and D_Y. A batch is `(real_t1, real_t2)`, images (N, H, W, 1) in [-1, 1], and where
    `simulation_weight` is not 0 `(real_t1, real_t2, simulated_t1, simulated_t2, wanted_t1,
    wanted_t2)`: the same simulated slices as scanners give them and as they are to be drawn. A term
    of weight 0 is left out of the step.

    `micro_batch` is how many pairs go through the networks at once, to save memory; it must divide
    the batch size. Instance normalisation does not mix images, so the step is the same to rounding.
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
        self.t1_to_t2, self.t2_to_t1 = t1_to_t2, t2_to_t1
        self.discriminator_t1, self.discriminator_t2 = discriminator_t1, discriminator_t2
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
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

    def train_step(self, batch):
        if self.micro_batch in (None, batch[0].shape[0]):
            losses, *gradients = self.losses_and_gradients(*batch)
        else:
            losses, *gradients = self._means_over_parts(batch)
        generators, discriminators = gradients
        self.optimizer.apply_gradients(zip(generators, self.generator_variables, strict=True))
        self.discriminator_optimizer.apply_gradients(
            zip(discriminators, self.discriminator_variables, strict=True)
        )
        for name, mean in self.means.items():
            mean.update_state(losses[name])
        return {name: mean.result() for name, mean in self.means.items()}

    def losses_and_gradients(
        self,
        real_t1,
        real_t2,
        simulated_t1=None,
        simulated_t2=None,
        wanted_t1=None,
        wanted_t2=None,
    ):
        """One pass through the algorithm of CycleGAN, for images (N, H, W, 1).

        Returns the losses by name, the gradients of the generators' variables and those of the
        discriminators'.
        """
        with tf.GradientTape(persistent=True) as tape:
            # Each generator translates and, where these losses have a weight, sees an image of its
            # own target contrast (identity) and the source of a simulated pair.
            own_t1, own_t2 = (real_t1, real_t2) if self.identity_weight else (None, None)
            fake_t2, same_t2, learned_t2 = self.join(self.t1_to_t2, real_t1, own_t2, simulated_t1)
            fake_t1, same_t1, learned_t1 = self.join(self.t2_to_t1, real_t2, own_t1, simulated_t2)
            cycled_t1 = self.t2_to_t1(fake_t2, training=True)
            cycled_t2 = self.t1_to_t2(fake_t1, training=True)

            real_t1_scores = self.discriminator_t1(real_t1, training=True)
            fake_t1_scores = self.discriminator_t1(fake_t1, training=True)
            real_t2_scores = self.discriminator_t2(real_t2, training=True)
            fake_t2_scores = self.discriminator_t2(fake_t2, training=True)

            adversarial = adversarial_loss(fake_t1_scores) + adversarial_loss(fake_t2_scores)
            cycle = cycle_loss(real_t1, cycled_t1) + cycle_loss(real_t2, cycled_t2)
            generator = adversarial + self.cycle_weight * cycle
            losses = {"adversarial": adversarial, "cycle": cycle}
            if self.identity_weight:
                identity = identity_loss(real_t1, same_t1) + identity_loss(real_t2, same_t2)
                generator += self.identity_weight * identity
                losses["identity"] = identity
            if self.simulation_weight:
                simulation = simulation_loss(wanted_t1, learned_t1)
                simulation += simulation_loss(wanted_t2, learned_t2)
                generator += self.simulation_weight * simulation
                losses["simulation"] = simulation
            losses["discriminator_t1"] = discriminator_loss(real_t1_scores, fake_t1_scores)
            losses["discriminator_t2"] = discriminator_loss(real_t2_scores, fake_t2_scores)
            discriminator = losses["discriminator_t1"] + losses["discriminator_t2"]

        return (
            losses | {"generator": generator},
            tape.gradient(generator, self.generator_variables),
            tape.gradient(discriminator, self.discriminator_variables),
        )

    def join(self, network: keras.Model, *images: tf.Tensor | None) -> list[tf.Tensor | None]:
        """The network's output for each of the images, from one call; None for None."""
        present = [x for x in images if x is not None]
        # (N, H, W, 1) each -> (n N, H, W, 1) -> (N, H, W, 1) each
        outputs = iter(tf.split(network(tf.concat(present, 0), training=True), len(present)))
        return [None if x is None else next(outputs) for x in images]

    def _means_over_parts(self, batch):
        """What `losses_and_gradients` returns, averaged over the parts of a batch."""
        # (N, H, W, 1) -> (parts, micro_batch, H, W, 1)
        parts = [tf.reshape(x, [-1, self.micro_batch, *x.shape[1:]]) for x in batch]
        gradients = tf.nest.map_structure(
            lambda variable: tf.zeros(variable.shape),
            (self.generator_variables, self.discriminator_variables),
        )
        sums = tf.foldl(
            lambda sums, part: tf.nest.map_structure(
                tf.add, sums, self.losses_and_gradients(*part)
            ),
            parts,
            (dict.fromkeys(self.means, tf.zeros([])), *gradients),
            parallel_iterations=1,
        )
        count = tf.cast(tf.shape(parts[0])[0], tf.float32)
        return tf.nest.map_structure(lambda total: total / count, sums)
