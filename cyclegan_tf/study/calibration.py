"""What the gate and the trust maps know, learned on simulated heads and tested on other ones.

Of the label maps in a folder the last HELD_OUT, by name, are of people whom nothing is fitted to:
the shipped pair is to be trained on the others alone.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from tqdm.auto import tqdm

from .. import InputError
from ..contrasts import arrow
from ..metrics import rank_correlation
from ..runs import write_file, write_json
from ..scans.intensity import normalise
from ..scans.scan import Scan
from ..simulation.contrasts import simulate_contrasts
from ..simulation.people import find_anatomies
from ..simulation.scanners import SLICES_A_HEAD, Scans, simulate_scans
from ..translation import gate, trust
from ..translation.loading import PRETRAINED, SHIPPED, load_translator
from ..translation.translator import Translator
from .figures.drawing import save

HELD_OUT = 4
HEADS, SLICES = 30, 5  # around each map, and of each head
NETWORKS, HIDDEN, DECAY = 4, 48, 0.05  # the gate is their mean; penalty of their squared weights
RARE = 0.01  # of T1w heads may be warned of by contrast; of each side of their outlines a quarter
NEAR = 0.999  # of simulated heads lie nearer to their mean than what is like none of them
TRUSTED = 288  # slices around each map held out, on which trust maps are fitted and tested
PIXELS = 3_000  # of each of their heads


def calibrate_gate(anatomies: str | Path) -> dict:
    """Fit the gate on simulated heads of all contrasts, write it, and return how right it is.

    `anatomies` is a folder of label maps. Returns {contrast: {"heads", "wrong", "warned"}} for the
    simulated heads around the maps held out: their number, the share that is said to be no T1w, and
    the share with any warning, such as that their contrast cannot be told. The level that a T1w has
    to pass is set by the same heads, so the share of T1w with a warning is no test. Raises
    InputError as `find_anatomies`, and if no map is left to fit on.
    """
    paths = find_anatomies(anatomies, HELD_OUT + 1)
    fitted, held_out = [], []  # contrasts and measured slices of heads
    for number, path in enumerate(tqdm(paths, "Label maps"), 1):
        for head in simulate_contrasts(path, HEADS, SLICES, number):
            for kind, images in head.items():
                slices = gate.measured_slices(Scan.of(normalise(images, "t1"), "t1"))
                heads = held_out if number > len(paths) - HELD_OUT else fitted
                heads.append((kind, slices))
    kinds, rows = zip(*((kind, np.stack(slices)) for kind, slices in fitted if slices), strict=True)
    known = fit_gate(rows, kinds)
    found = [gate.shares(slices, known)[0] for kind, slices in held_out if slices and kind == "t1"]
    chances = [sum(one[name] for name in gate.accepted("t1")) for one in found]
    known["passes"] = round(float(np.quantile(chances, RARE)), 3)
    write_file(gate.COEFFICIENTS, json.dumps(known) + "\n")
    gate.coefficients.cache_clear()
    verdicts: dict[str, list[gate.Verdict]] = {}
    for kind, slices in held_out:
        verdicts.setdefault(kind, []).append(gate.judge_slices(slices, "t1"))
    return {
        kind: {
            "heads": len(found),
            "wrong": float(np.mean([one.wrong for one in found])),
            "warned": float(np.mean([bool(one.warning) for one in found])),
        }
        for kind, found in verdicts.items()
    }


def fit_gate(rows: Sequence[np.ndarray], kinds: Sequence[str]) -> dict:
    """The coefficients, as in `pretrained/gate.json`, but for "passes".

    `rows` are the features (slices, K) of each head, and `kinds` their contrasts. Every slice is
    learned from by itself; the mean of several networks before their softmax is a wider one.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    blank = np.pad(np.ones((40, 40)), 9)
    names = [*gate.features(blank, blank > 0)][: -gate.OUTLINE]
    slices = np.concatenate(rows)[:, : -gate.OUTLINE]
    centre, spread = slices.mean(axis=0).round(5), slices.std(axis=0).round(5) + 1e-5
    unit = np.clip((slices - centre) / spread, -4, 4)
    targets = np.repeat(kinds, [len(one) for one in rows])
    options = {"alpha": DECAY, "max_iter": 120, "n_iter_no_change": 120}
    models = [MLPClassifier(HIDDEN, random_state=k, **options) for k in range(NETWORKS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it ends when it was meant to
        for model in models:
            model.fit(unit, targets)
    weights = np.hstack([one.coefs_[0] for one in models])
    outputs = np.vstack([one.coefs_[1] for one in models]) / NETWORKS
    heads = zip(rows, kinds, strict=True)
    outlines = [one.mean(axis=0)[-gate.OUTLINE :] for one, kind in heads if kind == "t1"]
    filled, corners = np.transpose(outlines)
    splits = np.cumsum([len(one) for one in rows])[:-1]
    distances = [np.mean(one**2) for one in np.split(unit, splits)]
    return {
        "contrasts": models[0].classes_.tolist(),
        "least filled": round(float(np.quantile(filled, RARE / 4)), 3),
        "fullest corner": round(float(np.quantile(corners, 1 - RARE / 4)), 3),
        "farthest": round(float(np.quantile(distances, NEAR)), 3),
        "biases": np.hstack([one.intercepts_[0] for one in models]).round(4).tolist(),
        "outputs": outputs.round(4).tolist(),
        "intercepts": np.mean([one.intercepts_[1] for one in models], axis=0).round(4).tolist(),
        "features": {
            name: {"mean": float(middle), "deviation": round(float(width), 5), "weights": one}
            for name, middle, width, one in zip(
                names, centre, spread, weights.round(4).tolist(), strict=True
            )
        },
    }


def calibrate_trust(model: str | Path, anatomies: str | Path) -> dict:
    """Fit what a model's trust maps mean, and test it on people and scanners never met.

    `model` is a run's folder or "shipped", `anatomies` a folder of label maps: half of the last
    ones are for the fit and half for the test. Writes `calibration.json` beside the generators
    and the reliability diagram, `outputs/reliability-MODEL.png`. Returns what the file holds: of
    each direction "weights" and "quantile" as in `trust.Calibration` and "test": what is
    "covered" by intervals of 90 %, their mean half "width" and the mean "error" (shares of the
    range), "rank_correlation" and the "expected" and "found" errors of ten equally large groups.
    Raises InputError as `find_anatomies`, for a single map, and where there is no run.
    """
    folder = PRETRAINED if str(model) == SHIPPED else Path(model) / "models"
    pair = load_translator(model).of_heads().contrasts
    if not folder.is_dir():
        raise InputError(f"{model} is a file: expected a run's folder, for both directions.")
    paths = find_anatomies(anatomies, 2)[-HELD_OUT:]
    scans = [
        simulate_scans(TRUSTED, seed, str(path), contrasts=pair) for seed, path in enumerate(paths)
    ]
    result = {}
    for way in pair.directions:
        translator = replace(load_translator(model, way), calibration=None)
        people = [_terms_and_errors(translator, one, way == pair.directions[0]) for one in scans]
        half = len(people) // 2
        fitted = trust.Calibration.fit(*map(np.concatenate, zip(*people[:half], strict=True)))
        terms, errors = map(np.concatenate, zip(*people[half:], strict=True))
        expected = fitted.of(terms)
        groups = np.array_split(np.argsort(expected), 10)
        test = {
            "covered": np.mean(errors <= fitted.quantile * expected),
            "width": fitted.quantile * expected.mean(),
            "error": errors.mean(),
            "rank_correlation": rank_correlation(expected, errors),
            "expected": [expected[k].mean() for k in groups],
            "found": [errors[k].mean() for k in groups],
        }
        test = {name: np.round(value, 5).tolist() for name, value in test.items()}
        result[way] = {"weights": fitted.weights, "quantile": fitted.quantile, "test": test}
    write_json(folder / "calibration.json", result)
    save(_reliability(result), Path("outputs"), f"reliability-{Path(model).name}")
    return result


def _terms_and_errors(
    translator: Translator, scans: Scans, forth: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`trust.terms` (N, TERMS) and absolute errors (N,) of PIXELS in each head, in order."""
    rng = np.random.default_rng(0)
    images, truth = (scans.x, scans.wanted_y) if forth else (scans.y, scans.wanted_x)
    rows = []
    for k in range(0, len(images), SLICES_A_HEAD):
        head = slice(k, k + SLICES_A_HEAD)
        scan = Scan.of(images[head, ..., 0], translator.contrasts.x)  # (S, H, W, 1) -> (S, H, W)
        (made,) = translator([scan], trust=True)
        synthetic = made.synthetic.slices
        error = np.abs(synthetic - truth[head, ..., 0]) / 2
        inside = np.flatnonzero(ndimage.binary_erosion(scan.head, np.ones((1, 3, 3)), 4))
        chosen = rng.permutation(inside)[:PIXELS]
        terms = trust.terms((made.trust.slices + 1) / 2, synthetic)
        rows.append((terms.reshape(-1, terms.shape[-1])[chosen], error.ravel()[chosen]))
    return tuple(map(np.concatenate, zip(*rows, strict=True)))


def _reliability(result: dict) -> Figure:
    figure, axes = plt.subplots(1, len(result), figsize=(8, 4), layout="constrained")
    for axis, (way, found) in zip(axes, result.items(), strict=True):
        expected, errors = (100 * np.array(found["test"][name]) for name in ("expected", "found"))
        axis.plot([0, expected.max()], [0, expected.max()], color="0.7")
        axis.plot(expected, errors, "o-")
        axis.set(title=arrow(way), xlabel="expected error, % of the range", ylabel="found")
    return figure
