"""Trained with one framework generation (Keras 2 or 3), translated with the other: the same."""

import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from cyclegan_tf.models import build_discriminator, build_generator
from cyclegan_tf.presets import LAPTOP, PAPER

NETWORKS = {
    **{form: ("generator", form, 4, 2) for form in (PAPER.generator, LAPTOP.generator)},
    "discriminator": ("discriminator", 4, 3),
}

# The other generation's part: what it makes of the images with our weights, and with its own.
SCRIPT = """
import sys
from pathlib import Path

import keras
import numpy as np

from cyclegan_tf import models

folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
print("keras", keras.__version__)
for name, (kind, *sizes) in {networks!r}.items():
    network = getattr(models, "build_" + kind)(*sizes, name)
    network.load_weights(folder / (name + "-ours.weights.h5"))
    np.save(folder / (name + "-ours-there.npy"), network(images))
    keras.utils.set_random_seed(8)
    network = getattr(models, "build_" + kind)(*sizes, name)
    network.save_weights(folder / (name + "-theirs.weights.h5"))
    np.save(folder / (name + "-theirs-there.npy"), network(images))
"""


def build(name):
    kind, *sizes = NETWORKS[name]
    builder = {"generator": build_generator, "discriminator": build_discriminator}[kind]
    return builder(*sizes, name)


@pytest.fixture(scope="module")
def other():
    """The Python of an environment with the other framework generation."""
    python = os.environ.get("CYCLEGAN_TF_OTHER_PYTHON")
    if not python:
        pytest.skip(
            "no Python of the other framework generation (set CYCLEGAN_TF_OTHER_PYTHON to it)"
        )
    return python


@pytest.fixture(scope="module")
def exchange(other, tmp_path_factory):
    """A folder of weights saved by both generations, and what each made of the same images."""
    folder = tmp_path_factory.mktemp("exchange")
    images = np.random.default_rng(7).uniform(-1, 1, (2, 32, 48, 1)).astype("float32")
    np.save(folder / "images.npy", images)
    for name in NETWORKS:
        network = build(name)
        network.save_weights(folder / f"{name}-ours.weights.h5")
        np.save(folder / f"{name}-ours-here.npy", network(images))
    package = Path(__file__).parent.parent
    process = subprocess.run(
        [other, "-c", SCRIPT.format(networks=NETWORKS), str(folder)],
        env=os.environ | {"PYTHONPATH": str(package), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    version = next(line for line in process.stdout.splitlines() if line.startswith("keras "))
    assert version.split()[1].split(".")[0] != keras.__version__.split(".")[0], (
        f"CYCLEGAN_TF_OTHER_PYTHON has {version}, as this one: expected the other generation"
    )
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_saved_here_give_the_same_output_there(exchange, name):
    here, there = (np.load(exchange / f"{name}-ours-{place}.npy") for place in ("here", "there"))
    assert np.ptp(here) > 0.01
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_saved_there_give_the_same_output_here(exchange, name):
    network = build(name)
    network.load_weights(exchange / f"{name}-theirs.weights.h5")
    there = np.load(exchange / f"{name}-theirs-there.npy")
    assert np.ptp(there) > 0.01
    here = network(np.load(exchange / "images.npy"))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-4)
