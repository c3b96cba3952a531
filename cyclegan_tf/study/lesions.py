"""Would it show the lesion? Lesions of known kinds in simulated heads that were never trained on.

A lesion is a ball in white matter whose tissue is replaced, in part, by what lesions are of. The
same slice of the same head is translated with it and without it, so that nothing but the lesion
differs: its contrast is the difference.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from .. import InputError
from ..contrasts import arrow
from ..runs import write_json
from ..scans.intensity import BRIGHTEST, normalise
from ..scans.scan import Scan
from ..simulation.people import SOLID, Person, find_anatomies, read_anatomy, replaced, share_inside
from ..simulation.physics import Tissue
from ..simulation.protocols import IN_VIVO_3T, wanted
from ..simulation.scanners import Scanner
from ..translation.loading import DIRECTIONS, load_translator
from ..translation.translator import Translator
from .calibration import HELD_OUT
from .figures.drawing import GREY, grid, save
from .report import markdown_table

KINDS = {  # tissue; its share, as in the middle of `people.LESIONS`, and within half the radius
    "plaque": ("lesion", 0.6, 0.6),
    "hyperintensity": ("lesion", 0.4, 0.4),
    "infarct": ("lesion", 0.9, 0.9),
    "oedema with tumour": ("lesion", 0.4, 0.8),
    "cyst": ("csf", 1.0, 1.0),
    "invisible in T1": ("hidden", 0.6, 0.6),
}
SIZES = (3, 5, 8, 12, 20, 40)  # mm, diameters
CASES = [(kind, size) for kind in KINDS for size in SIZES]
PICTURED = 12  # of SIZES
FOUND = 0.5  # of the true contrast, which a lesion that is found has at least
LEAST = 5  # mm; of what is smaller a slice shows little
DARKER = (0, 0.1, 0.2, 0.3, 0.5)  # in T1 than white matter, of its signal: groups from here on
HALLUCINATED = 0.2  # of the range; brighter than the truth by that, in white matter, is a lesion
LARGE = 9  # pixels of 1 mm: the area of what is one
SLICES = 2  # axial ones of a head, each with every lesion
HEADS = 6  # around each map held out; with 2 it depends on who is drawn


class Lesion(NamedTuple):
    """What was measured of one."""

    kind: str
    """Of KINDS."""
    size: int
    """Of SIZES, mm."""
    contrast: float
    """To what was there without it, in the synthetic T2, times that in the true one."""
    trust: float
    """The expected error there, times that without it."""
    darker: float
    """How much darker than white matter it made the T1, as a share of white matter's signal."""


class Section(NamedTuple):
    """What was measured in a slice of a healthy head, and in it with each lesion."""

    hallucinated: float
    """Area in mm²."""
    cortex_darker: float
    """How much darker than white matter grey matter is in the T1; NaN without white matter."""
    lesions: list[Lesion]
    pictures: dict[str, dict[str, np.ndarray]]
    """Of lesions of PICTURED mm, by kind: views by their titles."""


def evaluate_lesions(model: str | Path, anatomies: str | Path, output: Path) -> dict:
    """Put lesions into heads around the label maps held out, translate T1 → T2, and measure.

    `model` is as in `load_translator`. The folder `output` gets `lesions.json`, which is returned,
    and `lesions.png`. "lesions" are {kind: {diameter in mm: {"contrast" (median of made / true),
    "found" (the share with at least FOUND of the true contrast), "trust" (expected error there
    with the lesion, times that without)}}}; "by_darkness" is the same, and their "count", of all
    kinds from LEAST mm on that change the T1, by how much darker than white matter they are in it:
    {least share of its signal: ...}. "cortex_darker" is that of grey matter, "hallucinated_ml" the
    volume a healthy head that is HALLUCINATED. Raises InputError as `find_anatomies` and where
    there is no model.
    """
    translator = load_translator(model).of_heads()
    if translator.direction != DIRECTIONS[0]:
        way = arrow(translator.direction)
        raise InputError(f"{model} translates {way}: expected T1 → T2, to look for lesions.")
    sections, heights = [], []
    heads = [path for path in find_anatomies(anatomies)[-HELD_OUT:] for _ in range(HEADS)]
    for number, path in enumerate(tqdm(heads, "Heads with lesions", unit="head")):
        rng = np.random.default_rng([14, number])
        scanner, anatomy = Scanner(rng), read_anatomy(path)
        scanner.tissues = scanner.tissues | {"hidden": _hidden(scanner.tissues)}
        person = Person(anatomy, rng)
        person.lesions = []  # but those that are put in
        heights.append(anatomy.high[2] - anatomy.low[2])  # mm of a brain, of slices of 1 mm
        for place in rng.uniform(0.4, 0.75, SLICES):
            parts, brain = person.section("axial", place, 1.0, np.zeros(2), rng)
            kept = scanner.kept(brain, "axial")
            sections.append(_measure_section(translator, scanner, scanner.left(parts), kept))
    areas = np.reshape([section.hallucinated for section in sections], (-1, SLICES)).mean(axis=1)
    volumes = areas * np.array(heights, float) / 1000
    lesions = [lesion for section in sections for lesion in section.lesions]
    table = {kind: {} for kind in KINDS}
    for kind, size in CASES:
        if own := [lesion for lesion in lesions if (lesion.kind, lesion.size) == (kind, size)]:
            table[kind][size] = _summary(own)
    seen = [x for x in lesions if x.size >= LEAST and KINDS[x.kind][0] != "hidden"]
    groups = np.digitize([lesion.darker for lesion in seen], DARKER[1:])
    result = {
        "model": translator.name,
        "heads": len(heads),
        "found_from": FOUND,
        "hallucinated_ml": {"mean": np.mean(volumes), "most": np.max(volumes)},
        "lesions": table,
        "by_darkness": {
            least: _summary(own) | {"count": len(own)}
            for group, least in enumerate(DARKER)
            if (own := [one for one, its in zip(seen, groups, strict=True) if its == group])
        },
        "cortex_darker": np.nanmedian([section.cortex_darker for section in sections]),
    }
    write_json(output / "lesions.json", result)
    # Of each kind the first section's.
    pictures = {k: views for one in sections[::-1] for k, views in one.pictures.items()}
    shown = [[*views.items()] for views in pictures.values()]
    styles = [GREY | {"vmin": 0}] * len(shown[0])
    save(grid(shown, f"Lesions of {PICTURED} mm", list(pictures), styles), output, "lesions")
    return result


def _summary(lesions: list[Lesion]) -> dict[str, float]:
    contrast = np.array([lesion.contrast for lesion in lesions])
    return {
        "contrast": float(np.median(contrast)),
        "found": float(np.mean(contrast >= FOUND)),
        "trust": float(np.median([lesion.trust for lesion in lesions])),
    }


def _hidden(tissues: dict[str, Tissue]) -> Tissue:
    """Water as a lesion's in T2, and white matter in all that a T1w scan knows."""
    return replace(tissues["white"], t2=tissues["lesion"].t2)


def _measure_section(
    translator: Translator, scanner: Scanner, parts: dict[str, np.ndarray], kept: np.ndarray
) -> Section:
    """Put every lesion into a slice of a healthy head, and translate it with each and without."""
    solid = kept * sum(parts[name] for name in SOLID)
    room = ndimage.distance_transform_edt(solid > 0.8)
    white = np.argwhere((parts["white"] > 0.8) & (room > 3))
    if not len(white):
        return Section(0.0, np.nan, [], {})
    cases, masks = [parts], []
    for kind, size in CASES:
        radius = size / 2
        fits = white[room[tuple(white.T)] > min(radius, room[tuple(white.T)].max() - 1)]
        row, column = scanner.rng.choice(fits)
        away = np.hypot(*(np.indices(solid.shape) - np.array([row, column])[:, None, None]))
        tissue, share, core = KINDS[kind]
        edged = share * share_inside(away / radius, radius, 1.0)
        share = np.where(away < radius / 2, core, edged)
        cases.append(replaced(parts, tissue, share))
        masks.append((away < radius) & (solid > 0.8))
    state, images = scanner.rng.bit_generator.state, []
    for case in cases:  # with the same noise
        scanner.rng.bit_generator.state = state
        images.append(scanner.scan(case, kept, "t1"))
    signal = images[0][parts["white"] > 0.8].mean()
    grey = parts["grey"] ** 4  # mostly of pixels that are grey matter alone
    cortex_darker = 1 - (grey * images[0]).sum() / (grey.sum() + 1e-6) / signal
    truth = np.stack([_true_t2(case, kept, scanner) for case in cases])
    scans = [Scan.of(normalise(image[None], "t1"), "t1") for image in images]
    made = translator(scans, trust=True)
    synthetic = np.stack([(one.synthetic.slices[0] + 1) / 2 for one in made])
    doubt = np.stack([(one.trust.slices[0] + 1) / 2 for one in made])
    lesions, pictures = [], {}
    for number, ((kind, size), mask) in enumerate(zip(CASES, masks, strict=True), 1):
        contrast = [(x[number] - x[0])[mask].mean() for x in (synthetic, truth)]
        trust = doubt[number][mask].mean() / max(doubt[0][mask].mean(), 1e-6)
        darker = (images[0] - images[number])[mask].mean() / signal
        lesions.append(Lesion(kind, size, contrast[0] / contrast[1], trust, darker))
        if size == PICTURED:
            shown = {"T1": images[number] / np.percentile(images[number], 99.5)}
            shown |= {"synthetic T2": synthetic[number], "true T2": truth[number]}
            pictures[kind] = shown | {"expected error, × 5": 5 * doubt[number]}
    excess = (synthetic[0] - truth[0] > HALLUCINATED) & (parts["white"] > 0.8)
    labels, _ = ndimage.label(excess)
    sizes = np.bincount(labels.ravel())[1:]
    hallucinated = float(sizes[sizes >= LARGE].sum())
    return Section(hallucinated, cortex_darker, lesions, pictures)


def _true_t2(parts: dict[str, np.ndarray], kept: np.ndarray, scanner: Scanner) -> np.ndarray:
    """What is to be drawn, as `scanners.wanted`, in [0, 1], also of the tissue that T1 hides."""
    tissues = IN_VIVO_3T | {"hidden": _hidden(IN_VIVO_3T)}
    image = kept * scanner.resolve(wanted(parts, "t2", tissues), "t1")
    return np.clip(BRIGHTEST["t2"] * image, 0, 1)


def report_lesions(result: dict) -> str:
    """Markdown of what `evaluate_lesions` returns: contrast kept / share found / trust's ratio."""

    def cell(one: dict[str, float]) -> str:
        return f"{one['contrast']:.2f} / {one['found']:.0%} / {one['trust']:.1f}"

    table = [["lesion", *(f"{size} mm" for size in SIZES)]]
    table += [[kind, *map(cell, sizes.values())] for kind, sizes in result["lesions"].items()]
    groups = result["by_darkness"]
    ends = [f" to {end:.0%}" for end in [*groups][1:]] + [" and more"]
    by_darkness = [["darker in T1 by", "lesions", "kept / found / error"]]
    for (least, one), end in zip(groups.items(), ends, strict=True):
        by_darkness.append([f"{least:.0%}{end}", str(one["count"]), cell(one)])
    volume = result["hallucinated_ml"]
    return (
        f"**Lesions, T1 → T2** ({result['model']}): contrast kept / found / expected error with "
        f"the lesion, times without\n\n{markdown_table(table)}\n\nThe same of those from {LEAST} "
        "mm on that the T1 shows, by how much darker than white matter they are in it (grey "
        f"matter: {result['cortex_darker']:.0%})\n\n{markdown_table(by_darkness)}\n\n"
        "Hallucinated in healthy heads: "
        f"{volume['mean']:.2f} ml a head in the mean, at most {volume['most']:.2f} ml."
    )
