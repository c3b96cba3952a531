import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from cyclegan_tf import losses
from cyclegan_tf.compat import Adam
from cyclegan_tf.cyclegan import CycleGAN
from cyclegan_tf.models import build_discriminator, build_generator
from cyclegan_tf.presets import PAPER

BLOCKS = 2
# The published generator's biases before an instance norm, which takes them out again: their
# gradient is rounding noise, which Adam magnifies. Two in each block, after stem and two downs.
CANCELLED = {8 + 8 * block + place for block in range(BLOCKS) for place in (1, 5)}


class Witness(Adam):
    """Adam that remembers the gradients it was last given."""

    def apply_gradients(self, pairs, *arguments, **options):
        pairs = list(pairs)
        self.gradients = [gradient for gradient, _ in pairs]
        return super().apply_gradients(pairs, *arguments, **options)


def cyclegan(
    seed=1, blocks=0, identity_weight=0.5, simulation_weight=0.0, micro_batch=None
) -> CycleGAN:
    keras.utils.set_random_seed(seed)
    generators = [build_generator("published", 4, blocks, name) for name in "gf"]
    discriminators = [build_discriminator(4, 3, f"discriminator_{name}") for name in ("t1", "t2")]
    model = CycleGAN(
        *generators,
        *discriminators,
        PAPER.cycle_weight,
        identity_weight,
        simulation_weight,
        micro_batch,
    )
    adams = [Witness(PAPER.learning_rate, beta_1=PAPER.beta_1) for _ in range(2)]
    model.compile(*adams)
    return model


def batches(count=3, images=2, parts=2):
    """Smooth pictures, as an image and its translation are, rather than noise."""
    rng = np.random.default_rng(5)
    coarse = rng.uniform(-1, 1, (count * parts * images, 8, 8, 1))
    smooth = np.array(tf.image.resize(coarse, (32, 32), "bicubic")).clip(-1, 1)
    return list(smooth.reshape(count, parts, images, 32, 32, 1).astype("float32"))


def weights_of(model):
    return [network.get_weights() for network in model.networks]


def step(model, batch):
    """The losses of one training step, as numbers; the metrics' means are started anew."""
    model.reset_metrics()
    return {name: float(value) for name, value in model.train_step(tuple(batch)).items()}


def gradients_of(model):
    """The gradients of the last step, a list for each of G, F, D_X, D_Y."""
    given = model.optimizer.gradients + model.discriminator_optimizer.gradients
    taken = iter(given)
    return [[next(taken).numpy() for _ in network.weights] for network in model.networks]


def assert_gradients_agree(found, expected):
    for network, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        largest = max(np.abs(gradient).max() for gradient in theirs)
        for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            scale = largest if network < 2 and layer in CANCELLED else np.abs(b).max()
            np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * scale)


@pytest.fixture(scope="module", params=[None, 1], ids=["at-once", "in-parts"])
def trained(request):
    """Losses and gradients of the first step, and the weights after three."""
    model, (first, *others) = cyclegan(blocks=BLOCKS, micro_batch=request.param), batches()
    found, gradients = step(model, first), gradients_of(model)
    for batch in others:
        step(model, batch)
    return found, gradients, weights_of(model)


@pytest.fixture(scope="module")
def published():
    """The same of the original, which begins with the same weights."""
    start, steps = weights_of(cyclegan(blocks=BLOCKS)), batches()
    return *reference.gradients(start, *steps[0], BLOCKS), reference.train(start, steps, BLOCKS)


def test_losses_and_gradients_of_a_step_are_the_published_ones(trained, published):
    for name, value in published[0].items():
        assert trained[0][name] == pytest.approx(float(value), rel=2e-6)
    assert_gradients_agree(trained[1], published[1])


def test_three_steps_of_training_give_the_weights_of_the_original(trained, published):
    errors = [
        np.abs(a - b).ravel()
        for network, both in enumerate(zip(trained[2], published[2], strict=True))
        for layer, (a, b) in enumerate(zip(*both, strict=True))
        if network > 1 or layer not in CANCELLED
    ]
    # Each weight has moved by up to 6e-4. Where rounding turns a ReLU or an absolute value round
    # its corner, Adam makes more of it than rounding, and on some processors ten times as much.
    middle, most = np.percentile(np.concatenate(errors), (50, 99))
    assert middle < 3e-6 and most < 6e-5


def test_generators_and_discriminators_differ_at_the_start_and_the_seed_decides():
    g, f, x, y = weights_of(cyclegan())
    for one, other in ((g, f), (x, y)):
        assert all((a != b).any() for a, b in zip(one, other, strict=True) if a.ndim == 4)
    again, others = weights_of(cyclegan())[0], weights_of(cyclegan(seed=2))[0]
    assert all((a == b).all() for a, b in zip(g, again, strict=True))
    assert any((a != b).any() for a, b in zip(g, others, strict=True))


def test_a_term_of_weight_0_is_left_out_and_leaves_the_rest_alone():
    whole, without = cyclegan(), cyclegan(identity_weight=0.0)
    (batch,) = batches(1)
    expected, found = step(whole, batch), step(without, batch)
    identity = expected.pop("identity")
    assert found.pop("generator") == pytest.approx(
        expected.pop("generator") - whole.identity_weight * identity, rel=1e-5
    )
    assert found == pytest.approx(expected, rel=1e-5)


def test_simulated_pairs_add_their_weight_times_both_l1_errors_to_the_generators():
    plain, paired = cyclegan(), cyclegan(simulation_weight=7.0)
    (batch,) = batches(1, parts=6)
    pair_t1, pair_t2, wanted_t1, wanted_t2 = batch[2:]
    error = np.abs(plain.G(pair_t1) - wanted_t2).mean()
    error += np.abs(plain.F(pair_t2) - wanted_t1).mean()
    without, found = step(plain, batch[:2]), step(paired, batch)
    assert found["simulation"] == pytest.approx(error, rel=1e-5)
    added = found["generator"] - without["generator"]
    assert added == pytest.approx(7 * error, rel=1e-4)
    assert found["discriminator_t1"] == pytest.approx(without["discriminator_t1"], rel=1e-5)


def test_a_batch_in_parts_gives_the_step_of_the_whole():
    weights = {"blocks": BLOCKS, "simulation_weight": 7.0}
    (batch,), whole = batches(1, images=4, parts=6), cyclegan(**weights)
    expected = pytest.approx(step(whole, batch), rel=2e-6)
    for micro_batch in (1, 2):
        parted = cyclegan(**weights, micro_batch=micro_batch)
        assert step(parted, batch) == expected
        assert_gradients_agree(gradients_of(parted), gradients_of(whole))


def test_a_batch_in_parts_is_trained_on_by_fit():
    whole, parted = cyclegan(), cyclegan(micro_batch=1)
    (batch,) = batches(1, images=4)
    found = parted.fit(tf.data.Dataset.from_tensors(tuple(batch)), verbose=0).history
    losses_of_the_whole = pytest.approx(step(whole, batch), rel=2e-5)
    assert {name: values[0] for name, values in found.items()} == losses_of_the_whole
    for ours, theirs in zip(weights_of(parted), weights_of(whole), strict=True):
        errors = [np.abs(a - b).ravel() for a, b in zip(ours, theirs, strict=True)]
        assert np.percentile(np.concatenate(errors), 99) < 5e-6


def test_fit_trains_all_four_networks_and_returns_every_mean_loss():
    model, steps = cyclegan(), batches(4)
    before = weights_of(model)
    single = cyclegan()
    means = [step(single, batch) for batch in steps]
    dataset = tf.data.Dataset.from_tensor_slices(np.concatenate(steps, axis=1).swapaxes(0, 1))
    dataset = dataset.map(lambda pair: (pair[0], pair[1])).batch(2)
    history = model.fit(dataset, epochs=2, verbose=0).history
    assert {"generator", "adversarial", "cycle", "identity"} < set(history)
    for name, (first, second) in history.items():
        assert first == pytest.approx(np.mean([mean[name] for mean in means]), rel=1e-3)
        assert second != first
    for network, start in zip(weights_of(model), before, strict=True):
        assert all((a != b).any() for a, b in zip(network, start, strict=True))


@pytest.mark.parametrize(
    ("loss", "arguments", "value"),
    [
        (losses.adversarial_loss, [[0.0, 3.0]], 2.5),
        (losses.discriminator_loss, [[1.0, 3.0], [0.0, 2.0]], 2.0),
        (losses.cycle_loss, [[0.0, 1.0], [0.5, -1.0]], 1.25),
        (losses.identity_loss, [[0.0, 1.0], [0.5, -1.0]], 1.25),
        (losses.simulation_loss, [[0.0, 1.0], [0.5, -1.0]], 1.25),
    ],
)
def test_a_loss_is_its_equation(loss, arguments, value):
    assert float(loss(*map(tf.constant, arguments))) == value


def test_real_scored_1_and_synthetic_scored_0_costs_the_discriminator_nothing():
    assert float(losses.discriminator_loss(tf.ones(3), tf.zeros(3))) == 0
    assert float(losses.adversarial_loss(tf.ones(3))) == 0
