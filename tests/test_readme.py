import json
import re

import numpy as np
import pytest
from conftest import REPOSITORY

GALLERY = REPOSITORY / "outputs" / "gallery"
README = (REPOSITORY / "README.md").read_text()
TEST_BLOCKS = [*range(28, 33), *range(46, 51)]  # numbers of T1 images
PARTNERS = [*range(88, 93), *range(116, 121)]  # numbers of their true T2 images


def mean(figures: dict, measure: str, numbers: list[int]) -> float:
    """Over the slices of these numbers, all of which must have been held out."""
    values = dict(zip(figures["names"], figures[measure]["per_slice"], strict=True))
    return float(np.mean([values[f"Image #{number}.png"] for number in numbers]))


@pytest.mark.parametrize(
    ("run", "label"),
    [
        ("mri_t1_t2-laptop", "unpaired training"),
        ("mri_t1_t2-laptop-disjoint", "unpaired training, disjoint sets"),
    ],
)
@pytest.mark.parametrize(("way", "numbers"), [("t1_to_t2", TEST_BLOCKS), ("t2_to_t1", PARTNERS)])
def test_figures_in_the_readme_are_those_of_the_gallery(run, label, way, numbers):
    figures = json.loads((GALLERY / run / "metrics.json").read_text())[way]["held_out"]
    psnr, ssim = (mean(figures, measure, numbers) for measure in ("psnr", "ssim"))
    heading = {"t1_to_t2": "T1 → T2", "t2_to_t1": "T2 → T1"}[way]
    assert f"| {heading} | {label} | {psnr:.2f} | {ssim:.3f} |" in README


@pytest.mark.parametrize(
    ("baseline", "label"),
    [
        ("source", "the source itself"),
        ("histogram_matched", "its histogram matched"),
        ("neighbour", "the neighbouring true slice"),
        ("lookup_table", "oracle: best look-up table"),
    ],
)
@pytest.mark.parametrize(("way", "numbers"), [("t1_to_t2", TEST_BLOCKS), ("t2_to_t1", PARTNERS)])
def test_baselines_in_the_readme_are_those_of_the_gallery(baseline, label, way, numbers):
    metrics = json.loads((GALLERY / "mri_t1_t2-laptop" / "metrics.json").read_text())
    figures = metrics["baselines"][way]["held_out"][baseline]
    psnr, ssim = (mean(figures, measure, numbers) for measure in ("psnr", "ssim"))
    heading = {"t1_to_t2": "T1 → T2", "t2_to_t1": "T2 → T1"}[way]
    assert f"| {heading} | {label} | {psnr:.2f} | {ssim:.3f} |" in README


def test_every_picture_and_notebook_the_readme_links_to_is_there():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links and [link for link in links if not (REPOSITORY / link).exists()] == []
