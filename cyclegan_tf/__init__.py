"""Unpaired translation of MRI contrast, T1-weighted to T2-weighted and back, with CycleGAN."""

__version__ = "0.1.0"


class InputError(ValueError):
    """A user's mistake: one sentence naming it, what was found and what is expected."""
