"""A session of Google Colab: where the notebooks keep their runs, and what computes there."""

import os
from pathlib import Path

from .machine import automatic_precision

CONTENT = Path.cwd()  # /content, which `start_session` leaves


def start_session(drive: str = "cyclegan_tf") -> None:
    """Change to the folder where every notebook finds the same runs; print it and what computes.

    Elsewhere than on Colab nothing is done. It is `notebooks/` in `drive`, a folder of the user's
    Google Drive, to which the notebooks' paths are relative. If `drive` is empty or not available,
    it is on the session's own disk.
    """
    if "COLAB_RELEASE_TAG" not in os.environ:
        return
    import tensorflow as tf

    home = CONTENT
    if drive:
        from google.colab import drive as google_drive

        try:
            google_drive.mount(str(CONTENT / "drive"))
            home = CONTENT / "drive" / "MyDrive" / drive
        except Exception as error:  # Colab does not document which; permission was refused
            print(f"There is no Google Drive ({error}): what is made here ends with the session.")
    folder = home / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    print(f"Runs are kept in {home / 'outputs'}.")
    describe = tf.config.experimental.get_device_details
    gpus = [describe(gpu)["device_name"] for gpu in tf.config.list_physical_devices("GPU")]
    policy, _ = automatic_precision()
    none = "none (Runtime, Change runtime type, offers some)"
    print(f"GPU: {', '.join(gpus) or none}. Precision `auto` is {policy} here.")
