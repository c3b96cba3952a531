"""Several sources of data in one run."""

import json

import nibabel
import numpy as np
import pytest

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import _parser, _recorded
from cyclegan_tf.dataset.preparation import load, prepare
from cyclegan_tf.runs import default_folder, open_run
from cyclegan_tf.simulation import phantom

ALONE = {"warm_start_epochs": 0, "simulation_weight": 0}


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Two sites, whose first patients are both called sub-01: of one three people, of one one."""
    folder = tmp_path_factory.mktemp("sites")
    for number, (site, people) in enumerate((("large", 3), ("small", 1))):
        for person in range(1, people + 1):
            *pair, _ = phantom.simulate_pairs(4, 10 * number + person, 1, slices=(10, 22))
            for name, slices in zip(("T1w", "T2w"), pair, strict=True):
                voxels = np.float32(500 * (slices[:, ::-1, :, 0].transpose(2, 1, 0) + 1))
                anat = folder / site / f"sub-{person:02}" / "anat"
                anat.mkdir(parents=True, exist_ok=True)
                image = nibabel.Nifti1Image(voxels, np.diag([1, 1, 4, 1]))
                nibabel.save(image, anat / f"sub-{person:02}_{name}.nii.gz")
    return folder


@pytest.fixture
def opened(sites, tmp_path):
    def run(data, **overrides):
        return open_run(tmp_path / "run", data=data, overrides=ALONE | overrides)

    return run


def both(sites) -> list[list[str]]:
    return [[str(sites / "large")], [str(sites / "small")]]


def test_people_of_two_sources_are_two_even_if_they_have_one_name(sites, opened):
    run = opened(both(sites), holdout="small/sub-01,large/sub-02")
    sets = prepare(run)
    assert {*sets.x.heads} == {"large/sub-01", "large/sub-02", "large/sub-03", "small/sub-01"}
    assert len({*sets.x.names}) == len(sets.x.names) == 16
    assert (sets.x.heads[sets.pairs[:, 0]] == sets.y.heads[sets.pairs[:, 1]]).all()
    held_out = {*sets.x.heads[~sets.x.train]}
    assert held_out == {"small/sub-01", "large/sub-02"}


def test_a_name_that_two_sources_know_is_held_out_in_both(sites, opened):
    sets = prepare(opened(both(sites), holdout="sub-01"))
    assert {*sets.x.heads[~sets.x.train]} == {"large/sub-01", "small/sub-01"}


def test_each_sources_share_of_an_epoch_is_in_the_record(sites, opened):
    run = opened(both(sites))
    prepare(run)
    shares = json.loads((run.folder / "run.json").read_text())["data"]["sources"]
    assert shares["large"] == {"t1_train": 12, "t1_share": 0.5, "t2_train": 12, "t2_share": 0.5}
    assert shares["small"] == {"t1_train": 4, "t1_share": 0.5, "t2_train": 4, "t2_share": 0.5}
    x, _ = load(run).train
    assert [len(part) for part in x.parts] == [12, 4]


def test_a_run_of_several_sources_is_opened_and_repeated_with_them(sites, opened):
    text = f"[[{sites / 'large'}], [{sites / 'small'}]]"  # as papermill hands it over
    run = opened(text)
    assert run.data == both(sites) and opened(both(sites)).data == both(sites)
    assert _recorded(run.folder / "run.json")[1] == both(sites)
    assert default_folder(both(sites), run.preset).name == "large-small-laptop-seed1"
    given = _parser().parse_args(["run", "--data", "a", "--data", "b", "c"])
    assert given.data == [["a"], ["b", "c"]]
    with pytest.raises(InputError, match="other settings|expected"):
        opened([["simulated"], [str(sites / "small")]])


@pytest.mark.parametrize("kind", ["volumes", "images"])
def test_sources_of_two_kinds_or_with_a_scan_in_common_are_refused(kind, sites, opened, tmp_path):
    other = sites / "large"
    if kind == "images":
        other = phantom.write_dataset(tmp_path / "slices", 1, 2, 2)
    with pytest.raises(InputError) as error:
        prepare(opened([[str(sites / "large")], [str(other)]]))
    expected = {"volumes": "is in two sources", "images": "expected some of both, or images alone"}
    assert expected[kind] in str(error.value) and str(error.value).endswith(".")
