"""The figures of evaluated runs as tables, of one run or of several beside each other."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .. import InputError
from ..contrasts import arrow
from ..parameters import user_path
from ..presets import PAPER
from ..runs import intact

TRANSLATIONS = {  # a report's columns
    "synthetic": "this run",
    "source": "source itself",
    "histogram_matched": "histogram matched",
    "neighbour": "neighbouring true slice",
    "lookup_table": "oracle: look-up table",
}
MEASURES = {  # its rows
    "psnr": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "mae": ("MAE", ".4f"),
    "nmi": ("NMI", ".3f"),
    "psnr_head": ("PSNR in the head, dB", ".2f"),
    "ssim_head": ("SSIM in the head", ".3f"),
    "psnr_brain": ("PSNR in the brain, dB", ".2f"),
    "ssim_brain": ("SSIM in the brain", ".3f"),
    "csf_gm_ratio": ("CSF − GM contrast, times the true one", ".2f"),
    "gm_wm_ratio": ("GM − WM contrast, times the true one", ".2f"),
    "order_kept": ("slices with tissues in the right order", ".0%"),
    "trust_rank_correlation": ("trust map: rank correlation with the error", ".2f"),
    "gradient_rank_correlation": ("the same of the source's gradient magnitude", ".2f"),
    "trust_least_trusted_ratio": ("trust map: error in its worst tenth, times the rest's", ".2f"),
    "cycle_error": ("cycle error", ".4f"),
    "gradient_correlation": ("gradient correlation with the source", ".3f"),
    "histogram_distance": ("histogram distance to the real set", ".4f"),
}
BRIEF = ("psnr", "ssim", "psnr_brain", "csf_gm_ratio", "gm_wm_ratio", "order_kept", "cycle_error")
COMPARED = ("psnr", "ssim", "cycle_error")


def read_metrics(folder: str | Path) -> dict:
    """The `metrics.json` of an evaluated run; raises InputError where there is none."""
    path = user_path(folder) / "metrics.json"
    if not path.is_file():
        raise InputError(f"{path} is not there: evaluate that run first.")
    with intact(path, "evaluate that run again"):
        return json.loads(path.read_text())


def summarise(result: dict, brief: bool = False) -> str:
    """What `evaluate` returns as Markdown: a table for each direction and split.

    If `brief` the rows are BRIEF alone, and the split each direction's first.
    """
    blocks = []
    for way, truth in result["truth"].items():
        title = arrow(way)
        if truth == "none":
            blocks.append(f"{title}: no true pairs are known; only measures without truth follow.")
        for split, figures in list(result[way].items())[: 1 if brief else None]:
            rows = {"synthetic": figures} | result["baselines"][way][split]
            shown = [name for name in TRANSLATIONS if name in rows]
            table = [["", *(TRANSLATIONS[name] for name in shown)]]
            for measure, (heading, form) in MEASURES.items():
                found = [rows[name].get(measure) for name in shown]
                if any(found) and (measure in BRIEF or not brief):
                    table.append([heading, *(_cell(values, form) for values in found)])
            count = len(figures["names"])
            blocks.append(f"**{title}, {split}** ({result['splits'][split]}; images: {count})")
            blocks.append(markdown_table(table))
    return "\n\n".join(blocks)


def checklist(record: dict, result: dict) -> str:
    """The items of CLAIM 2024 that apply, as Markdown, from `run.json` and `metrics.json`.

    CLAIM is the checklist for AI in medical imaging (Tejani et al., Radiol Artif Intell 6:e240300,
    2024). What only people know is left for them to say.
    """
    # A bar in a file's name would end a cell.
    record, result = (json.loads(json.dumps(x).replace("|", " ")) for x in (record, result))
    data, truth, preset = record["data"], result["truth"], vars(PAPER) | record["preset"]
    people = "unknown: names say nothing of people, who may be in several partitions"
    if "subjects" in data:
        both = data["subjects_with_both"]
        people = f"{data['subjects']}, {both} with both contrasts, held out whole"
    spread, worst = [], []
    for way in truth:
        for split, figures in result[way].items():
            if (psnr := figures.get("psnr", {})).get("mean") is not None:
                title, count = f"{arrow(way)}, {split}", len(figures["names"])
                worst.append(f"{title}: {', '.join(worst_first(figures)[:3])}")
                spread.append(
                    f"{title}: PSNR {psnr['mean']:.2f} dB, standard deviation {psnr['std']:.2f}, "
                    f"{psnr['min']:.2f} to {psnr['max']:.2f}, {count} images"
                )
    networks = record.get("networks", {}).items()
    last = record.get("stopped", {}).get("epoch", preset["epochs"])  # with patience before
    known = {
        "preset": preset,
        "people": people,
        "holdout": preset["holdout"] or "nothing was named",
        "weights": "those that ship" if preset["start"] == "shipped" else preset["start"],
        "shown": "true" if preset["oracle"] else "simulated",
        "trained": "no unpaired" if preset["oracle"] else f"{last} of {preset['epochs']}",
    }
    lists = {
        "truths": [f"{arrow(way)}: {how}" for way, how in truth.items()],
        "partitions": [f"{name}: {what}" for name, what in result["splits"].items()],
        "networks": [f"{name}: {count['weights']:,} weights" for name, count in networks],
        "spread": spread,
        "worst": worst,
    }
    known |= {name: "; ".join(parts) or "not known" for name, parts in lists.items()}
    text = Path(__file__).with_name("claim.md").read_text(encoding="utf-8")
    return text.format_map(record | known)


def compare(results: Mapping[str, dict], minutes: Sequence[float]) -> str:
    """What `evaluate` returned of runs, by their names, as a Markdown table: a row for each.

    It has the `minutes` of their training and COMPARED of each direction's first split. The last
    row is the mean, with the least and the greatest. Raises InputError if a split is of other
    images.
    """
    columns = [["run", *results, "mean (least to greatest)"]]
    columns.append(["minutes", *_with_mean(minutes, ".1f")])
    first = next(iter(results.values()))
    for way in first["truth"]:
        split = next(iter(first[way]))
        figures = [result.get(way, {}).get(split, {}) for result in results.values()]
        if any(one.get("names") != figures[0]["names"] for one in figures):
            raise InputError("The runs were evaluated on other images: expected one data set.")
        for measure in COMPARED:
            means = [one.get(measure, {}).get("mean") for one in figures]
            if None not in means:
                heading, form = MEASURES[measure]
                columns.append([f"{arrow(way)}, {split}: {heading}", *_with_mean(means, form)])
    return markdown_table(zip(*columns, strict=True))


def _with_mean(values: Sequence[float], form: str) -> list[str]:
    *shown, mean, least, most = (
        format(x, form) for x in (*values, np.mean(values), min(values), max(values))
    )
    return [*shown, f"{mean} ({least} to {most})"]


def markdown_table(rows: Iterable[Sequence], align: str = "---:") -> str:
    """Rows of cells, the heading first, as Markdown; `align` is for all columns but the first."""
    head, *rows = ([str(cell).replace("|", " ") for cell in row] for row in rows)
    rows = [head, ["---", *[align] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _cell(values: dict | None, form: str) -> str:
    return "" if values is None or values["mean"] is None else format(values["mean"], form)


def worst_first(figures: dict) -> list[str]:
    """The names of a split's images, the lowest PSNR first; in their own order if none is known."""
    names, fidelity = figures["names"], figures.get("psnr", {"per_slice": []})["per_slice"]
    ranked = sorted(zip(fidelity, names, strict=False), key=lambda pair: pair[0] or np.inf)
    return [name for _, name in ranked] or names
