import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.dataset.preparation import prepare
from cyclegan_tf.machines import machine
from cyclegan_tf.runs import open_run
from cyclegan_tf.scans.images import write_image
from cyclegan_tf.simulation.phantom import simulate_pairs
from cyclegan_tf.training import build_cyclegan, train

REPOSITORY = Path(__file__).parent.parent
machine.share_cores()  # as the notebooks do before they train


LONGEST = ("test_devices", "test_reliability", "test_package", "test_colab", "test_benchmark")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side files with a slow test begin first: none is left for the end, on one core."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    first = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (first.get(item.path.stem, len(first)), item.path not in slow))


@pytest.fixture(autouse=True)
def float32():
    """A training sets the number format of its process: no test finds that of the one before."""
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the published data set, which is not part of the project."""
    default = REPOSITORY.parent / "shared" / "data" / "mri_t1_t2"
    folder = Path(os.environ.get("CYCLEGAN_TF_DATA", default))
    if not folder.is_dir():
        pytest.skip("the published data set is absent (set CYCLEGAN_TF_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def heads(tmp_path_factory) -> Path:
    """The folder of six T1 and six T2 images of different simulated heads."""
    root = tmp_path_factory.mktemp("heads")
    t1, t2, _ = simulate_pairs(12, 5, heads=2)
    for folder, images in (("T1", t1[:6]), ("T2", t2[6:])):
        (root / folder).mkdir()
        for number, image in enumerate(images[..., 0]):
            write_image(root / folder / f"{number}.png", image[::3, ::3])
    return root


# A tiny run

SIDE = 32
STEPS = 5  # of an epoch: the smaller set has five images
TINY = {
    "generator": "published",
    "filters": 4,
    "blocks": 0,
    "discriminator_filters": 4,
    "discriminator_depth": 1,
    "epochs": 4,
    "decay_epoch": 2,
    "warm_start_epochs": 0,
    "warm_start_pairs": 8,
    "snapshot_epochs": [0, 1, 4],
    "frame_interval": 3,
    "precision": "float32",
}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A data set of five T1 and six T2 images of 32 by 32."""
    root = tmp_path_factory.mktemp("images")
    coarse = np.random.default_rng(6).uniform(-1, 1, (11, 8, 8, 1))
    smooth = np.array(tf.image.resize(coarse, (SIDE, SIDE), "bicubic"))[..., 0]
    for number, image in enumerate(smooth):
        folder = root / ("T1" if number < 5 else "T2")
        folder.mkdir(exist_ok=True)
        write_image(folder / f"{number}.png", image)
    return root


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """A data set of five T1 and six T2 slices of 31 by 31 of simulated heads, with the truth."""
    root = tmp_path_factory.mktemp("known")
    t1, t2 = (x[:, ::7, ::6, 0] for x in simulate_pairs(8, seed=5, heads=2)[:2])
    for name, images, members in (
        ("T1", t1, range(5)),
        ("Truth/T2", t2, range(5)),
        ("T2", t2, range(2, 8)),
    ):
        (root / name).mkdir(parents=True)
        for k in members:
            write_image(root / name / f"{k}.png", images[k])
    return root


def begin(folder, images, **overrides):
    """A new tiny run, its images and its untrained model."""
    run = open_run(folder, "laptop", str(images), TINY | overrides)
    sets = prepare(run)
    return run, sets, build_cyclegan(run, STEPS)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, images):
    """A tiny run, its images and its model, trained: for all tests, so none trains it further."""
    run, sets, model = begin(tmp_path_factory.mktemp("runs") / "trained", images)
    train(model, run, sets)
    return run, sets, model
