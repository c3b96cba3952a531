import os
from pathlib import Path

import keras
import pytest

from cyclegan_tf import machine
from cyclegan_tf.scans.images import write_image
from cyclegan_tf.simulation.phantom import simulate_pairs

REPOSITORY = Path(__file__).parent.parent
machine.share_cores()  # as the notebooks do before they train


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side files with a slow test begin first: none is left for the end, on one core."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
