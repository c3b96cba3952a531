import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from cyclegan_tf.layers import InstanceNormalization
from cyclegan_tf.models import STRIDE, build_discriminator, build_generator
from cyclegan_tf.presets import LAPTOP, PAPER

FORMS = (PAPER.generator, LAPTOP.generator)


def generator(form):
    return build_generator(form, 8, 2, "generator")


def noise(*shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype("float32")


def kernels(network):
    return [weights for weights in network.get_weights() if weights.ndim == 4]


def test_paper_generator_has_the_published_number_of_weights():
    network = build_generator(PAPER.generator, PAPER.filters, PAPER.blocks, "g")
    assert network.count_params() == 35_263_297


def test_paper_discriminator_has_the_published_number_of_weights_and_patches():
    network = build_discriminator(PAPER.discriminator_filters, 3, "d")
    assert network.count_params() == 2_763_521
    assert network(noise(1, PAPER.size, PAPER.size, 1)).shape == (1, 30, 30, 1)


def test_laptop_generator_has_a_thirtieth_of_the_published_weights():
    network = build_generator(LAPTOP.generator, LAPTOP.filters, LAPTOP.blocks, "g")
    assert network.count_params() < 35_263_297 / 30


def test_published_generator_is_the_original_one():
    network = generator("published")
    images = noise(2, 32, 40, 1)
    original = reference.generator(network.get_weights(), images, blocks=2)
    np.testing.assert_allclose(network(images), original, atol=2e-6)


def test_discriminator_is_the_original_one():
    network = build_discriminator(8, 3, "d")
    images = noise(2, 40, 48, 1)
    original = reference.discriminator(network.get_weights(), images)
    np.testing.assert_allclose(network(images), original, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1, 2), (3, 4), (5, 1)])
def test_generators_keep_any_size_that_is_a_multiple_of_their_stride(form, size):
    height, width = (STRIDE * side for side in size)
    output = generator(form)(noise(1, height, width, 1))
    assert output.shape == (1, height, width, 1) and np.abs(output).max() <= 1


@pytest.mark.parametrize("size", [(20, 32), (68, 100), (192, 224)])
def test_discriminator_scores_a_patch_for_every_eight_pixels_but_two(size):
    rows, columns = (-(-side // 8) - 2 for side in size)
    assert build_discriminator(2, 3, "d")(noise(1, *size, 1)).shape == (1, rows, columns, 1)


@pytest.mark.parametrize(("depth", "side"), [(3, 70), (2, 34), (1, 16)])
def test_a_score_sees_the_patch_of_its_depth(depth, side):
    # Instance normalisation lets every pixel move every score a little: without it, the pixels
    # by which the score has a slope are exactly those that its convolutions see.
    entrance, *column = build_discriminator(4, depth, "d").layers
    x = images = keras.Input((256, 256, 1))
    for layer in column:
        x = x if isinstance(layer, InstanceNormalization) else layer(x)
    pixels = tf.constant(noise(1, 256, 256, 1))
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        score = keras.Model(images, x)(pixels)[0, 14, 15, 0]
    seen = np.argwhere(tape.gradient(score, pixels)[0, ..., 0])
    np.testing.assert_array_equal(np.ptp(seen, axis=0) + 1, [side, side])
    assert len(seen) == side * side


@pytest.mark.parametrize("form", FORMS)
def test_an_output_does_not_depend_on_what_else_is_in_the_batch(form):
    network, images = generator(form), noise(5, 3 * STRIDE, 4 * STRIDE, 1)
    alone = np.concatenate([network(image[None]) for image in images])
    np.testing.assert_allclose(network(images), alone, atol=1e-5)
    np.testing.assert_allclose(network.predict(images, batch_size=3, verbose=0), alone, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_what_moves_in_the_input_moves_in_the_output(form):
    keras.utils.set_random_seed(3)
    network = generator(form)
    head = noise(1, 16, 16, 1)
    placed = np.full((2, 160, 160, 1), -1, "float32")
    placed[0, 72:88, 72:88] = placed[1, 80:96, 56:72] = head
    here, moved = network(placed)
    assert np.ptp(here[60:100, 60:100]) > 0.1
    np.testing.assert_allclose(moved[68:108, 44:84], here[60:100, 60:100], atol=1e-3)


def test_weights_start_as_published_and_no_two_layers_alike():
    keras.utils.set_random_seed(3)
    networks = [build_generator("published", 16, 2, "a"), build_generator("published", 16, 2, "b")]
    networks += [build_discriminator(16, 3, "c"), build_discriminator(16, 3, "d")]
    values = [kernel for network in networks for kernel in kernels(network)]
    for kernel in values:
        assert abs(kernel.mean()) < 0.1 * 0.02 + 3 * 0.02 / kernel.size**0.5
        assert abs(kernel.std() / 0.02 - 1) < 4 / kernel.size**0.5
    starts = [tuple(kernel.ravel()[:4]) for kernel in values]
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize(
    "build", [lambda: generator(LAPTOP.generator), lambda: build_discriminator(4, 3, "d")]
)
def test_outputs_and_weights_are_float32_under_mixed_precision(build):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    network = build()
    assert network(noise(1, 32, 32, 1)).dtype == tf.float32
    assert {weights.dtype for weights in network.get_weights()} == {np.dtype("float32")}
    assert network.layers[1].compute_dtype == "bfloat16"


def test_an_unknown_form_of_generator_fails():
    with pytest.raises(KeyError):
        generator("transformer")
