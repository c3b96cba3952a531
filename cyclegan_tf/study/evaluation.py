"""How right a run is on its own images: the figures, and what pictures need."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import metrics
from ..contrasts import HEAD
from ..dataset.sets import ImageSet, Sets, watched
from ..runs import Run, write_json
from ..scans.frame import Frame
from ..scans.intensity import find_head
from ..scans.scan import Scan
from ..translation.loading import load_translator
from ..translation.translator import Translator

SPLITS = {
    "held_out": "nothing of these slices was trained on",
    "validation": "the training was stopped, and its best epoch chosen, by them",
    "train": "trained on, so no measure of how new images are translated",
    "other": "not trained on, but their true partners were, as images of the other contrast",
}
MOST = 100  # images of one contrast and split that are translated and measured


@dataclass(frozen=True, eq=False)
class Side:
    """The images of one contrast that are evaluated."""

    scans: list[Scan]
    images: np.ndarray
    """(N, H, W, 1) in [-1, 1], padded to one size."""
    names: np.ndarray
    split: np.ndarray
    numbers: np.ndarray
    """Of the slices: neighbours differ by 1."""


@dataclass(frozen=True, eq=False)
class Direction:
    """What was translated one way and where it should arrive; images (N, H, W, 1) in [-1, 1]."""

    source: Side
    target: Side
    pairs: np.ndarray
    """(P, 2) indices of sources and of the targets that are their truth."""
    labels: np.ndarray
    """Tissues (P, H, W) of the pairs, as `metrics.tissues`."""
    synthetic: np.ndarray
    cycled: np.ndarray
    trust_maps: np.ndarray


def evaluate(run: Run, sets: Sets) -> tuple[dict, dict[str, dict[str, np.ndarray]]]:
    """Translate the images of `sets` both ways; write `metrics.json` into the run.

    Returns what it holds and, by direction, what `figures.scores` draws.

    Of larger sets only some, as `_spread` chooses them, so that time and memory are bounded. A
    figure stands under direction, split (of SPLITS), measure (`metrics.measure`) and "mean"; a
    baseline's (`metrics.baselines`) under "baselines", direction, split, its name and so on.
    "truth" says of each direction how it is known: from `pairs` among the images, a `folder`, or
    `none`, which leaves the measures that need none. Where it is known of some images of a split,
    only these are measured. What is measured is what `translate` writes: a Translator makes it.
    Where sizes differ, the smaller images are padded with black.

    Raises InputError if the run has no generators.
    """
    there, back = ways = sets.contrasts.directions
    translators = [load_translator(run.folder, way) for way in ways]
    known = "pairs" if len(sets.pairs) else "none"
    truth = {there: "folder" if sets.truth else known, back: known}
    result = {"splits": SPLITS, "most_of_a_split": MOST, "truth": truth, "baselines": {}}
    pictures = {}
    for way, direction in zip(ways, _translated(sets, *translators), strict=True):
        splits = [split for split in SPLITS if split in direction.source.split]
        rows = {split: _measured(direction, split) for split in splits}
        result[way] = {split: row.pop("synthetic") for split, row in rows.items()}
        result["baselines"][way] = rows
        pictures[way] = _shown(direction)
    write_json(run.path("metrics.json"), result)
    return result, pictures


def _translated(sets: Sets, to_y: Translator, to_x: Translator) -> tuple[Direction, Direction]:
    """x → y and y → x. A folder of true images y stands in for the unpaired ones.

    Tissues are those of the data set, or else found by clustering the true pairs of T1 and T2.
    """
    x_members = _spread(sets.x_split, sets.pairs[:, 0])
    pairs = sets.pairs[np.isin(sets.pairs[:, 0], x_members)]
    y_members = _spread(sets.y_split, pairs[:, 1])
    pairs = pairs[np.isin(pairs[:, 1], y_members)]
    # Numbers among all images -> places among those that are evaluated.
    members = x_members, y_members
    pairs = np.stack([np.searchsorted(*one) for one in zip(members, pairs.T, strict=True)], axis=1)
    shapes = [*sets.x.images.shapes[x_members], *sets.y.images.shapes[y_members]]
    canvas = Frame("pad", *np.max(shapes, axis=0))

    def stack(images: Iterable[np.ndarray]) -> np.ndarray:
        return np.stack([canvas.apply(image) for image in images])  # n x (H, W) -> (N, H, W, 1)

    def joined(scans: Iterable[Scan]) -> np.ndarray:
        return stack(image for scan in scans for image in scan.slices)

    def side(name: str, members: np.ndarray) -> Side:
        scans, names = sets.scans(name, members), getattr(sets, name).names
        known = names, getattr(sets, f"{name}_split"), _slice_numbers(names)
        return Side(scans, joined(scans), *(np.array(one)[members] for one in known))

    def direction(source, target, pairs, labels, there: Translator, back: Translator) -> Direction:
        made = there(source.scans, trust=True)
        synthetic = joined(one.synthetic for one in made)
        cycled = joined(one.synthetic for one in back([one.synthetic for one in made]))
        trust_maps = (joined(one.trust for one in made)[..., 0] + 1) / 2
        return Direction(source, target, pairs, labels, synthetic, cycled, trust_maps)

    x, y = side("x", x_members), side("y", y_members)
    true_y, to_truth = y, pairs
    if sets.truth:
        true_y = replace(x, images=stack(sets.truth[k] for k in x_members))
        to_truth = np.repeat(np.arange(len(x_members))[:, None], 2, axis=1)
    labels = np.zeros(x.images.shape[:3], np.uint8)
    if sets.labels:
        labels = stack(sets.labels[k] for k in x_members)[..., 0].clip(0).astype(np.uint8)
    elif len(pairs) and {*sets.contrasts} == {"t1", "t2"} and sets.body_part == HEAD:
        own, partner = to_truth.T
        both = x.images[own], true_y.images[partner]
        labels[own] = metrics.tissues(*(both if sets.contrasts.x == "t1" else both[::-1]))
    return (
        direction(x, true_y, to_truth, labels[to_truth[:, 0]], to_y, to_x),
        direction(y, x, pairs[:, ::-1], labels[pairs[:, 0]], to_x, to_y),
    )


def _spread(split: Sequence[str], known: np.ndarray) -> np.ndarray:
    """Indices of the images to evaluate: of each split all or, if it has more, MOST.

    These come by twos, a slice and its neighbour, evenly spread over those of which the truth is
    `known` (indices) or, where it is of none, over all.
    """
    kept = []
    for name in SPLITS:
        members = np.flatnonzero(np.equal(split, name))
        if len(members) > MOST:
            choice = np.intersect1d(members, known)
            choice = choice if len(choice) else members
            second = np.linspace(1, len(choice) - 1, MOST // 2, dtype=int)
            members = np.unique(choice.take([second - 1, second], mode="clip"))
        kept.append(members)
    return np.sort(np.concatenate(kept))


def _measured(direction: Direction, split: str) -> dict[str, dict]:
    """The figures of "synthetic" and, where the truth is known, of the baselines."""
    source, target = direction.source, direction.target
    members = np.flatnonzero(np.equal(source.split, split))
    rows = np.flatnonzero(np.isin(direction.pairs[:, 0], members))
    chosen, partners = direction.pairs[rows].T if len(rows) else (members, [])
    known = {"target": target.images, "names": source.names[chosen].tolist()}
    known["heads"] = [metrics.head_mask(image) for image in metrics.unit(source.images[chosen])]
    beside = {}
    if len(rows):
        known |= {"truth": target.images[partners], "labels": direction.labels[rows]}
        pairs = direction.pairs.T
        beside = metrics.baselines(source.images, target.images, pairs, target.numbers, rows)

    def measure(images: np.ndarray, **more) -> dict:
        return metrics.measure(source.images[chosen], images, **known, **more)

    maps = direction.trust_maps[chosen]
    made = measure(direction.synthetic[chosen], cycled=direction.cycled[chosen], trust_maps=maps)
    return {"synthetic": made} | {name: measure(images) for name, images in beside.items()}


def _slice_numbers(names: Iterable[str]) -> Sequence[int]:
    """The last number in each file name, or their order where that does not tell them apart."""
    found = [re.findall(r"\d+", Path(name).stem) for name in names]
    numbers = [int(digits[-1]) for digits in found if digits]
    return numbers if len(set(numbers)) == len(found) else range(len(found))


def _shown(direction: Direction) -> dict[str, np.ndarray]:
    """What pictures need: 8-bit images, black where the truth is not `known`, and trust maps."""
    own, partner = direction.pairs.T
    source, synthetic, target = map(
        metrics.grey_levels, (direction.source.images, direction.synthetic, direction.target.images)
    )
    truth, known = np.zeros_like(source), np.zeros(len(source), bool)
    truth[own], known[own] = target[partner], True
    return {
        "source": source,
        "synthetic": synthetic,
        "truth": truth,
        "known": known,
        "trust_maps": direction.trust_maps.astype(np.float16),
        "names": direction.source.names,
    }


def fidelity_over_epochs(
    snapshots: Mapping[int, Mapping[str, np.ndarray]], sets: Sets
) -> dict[str, dict[int, float]]:
    """Mean PSNR of the watched slices by direction and epoch, in every snapshot of training.

    `snapshots` are those of `read_snapshots`. A direction in which no watched slice's truth is
    known is left out.
    """

    def psnr(framed: np.ndarray, source: ImageSet, number: int, truth: np.ndarray) -> float:
        image = np.full_like(truth, -1)
        shown = source.cut(number, image)
        shown[:] = sets.frame.invert(framed, shown.shape)
        air = ~find_head(source.images[number][None], sets.body_part)[0]
        image[air] = -1  # as a Translator paints it
        return metrics.psnr(*(metrics.unit(x[..., None]) for x in (image, truth)))

    curves = {}
    sides = (sets.x, "x", "fake_y"), (sets.y, "y", "fake_x")
    for way, (source, side, fake) in zip(sets.contrasts.directions, sides, strict=True):
        shown = [(k, i, sets.truth_of(side, i)) for k, i in enumerate(watched(source.train))]
        known = [one for one in shown if one[-1] is not None]
        for epoch, arrays in snapshots.items() if known else ():
            found = [psnr(arrays[fake][k], source, i, truth) for k, i, truth in known]
            curves.setdefault(way, {})[epoch] = float(np.mean(found))
    return curves
