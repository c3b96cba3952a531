"""A run folder of version 0.1, made before scans were one kind, is used as one of today is."""

import json
import tarfile
from pathlib import Path

import imageio.v3 as iio
import keras
import numpy as np
import pytest

from cyclegan_tf.dataset.preparation import load, prepare
from cyclegan_tf.runs import open_run
from cyclegan_tf.scans.images import write_image
from cyclegan_tf.study.evaluation import evaluate
from cyclegan_tf.training import build_cyclegan, train
from cyclegan_tf.translation.translate import translate_scans

ARCHIVE = Path(__file__).with_name("run_0_1.tar.gz")


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run_0_1"


def test_its_data_are_loaded_and_not_made_anew(folder):
    before = (folder / "data.npz").read_bytes()
    sets = load(open_run(folder, begin=False))
    assert (len(sets.x), len(sets.y), len(sets.truth)) == (5, 6, 5)
    assert sets.x[:].shape == (5, 64, 64, 1) and sets.x.images[0].shape == (217, 181)
    assert prepare(open_run(folder)).x.names.tolist() == sets.x.names.tolist()
    assert (folder / "data.npz").read_bytes() == before


def test_it_is_evaluated_and_scores_what_its_generators_translate(folder, tmp_path):
    run = open_run(folder, begin=False)
    earlier = json.loads((folder / "metrics.json").read_text())
    sets = load(run)
    result, _ = evaluate(run, sets)
    for way in ("t1_to_t2", "t2_to_t1"):
        assert result[way]["train"]["names"] == earlier[way]["train"]["names"]
    (tmp_path / "in").mkdir()
    for name, image in zip(sets.x.names, sets.x.images, strict=True):
        write_image(tmp_path / "in" / name, image)
    jobs = translate_scans(tmp_path / "in", tmp_path / "out", folder)
    for job, truth, psnr in zip(
        jobs, sets.truth, result["t1_to_t2"]["train"]["psnr"]["per_slice"], strict=True
    ):
        error = iio.imread(job.targets[0]) / 255 - (truth + 1) / 2
        assert psnr == pytest.approx(-10 * np.log10((error**2).mean()), abs=0.05)


def test_its_training_goes_on_from_its_last_checkpoint(folder):
    record = json.loads((folder / "run.json").read_text())
    if record["versions"]["keras"].split(".")[0] != keras.__version__.split(".")[0]:
        pytest.skip("checkpoints hold the optimisers' variables, which differ in the other Keras")
    (folder / "run.json").write_text(
        json.dumps(record | {"status": "training", "preset": record["preset"] | {"epochs": 3}})
    )
    run = open_run(folder)
    sets = load(run)
    before = (folder / "losses.csv").read_text().splitlines()
    train(build_cyclegan(run, steps=5), run, sets)
    after = (folder / "losses.csv").read_text().splitlines()
    assert after[: len(before)] == before and len(after) == len(before) + 1
    assert run.record["status"] == "trained"
