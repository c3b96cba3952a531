"""Heads around the average brain: the ICBM 152 2009a tissue maps that ship with nilearn.

The maps are averages of 152 brains. Every simulated head is a random individual around them: bent,
with its own cortical folds, wrapped in cerebrospinal fluid, bone, muscle, fat and skin.
"""

from functools import cache

import numpy as np
from scipy import ndimage

from ..scans.arrays import cubic_spline, spline_values

SHAPE = (217, 181)
"""Rows (nose up) and columns of a slice, 1 mm each."""
CENTRE = np.array([0.0, -18.0, 18.0], np.float32)
"""MNI x, y (mm) of the middle pixel, as in BrainWeb's grid, and the z about which heads turn."""
MAP_ORIGIN = np.array([-98.0, -134.0, -42.0], np.float32)
"""MNI mm of the first voxel of `template`; no slice reaches below it."""


@cache
def template() -> dict[str, np.ndarray]:
    """Maps from MNI z = -42 mm up, axes x, y, z, 1 mm, float32, first voxel at `MAP_ORIGIN`.

    Logits of the `white` matter and `csf` probabilities; `distance` (mm) outward from the skull.
    """
    from nilearn import datasets  # here, as most trainings have no use for it, and it takes seconds

    grey, white, mask = (
        load(resolution=1).get_fdata(dtype=np.float32)[:, :, 30:170]
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    )
    # A closing by 24 mm bridges the fissures, as the skull does; on every second voxel, for speed.
    closing, margin = 12, 13
    outside = np.pad(mask[::2, ::2, ::2] < 0.5, margin, mode="edge")
    away = ndimage.distance_transform_edt(ndimage.distance_transform_edt(outside) <= closing)
    inside = away[(slice(margin, -margin),) * 3] > closing
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    distance = ndimage.zoom(ndimage.gaussian_filter(2 * distance, 1.5), 2, order=1)
    # The brain mask ends about 1.2 mm outside the pia.
    maps = {"distance": (distance + 1.2).astype(np.float32)}
    for name, probability in (("white", white), ("csf", np.clip(1 - grey - white, 0, 1))):
        maps[name] = np.log((probability + 0.01) / (1.01 - probability))
    return maps


@cache
def spline_basis(size: int, spacing: float) -> np.ndarray:
    """(size, knots): values at every pixel of the splines of knots `spacing` pixels apart."""
    return spline_values(np.arange(size) / spacing + 1, int(size / spacing) + 4)


def smoothstep(level: np.ndarray, width: float) -> np.ndarray:
    """0 to 1, smoothly, as the level rises through 0: how much of a voxel a surface cuts off."""
    x = np.clip(level / width + 0.5, 0, 1)
    return x * x * (3 - 2 * x)


class Head:
    """One random individual."""

    def __init__(self, rng: np.random.Generator, anatomy: float):
        self.anatomy, self.key = anatomy, int(rng.integers(2**32))
        self.size = np.exp(anatomy * rng.normal(0, [0.03, 0.03, 0.04]))
        self.shift = anatomy * rng.normal(0, [1.5, 2.5, 3.0])
        self.turn = anatomy * rng.normal(0, 0.04, (3, 3))
        self.turn -= self.turn.T  # antisymmetric: a small rotation
        self.white_matter, self.atrophy, self.ribbon = anatomy * rng.normal(0, [0.2, 0.3, 0.15])
        self.knots: dict[str, np.ndarray] = {}

    def noise(self, name: str, spacing: float, z: float) -> np.ndarray:
        """Smooth random field of unit deviation, (217, 181), at the height z (mm above -60).

        `spacing` (mm) of its knots sets its scale; slices of a head cut the same field.
        """
        shape = [int(size / spacing) + 4 for size in (180, *SHAPE)]
        if name not in self.knots:
            rng = np.random.default_rng([self.key, *name.encode()])
            self.knots[name] = 3 * rng.standard_normal(shape, dtype=np.float32)
        level = (z + 60) / spacing + 1
        near = slice(max(int(level) - 1, 0), int(level) + 3)
        weights = cubic_spline(np.abs(level - np.arange(shape[0])[near])).astype(np.float32)
        plane = np.tensordot(weights, self.knots[name][near], 1)
        return spline_basis(SHAPE[0], spacing) @ plane @ spline_basis(SHAPE[1], spacing).T

    def bend(self, size: float, name: str, spacing: float, z: float) -> np.ndarray:
        """Random displacement (3, 217, 181) in mm, of deviation `size`."""
        return size * self.anatomy * np.stack([self.noise(f"{name}{i}", spacing, z) for i in "xyz"])

    def fractions(self, z: float, skull: bool) -> dict[str, np.ndarray]:
        """Fraction (217, 181) of each of TISSUES on the plane z (MNI mm); the rest is air, bone."""
        rows, columns = np.indices(SHAPE, dtype=np.float32)
        plane = np.stack([columns - 90, 108 - rows, np.full(SHAPE, z - CENTRE[2])])
        turned = plane + np.tensordot(self.turn, plane, 1)
        place = (CENTRE + self.shift)[:, None, None]
        head = turned / self.size[:, None, None] + place + self.bend(3, "shape", 60, z)
        brain = head + self.bend(1.5, "lobes", 22, z) + self.bend(0.8, "folds", 9, z)

        def sample(name: str, points: np.ndarray) -> np.ndarray:
            voxels = points - MAP_ORIGIN[:, None, None]
            return ndimage.map_coordinates(template()[name], voxels, order=1, mode="nearest")

        # A random field on the logits makes of the average map one individual's sharp borders.
        gyri = 0.7 * self.noise("gyri", 7, z) + 0.4 * self.noise("branches", 4.5, z)
        white = smoothstep(sample("white", brain) + self.anatomy * gyri + self.white_matter, 3)
        # The cortex is a ribbon of even thickness: fluid fills the sulci far from white matter.
        near_white = ndimage.gaussian_filter(white, 2.2 + self.ribbon)
        sulci = 1 + self.anatomy * 0.5 * self.noise("sulci", 4.5, z) + 4 * (0.12 - near_white)
        csf = smoothstep(sample("csf", brain) + sulci + self.atrophy, 3) * (1 - white)
        distance = sample("distance", head) + self.anatomy * 0.1 * self.noise("rough", 2.5, z)
        parts = {"csf": csf, "grey": 1 - white - csf, "white": white}
        parts = {name: part * smoothstep(-distance, 1.2) for name, part in parts.items()}
        return self.covered(parts, distance, head, z) if skull else parts

    def covered(
        self, brain: dict[str, np.ndarray], distance: np.ndarray, head: np.ndarray, z: float
    ) -> dict[str, np.ndarray]:
        """The brain's fractions and its covers', layer on layer from the fluid to the skin."""
        sideways = np.abs(head[0]) / np.hypot(np.hypot(head[0], head[1] + 15), 1)
        temple = np.clip(4 * sideways - 2.6, 0, 1) * np.clip((62 - head[2]) / 25, 0, 1)

        def layer(name: str, mean: float, deviation: float, spacing: float = 50) -> np.ndarray:
            return np.maximum(mean + self.anatomy * deviation * self.noise(name, spacing, z), 0)

        edges, masks = np.zeros(SHAPE), {}
        inside = smoothstep(-distance, 1.2)
        for name, thickness, width in (  # mm; width of the layer's outer border
            ("fluid", layer("fluid", 0.8, 0.4, 25), 1.5),
            ("inner table", layer("inner table", 1.6, 0.3), 1.5),
            ("diploe", layer("diploe", 2.4, 0.6) * (1 - 0.7 * temple), 1.5),
            ("outer table", layer("outer table", 1.5, 0.3), 1.5),
            ("periosteum", layer("periosteum", 1.5, 0.5, 20), 1.5),
            ("muscle", layer("muscle", 1.3, 0.3) + 3.8 * temple, 2.0),
            ("fat", layer("fat", 3.0, 0.5), 2.5),
            ("fascia", layer("fascia", 1.5, 0.3), 2.5),
            ("skin", layer("skin", 2.4, 0.4, 30), 2.0),
        ):
            edges = edges + thickness
            beyond = smoothstep(edges - distance, width)
            masks[name], inside = beyond - inside, beyond
        spongy = 0.55 + self.anatomy * 0.25 * self.noise("marrow", 3.5, z)
        marrow = masks["diploe"] * np.clip(spongy, 0, 1)
        lobules = 0.35 * self.noise("fatty", 15, z) + 0.1 * self.noise("lobules", 2.5, z)
        fat = masks["fat"] * np.clip(0.2 + self.anatomy * lobules, 0, 1)
        skin = masks["skin"] + masks["periosteum"] + marrow
        water = skin + masks["fluid"]
        solid = sum(brain.values()) + masks["muscle"] + masks["fat"] + masks["fascia"]
        return {
            "csf": brain["csf"] + masks["fluid"],
            "grey": brain["grey"],
            "white": brain["white"],
            "skin": skin,
            # BrainWeb's T1w is brighter than a linear mixture where water meets air or bone.
            "connective": masks["fat"] - fat + 0.2 * water * (1 - water - solid),
            "fat": fat,
            "muscle": masks["muscle"] + masks["fascia"],
        }
