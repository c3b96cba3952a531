import json
import re
from statistics import mean

import pytest
from conftest import REPOSITORY

GALLERY = REPOSITORY / "outputs" / "gallery"
README = (REPOSITORY / "README.md").read_text()
SLICES = {  # of the test blocks, by number: T1 images, and their true T2 images
    "t1_to_t2": [*range(28, 33), *range(46, 51)],
    "t2_to_t1": [*range(88, 93), *range(116, 121)],
}
RUNS = {
    "warm start alone": ["more/warm-start-alone"],
    "unpaired training alone": ["more/unpaired-alone"],
    "both, disjoint sets": ["mri_t1_t2-laptop-disjoint", "more/disjoint-2", "more/disjoint-3"],
    "**both**": ["mri_t1_t2-laptop", "more/seed-2", "more/seed-3"],
    "oracle: the same generators, supervised": ["more/oracle"],
}
BASELINES = {
    "the source itself": "source",
    "its histogram matched": "histogram_matched",
    "the neighbouring true slice": "neighbour",
    "oracle: best look-up table": "lookup_table",
}
VARIANTS = {
    "`paper`, written as the original, float32": "original",
    "`paper`, float32": "paper in float32",
    "`paper`, bfloat16": "paper",
    "`laptop`, written as the original, float32": "laptop, plain",
    "**`laptop`**, bfloat16": "laptop",
}


@pytest.mark.parametrize("path", sorted(GALLERY.rglob("*.json")), ids=lambda path: path.parent.name)
def test_the_gallery_names_no_folder_of_the_machine_that_made_it(path):
    """A data set's folder stands there by a name of its own, such as PAIRS."""
    assert not re.findall(r'"/(?!device:)[^"]*"', path.read_text())


def measured(run: str, baseline: str = "") -> dict[str, list[float]]:
    """PSNR and SSIM, both ways, over the test blocks, which must have been held out."""
    metrics = json.loads((GALLERY / run / "metrics.json").read_text())
    means = {"psnr": [], "ssim": []}
    for way, numbers in SLICES.items():
        figures = metrics[way]["held_out"]
        if baseline:
            figures = metrics["baselines"][way]["held_out"][baseline]
        for measure, values in means.items():
            by_name = dict(zip(figures["names"], figures[measure]["per_slice"], strict=True))
            values.append(mean(by_name[f"Image #{number}.png"] for number in numbers))
    return means


def row(label: str, runs: list[dict[str, list[float]]]) -> str:
    """A row of the README's table; of several runs the mean and, in brackets, the spread."""
    cells = []
    for way in range(len(SLICES)):
        for measure, form in (("psnr", ".2f"), ("ssim", ".3f")):
            values = [run[measure][way] for run in runs]
            spread = f" ({min(values):{form}} to {max(values):{form}})" if len(runs) > 1 else ""
            cells.append(f"{mean(values):{form}}{spread}")
    return f"| {' | '.join([label, *cells])} |"


@pytest.mark.parametrize("label", RUNS)
def test_fidelity_in_the_readme_is_that_of_the_gallerys_runs(label):
    assert row(label, [*map(measured, RUNS[label])]) in README


@pytest.mark.parametrize("label", BASELINES)
def test_baselines_in_the_readme_are_those_of_the_gallery(label):
    assert row(label, [measured("mri_t1_t2-laptop", BASELINES[label])]) in README


def speed(label: str, name: str) -> str:
    """A row of the README's table of what a step on one pair costs, and translating."""
    found = json.loads((GALLERY / "benchmark" / "benchmark.json").read_text())
    step, memory = found["steps"][name], found["memory"].get(name)
    cells = [
        f"{step['seconds']:.3g}",
        f"{step['speedup']:.2f}",
        f"{step['gflop_per_s']:.0f}",
        f"{step['share_of_limit']:.0%}",
        f"{memory['gb']:.1f}" if memory else "",
        f"{found['inference'][f'{name}, 8 slices']['slices_per_s']:.3g}",
    ]
    return f"| {' | '.join([label, *cells])} |"


@pytest.mark.parametrize("label", VARIANTS)
def test_speed_in_the_readme_is_that_of_the_gallerys_benchmark(label):
    assert speed(label, VARIANTS[label]) in README


def test_every_picture_and_notebook_the_readme_links_to_is_there():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links and [link for link in links if not (REPOSITORY / link).exists()] == []


@pytest.mark.parametrize("record", ["metrics", "t2-to-t1"])
def test_the_tables_of_real_heads_are_those_of_the_gallery(record):
    found = json.loads((GALLERY / "real-heads" / f"{record}.json").read_text())
    for head in (*found["heads"], {"name": "**mean**"} | found["mean"]):
        cells = [
            f"{head[name]['psnr']:.2f} / {head[name]['ssim']:.3f}"
            for name in ("synthetic", "t1_line", "t1_table", "even_table")
        ]
        cells += [format(head["fluid_dark"], ".1%")] if record == "metrics" else []
        assert f"| {' | '.join([head['name'], *cells])} |" in README


def test_no_notebook_of_the_gallery_is_larger_than_what_a_page_loads_at_once():
    notebooks = [*(REPOSITORY / "outputs" / "gallery").rglob("*.ipynb")]
    assert notebooks
    assert {p.parent.name: p.stat().st_size for p in notebooks if p.stat().st_size > 1.5e6} == {}
