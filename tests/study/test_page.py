import json
import re
import shutil

import pytest
from conftest import REPOSITORY

from cyclegan_tf import InputError
from cyclegan_tf.runs import Run, open_run
from cyclegan_tf.study.heads import PREDICTORS, report_heads
from cyclegan_tf.study.page import TEXT, write_page
from cyclegan_tf.study.report import checklist

GALLERY = REPOSITORY / "outputs" / "gallery" / "mri_t1_t2-laptop"


@pytest.fixture
def page(tmp_path):
    """The report of a real run."""
    folder = tmp_path / "a run & more"
    shutil.copytree(GALLERY, folder)
    return write_page(Run(folder, json.loads((folder / "run.json").read_text())))


def test_the_report_holds_every_picture_and_fetches_nothing(page):
    text = page.read_text()
    pictures = re.findall(r'<img src="([^"]{20})', text)
    assert len(pictures) == TEXT.count("](figures/")
    assert all(source.startswith("data:image/") for source in pictures)
    assert not re.search(r'(src|href)="(?!data:)|@import|url\(', text)
    assert "<h1>a run &amp; more:" in text


def test_the_report_quotes_the_figures_the_run_was_measured_with(page):
    figures = json.loads((page.parent / "metrics.json").read_text())["t1_to_t2"]["held_out"]
    row = re.search(r"<td>PSNR, dB</td>\s*<td[^>]*>([0-9.]+)</td>", page.read_text())
    assert row[1] == f"{figures['psnr']['mean']:.2f}"


def test_real_heads_are_reported_where_they_were_measured(page):
    assert "real heads" not in page.read_text().lower()
    heads = page.parent / "heads"
    heads.mkdir()
    scores = {p: {"psnr": 21.25, "ssim": 0.7, "nmi": 1.1} for p in PREDICTORS}
    row = {"name": "p07", "nmi": 1.1, "fluid_dark": 0.011} | scores
    result = {"model": "a model", "warnings": ["It is off."], "heads": [row], "mean": row}
    (heads / "metrics.json").write_text(json.dumps(result))
    shutil.copy(next((page.parent / "figures").glob("*.png")), heads / "heads.png")
    (heads / "viewer.html").write_text("<iframe></iframe>")
    text = write_page(open_run(page.parent, begin=False)).read_text()
    assert text.index("<iframe>") < text.index("<img")
    assert "Real heads, T1 → T2" in text
    simulated = report_heads(result | {"kind": "simulated"})
    assert simulated.startswith("**Simulated heads") and "Real" not in simulated
    for words in ("On real heads", "21.25 / 0.700", "1.1%", "It is off.", 'alt="heads"'):
        assert words in text, words


def test_a_run_that_is_not_evaluated_has_no_report(tmp_path):
    record = {key: {} for key in ("preset", "data", "durations", "versions", "commit")}
    with pytest.raises(InputError, match=r"metrics\.json is not there: evaluate that run first"):
        write_page(Run(tmp_path, record))
    assert not (tmp_path / "report.html").exists()


def test_the_items_of_claim_are_filled_from_the_record_and_the_figures(page):
    record, result = (
        json.loads((page.parent / f"{x}.json").read_text()) for x in ("run", "metrics")
    )
    parts = page.read_text().split("For a reviewer")[1].split("How it was made")
    found, below = (
        dict(re.findall(r"<td[^>]*>(.*?)</td>\s*<td[^>]*>(.*?)</td>", part)) for part in parts
    )
    assert below["t1_held_out"] == str(record["data"]["t1_held_out"])
    assert below["keras"] == record["versions"]["keras"]
    assert result["splits"]["held_out"] in found["Partitions"]
    assert (
        record["commit"] in found["Software"] and record["preset"]["holdout"] == found["Held out"]
    )
    figures = result["t1_to_t2"]["held_out"]
    assert f"PSNR {figures['psnr']['mean']:.2f}" in found["Spread"]
    worst = figures["names"][figures["psnr"]["per_slice"].index(figures["psnr"]["min"])]
    assert f"T1 → T2, held_out: {worst}," in found["Failures"]
    assert all(found.values())


@pytest.mark.parametrize(
    "preset, stopped, begun, trained",
    [
        ({}, None, "weights: random; warm start on simulated pairs: 40 epochs", "145 of 145"),
        ({"start": "shipped", "warm_start_epochs": 0}, 37, "weights: those that ship", "37 of 145"),
        ({"oracle": True}, None, "warm start on true pairs", "no unpaired"),
    ],
)
def test_a_reviewer_learns_what_the_training_began_with(preset, stopped, begun, trained, page):
    record, result = (
        json.loads((page.parent / f"{x}.json").read_text()) for x in ("run", "metrics")
    )
    record["preset"] |= preset
    record |= {"stopped": {"epoch": stopped}} if stopped else {}
    text = checklist(record, result)
    assert begun in text and f"| Training | {trained} epochs" in text


def test_the_report_says_in_words_where_the_images_come_from(page):
    run = open_run(page.parent, begin=False)
    for data, words in (
        ("simulated", "simulated"),  # in a record of earlier
        ([["simulated"]], "simulated"),
        ([["one/T1", "one/T2"], ["two"]], "one/T1 and one/T2, two"),
    ):
        run.record["data"]["source"] = data
        text = write_page(run).read_text()
        assert re.search(rf"<td>source</td>\s*<td[^>]*>{words}</td>", text)
        assert re.search(rf"<td>Data</td>\s*<td[^>]*>{words}; ", text)
