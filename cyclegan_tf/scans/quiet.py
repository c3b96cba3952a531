"""Reading files without the chatter of the libraries that decode them."""

import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import InputError

VOLUME = "NIfTI, FreeSurfer, Analyze or DICOM volume"


@contextmanager
def reading(path: Path, kind: str = VOLUME) -> Iterator[None]:
    """Where libraries read a file of a kind: what they raise becomes an InputError.

    Oddities are passed over: no warning is shown and no log of any library; afterwards all is as it
    was before.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # a damaged file can make the libraries raise nearly any
        path = getattr(error, "filename", None) or path
        reason = getattr(error, "strerror", None) or str(error).replace(str(path), "the file")
        reason = textwrap.shorten(reason, 150)
        raise InputError(f"{path} cannot be read as a {kind} ({reason}).") from None
    finally:
        logging.disable(disabled)
