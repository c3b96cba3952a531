"""The sequences of MR protocols, and what they make of the tissues of living heads."""

import numpy as np

from .physics import (
    BRIGHT,
    Sequence,
    Signal,
    Tissue,
    acquire,
    at_two_fields,
    flair_signal,
    flash_signal,
    inversion_recovery_signal,
    nulling_time,
    spin_echo_signal,
)

# In vivo, 1.5 and 3 T. T1 and T2 of white and grey matter and their change with the field: Rooney
# et al., Magn Reson Med 57:308, 2007; Wansapura et al., J Magn Reson Imaging 9:531, 1999; Stanisz
# et al., Magn Reson Med 54:507, 2005; of deep grey matter, which iron darkens in T2: Gelman et al.,
# Radiology 210:759, 1999; T2 of grey matter is the lower end, which turbo spin echoes show. Fat as
# turbo spin echoes have it, bright (Gold et al., AJR 183:343, 2004). Fluid in sulci pulsates and is
# darker than in ventricles: T2 as BrainWeb's. Membranes, skin, mucosa and marrow: chosen to look
# right. A lesion's values are those of its water; it holds a share of it.
IN_VIVO, IN_VIVO_3T = at_two_fields(
    {
        "white": ((650, 75, 55), (850, 70, 45), 0.7),
        "grey": ((1080, 92, 60), (1400, 86, 50), 0.82),
        "striatum": ((980, 80, 50), (1250, 72, 40), 0.81),
        "thalamus": ((880, 80, 50), (1130, 73, 42), 0.78),
        "pallidum": ((780, 66, 40), (1000, 56, 30), 0.75),
        "stem": ((750, 82, 55), (980, 78, 45), 0.75),
        "csf": ((4000, 1500, 60), (4300, 1400, 55), 1.0),
        "sulcal": ((4000, 350, 60), (4300, 350, 55), 1.0),
        "membrane": ((900, 60, 40), (1150, 55, 30), 0.75),
        "vessel": ((1400, 150, 50), (1700, 120, 40), 0.8),
        "muscle": ((950, 50, 30), (1250, 42, 25), 0.85),
        "fat": ((300, 110, 55), (370, 110, 45), 0.95),
        "skin": ((900, 60, 40), (1100, 55, 30), 0.8),
        "connective": ((900, 60, 40), (1100, 55, 30), 0.8),
        "marrow": ((380, 80, 30), (450, 70, 25), 0.6),
        "mucosa": ((1100, 120, 50), (1400, 110, 45), 0.9),
        "lesion": ((1900, 250, 60), (2200, 220, 55), 0.95),
    }
)
WANTED = {  # what is drawn for any scan: the commonest protocols at 3 T, clean
    "t1": (inversion_recovery_signal, Sequence(tr=2000, te=3, ti=900)),
    "t2": (spin_echo_signal, Sequence(tr=4500, te=120)),
    "pd": (spin_echo_signal, Sequence(tr=3000, te=20)),
    "flair": (flair_signal, Sequence(9000, te=110, ti=nulling_time(IN_VIVO_3T["csf"], 9000))),
}
SATURATED = {"pd": 0.875, "flair": 0.875}
"""What magnetisation transfer leaves of white matter's signal in WANTED; see `Scanner.choose`."""

Protocol = tuple[Signal, Sequence]
Tissues = dict[str, Tissue]


def t1w_protocol(rng: np.random.Generator, tissues: Tissues) -> Protocol:
    """A T1w sequence: MPRAGE (half of them), spoiled FLASH or 2D spin echo (a quarter each).

    Ranges (ms, degrees) hold ADNI's and HCP's MPRAGE (TR 2300, TI 900; TR 2400, TI 1000),
    BrainWeb's FLASH (18, 10, 30) and clinical spin echoes (Bernstein, King & Zhou, 2004). White
    matter of the `tissues` must be brighter than grey matter, and fluid darker. Otherwise, as with
    a short TI that nulls one of them, the scan would not be T1w, and the sequence is drawn again.
    """
    while True:
        signal, sequence = _any_t1w_protocol(rng)
        white, grey, fluid = (signal(tissues[name], sequence) for name in ("white", "grey", "csf"))
        if white > grey > fluid:
            return signal, sequence


def _any_t1w_protocol(rng: np.random.Generator) -> Protocol:
    kind = rng.choice(3, p=[0.5, 0.25, 0.25])
    if kind == 0:
        tr, ti = rng.uniform((1500, 600), (2600, 1150))
        return inversion_recovery_signal, Sequence(tr, te=3, ti=ti)
    if kind == 1:
        return flash_signal, Sequence(*rng.uniform((7, 2.5, 15), (30, 10, 35)))
    return spin_echo_signal, Sequence(*rng.uniform((400, 8), (800, 20)))


def t2w_protocol(rng: np.random.Generator, tissues: Tissues) -> Protocol:
    """A T2w sequence: a turbo spin echo, whose effective TE counts, or a spin echo."""
    return spin_echo_signal, Sequence(*rng.uniform((2500, 70), (6500, 125)))


def pdw_protocol(rng: np.random.Generator, tissues: Tissues) -> Protocol:
    """A PDw sequence: a turbo spin echo of short TE or, as often, a FLASH of small flip angle."""
    spin_echo = spin_echo_signal, Sequence(*rng.uniform((2000, 8), (6000, 35)))
    if rng.random() < 0.5:
        return flash_signal, Sequence(*rng.uniform((10, 2, 2), (30, 8, 7)))
    return spin_echo


def flair_protocol(rng: np.random.Generator, tissues: Tissues) -> Protocol:
    """A FLAIR sequence: a turbo spin echo after an inversion that nulls fluid, or nearly so."""
    tr, te, off = rng.uniform((4800, 80, 0.93), (11000, 140, 1.07))
    return flair_signal, Sequence(tr, te, ti=off * nulling_time(tissues["csf"], tr))


PROTOCOLS = {"t1": t1w_protocol, "t2": t2w_protocol, "pd": pdw_protocol, "flair": flair_protocol}
"""Of every contrast that heads are simulated in."""


def at_rest(parts: dict[str, np.ndarray], saturation: float) -> dict[str, np.ndarray]:
    """The parts (217, 181) without flowing blood, and `saturation` of the white matter."""
    return {
        name: saturation * part if name in ("white", "stem") else part
        for name, part in parts.items()
        if name != "vessel"
    }


def wanted(
    parts: dict[str, np.ndarray], contrast: str, tissues: dict[str, Tissue] = IN_VIVO_3T
) -> np.ndarray:
    """What a generator is to draw of the parts (217, 181): WANTED, 1 the brightest tissue."""
    still = at_rest(parts, SATURATED.get(contrast, 1.0))
    signal, sequence = WANTED[contrast]
    unit = signal(tissues[BRIGHT[contrast]], sequence)
    return acquire(still, signal, sequence, tissues) / unit
