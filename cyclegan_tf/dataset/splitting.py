"""Which images show the same slice, and which are held out of the training."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import InputError
from ..metrics import find_pairs
from ..presets import Preset
from ..scans.frame import Frame
from ..scans.images import natural_order
from .sets import Sets, Stored


def pairs_by_content(x: Stored, y: Stored, preset: Preset) -> np.ndarray:
    """(P, 2) indices of images of one size that show the same, as mutual information finds it."""
    canvas = Frame.of([*x.shapes, *y.shapes], replace(preset, fit="pad"))
    pairs = find_pairs(*(np.stack([canvas.apply(image) for image in side]) for side in (x, y)))
    return pairs[(x.shapes[pairs[:, 0]] == y.shapes[pairs[:, 1]]).all(axis=1)]


def pairs_by_scan(
    x: Stored, y: Stored, x_places: Sequence[tuple], y_places: Sequence[tuple]
) -> np.ndarray:
    """(P, 2) indices of slices of the same number in volumes of the same scan and shape.

    A place is the scan, the shape and the slice's number. They are pairs if mutual information of
    the middle ones says so. Of several volumes of one scan the last one's are taken.
    """
    places = [{place: k for k, place in enumerate(side)} for side in (x_places, y_places)]
    stacks: dict[tuple, list] = {}
    for place in places[0].keys() & places[1].keys():
        stacks.setdefault(place[:-1], []).append((places[0][place], places[1][place]))
    pairs = []
    for stack in map(sorted, stacks.values()):
        i, j = stack[len(stack) // 2]
        if len(find_pairs(x[i][None, ..., None], y[j][None, ..., None])):
            pairs += stack
    return np.array(sorted(pairs), int).reshape(-1, 2)


def held_out_names(holdout: str, known: list[tuple[str, ...]], place: str) -> list[str]:
    """The first names of what a holdout names: 28-32,46 (numbers in first names), or any name.

    Raises InputError for what is not among the `known`, which are those in a `place`.
    """
    numbers = [int((re.findall(r"\d+", names[0]) or ["-1"])[-1]) for names in known]
    found = []
    for item in holdout.split(",") if holdout else []:
        item = item.strip()
        matches = [item in names for names in known]
        if not any(matches) and (span := re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", item)):
            first, last = int(span[1]), int(span[2] or span[1])
            matches = [first <= number <= last for number in numbers]
        if not any(matches):
            # Volumes of both contrasts follow each other, each in their own order.
            paths = [Path(names[0]) for names in known]
            first, last = min(paths, key=natural_order), max(paths, key=natural_order)
            expected = f"numbers or names from {first} to {last}"
            raise InputError(f"holdout names {item!r}, not in {place}: expected {expected}.")
        found += [names[0] for names, match in zip(known, matches, strict=True) if match]
    return found


def keep_from_training(sets: Sets, heads: Sequence[str]) -> None:
    """Take all images of these heads out of the training."""
    for side in (sets.x, sets.y):
        side.train[np.isin(side.heads, heads)] = False


def kept_heads(sets: Sets) -> list[str]:
    """The heads to stop the training by, of those in it of which the true y is known.

    These are the middle tenth by name, at least one if there is any.
    """
    train = sets.x.train
    if not sets.truth:
        train = train & np.isin(np.arange(len(train)), sets.pairs[:, 0])
    known = np.unique(sets.x.heads[train]).tolist()
    count = -(-len(known) // 10)
    return known[(len(known) - count) // 2 :][:count]


def make_disjoint(sets: Sets, block: int) -> None:
    """Take every head in training out of one of the sets: nobody's true partner is trained on.

    The heads in both sets, in the order of the images x, are cut into blocks, and go by turns
    to x and to y. Images without a partner stay.
    """
    x, y = sets.x, sets.y
    partners = set(y.heads[y.train])
    shared = [head for head in dict.fromkeys(x.heads[x.train]) if head in partners]
    for place, head in enumerate(shared):
        other = x if place // block % 2 else y
        other.train[other.heads == head] = False
