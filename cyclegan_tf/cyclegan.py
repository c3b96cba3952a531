"""CycleGAN as a Keras model: two generators, two discriminators and one training step."""

import keras
import tensorflow as tf

from .losses import adversarial_loss, cycle_loss, discriminator_loss, identity_loss, simulation_loss


class CycleGAN(keras.Model):
    """Unpaired translation between images of two kinds (Zhu et al., ICCV 2017).

    The networks are the paper's: G makes y of x, F makes x of y, and D_x and D_y judge; their
    losses have their names. A batch is `(x, y)`, images (N, H, W, 1) in [-1, 1], and where
    `simulation_weight` is not 0 `(x, y, simulated_x, simulated_y, wanted_x, wanted_y)`: the same
    simulated slices as scanners give them and as they are to be drawn. A term of weight 0 is left
    out of the step.

    `micro_batch` is how many pairs go through the networks at once, to save memory; it must divide
    the batch size. Instance normalisation does not mix images, so the step is the same to rounding.
    None takes the whole batch.
    """

    def __init__(
        self,
        G: keras.Model,
        F: keras.Model,
        D_x: keras.Model,
        D_y: keras.Model,
        cycle_weight: float,
        identity_weight: float,
        simulation_weight: float = 0.0,
        micro_batch: int | None = None,
    ):
        super().__init__()
        self.G, self.F, self.D_x, self.D_y = G, F, D_x, D_y
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.simulation_weight = simulation_weight
        self.micro_batch = micro_batch
        names = ["generator", "adversarial", "cycle", D_x.name, D_y.name]
        names += ["identity"] * bool(identity_weight) + ["simulation"] * bool(simulation_weight)
        self.means = {name: keras.metrics.Mean(f"{name}_loss") for name in names}
        self.built = True

    def compile(self, generator_optimizer, discriminator_optimizer):
        """One optimiser over both generators, one over both discriminators, as published."""
        super().compile(optimizer=generator_optimizer)
        self.discriminator_optimizer = discriminator_optimizer
        # An optimiser that is not built yet would lose a restored state.
        generator_optimizer.build(self.generator_variables)
        discriminator_optimizer.build(self.discriminator_variables)

    @property
    def networks(self) -> list[keras.Model]:
        return [self.G, self.F, self.D_x, self.D_y]

    @property
    def generator_variables(self) -> list:
        return self.G.trainable_variables + self.F.trainable_variables

    @property
    def discriminator_variables(self) -> list:
        return self.D_x.trainable_variables + self.D_y.trainable_variables

    @property
    def metrics(self) -> list:
        return list(self.means.values())

    def train_step(self, batch):
        """One step of the algorithm; returns the losses' means since the epoch began."""
        losses, *gradients = self.over_parts(batch)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:  # whose gradients the optimisers add up
            gradients = tf.nest.map_structure(lambda x: x / replicas, gradients)
        by_generators, by_discriminators = gradients
        steps = zip(by_generators, self.generator_variables, strict=True)
        self.optimizer.apply_gradients(steps)
        steps = zip(by_discriminators, self.discriminator_variables, strict=True)
        self.discriminator_optimizer.apply_gradients(steps)
        for name, mean in self.means.items():
            mean.update_state(losses[name])
        return {name: mean.result() for name, mean in self.means.items()}

    def losses_and_gradients(
        self, x, y, simulated_x=None, simulated_y=None, wanted_x=None, wanted_y=None
    ):
        """The losses of images x and y by name, and what they are to change.

        All images are (N, H, W, 1). Returns with the losses the gradients of the generators'
        variables and those of the discriminators'.
        """
        G, F, D_x, D_y = self.networks
        identity, simulation = self.identity_weight, self.simulation_weight
        with tf.GradientTape(persistent=True) as tape:
            # Translate; with these weights also what has the contrast, and simulated pairs.
            fake_y, same_y, learned_y = self.each(G, x, y if identity else None, simulated_x)
            fake_x, same_x, learned_x = self.each(F, y, x if identity else None, simulated_y)
            # And back again.
            cycled_x, cycled_y = F(fake_y, training=True), G(fake_x, training=True)
            # Judge.
            real_x_scores, fake_x_scores = D_x(x, training=True), D_x(fake_x, training=True)
            real_y_scores, fake_y_scores = D_y(y, training=True), D_y(fake_y, training=True)

            losses = {
                "adversarial": adversarial_loss(fake_x_scores) + adversarial_loss(fake_y_scores),
                "cycle": cycle_loss(x, cycled_x) + cycle_loss(y, cycled_y),
                D_x.name: discriminator_loss(real_x_scores, fake_x_scores),
                D_y.name: discriminator_loss(real_y_scores, fake_y_scores),
            }
            generators = losses["adversarial"] + self.cycle_weight * losses["cycle"]
            if identity:
                losses["identity"] = identity_loss(x, same_x) + identity_loss(y, same_y)
                generators += identity * losses["identity"]
            if simulation:
                losses["simulation"] = simulation_loss(wanted_x, learned_x)
                losses["simulation"] += simulation_loss(wanted_y, learned_y)
                generators += simulation * losses["simulation"]
            discriminators = losses[D_x.name] + losses[D_y.name]

        return (
            losses | {"generator": generators},
            tape.gradient(generators, self.generator_variables),
            tape.gradient(discriminators, self.discriminator_variables),
        )

    def each(self, network: keras.Model, *images: tf.Tensor | None) -> list[tf.Tensor | None]:
        """`network(image)` for each, from one call, which is faster; None for None."""
        given = [image for image in images if image is not None]
        # (N, H, W, 1) each -> (n N, H, W, 1) -> (N, H, W, 1) each
        outputs = iter(tf.split(network(tf.concat(given, 0), training=True), len(given)))
        return [None if image is None else next(outputs) for image in images]

    def over_parts(self, batch):
        """What `losses_and_gradients` returns for a batch, taken `micro_batch` pairs at a time."""
        if self.micro_batch in (None, batch[0].shape[0]):
            return self.losses_and_gradients(*batch)
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
