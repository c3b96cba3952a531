"""Cervical spines: random necks of ellipses, in MR and in CT, as a body part without a brain.

What is drawn is an anatomy by rule and no one's scan: a cord in its fluid, vertebrae and discs by
turns, each with an arch, the windpipe, muscle streaked with fat, fat and skin. There are no nerves
and no vessels.
"""

import numpy as np

from .average import SHAPE, Head, smoothstep
from .physics import Tissue

# 1.5 T. T1 and T2 of cord and muscle: Stanisz et al., Magn Reson Med 54:507, 2005; of marrow and
# fat: de Bazelaire et al., Radiology 230:652, 2004; disc: T1 of cartilage, Gold et al., AJR
# 183:343, 2004, its T2 chosen, between that of a ring and of a nucleus. Fluid is BrainWeb's.
# Chosen: T2*, which spongy bone makes short in marrow, proton densities, skin. Compact bone and air
# give no signal. Last in each row its CT number: Buzug, Computed Tomography, Springer, 2008, page
# 475; disc, marrow and skin: chosen.
TISSUES = {
    "csf": Tissue(2569, 329, 58, 1.0, 8),
    "cord": Tissue(745, 74, 60, 0.75, 35),
    "disc": Tissue(1060, 80, 30, 0.8, 80),
    "marrow": Tissue(549, 49, 8, 0.7, 250),
    "bone": Tissue(1000, 1, 1, 0.0, 1000),
    "muscle": Tissue(1008, 44, 30, 0.85, 55),
    "fat": Tissue(343, 58, 40, 1.0, -80),
    "skin": Tissue(900, 60, 40, 0.8, 20),
}
VERTEBRA, DISC = 18.0, 5.0  # mm, from one disc to the next, and of a disc


class Spine(Head):
    """One random individual's neck, its canal in the middle of a slice."""

    def fractions(self, z: float, skull: bool = True) -> dict[str, np.ndarray]:
        """Fraction (217, 181) of each of TISSUES on the plane z (mm); the rest is air."""
        rows, columns = np.indices(SHAPE, dtype=np.float32)
        plane = np.stack([columns - 90, 108 - rows, np.full(SHAPE, z, np.float32)])
        turned = plane + np.tensordot(self.turn, plane, 1)
        x, y, height = turned / self.size[:, None, None] + self.bend(1.5, "shape", 30, z)
        parts = {name: np.zeros(SHAPE) for name in TISSUES}
        left = np.ones(SHAPE)

        def ellipse(front: float, width: float, depth: float) -> np.ndarray:
            """About the distance in mm, outwards, from one of these half axes."""
            return (np.hypot(x / width, (y - front) / depth) - 1) * min(width, depth)

        def take(name: str, distance: np.ndarray, share: np.ndarray | float = 1.0) -> None:
            """Give a tissue its share of what is left within a surface."""
            nonlocal left
            taken = left * share * smoothstep(-distance, 1.2)
            left = left - taken
            if name in parts:
                parts[name] += taken

        canal, body = ellipse(0, 12, 8), ellipse(18.5 + self.atrophy, 13, 9)
        # Before and behind a vertebra's middle is half of it; a disc has neither arch nor spine.
        between = VERTEBRA / 2 - np.abs((height + self.shift[2]) % VERTEBRA - VERTEBRA / 2)
        between = between - DISC / 2
        behind = np.maximum(np.minimum(canal - 5, ellipse(-24, 4, 14)), 1 - between)
        take("cord", ellipse(0, 7 * np.exp(self.white_matter / 3), 4.3))
        take("csf", canal)
        take("disc", np.maximum(body, between))
        spongy = np.clip(0.9 + 0.05 * self.noise("trabeculae", 2.5, z), 0, 1)
        take("marrow", np.maximum(body + 1.2, 0.8 - between), spongy)
        take("bone", body)
        take("marrow", np.maximum(behind, y + 2) + 1.3, spongy)
        take("bone", np.maximum(behind, y + 2))
        take("air", ellipse(48, 9, 8))
        skin = ellipse(4, 58, 62)
        under = 6 + 2 * self.anatomy * self.noise("under the skin", 40, z)
        streaks = 0.1 + 0.25 * self.anatomy * self.noise("streaks", 6, z)
        take("fat", skin + under, np.clip(streaks, 0, 0.9))
        take("muscle", skin + under)
        take("fat", skin + 2)
        take("skin", skin)
        return parts
