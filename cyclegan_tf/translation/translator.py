"""A generator applied to scans: framed slices → generator → scans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm.auto import tqdm

from .. import InputError
from ..contrasts import HEAD, Contrasts
from ..presets import Preset
from ..scans.frame import MULTIPLE, Frame
from ..scans.intensity import cut_margins
from ..scans.scan import Scan, in_plane
from .guidance import fill_between, guide
from .trust import Calibration, Network, trust_map, views

CHUNK = 32  # slices at a time: the views of all that a volume has would not fit in memory
EVERY = 2.1  # mm: how far apart slices are translated where planes are averaged
AROUND = 8  # pixels of black around a head larger than `sides`: openms-mni-p07 loses 0.2 dB without
STRIDE = 8  # pixels: a side of a frame has to be a multiple of what the networks halve


@dataclass(frozen=True)
class Translation:
    """What the generators make of a scan: scans in its space, with black air."""

    synthetic: Scan
    """In the other contrast."""
    trust: Scan | None = None
    """The expected error or, uncalibrated, `trust_map`: from 0 to 1, scaled to [-1, 1]."""


@dataclass(frozen=True)
class Translator:
    """A generator and what else has to be known to use it."""

    generator: Network
    direction: str
    """As in `Contrasts.directions`."""
    preset: Preset
    sides: tuple[int, int]
    """Height and width of the frame in which it has learned, the smallest of several."""
    name: str
    """The model's name in the files that are made with it."""
    guidance: float = 0.0
    """Share of the lines of `guide`, for models that learned from simulated heads alone."""
    sharpening: float = 0.0
    """As in `guide`."""
    power: float = 1.0
    """The exponent applied to the output in [0, 1], which keeps its mean from being too bright or
    too dark."""
    calibration: Calibration | None = None
    """What turns the trust map into an expected error."""
    planes: tuple[str, ...] = ("",)
    """The planes that it knows, as `choose_planes` takes them; translations of several are
    averaged."""

    @property
    def contrasts(self) -> Contrasts:
        """What it translates, and what it makes of it."""
        return Contrasts.of(self.direction)

    def of_heads(self) -> Translator:
        """Itself, to be tried on simulated heads. Raises InputError if it is of another part."""
        if (part := self.preset.body_part) != HEAD:
            raise InputError(f"{self.name} is of body part {part}: expected {HEAD}.")
        return self

    def __call__(self, scans: Sequence[Scan], trust: bool = False) -> list[Translation]:
        """The translations of scans; with `trust` also the trust maps, at four times the work.

        Scans of one volume in several planes, which follow each other, have one translation, their
        mean, in the first plane. The networks are shown the box of a scan's head in the middle of a
        frame: the one in which they have learned or, for a larger head, one with AROUND pixels
        around. So the black around a head and its place in the image change nothing. Air stays
        black, as generators draw things into slices that hold little else. Where planes are
        averaged, slices nearer than EVERY are interpolated: this halves the work on a head of
        1 mm, and costs 0.04 dB and 0.002 SSIM of openms-mni-p07, nothing of
        openms-long-p12.
        """
        boxes = [scan.box if self.preset.fit == "pad" else np.s_[:, :] for scan in scans]
        margins = [
            cut_margins(scan.slices, scan.head, box)  # none of a slice that is shown whole
            for scan, box in zip(scans, boxes, strict=True)
        ]
        results = [np.full((1 + trust, *x.slices.shape), -1, np.float32) for x in scans]
        framed = defaultdict(list)  # the slices to be translated, by their frame
        known = []  # the same, by their scan
        for number, (scan, box) in enumerate(zip(scans, boxes, strict=True)):
            whole = np.add(scan.slices[0][box].shape, np.sum(margins[number], axis=1))
            frame = self._frame(whole)
            filled = np.flatnonzero(scan.head.any(axis=(1, 2)))
            averaged = scan.grid and len(scan.grid.planes) > 1
            step = max(1, int(EVERY / scan.grid.apart)) if averaged else 1
            known.append(np.union1d(filled[::step], filled[-1:]))
            framed[frame] += [(number, k) for k in known[-1]]
        chunks = [
            (frame, places[k : k + CHUNK])
            for frame, places in framed.items()
            for k in range(0, len(places), CHUNK)
        ]
        few = len(chunks) < 2
        for frame, chunk in tqdm(chunks, unit=f"{CHUNK} slices", leave=False, disable=few):
            shown = [
                np.pad(scans[number].slices[k][boxes[number]], margins[number], constant_values=-1)
                for number, k in chunk
            ]
            # n x (H, W) -> (n, h, w, 1)
            outputs = self._outputs(np.stack([*map(frame.apply, shown)]), trust)
            for (number, k), image, *made in zip(chunk, shown, *outputs, strict=True):
                for result, output in zip(results[number], made, strict=True):
                    part = result[k][boxes[number]]  # without the margins
                    (above, _), (left, _) = margins[number]
                    whole = frame.invert(output, image.shape)
                    part[:] = whole[above:, left:][: part.shape[0], : part.shape[1]]
        for result, numbers in zip(results, known, strict=True):
            fill_between(result, numbers)
        translations = []
        while scans:
            planes = len(scans[0].grid.planes) if scans[0].grid else 1
            translations.append(self._finish(scans[:planes], results[:planes]))
            scans, results = scans[planes:], results[planes:]
        return translations

    def _frame(self, shape: np.ndarray) -> Frame:
        """What slices of a shape (H, W) are shown in."""
        sides = np.where(shape > self.sides, shape + 2 * AROUND, self.sides)
        multiple = STRIDE if self.preset.fit == "pad" else MULTIPLE
        return Frame.of([sides], self.preset, multiple)

    def _finish(self, scans: Sequence[Scan], made: Sequence[np.ndarray]) -> Translation:
        """The translation of one head from what was made of its planes, (1 or 2, S, H, W) each."""
        for scan, images in zip(scans, made, strict=True):
            np.copyto(images, -1, where=~scan.head)
        scan, mean = scans[0], made[0]
        for other, images in zip(scans[1:], made[1:], strict=True):
            mean += [in_plane(scan.grid, other.grid, image) for image in images]
        mean /= len(scans)
        synthetic, *spread = mean
        if self.guidance:
            apart = scan.grid.apart if scan.grid else 0
            sharpening = self.sharpening if len(scans) > 1 else 0
            given = scan.slices, scan.head, self.guidance, apart, sharpening
            synthetic[:] = guide(synthetic, *given)
        if self.power != 1:
            np.clip(synthetic, -1, 1, out=synthetic)
            shown = synthetic > -1  # air stays 0, and most of a volume is air
            synthetic[shown] = 2 * ((synthetic[shown] + 1) / 2) ** self.power - 1
        for map_ in spread if self.calibration else []:
            error = self.calibration.expected_error((map_ + 1) / 2, synthetic)
            map_[:] = np.where(scan.head, 2 * error - 1, -1)
        return Translation(*(replace(scan, slices=x, contrast=self.contrasts.y) for x in mean))

    def _outputs(self, framed: np.ndarray, trust: bool) -> list[np.ndarray]:
        if not trust:
            return [self.generator(framed)]
        seen = views(self.generator, framed)
        return [seen[0], 2 * trust_map(seen)[..., None] - 1]
