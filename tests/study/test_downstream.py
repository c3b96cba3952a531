"""What a synthetic T2 is good for, on simulated heads, whose tissues are known."""

import nibabel
import numpy as np
import pytest
from test_heads import SPACING, simulated, volume
from test_lesions import anatomies  # noqa: F401

from cyclegan_tf.study.downstream import (
    TISSUES,
    measure_use,
    register,
    report_use,
    segment,
    write_heads,
)
from cyclegan_tf.study.pairs import find_heads

SIZES = np.array([1, 1, SPACING])


@pytest.fixture(scope="module")
def head():
    """T1, T2 and labels (1 fluid, 2 grey, 3 white) of a simulated brain, (X, Y, Z) each."""
    return [volume(slices).get_fdata() for slices in simulated(skull=False, every=1)]


def test_tissues_are_those_that_were_simulated(head):
    t1, t2, labels = head
    found = segment(t1, t2, labels > 0)
    assert (found[labels == 0] == -1).all()
    for number in range(3):
        one, true = found == number, labels == number + 1
        assert 2 * (one & true).sum() / (one.sum() + true.sum()) > 0.8, TISSUES[number]


@pytest.mark.slow
def test_the_truth_in_another_unit_is_worth_the_truth_and_noise_is_worth_less(head):
    t1, t2, labels = head
    noise = np.random.default_rng(0).permutation(t2.ravel()).reshape(t2.shape)
    seconds = {"truth": t2, "synthetic": 0.3 * t2 + 7, "t1_table": noise}
    found = measure_use(t1, seconds, labels > 0, SIZES)
    assert found["truth"]["dice"] == dict.fromkeys(TISSUES, 1.0)
    for tissue in TISSUES:
        assert found["synthetic"]["dice"][tissue] > 0.999
        assert found["synthetic"]["ml"][tissue] == pytest.approx(found["truth"]["ml"][tissue], 0.01)
        assert found["t1_table"]["dice"][tissue] < 0.95
    assert sum(found["truth"]["ml"].values()) == pytest.approx((labels > 0).sum() * 3 / 1000)
    off = {name: one["registration_mm"] for name, one in found.items()}
    assert off["truth"] < 0.5 and abs(off["synthetic"] - off["truth"]) < 0.3
    assert off["t1_table"] > 2 * off["truth"]
    assert register(t2, t2, labels > 0, SIZES) == pytest.approx(off["truth"], 1e-9)
    assert f"| {off['truth']:.2f} |" in report_use({"one": found})


@pytest.mark.slow
def test_simulated_heads_are_found_as_real_ones_are(anatomies, tmp_path):  # noqa: F811
    write_heads(anatomies, tmp_path)
    (pair,), doubts = find_heads(tmp_path)
    assert pair.brain and not doubts
    t1, t2, brain = (
        nibabel.load(path).get_fdata() for path in (pair.source, pair.target, pair.brain)
    )
    assert t1.shape == t2.shape == brain.shape
    assert t1[brain > 0].mean() > 3 * t1[brain == 0].mean() >= 0
