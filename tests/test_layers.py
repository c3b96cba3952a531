import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from cyclegan_tf import layers
from cyclegan_tf.compat import GROUPS, ReferenceNormalization
from cyclegan_tf.layers import (
    ConcatConv2D,
    ConcatConv2DTranspose,
    DepthToSpace,
    DepthToSpaceConv2D,
    InstanceNormalization,
    SpaceToDepth,
)

CHANNELS = 6
ROUNDING = 1e-5  # of the largest; with some processors a third of it


@pytest.fixture
def images() -> np.ndarray:
    """Four images whose channels differ in mean and spread, as features do."""
    rng = np.random.default_rng(1)
    mean, spread = rng.normal(size=(2, 4, 1, 1, CHANNELS))
    return (mean + np.abs(spread) * rng.normal(size=(4, 12, 20, CHANNELS))).astype("float32")


def normalisation(**options):
    """The layer with scale and offset of no special value."""
    layer = InstanceNormalization(**options)
    layer.build((None, None, None, CHANNELS))
    rng = np.random.default_rng(2)
    layer.set_weights(rng.normal(1, 0.3, size=(2, CHANNELS)).astype("float32"))
    return layer


def framework_layer(layer):
    """tensorflow-addons' or Keras's own layer of the same ε, with the same weights."""
    own = ReferenceNormalization(epsilon=layer.epsilon, **GROUPS)
    own.build((None, None, None, CHANNELS))
    own.set_weights(layer.get_weights())
    return own


def moments(layer):
    """Instance normalisation written out, with the same weights."""

    def normalise(x):
        return reference.instance_norm(x, layer.gamma, layer.beta)

    return normalise


def values_and_gradients(function, images, weights):
    """Output, and gradients of an uneven sum of it by the input and by `weights`."""
    images = tf.constant(images)
    slopes = tf.constant(np.random.default_rng(3).normal(size=images.shape).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(images)
        output = function(images)
        total = tf.reduce_sum(slopes * output)
    return [output, *tape.gradient(total, [images, *weights])]


def assert_close(found, expected, error):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=error * np.abs(b).max())


def unknown_batch(function):
    signature = tf.TensorSpec((None, None, None, CHANNELS), tf.float32)
    return tf.function(function, input_signature=[signature])


@pytest.mark.parametrize("called_as", ["static batch", "unknown batch"])
@pytest.mark.parametrize("other", [moments, framework_layer])
def test_values_and_gradients_are_those_of_the_definition_and_the_framework(
    images, called_as, other
):
    layer = normalisation()
    same = other(layer)
    call = layer if called_as == "static batch" else unknown_batch(layer)
    found = values_and_gradients(call, images, [layer.gamma, layer.beta])
    weights = [layer.gamma, layer.beta] if other is moments else [same.gamma, same.beta]
    assert_close(found, values_and_gradients(same, images, weights), ROUNDING)


def test_the_kernel_used_on_a_gpu_gives_the_same(images, monkeypatch):
    layer = normalisation()
    fused = layer(images)
    monkeypatch.setattr(layers, "ON_CPU", not layers.ON_CPU)
    assert_close([layer(images)], [fused], ROUNDING)


@pytest.mark.parametrize("called_as", ["static batch", "unknown batch"])
def test_an_image_is_normalised_alone(images, called_as):
    layer = normalisation()
    call = layer if called_as == "static batch" else unknown_batch(layer)
    alone = [call(image[None]) for image in images]
    assert_close([call(images)], [np.concatenate(alone)], ROUNDING)


def test_bfloat16_is_as_exact_as_its_seven_bits_allow(images):
    layer = normalisation(dtype="mixed_bfloat16")
    rounded = tf.cast(images, tf.bfloat16)
    output = layer(rounded)
    assert output.dtype == tf.bfloat16 and layer.gamma.dtype == "float32"
    exact = moments(layer)(tf.cast(rounded, tf.float32))
    assert_close([tf.cast(output, tf.float32)], [exact], 2.0**-8)


def test_a_constant_image_gives_the_offset():
    layer = normalisation()
    output = layer(np.full((2, 8, 8, CHANNELS), 0.7, "float32"))
    np.testing.assert_allclose(output, np.broadcast_to(layer.beta, output.shape), atol=1e-3)


def test_it_starts_with_scales_about_one_and_no_offset():
    layer = InstanceNormalization()
    layer.build((None, None, None, 2000))
    scale, offset = layer.get_weights()
    assert layer.epsilon == 1e-5
    assert abs(scale.mean() - 1) < 0.003 and 0.018 < scale.std() < 0.022
    assert not offset.any()


def test_space_to_depth_keeps_each_square_of_four_and_depth_to_space_undoes_it(images):
    small = SpaceToDepth()(images)
    assert small.shape == (4, 6, 10, 4 * CHANNELS)
    assert set(np.array(small[1, 2, 3])) == set(images[1, 4:6, 6:8].ravel())
    np.testing.assert_array_equal(DepthToSpace()(small), images)


def two_in_one(kind, layer, inputs):
    """A layer that is two, with weights of no special value, and the function of it by the two."""
    rng = np.random.default_rng(5)
    layer(inputs)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") for w in layer.get_weights()])
    size, options = layer.kernel_size, {"padding": "same"}
    if kind is ConcatConv2DTranspose:
        own = keras.layers.Conv2DTranspose(3, size, strides=2, use_bias=False, **options)
    else:
        own = keras.layers.Conv2D(3, size, **options)
    first = DepthToSpace() if kind is DepthToSpaceConv2D else keras.layers.Concatenate()

    def function(inputs):
        return own(first(inputs))

    function(inputs)
    own.set_weights(layer.get_weights())
    return own, function


@pytest.mark.parametrize("called_as", ["eager", "graph", "graph of unknown sizes"])
@pytest.mark.parametrize("kind", [ConcatConv2D, ConcatConv2DTranspose, DepthToSpaceConv2D])
def test_two_layers_in_one_have_the_values_and_gradients_of_the_two(images, kind, called_as):
    small = tf.constant(SpaceToDepth()(images))
    inputs = small if kind is DepthToSpaceConv2D else [small, tf.constant(images)[:, ::2, ::2]]
    layer = kind(3, 5 if kind is DepthToSpaceConv2D else 3, "glorot_uniform")
    own, function = two_in_one(kind, layer, inputs)

    def results(call, weights):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = call(inputs)
            total = tf.reduce_sum(tf.sin(output))
        return tf.nest.flatten([output, tape.gradient(total, [inputs, *weights])])

    call = layer
    if called_as != "eager":
        known = called_as == "graph"
        signature = tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape if known else (None, None, None, x.shape[-1])), inputs
        )
        call = tf.function(layer, input_signature=[signature])
    found = results(call, layer.trainable_variables)
    assert_close(found, results(function, own.trainable_variables), ROUNDING)
    plain = layer.plain(tf.constant(layer.get_weights()[0]), *tf.nest.flatten(inputs))
    bias = layer.get_weights()[1] if layer.use_bias else 0
    np.testing.assert_allclose(plain + bias, found[0], atol=3e-5)


@pytest.mark.parametrize("kind", [ConcatConv2D, ConcatConv2DTranspose, DepthToSpaceConv2D])
def test_two_layers_in_one_compute_in_bfloat16_and_keep_float32_weights(images, kind):
    small = tf.cast(SpaceToDepth()(images), tf.bfloat16)
    inputs = small if kind is DepthToSpaceConv2D else [small, small[..., :CHANNELS]]
    layer = kind(
        3, 5 if kind is DepthToSpaceConv2D else 3, "glorot_uniform", dtype="mixed_bfloat16"
    )
    output = layer(inputs)
    _, function = two_in_one(
        kind, layer, tf.nest.map_structure(lambda x: tf.cast(x, "float32"), inputs)
    )
    assert output.dtype == tf.bfloat16 and layer.kernel.dtype == "float32"
    exact = function(tf.nest.map_structure(lambda x: tf.cast(x, "float32"), inputs))
    assert_close([tf.cast(layer(inputs), tf.float32)], [exact], 2.0**-6)


@pytest.mark.parametrize("kind", [ConcatConv2D, ConcatConv2DTranspose])
def test_training_keeps_no_concatenation_of_the_inputs(images, kind):
    layer = kind(3, 3, "glorot_uniform")

    @tf.function
    def gradients(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(tf.sin(layer(inputs)))
        return tape.gradient(total, [inputs, *layer.trainable_variables])

    inputs = [tf.constant(images), tf.constant(images)]
    layer(inputs)
    graph = gradients.get_concrete_function(inputs).graph
    shape = (*images.shape[:-1], 2 * images.shape[-1])
    joints = [x for x in graph.get_operations() if x.type == "ConcatV2"]
    joints = [x for x in joints if x.outputs[0].shape == shape]
    assert joints and all(len(x.outputs[0].consumers()) == 1 for x in joints)
    # Two alike are merged into one that is kept, unless the second, or its axis, waits.
    assert all(any(part.op.control_inputs for part in x.inputs) for x in joints[1:])


def test_a_kernel_that_does_not_fit_the_coarse_pixels_fails():
    with pytest.raises(tf.errors.InvalidArgumentError):
        DepthToSpaceConv2D(3, 3, "zeros")(np.zeros((1, 4, 4, 8), "float32"))


def test_shapes_are_known_before_any_image_is_seen():
    images = keras.Input((None, 20, CHANNELS))
    small = SpaceToDepth()(images)
    assert tuple(small.shape) == (None, None, 10, 4 * CHANNELS)
    assert tuple(DepthToSpace()(small).shape) == (None, None, 20, CHANNELS)
    assert tuple(InstanceNormalization()(images).shape) == (None, None, 20, CHANNELS)
    assert tuple(ConcatConv2D(3, 3, "zeros")([images, images]).shape) == (None, None, 20, 3)
    doubled = ConcatConv2DTranspose(3, 3, "zeros")([images, images])
    assert tuple(doubled.shape) == (None, None, 40, 3)
    assert tuple(DepthToSpaceConv2D(3, 5, "zeros")(small).shape) == (None, None, 20, 3)


@pytest.mark.filterwarnings("error::UserWarning")  # as of weights that are made twice
def test_a_saved_model_of_these_layers_loads_in_safe_mode_with_the_same_output(images, tmp_path):
    entrance = keras.Input((None, None, CHANNELS))
    small = InstanceNormalization(epsilon=1e-3, name="norm")(SpaceToDepth()(entrance))
    joint = ConcatConv2D(8, 3, keras.initializers.RandomNormal())([small, SpaceToDepth()(entrance)])
    large = DepthToSpaceConv2D(2, 5, "glorot_uniform")(joint)
    larger = ConcatConv2DTranspose(2, 3, "glorot_uniform")([large, DepthToSpace()(small)])
    model = keras.Model(entrance, larger)
    scale_and_offset = np.random.default_rng(4).normal(size=(2, 4 * CHANNELS))
    model.get_layer("norm").set_weights(scale_and_offset.astype("float32"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.get_layer("norm").epsilon == 1e-3
    np.testing.assert_array_equal(loaded(images), model(images))
