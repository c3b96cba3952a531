"""The physics of MR contrast: tissues, sequences and their signal equations."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms; proton density relative to water; CT number in Hounsfield units."""

    t1: float
    t2: float
    t2_star: float
    pd: float
    ct: float = 0.0


@dataclass(frozen=True)
class Sequence:
    """Repetition, echo and inversion time in ms; flip angle in degrees.

    A spin echo uses neither flip angle nor inversion time, FLASH no inversion time, and inversion
    recovery no flip angle.
    """

    tr: float
    te: float
    flip: float = 90.0
    ti: float = 0.0


def at_two_fields(rows: dict[str, tuple]) -> tuple[dict[str, Tissue], dict[str, Tissue]]:
    """Tissues at 1.5 T and at 3 T, of rows of T1, T2 and T2* in ms at each, and proton density."""
    low = {name: Tissue(*times, density) for name, (times, _, density) in rows.items()}
    high = {name: Tissue(*times, density) for name, (_, times, density) in rows.items()}
    return low, high


# 1.5 T, BrainWeb (Kwan, Evans & Pike, IEEE Trans Med Imaging 18:1085, 1999): skin has the values of
# CSF, connective tissue those of white matter; bone and air give no signal.
# 3 T. T1, T2 of white and grey matter, muscle: Stanisz et al., Magn Reson Med 54:507, 2005; T2* of
# brain: Wansapura et al., J Magn Reson Imaging 9:531, 1999; fat: Gold et al., AJR 183:343, 2004;
# T1 of CSF: Rooney et al., Magn Reson Med 57:308, 2007. The rest: 1.5 T, with shorter T2*.
TISSUES, TISSUES_3T = at_two_fields(
    {
        "csf": ((2569, 329, 58), (4300, 329, 40), 1.0),
        "grey": ((833, 83, 69), (1820, 99, 52), 0.86),
        "white": ((500, 70, 61), (1084, 69, 45), 0.77),
        "connective": ((500, 70, 61), (1084, 69, 45), 0.77),
        "fat": ((350, 70, 58), (365, 133, 40), 1.0),
        "muscle": ((900, 47, 30), (1412, 50, 20), 1.0),
        "skin": ((2569, 329, 58), (4300, 329, 40), 1.0),
    }
)
T1W_FLASH = Sequence(tr=18, te=10, flip=30)
FLAIR = Sequence(tr=9000, te=120, ti=1700)  # fluid nulled at 1.5 T
SPIN_ECHOES = {  # what TR and TE are chosen for
    "T1w": Sequence(tr=500, te=15),
    "PDw": Sequence(tr=3300, te=35),
    "T2w": Sequence(tr=3300, te=120),
    "neither": Sequence(tr=500, te=120),
}

BRIGHT = {"t1": "white", "t2": "csf", "pd": "grey", "flair": "grey"}
"""The tissue of the brain that is brightest in a contrast, or nearly so, but for lesions."""


def flash_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Spoiled FLASH: PD sin α (1 - E1) / (1 - E1 cos α) exp(-TE / T2*), with E1 = exp(-TR / T1)."""
    e1, flip = np.exp(-sequence.tr / tissue.t1), np.radians(sequence.flip)
    steady_state = np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip))
    return tissue.pd * steady_state * np.exp(-sequence.te / tissue.t2_star)


def spin_echo_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Spin echo: PD (1 - exp(-TR / T1)) exp(-TE / T2)."""
    recovery = 1 - np.exp(-sequence.tr / tissue.t1)
    return tissue.pd * recovery * np.exp(-sequence.te / tissue.t2)


def flair_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Inversion recovery: PD |1 - 2 exp(-TI / T1) + exp(-TR / T1)| exp(-TE / T2) of a spin echo.

    Bernstein, King & Zhou, Handbook of MRI Pulse Sequences, 2004, section 14.2.
    """
    recovered = 1 - 2 * np.exp(-sequence.ti / tissue.t1) + np.exp(-sequence.tr / tissue.t1)
    return tissue.pd * abs(recovered) * np.exp(-sequence.te / tissue.t2)


def nulling_time(tissue: Tissue, tr: float) -> float:
    """The TI in ms at which `flair_signal` of a tissue is 0."""
    return tissue.t1 * np.log(2 / (1 + np.exp(-tr / tissue.t1)))


def inversion_recovery_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Inversion recovery, as MPRAGE: PD |1 - 2 exp(-TI / T1) / (1 + exp(-TR / T1))| exp(-TE / T2*).

    The steady state of an ideal inversion every TR (Bernstein, King & Zhou, Handbook of MRI Pulse
    Sequences, 2004, section 14.2); the small flip angles of the readout are left out.
    """
    inverted = 2 * np.exp(-sequence.ti / tissue.t1) / (1 + np.exp(-sequence.tr / tissue.t1))
    return tissue.pd * abs(1 - inverted) * np.exp(-sequence.te / tissue.t2_star)


def ct_signal(tissue: Tissue, sequence: Sequence) -> float:
    """What a tissue attenuates, in CT: 0 is air, 1 water; a sequence has no part in it."""
    return 1 + tissue.ct / 1000


Signal = Callable[[Tissue, Sequence], float]


def acquire(
    fractions: dict[str, np.ndarray],
    signal: Signal,
    sequence: Sequence,
    tissues: dict[str, Tissue] = TISSUES,
) -> np.ndarray:
    """The slice (H, W) that a sequence makes of tissue fractions (H, W) each, without noise.

    `signal` is one of those above; 1 is water at TE 0, fully recovered.
    """
    return sum(part * signal(tissues[name], sequence) for name, part in fractions.items())


def jitter(values: Tissue | Sequence, rng: np.random.Generator, deviation: float):
    """The same tissue or sequence, every value but 0 multiplied by a random factor."""
    used = {name: value for name, value in vars(values).items() if value}
    return replace(values, **{k: v * np.exp(rng.normal(0, deviation)) for k, v in used.items()})
