"""The lesion bench: what is put in is measured, on a head of a ball and an exact translator."""

import json

import nibabel
import numpy as np
import pytest

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import main
from cyclegan_tf.simulation.physics import Sequence, inversion_recovery_signal
from cyclegan_tf.simulation.protocols import IN_VIVO_3T
from cyclegan_tf.study import lesions
from cyclegan_tf.translation.translator import Translation


@pytest.fixture(scope="module")
def anatomies(tmp_path_factory):
    """A folder with one label map: a ball of a head with shells and ventricles."""
    x, y, z = np.indices((130, 140, 130)) - np.array([65, 70, 65])[:, None, None, None]
    radius = np.sqrt(x**2 + y**2 + z**2)
    labels = np.zeros(radius.shape, np.int16)
    for outer, label in ((60, 511), (57, 507), (52, 515), (48, 24), (44, 3), (38, 2), (8, 4)):
        labels[radius < outer] = label
    folder = tmp_path_factory.mktemp("anatomies")
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / "ball.nii.gz")
    return folder


class Oracle:
    """Draws what is bright where the T1 is dark, and never doubts more than by a tenth."""

    name, direction = "an oracle", "t1_to_t2"

    def __init__(self, truths):
        self.truths = truths

    def of_heads(self):
        return self

    def __call__(self, scans, trust=False):
        made = []
        for scan, truth in zip(scans, self.truths.pop(0), strict=True):
            made.append(Translation(scan, scan))
            made[-1].synthetic.slices[:] = 2 * truth - 1
        return made


@pytest.mark.slow
def test_of_a_translator_that_draws_the_truth_all_lesions_are_found(
    anatomies, tmp_path, monkeypatch
):
    truths, drawn = [], lesions._true_t2
    count = len(lesions.KINDS) * len(lesions.SIZES) + 1

    def keep(parts, kept, scanner):
        if not truths or len(truths[-1]) == count:
            truths.append([])
        truths[-1].append(drawn(parts, kept, scanner))
        return truths[-1][-1]

    monkeypatch.setattr(lesions, "_true_t2", keep)
    monkeypatch.setattr(lesions, "load_translator", lambda *_: Oracle(truths))
    result = lesions.evaluate_lesions("shipped", anatomies, tmp_path / "out")
    assert result["hallucinated_ml"]["most"] == 0
    for sizes in result["lesions"].values():
        for one in sizes.values():
            assert one["contrast"] == pytest.approx(1) and one["found"] == 1
    shown = result["by_darkness"]
    sizes = [size for size in lesions.SIZES if size >= lesions.LEAST]
    slices = lesions.SLICES * lesions.HEADS
    assert sum(x["count"] for x in shown.values()) == slices * len(sizes) * (len(lesions.KINDS) - 1)
    assert all(one["contrast"] == pytest.approx(1) for one in shown.values())
    assert json.loads((tmp_path / "out" / "lesions.json").read_text())["model"] == "an oracle"
    assert (tmp_path / "out" / "lesions.png").stat().st_size > 10_000
    table = lesions.report_lesions(result)
    assert "invisible in T1" in table and "1.00 / 100%" in table
    assert "| 50% and more |" in table  # cysts


def test_the_hidden_kind_has_the_t1_of_white_matter_and_the_t2_of_a_lesion():
    hidden, white = lesions._hidden(IN_VIVO_3T), IN_VIVO_3T["white"]
    assert hidden.t2 == IN_VIVO_3T["lesion"].t2 > 2 * white.t2
    sequence = Sequence(tr=2000, te=3, ti=900)
    signals = [inversion_recovery_signal(tissue, sequence) for tissue in (hidden, white)]
    assert signals[0] == signals[1]


def test_without_label_maps_it_is_refused_in_a_sentence(tmp_path, capsys):
    assert main(["evaluate", "shipped", "--lesions"]) == 2
    assert "--anatomies is missing" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no label maps"):
        lesions.evaluate_lesions("shipped", tmp_path, tmp_path)
