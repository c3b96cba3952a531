"""Which images show the same slice, and which are held out of the training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import InputError
from .presets import Preset
from .scans.frame import Frame
from .scans.store import Stored
from .sets import Sets
from .study.metrics import find_pairs


def pairs_by_content(t1: Stored, t2: Stored, preset: Preset) -> np.ndarray:
    """(P, 2) indices of images of one size that show the same, as mutual information finds it."""
    canvas = Frame.of([*t1.shapes, *t2.shapes], replace(preset, fit="pad"))
    found = find_pairs(*(np.stack([canvas.apply(image) for image in side]) for side in (t1, t2)))
    pairs = np.stack([found.t1, found.t2], axis=1).reshape(-1, 2)
    return pairs[(t1.shapes[pairs[:, 0]] == t2.shapes[pairs[:, 1]]).all(axis=1)]


def pairs_by_scan(
    t1: Stored, t2: Stored, t1_places: Sequence[tuple], t2_places: Sequence[tuple]
) -> np.ndarray:
    """(P, 2) indices of slices of the same number in volumes of the same scan and shape.

    A place is the scan, the shape and the slice's number. They are pairs if mutual information of
    the middle ones says so. Of several volumes of one scan the last one's are taken.
    """
    places = [{place: k for k, place in enumerate(side)} for side in (t1_places, t2_places)]
    stacks: dict[tuple, list] = {}
    for place in places[0].keys() & places[1].keys():
        stacks.setdefault(place[:-1], []).append((places[0][place], places[1][place]))
    pairs = []
    for stack in map(sorted, stacks.values()):
        i, j = stack[len(stack) // 2]
        if len(find_pairs(t1[i][None, ..., None], t2[j][None, ..., None]).t1):
            pairs += stack
    return np.array(sorted(pairs), int).reshape(-1, 2)


def choose_names(
    chosen: str, known: list[tuple[str, ...]], parameter: str, place: Path | str
) -> list[str]:
    """The first names of what is chosen: 28-32,46 (numbers in first names), or any name."""
    numbers = [int((re.findall(r"\d+", names[0]) or ["-1"])[-1]) for names in known]
    found = []
    for item in chosen.split(",") if chosen else []:
        item = item.strip()
        matches = [item in names for names in known]
        if not any(matches) and (span := re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", item)):
            first, last = int(span[1]), int(span[2] or span[1])
            matches = [first <= number <= last for number in numbers]
        if not any(matches):
            raise InputError(
                f"{parameter} names {item!r}, which is not in {place}: expected numbers or names "
                f"there, from {known[0][0]} to {known[-1][0]}."
            )
        found += [names[0] for names, match in zip(known, matches, strict=True) if match]
    return found


def make_disjoint(arrays: dict[str, np.ndarray], block: int) -> None:
    """Take every head in training out of one of the sets: no T1's true partner is trained on.

    The heads in both sets, in the order of the T1 images, are cut into blocks, and go by turns
    to T1 and to T2. Images without a partner stay.
    """
    t1, t2 = arrays["t1_heads"], arrays["t2_heads"]
    partners = set(t2[arrays["t2_train"]])
    shared = [head for head in dict.fromkeys(t1[arrays["t1_train"]]) if head in partners]
    for_t2 = [head for place, head in enumerate(shared) if place // block % 2]
    arrays["t1_train"] &= ~np.isin(t1, for_t2)
    arrays["t2_train"] &= np.isin(t2, for_t2) | ~np.isin(t2, shared)


def named(sets: Sets, chosen: str) -> dict[str, set[str]]:
    """Names of the T1 images that `chosen` names as a `holdout` does, and of the same heads' T2.

    They stand under the directions in which they are the source. Raises InputError as `holdout`.
    """
    known = [(head, Path(head).stem) for head in dict.fromkeys(sets.t1_heads.tolist())]
    heads = choose_names(chosen, known, "slices", "the run's data")
    return {
        "t1_to_t2": {*sets.t1_names[np.isin(sets.t1_heads, heads)].tolist()},
        "t2_to_t1": {*sets.t2_names[np.isin(sets.t2_heads, heads)].tolist()},
    }
