"""What else a scan may be: simulated heads in all contrasts, to tell a T1 or a T2 from the rest."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from .people import PLANES, Person, read_anatomy
from .physics import Sequence, Tissue, acquire, flash_signal, spin_echo_signal
from .scanners import Scanner, t1w_protocol, t2w_protocol

# What a dose of contrast agent leaves in a tissue some minutes later, mmol/l: chosen, in the range
# of what is measured. Relaxivity 4.5 / (s mmol/l): Rohrer et al., Invest Radiol 40:715, 2005.
AGENT = {"vessel": 0.8, "mucosa": 0.6, "membrane": 0.4, "muscle": 0.1, "skin": 0.1, "lesion": 0.3}
RELAXIVITY = 4.5e-3
# Hounsfield units: Buzug, Computed Tomography, Springer, 2008, page 475; marrow, skin: chosen.
HOUNSFIELD = dict.fromkeys(("grey", "striatum", "thalamus", "pallidum"), 40)
HOUNSFIELD |= {"white": 27, "stem": 30, "csf": 8, "sulcal": 10, "membrane": 35, "vessel": 45}
HOUNSFIELD |= {"muscle": 55, "fat": -80, "skin": 20, "connective": 45, "marrow": 300, "mucosa": 35}
HOUNSFIELD |= {"lesion": 15, "bone": 1200}


def flair_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Inversion recovery: PD |1 - 2 exp(-TI / T1) + exp(-TR / T1)| exp(-TE / T2) of a spin echo.

    Bernstein, King & Zhou, Handbook of MRI Pulse Sequences, 2004, section 14.2.
    """
    recovered = 1 - 2 * np.exp(-sequence.ti / tissue.t1) + np.exp(-sequence.tr / tissue.t1)
    return tissue.pd * abs(recovered) * np.exp(-sequence.te / tissue.t2)


def _t1(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    scanner.protocols = {"t1": t1w_protocol(scanner.rng)}
    return scanner.scan(parts, kept, "t1")


def _gd(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    dose = scanner.rng.uniform(0.6, 1.4)
    for name, share in AGENT.items():
        tissue = scanner.tissues[name]
        faster = 1 / (1 / tissue.t1 + RELAXIVITY * dose * share)
        scanner.tissues[name] = replace(tissue, t1=faster)
    signal, sequence = t1w_protocol(scanner.rng)
    scanner.protocols = {"t1": (signal, sequence)}
    blood, white = (signal(scanner.tissues[name], sequence) for name in ("vessel", "white"))
    scanner.vessels = blood / white
    return scanner.scan(parts, kept, "t1")


def _t2(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    scanner.protocols = {"t2": t2w_protocol(scanner.rng)}
    return scanner.scan(parts, kept, "t2")


def _flair(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    tr, te, off = scanner.rng.uniform((4800, 80, 0.93), (11000, 140, 1.07))
    fluid = scanner.tissues["csf"].t1
    nulled = off * fluid * np.log(2 / (1 + np.exp(-tr / fluid)))
    scanner.protocols = {"t1": (flair_signal, Sequence(tr, te, ti=nulled))}
    return _saturated(scanner, parts, kept)


def _pd(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    """A turbo spin echo of short TE or, as often, a FLASH of small flip angle."""
    protocol = spin_echo_signal, Sequence(*scanner.rng.uniform((2000, 8), (6000, 35)))
    if scanner.rng.random() < 0.5:
        protocol = flash_signal, Sequence(*scanner.rng.uniform((10, 2, 2), (30, 8, 7)))
    scanner.protocols, scanner.floor = {"t1": protocol}, 0.0
    return _saturated(scanner, parts, kept)


def _saturated(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    """As a turbo spin echo of many slices: white matter is darker by magnetisation transfer.

    By 15 to 25 % (Melki & Mulkern, Magn Reson Med 24:122, 1992), or less with few slices.
    """
    scanner.vessels, left = 0.0, scanner.rng.uniform(0.75, 1)
    dimmed = {name: left * parts[name] for name in ("white", "stem")}
    return scanner.scan(parts | dimmed, kept, "t1")


def _ct(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    """In Hounsfield units or, as often, in a window of them: what is above is white."""
    units = {name: Tissue(1, 1, 1, value + 1000) for name, value in HOUNSFIELD.items()}
    whole = sum(parts.values())
    bone = ndimage.binary_fill_holes(whole > 0.3) * np.clip(1 - whole, 0, 1)
    image = acquire(parts | {"bone": bone}, lambda t, _: t.pd, Sequence(1, 1), units) - 1000
    image = ndimage.gaussian_filter(image, scanner.blur["t1"])
    image = image + scanner.rng.uniform(2, 8) * scanner.rng.standard_normal(image.shape)
    if scanner.rng.random() < 0.5:
        middle, width = scanner.rng.uniform((30, 70), (45, 160))
        image = np.clip(image, middle - width / 2, middle + width / 2)
    return np.where(kept, image, image.min())


SCANS = {"t1": _t1, "gd": _gd, "t2": _t2, "flair": _flair, "pd": _pd, "ct": _ct}


def simulate_contrasts(
    path: Path, heads: int, slices: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Heads of people around the label map at `path`: by contrast (SCANS), (slices, 217, 181) each.

    In a scanner's units, of one plane and thickness a head, everything else as in
    `scanners.simulate_scans`. Only CT always has its skull. Deterministic in `seed`.
    """
    for number in range(heads):
        rng = np.random.default_rng([seed, number])
        scanner, person = Scanner(rng), Person(read_anatomy(path), rng)
        plane = rng.choice(list(PLANES), p=[0.6, 0.2, 0.2])
        thickness, shift = rng.choice([1.0, 3.0]), rng.normal(0, 6, 2)
        places = 0.25 + 0.6 * (np.arange(slices) + rng.random(slices)) / slices
        cuts = [person.section(plane, place, thickness, shift, rng) for place in places]
        state, head = rng.bit_generator.state, {}
        for name, scan in SCANS.items():
            own = copy(scanner)  # of which a protocol changes the tissues, too
            own.stripped &= name != "ct"
            rng.bit_generator.state = state
            views = [own.kept(brain, plane) for _, brain in cuts]
            after, images = rng.bit_generator.state, []
            for (parts, _), kept in zip(cuts, views, strict=True):
                own.tissues = dict(scanner.tissues)
                rng.bit_generator.state = after  # one protocol a head
                images.append(scan(own, own.left(parts), kept))
            head[name] = np.stack(images)
        yield head
