"""The networks: generators and the patch discriminator, each written once as a column."""

from functools import partial

import keras
from keras import layers

from .compat import LeakyReLU
from .layers import (
    ConcatConv2D,
    ConcatConv2DTranspose,
    DepthToSpace,
    DepthToSpaceConv2D,
    InstanceNormalization,
    SpaceToDepth,
)

STRIDE = 8  # image sides must be multiples of it: the deeper generator halves them three times


def build_generator(form: str, filters: int, blocks: int, name: str) -> keras.Model:
    """A generator: images (N, H, W, 1) in [-1, 1] → the same shape and range.

    H and W are any multiples of STRIDE. `form` is `published`, `residual` or `unet`.
    """
    residual = partial(published_generator, add=True)
    builders = {"published": published_generator, "residual": residual, "unet": unet_generator}
    return builders[form](filters, blocks, name)


def published_generator(filters: int, blocks: int, name: str, add: bool = False) -> keras.Model:
    """c7s1-64, d128, d256, C256 × 9, u128, u64, c7s1-1, as published for 64 filters, 9 blocks.

    C is a residual block that *concatenates* its input instead of adding it, so that the trunk
    grows by 4 × filters channels a block. Only the layers that read it join its parts. With `add`
    it is the generator of the CycleGAN paper, whose blocks R256 add.
    """
    images = keras.Input((None, None, 1))
    x = convolution(filters, 7)(images)
    x = block(x, 2 * filters, strides=2)
    x = block(x, 4 * filters, strides=2)
    trunk = [x]
    for _ in range(blocks):
        branch = residual_branch(trunk, 4 * filters)
        trunk = [layers.Add()([branch, *trunk])] if add else [branch, *trunk]
    x = upsample(trunk, 2 * filters)
    x = upsample([x], filters)
    return keras.Model(images, output(convolution(1, 7)(x)), name=name)


def unet_generator(filters: int, blocks: int, name: str) -> keras.Model:
    """s2d, c32, c32, d64, c64, d128, R128 × 3, p64, c64, p32, c32, p8, c5s1-1.

    As `laptop` has it, with 32 filters and 3 blocks. s2d is space to depth: nothing is computed at
    full resolution, not even the last convolution, which also removes the 2 × 2 pattern that p, a
    convolution with depth to space, leaves. R is an additive residual block (He et al., 2016).
    After the first two p the encoder's features of that resolution are concatenated (Ronneberger
    et al., 2015).
    """
    images = keras.Input((None, None, 1))
    x = LeakyReLU()(convolution(filters, 3)(SpaceToDepth()(images)))
    half = block(x, filters)
    quarter = block(block(half, 2 * filters, strides=2), 2 * filters)
    x = block(quarter, 4 * filters, strides=2)
    for _ in range(blocks):
        x = layers.Add()([residual_branch([x], 4 * filters), x])
    for skip, width in ((quarter, 2 * filters), (half, filters)):
        x = DepthToSpace()(convolution(4 * width, 1)(x))
        x = block(layers.Concatenate()([x, skip]), width)
    x = layers.ReLU()(convolution(32, 3)(x))
    x = DepthToSpaceConv2D(1, 5, kernel())(x)
    return keras.Model(images, output(x), name=name)


def build_discriminator(filters: int, depth: int, name: str) -> keras.Model:
    """The patch discriminator: images (N, H, W, 1) → scores (N, H/2^depth − 2, W/2^depth − 2, 1).

    c4s2-64, d128, d256 (stride 2), c4s1-512, c4s1-1 for the published 64 filters and depth 3, which
    judges patches of 70 × 70 pixels; depth 2 judges 34 × 34, depth 1 16 × 16 (Isola et al., 2017).
    Scores are unbounded; least squares draw them to 1 for real and to 0 for synthetic images.
    """
    images = keras.Input((None, None, 1))
    x = LeakyReLU()(convolution(filters, 4, strides=2, use_bias=False)(images))
    for level in range(1, depth):
        x = block(x, 2**level * filters, 4, strides=2)
    x = block(layers.ZeroPadding2D()(x), 2**depth * filters, 4, padding="valid")
    x = convolution(1, 4, padding="valid")(layers.ZeroPadding2D()(x))
    scores = layers.Activation("linear", dtype="float32")(x)
    return keras.Model(images, scores, name=name)


def kernel() -> keras.initializers.Initializer:
    # One for each layer: a shared initializer would give equal values to kernels of equal shape.
    return keras.initializers.RandomNormal(0.0, 0.02)


def convolution(filters: int, size: int, padding: str = "same", **options) -> layers.Layer:
    return layers.Conv2D(filters, size, padding=padding, kernel_initializer=kernel(), **options)


def block(x, filters: int, size: int = 3, **options):
    x = convolution(filters, size, use_bias=False, **options)(x)
    return LeakyReLU()(InstanceNormalization()(x))


def residual_branch(inputs: list, filters: int):
    if len(inputs) == 1:
        x = convolution(filters, 3)(*inputs)
    else:
        x = ConcatConv2D(filters, 3, kernel())(inputs)
    x = layers.ReLU()(InstanceNormalization()(x))
    return InstanceNormalization()(convolution(filters, 3)(x))


def upsample(inputs: list, filters: int):
    if len(inputs) == 1:
        options = {"padding": "same", "use_bias": False, "kernel_initializer": kernel()}
        x = layers.Conv2DTranspose(filters, 3, strides=2, **options)(*inputs)
    else:
        x = ConcatConv2DTranspose(filters, 3, kernel())(inputs)
    return layers.ReLU()(InstanceNormalization()(x))


def output(x):
    return layers.Activation("tanh", dtype="float32")(x)
