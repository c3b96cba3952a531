"""Expected errors and intervals: how a calibration is fitted, kept and used."""

import json

import numpy as np
import pytest

from cyclegan_tf import InputError
from cyclegan_tf.translation.trust import LEAST, MOST, TERMS, Calibration, terms


def disagreeing(count, seed):
    """Slices whose views disagree, and errors that are five times that, on average."""
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.normal(-4, 0.6, (count, 40, 40))).astype(np.float32)
    synthetic = rng.uniform(-1, 1, spread.shape).astype(np.float32)
    errors = rng.exponential(5 * np.maximum(spread, LEAST))
    return spread, synthetic, errors


@pytest.fixture(scope="module")
def calibration():
    spread, synthetic, errors = disagreeing(20, 1)
    return Calibration.fit(terms(spread, synthetic).reshape(-1, TERMS), errors.ravel())


def test_the_expected_error_is_the_mean_error(calibration):
    spread, synthetic, errors = disagreeing(20, 2)
    expected = calibration.expected_error(spread, synthetic)
    assert expected.shape == spread.shape
    for low, high in ((0, 25), (25, 75), (75, 100)):
        part = (expected >= np.percentile(expected, low)) & (
            expected <= np.percentile(expected, high)
        )
        assert expected[part].mean() == pytest.approx(errors[part].mean(), rel=0.08)


def test_intervals_cover_nine_in_ten_of_errors_never_seen(calibration):
    spread, synthetic, errors = disagreeing(20, 3)
    half = calibration.quantile * calibration.expected_error(spread, synthetic)
    assert (errors <= half).mean() == pytest.approx(0.9, abs=0.01)
    # 90 % of an exponential distribution lie under ln 10 times its mean.
    assert calibration.quantile == pytest.approx(np.log(10), rel=0.05)


def test_it_never_expects_more_than_half_the_range():
    wild = Calibration((0.0, 0.0, 99.0), 1.0)
    assert wild.expected_error(np.ones((1, 9, 9)), np.ones((1, 9, 9))).max() == MOST


def test_it_is_read_beside_the_generators_or_absent(calibration, tmp_path):
    assert Calibration.read(tmp_path, "t1_to_t2") is None
    kept = {"t1_to_t2": {"weights": calibration.weights, "quantile": calibration.quantile}}
    (tmp_path / "calibration.json").write_text(json.dumps(kept))
    assert Calibration.read(tmp_path, "t1_to_t2") == calibration
    assert Calibration.read(tmp_path, "t2_to_t1") is None
    kept["t1_to_t2"]["test"] = {"rank_correlation": 0.17}
    (tmp_path / "calibration.json").write_text(json.dumps(kept))
    assert Calibration.read(tmp_path, "t1_to_t2").doubt.endswith("is 0.17.")
    assert not calibration.doubt
    kept["t1_to_t2"]["weights"] = [*calibration.weights, 0, 0, 0]  # as earlier versions had them
    (tmp_path / "calibration.json").write_text(json.dumps(kept))
    assert Calibration.read(tmp_path, "t1_to_t2") is None
    (tmp_path / "calibration.json").write_text("[1]")
    with pytest.raises(InputError, match="calibration.json is damaged .*: calibrate the model"):
        Calibration.read(tmp_path, "t1_to_t2")
