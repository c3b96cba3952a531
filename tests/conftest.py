import os
from pathlib import Path

import pytest

from cyclegan_tf import machine

REPOSITORY = Path(__file__).parent.parent
machine.share_cores()  # as the notebooks do before they train


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the published data set, which is not part of the project."""
    default = REPOSITORY.parent / "shared" / "data" / "mri_t1_t2"
    folder = Path(os.environ.get("CYCLEGAN_TF_DATA", default))
    if not folder.is_dir():
        pytest.skip("the published data set is absent (set CYCLEGAN_TF_DATA to its folder)")
    return folder
