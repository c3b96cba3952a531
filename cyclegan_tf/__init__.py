"""Unpaired translation of MRI contrast, T1-weighted to T2-weighted and back, with CycleGAN."""

import importlib

__version__ = "0.2.0"


class InputError(ValueError):
    """A user's mistake: one sentence naming it, what was found and what is expected."""

    def __init__(self, sentence: str):
        # Names of files and what libraries say may hold line ends and a terminal's escape codes.
        super().__init__("".join(c if c.isprintable() else "?" for c in sentence))


# What the package offers, and in which module.
_OFFERED = {"translate": ".translation.translate", "load_generator": ".translation.generators"}


def __getattr__(name: str):
    """What the package offers is imported when it is asked for: TensorFlow takes seconds."""
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_OFFERED[name], __name__), name)
