"""How right a generator is on real heads: source volumes, each with the true target of the head.

Scans have no unit, so every predictor is first fitted to the truth inside the brain; 1 is
the truth's 99.5th percentile there, and 0 its zero.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage
from tqdm.auto import tqdm

from .. import InputError, metrics
from ..contrasts import NAMES, Contrasts, arrow
from ..dataset.preparation import learned_from
from ..parameters import user_path
from ..presets import PLANES
from ..runs import open_run, versions_here, write_file, write_json
from ..scans.frame import Frame
from ..scans.geometry import AXES, slice_of
from ..scans.volumes import WHITE
from ..translation.loading import DIRECTIONS, load_translator
from ..translation.translate import translate_scans
from ..translation.trust import Calibration
from .downstream import find_offset, measure_use, report_use, write_heads
from .figures.drawing import grid, save
from .pairs import AIR, Aligned, Pair, find_heads, read_canonical, read_head
from .report import markdown_table
from .viewer import viewer

PREDICTORS = {
    "synthetic": "this {y}",
    "t1_line": "best line of {x}",
    "t1_table": "best table of {x}",
    "even_table": "the same without shading",
}
COLUMNS = {  # of a head beside these: title and form
    "nmi": ("NMI", ".3f"),
    "fluid_dark": ("fluid drawn dark", ".1%"),
    "csf_gm_ratio": ("CSF − GM, × true", ".2f"),
    "gm_wm_ratio": ("GM − WM, × true", ".2f"),
    "lesion_ratio": ("lesion − WM, × true", ".2f"),
    "sharpness": ("sharpness, × true", ".2f"),
    "trust_rank_correlation": ("trust and error, Spearman", ".2f"),
    "trust_rank_correlation_around": ("the same of regions", ".2f"),
    "covered": ("covered by 90 % intervals", ".0%"),
    "width": ("their half width", ".1%"),
    "offset_mm": ("{y} off {x}, mm", ".1f"),
}
VIEWS = dict.fromkeys(("{x}", "synthetic {y}", "true {y}"), {"cmap": "gray", "vmin": 0, "vmax": 1})
VIEWS["error, 0 to 0.2"] = {"cmap": "inferno", "vmin": 0, "vmax": 0.2}
REGION = 5  # mm, the side of a cube: the least of lesions that are to be found
OFFSET = 1.5  # mm; a T2 that lies on its T1 is found at most 0.5 mm away


def evaluate_heads(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    direction: str = "",
    kind: str = "real",
) -> dict:
    """Translate the source of every head in `data` (`find_heads`), compare it with the truth.

    `model` and `direction` are as in `load_translator`; the heads are of a `kind`, as titles have
    it. The folder `output` gets `metrics.json`, whose content is returned, the synthetic volumes,
    `heads.png`, three planes of each head, and `viewer.html`, to look through the worst one.
    "heads" are the rows of `measure_head`, the least PSNR first, with those of `measure_trust` and,
    from T1 to T2, "downstream", as `measure_use` returns it; None is what cannot be known. "mean"
    is theirs. A head that a run has learned from is warned of. Raises InputError where there is no
    model, and as `find_heads` and `read_head`.
    """
    translator, output = load_translator(model, direction), Path(output)
    contrasts, heads = translator.contrasts, []
    pairs, warnings = find_heads(data, contrasts)
    shutil.rmtree(output / "synthetic", ignore_errors=True)  # which another model may have made
    bar = tqdm(pairs, f"{kind} heads", unit="head", disable=len(pairs) < 2)
    for pair, learned in zip(bar, _learned_from(model, pairs), strict=True):
        target = output / "synthetic" / f"{pair.name}.nii.gz"
        (job,) = translate_scans(pair.source, target, model, direction, trust=True)
        if job.error:
            raise InputError(job.error)
        synthetic, trust = job.targets
        head = read_head(pair, synthetic, contrasts, translator.preset.body_part)
        row = measure_head(head) | measure_trust(head, trust, translator.calibration)
        if head.has_tissues:
            table = head.fitted["t1_table"]
            seconds = {"synthetic": head.synthetic, "t1_table": table, "truth": head.truth}
            row["downstream"] = measure_use(head.source, seconds, head.brain, head.sizes)
        row = {  # as JSON has it: None is what cannot be known
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in row.items()
        }
        row["warnings"] = [f"{pair.source}: {doubt}" for doubt in job.warnings] + row["warnings"]
        if learned:
            row["warnings"].append(
                f"{pair.source}: the run has learned from this head: hold it out to measure on it."
            )
        warnings += row["warnings"]
        heads.append((row, _draw_planes(head), [pair.source, synthetic, pair.target, trust]))
    heads.sort(key=lambda head: head[0]["synthetic"]["psnr"])
    rows = [row for row, *_ in heads]
    result = {"model": translator.name, "data": str(data), "kind": kind}
    result["direction"] = translator.direction
    result |= {"versions": versions_here(), "warnings": warnings}
    result |= {"mean": _mean(rows), "heads": rows}
    write_json(output / "metrics.json", result)
    side = max(max(plane.shape) for _, planes, _ in heads for plane in planes)
    canvas, styles = Frame("pad", side, side), [look for look in VIEWS.values() for _ in PLANES]
    titles = [view.format(**contrasts.labels) for view in VIEWS for _ in PLANES]
    cells = [[*zip(titles, map(canvas.apply, planes), strict=True)] for _, planes, _ in heads]
    title = f"{kind.capitalize()} heads"
    save(grid(cells, title, [row["name"] for row in rows], styles), output, "heads")
    names = "source", "synthetic", "truth", "trust"
    volumes = dict(zip(names, map(read_canonical, heads[0][2]), strict=True))
    volumes["truth"] = resample_from_to(volumes["truth"], volumes["source"], 1)
    write_file(output / "viewer.html", viewer(volumes))
    return result


def _learned_from(model: str | Path, pairs: Sequence[Pair]) -> list[bool]:
    model = user_path(model).absolute()
    for folder in (model, model.parent.parent):  # also of a .keras file in a run
        if (folder / "run.json").is_file():
            with suppress(InputError):  # its images are gone
                volumes = [(pair.source, pair.target) for pair in pairs]
                return learned_from(open_run(folder, begin=False), volumes)
    return [False] * len(pairs)


def evaluate_simulated(
    model: str | Path, anatomies: str | Path, output: str | Path, direction: str = ""
) -> dict:
    """`evaluate_heads` on heads simulated around label maps, which are kept in `output` too."""
    contrasts = load_translator(model, direction).of_heads().contrasts
    folder = Path(output) / "simulated"
    shutil.rmtree(folder, ignore_errors=True)  # of other maps
    write_heads(anatomies, folder, contrasts)
    return evaluate_heads(model, folder, output, direction, "simulated")


def measure_head(head: Aligned) -> dict:
    """The figures of a head; NaN is what cannot be known.

    Inside the brain, for each of PREDICTORS: "psnr" (dB), "ssim" (of axial slices) and "nmi".
    Of a T2 made of a T1 also: "fluid_dark", the share of fluid (dark in T1, bright in the true T2,
    deeper than 8 mm) that is below 0.35; the contrasts of tissues and of lesions and "sharpness",
    the share of the variance that is finer than about 4 mm, as multiples of the truth's (noise
    counts as sharp there). Of what is no head nothing is said of its tissues.
    """
    pair, brain, sizes = head.pair, head.brain, head.sizes
    row = {"name": pair.name, "sources": [str(pair.source), str(pair.target)], "warnings": []}
    row |= {"brain": head.found, "brain_ml": float(brain.sum() * np.prod(sizes) / 1000)}
    row |= {name: _fidelity(values, head.truth, brain) for name, values in head.fitted.items()}
    row["nmi"] = row["synthetic"]["nmi"]
    finest = [_fineness(volume, brain, sizes) for volume in (head.synthetic, head.truth)]
    row["sharpness"] = finest[0] / finest[1]
    if head.has_tissues:
        row |= _measure_tissues(head)
    # The T1w stays in place if there is one: with another the optimiser may stop too early.
    ends = zip(head.contrasts, (head.source, head.truth), head.scaled, strict=True)
    (_, fixed, scaled), (_, moving, _) = sorted(ends, key=lambda end: [*NAMES].index(end[0]))
    row["offset_mm"] = find_offset(fixed, moving, scaled > AIR, sizes)
    if row["offset_mm"] > OFFSET:
        row["warnings"].append(
            f"{pair.target} lies {row['offset_mm']:.1f} mm off {pair.source} by mutual "
            "information: figures are too low until it is registered."
        )
    return row


def measure_trust(head: Aligned, trust: Path, calibration: Calibration | None) -> dict[str, float]:
    """Of a trust map "trust_rank_correlation" with the error and, if there is a calibration,
    "covered", the share of errors within its intervals, and their mean half "width".

    "trust_rank_correlation_around" is that of means over REGION mm: of a single voxel's error, most
    is noise.
    """
    volumes = (
        read_canonical(trust).get_fdata() / WHITE,
        np.abs(head.fitted["synthetic"] - head.truth),
    )
    expected, error = (volume[head.brain] for volume in volumes)
    regions = (_mean_around(volume, head.brain, head.sizes) for volume in volumes)
    found = {
        "trust_rank_correlation": metrics.rank_correlation(expected, error),
        "trust_rank_correlation_around": metrics.rank_correlation(*regions),
    }
    if calibration:
        found["covered"] = np.mean(error <= calibration.quantile * expected)
        found["width"] = calibration.quantile * expected.mean()
    return found


def _measure_tissues(head: Aligned) -> dict[str, float]:
    """Contrasts of tissues, which the T1 tells apart in the brain's inner part, and of lesions."""
    source, truth, brain = head.source, head.truth, head.brain
    shown = head.synthetic / max(np.percentile(head.synthetic[brain], 99.5), 1e-9)
    depth = ndimage.distance_transform_edt(brain, sampling=head.sizes)
    low, middle, high, top = np.percentile(source[depth > 0.35 * depth.max()], [30, 45, 80, 95])
    labels, found = np.zeros(brain.shape, np.uint8), {}  # as in `metrics.tissues`
    labels[brain & (source > low) & (source < middle)] = 2
    labels[brain & (source > high) & (source < top)] = 3
    fluid = (depth > 8) & (truth > 0.7) & (source < np.percentile(source[brain], 20))
    if labels.any() and fluid.sum() > 50:
        labels[fluid] = 1
        found["fluid_dark"] = (shown[fluid] < 0.35).mean()
    made_true = zip(*(metrics.tissue_contrast(v, labels) for v in (shown, truth)), strict=True)
    found["csf_gm_ratio"], found["gm_wm_ratio"] = (ours / true for ours, true in made_true)
    if labels.any() and head.lesion.any():
        made, true = (np.median(v[head.lesion]) - np.median(v[labels == 3]) for v in (shown, truth))
        found["lesion_ratio"] = made / true
    return found


def _draw_planes(head: Aligned) -> list[np.ndarray]:
    """PLANES (H, W) through the brain's middle of each of VIEWS."""
    source, brain, fitted = head.scaled[0], head.brain, head.fitted["synthetic"]
    shown = (source + 1) / (1 + np.percentile(source[brain], 99.5))
    error = np.abs(fitted - head.truth) * brain
    volumes = shown, np.where(head.synthetic > 0, fitted, 0), head.truth, error  # air stays black
    middle = np.array(ndimage.center_of_mass(brain)) / np.maximum(np.subtract(brain.shape, 1), 1)
    lying = [nibabel.Nifti1Image(volume, head.affine) for volume in volumes]
    return [slice_of(one, middle[AXES[p][0]], p) for one in lying for p in PLANES]


def _fidelity(values: np.ndarray, truth: np.ndarray, brain: np.ndarray) -> dict[str, float]:
    image, truth = (np.clip(volume, 0, 1) for volume in (values, truth))
    slices = image * brain, truth * brain  # axial ones, black outside
    return {
        "psnr": float(metrics.psnr(image, truth, brain)),
        "ssim": float(metrics.ssim(*slices, brain, channel_axis=2)),
        "nmi": float(metrics.nmi(image, truth, brain)),
    }


def _fineness(volume: np.ndarray, brain: np.ndarray, sizes: np.ndarray) -> float:
    """The share of the variance inside the brain that in-plane smoothing by 1.5 mm takes away."""
    smooth = ndimage.gaussian_filter(volume, [1.5 / sizes[0], 1.5 / sizes[1], 0])
    return (volume - smooth)[brain].var() / max(volume[brain].var(), 1e-12)


def _mean_around(volume: np.ndarray, brain: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Means of what is brain in the cube of REGION mm around each voxel of it: (X, Y, Z) → (N,)."""
    sides = np.maximum(1, np.round(REGION / sizes)).astype(int)
    inside = brain.astype(float)
    total, share = (ndimage.uniform_filter(one, sides) for one in (volume * inside, inside))
    return total[brain] / share[brain]


def _mean(rows: list[dict]) -> dict:
    """Over the heads, of which some may not have every figure."""

    def mean(values: list[float | None]) -> float | None:
        return metrics.summary(values)["mean"]

    fidelity = {
        name: {m: mean([row[name][m] for row in rows]) for m in rows[0][name]}
        for name in PREDICTORS
    }
    return fidelity | {name: mean([row.get(name) for row in rows]) for name in COLUMNS}


def report_heads(result: dict) -> str:
    """Markdown of what `evaluate_heads` returns: a row for each head, the worst first, and a mean.

    PSNR in dB / SSIM inside the brain for this run and for what learns nothing.
    """
    way, kind = result.get("direction", DIRECTIONS[0]), result.get("kind", "real")  # older: neither
    titles = [*PREDICTORS.values(), *(title for title, _ in COLUMNS.values())]
    labels = Contrasts.of(way).labels
    table = [[f"{kind} head", *(title.format(**labels) for title in titles)]]
    for row in (*result["heads"], {"name": "**mean**"} | result["mean"]):
        scores = [row.get(p) for p in PREDICTORS]  # older results have fewer
        cells = [f"{x['psnr']:.2f} / {x['ssim']:.3f}" if x else "" for x in scores]
        for name, (_, form) in COLUMNS.items():
            cells.append("" if row.get(name) is None else format(row[name], form))
        table.append([row["name"], *cells])
    warnings = [f"* {sentence}" for sentence in result["warnings"]]
    used = {row["name"]: row["downstream"] for row in result["heads"] if "downstream" in row}
    where = "the body" if result["heads"][0].get("brain") == "the body" else "the brain"
    title = f"**{kind.capitalize()} heads, {arrow(way)}** ({result['model']}): PSNR in dB / SSIM "
    title += f"inside {where}, every predictor fitted to the truth there by a straight line\n"
    parts = [title, markdown_table(table), "", *([report_use(used), ""] if used else [])]
    return "\n".join([*parts, *warnings])


def show_heads(model: str | Path, data: str | Path | None) -> list:
    """For a notebook: a run measured on real heads, as a table and a picture; [] without `data`."""
    from IPython.display import Image, Markdown

    if not data:
        return []
    folder = Path(model, "heads")
    table = report_heads(evaluate_heads(model, data, folder))
    return [Markdown(table), Image(folder / "heads.png")]
