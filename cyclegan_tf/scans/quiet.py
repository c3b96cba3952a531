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
def quiet() -> Iterator[None]:
    """Show no warning and no log of any library in the block; afterwards all is as it was before.

    Who reads a file says in an InputError what is wrong with it, and passes oddities over.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def reading(path: Path, kind: str = VOLUME) -> Iterator[None]:
    """What the libraries say of a file: oddities are passed over, errors are an InputError."""
    try:
        with quiet():
            yield
    except InputError:
        raise
    except Exception as error:  # a damaged file can make the libraries raise nearly any
        path = getattr(error, "filename", None) or path
        reason = getattr(error, "strerror", None) or str(error).replace(str(path), "the file")
        reason = textwrap.shorten(reason, 150)
        raise InputError(f"{path} cannot be read as a {kind} ({reason}).") from None
