import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from test_notebooks import run_cells

from cyclegan_tf import compat
from cyclegan_tf.layers import InstanceNormalization
from cyclegan_tf.models import build_discriminator, build_generator
from cyclegan_tf.presets import PAPER
from cyclegan_tf.runs import open_run
from cyclegan_tf.study import benchmark

RATIOS = {
    "paper_step_fp32",
    "paper_step_auto",
    "paper_share_of_limit",
    "paper_memory",
    "laptop_step",
    "laptop_inference",
}
SMALL = benchmark.QUICK | {"blocks": 1, "discriminator_depth": 3}


@pytest.fixture(scope="module")
def images():
    coarse = np.random.default_rng(7).uniform(-1, 1, (5, 8, 8, 1))
    return list(np.array(tf.image.resize(coarse, (64, 64), "bicubic")).clip(-1, 1)[..., 0])


@pytest.mark.parametrize(
    "name, normalisation",
    [("paper", benchmark.OriginalNormalization), ("laptop", compat.ReferenceNormalization)],
)
def test_the_plain_step_gives_the_same_numbers_by_other_means(name, normalisation, images):
    own, preset = benchmark.build(name, SMALL | {"precision": "float32"})
    twin = benchmark.plain(own, normalisation)
    assert not any(isinstance(x, InstanceNormalization) for n in twin.networks for x in n.layers)
    assert any(type(x) is normalisation for x in twin.G.layers)
    batch = benchmark.framed(images, preset, 6)[:, None]
    (found, *ours), (expected, *theirs) = (
        model.losses_and_gradients(*batch[: 6 if preset.simulation_weight else 2])
        for model in (own, twin)
    )
    assert found.keys() == expected.keys()
    for loss, value in expected.items():
        assert float(found[loss]) == pytest.approx(float(value), rel=1e-5)
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        largest = max(float(tf.reduce_max(abs(x))) for x in tf.nest.flatten(theirs))
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * largest)


def test_calls_are_timed_in_turns_and_the_first_ones_are_not_counted():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = benchmark.in_turns(calls, 3)
    assert order == list("ab") * 4
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_the_flops_of_a_step_are_those_counted_by_hand(images):
    """c7s1-4, d8, d16, C16, u8, u4, c7s1-1 and c4s2-4, d8, d16, c4s1-32, c4s1-1 at 64 x 64."""
    model, preset = benchmark.build("paper in float32", SMALL)
    generator = [64**2 * 49 * 4, 32**2 * 9 * 4 * 8, 16**2 * 9 * 8 * 16]
    generator += [16**2 * 9 * 16 * 16] * 2 + [16**2 * 9 * 32 * 8, 32**2 * 9 * 8 * 4]
    generator += [64**2 * 49 * 4]
    discriminator = [32**2 * 16 * 4, 16**2 * 16 * 4 * 8, 8**2 * 16 * 8 * 16]
    discriminator += [7**2 * 16 * 16 * 32, 6**2 * 16 * 32]
    products = 9 * sum(generator) - 2 * generator[0]  # real images need no gradient
    products += 6 * sum(discriminator) - 2 * discriminator[0]
    call, flops = benchmark.limit(model, tf.constant(benchmark.framed(images, preset, 1)))
    assert flops == 2 * 2 * products
    assert np.isfinite(call())


def test_the_published_networks_need_5_3_teraflops_a_pair(monkeypatch):
    monkeypatch.setattr(benchmark, "_noise", lambda dtype, like: None)  # counted, not done
    networks = SimpleNamespace(
        G=build_generator(PAPER.generator, PAPER.filters, PAPER.blocks, "g"),
        D_x=build_discriminator(PAPER.discriminator_filters, 3, "d"),
        identity_weight=PAPER.identity_weight,
        simulation_weight=PAPER.simulation_weight,
    )
    _, flops = benchmark.limit(networks, tf.zeros((1, PAPER.size, PAPER.size, 1)))
    assert flops == pytest.approx(5.3e12, rel=0.02)


def test_a_table_has_a_row_for_each_form_and_three_digits():
    rows = {"a": {"gflop_per_s": 1.2345}, "b": {"gflop_per_s": 600.2}}
    lines = benchmark.table(rows).splitlines()
    assert lines == ["|  | gflop per s |", "| --- | ---: |", "| a | 1.23 |", "| b | 600 |"]


@pytest.mark.slow
def test_the_quick_benchmark_leaves_every_ratio(known, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "VOLUMES", {"1 slice": 1})
    monkeypatch.setitem(benchmark.QUICK, "size", 32)
    run_cells("06_benchmark", quick="true", run_dir=tmp_path / "run", data=known)
    found = json.loads((tmp_path / "run" / "benchmark.json").read_text())
    assert found["ratios"].keys() == RATIOS
    assert all(value > 0 for value in found["ratios"].values())
    assert found["versions"]["keras"] and found["precision"]["policy"]
    assert open_run(tmp_path / "run").record["status"] == "new"
