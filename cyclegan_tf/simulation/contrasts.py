"""What else a scan may be: simulated heads in all contrasts, to tell one from the rest."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..presets import PLANES
from .people import Person, read_anatomy
from .protocols import PROTOCOLS
from .scanners import Scanner

# What a dose of contrast agent leaves in a tissue some minutes later, mmol/l: chosen, in the range
# of what is measured. Relaxivity 4.5 / (s mmol/l): Rohrer et al., Invest Radiol 40:715, 2005.
AGENT = {"vessel": 0.8, "mucosa": 0.6, "membrane": 0.4, "muscle": 0.1, "skin": 0.1, "lesion": 0.3}
RELAXIVITY = 4.5e-3
# Hounsfield units: Buzug, Computed Tomography, Springer, 2008, page 475; marrow, skin: chosen.
HOUNSFIELD = dict.fromkeys(("grey", "striatum", "thalamus", "pallidum"), 40)
HOUNSFIELD |= {"white": 27, "stem": 30, "csf": 8, "sulcal": 10, "membrane": 35, "vessel": 45}
HOUNSFIELD |= {"muscle": 55, "fat": -80, "skin": 20, "connective": 45, "marrow": 300, "mucosa": 35}
HOUNSFIELD |= {"lesion": 15, "bone": 1200}


def _gd(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    dose = scanner.rng.uniform(0.6, 1.4)
    for name, share in AGENT.items():
        tissue = scanner.tissues[name]
        faster = 1 / (1 / tissue.t1 + RELAXIVITY * dose * share)
        scanner.tissues[name] = replace(tissue, t1=faster)
    scanner.choose("t1")
    signal, sequence = scanner.protocols["t1"]
    blood, white = (signal(scanner.tissues[name], sequence) for name in ("vessel", "white"))
    scanner.vessels = blood / white
    return scanner.scan(parts, kept, "t1")


def _ct(scanner: Scanner, parts: dict, kept: np.ndarray) -> np.ndarray:
    """In Hounsfield units or, as often, in a window of them: what is above is white."""
    whole = sum(parts.values())
    bone = ndimage.binary_fill_holes(whole > 0.3) * np.clip(1 - whole, 0, 1)
    parts = parts | {"bone": bone}
    image = sum(part * (HOUNSFIELD[name] + 1000) for name, part in parts.items()) - 1000
    image = ndimage.gaussian_filter(image, scanner.blur["t1"])
    image = image + scanner.rng.uniform(2, 8) * scanner.rng.standard_normal(image.shape)
    if scanner.rng.random() < 0.5:
        middle, width = scanner.rng.uniform((30, 70), (45, 160))
        image = np.clip(image, middle - width / 2, middle + width / 2)
    return np.where(kept, image, image.min())


OTHERS = {"t1gd": _gd, "ct": _ct}
"""How contrasts are simulated that are none of PROTOCOLS, to be told from those."""


def simulate_contrasts(
    path: Path, heads: int, slices: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Heads of people around the label map at `path`: by contrast, (slices, 217, 181) each.

    Contrasts are those of PROTOCOLS and OTHERS, in a scanner's units, of one plane and thickness a
    head, everything else as in `scanners.simulate_scans`, but that shading is left. Only CT always
    has its skull. Deterministic in `seed`.
    """
    for number in range(heads):
        rng = np.random.default_rng([seed, number])
        # The gate sees 8-bit images, too, whose shading is not taken out.
        scanner, person = Scanner(rng, evened=0.0), Person(read_anatomy(path), rng)
        for known in (scanner.blur, scanner.sharpness, scanner.noise, scanner.bias):
            known |= {name: known["t1"] for name in PROTOCOLS if name not in known}
        plane = rng.choice(PLANES, p=[0.6, 0.2, 0.2])
        thickness, shift = rng.choice([1.0, 3.0]), rng.normal(0, 6, 2)
        places = 0.25 + 0.6 * (np.arange(slices) + rng.random(slices)) / slices
        cuts = [person.section(plane, place, thickness, shift, rng) for place in places]
        state, head = rng.bit_generator.state, {}
        for name in (*PROTOCOLS, *OTHERS):
            own = copy(scanner)  # of which a protocol changes the tissues, too
            own.stripped &= name != "ct"
            rng.bit_generator.state = state
            views = [own.kept(brain, plane) for _, brain in cuts]
            after, images = rng.bit_generator.state, []
            for (parts, _), kept in zip(cuts, views, strict=True):
                own.tissues = dict(scanner.tissues)
                rng.bit_generator.state = after  # one protocol a head
                if name in OTHERS:
                    images.append(OTHERS[name](own, own.left(parts), kept))
                    continue
                own.choose(name)
                images.append(own.scan(own.left(parts), kept, name))
            head[name] = np.stack(images)
        yield head
