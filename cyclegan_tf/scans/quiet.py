"""Reading files without the chatter of the libraries that decode them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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
