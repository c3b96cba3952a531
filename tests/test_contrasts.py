"""Runs of any two contrasts: their names reach data, files, models and sentences."""

import json

import keras
import nibabel
import numpy as np
import pytest

from cyclegan_tf import InputError
from cyclegan_tf.contrasts import NAMES, SIMULABLE, T1_T2, Contrasts, arrow
from cyclegan_tf.dataset.preparation import load, prepare
from cyclegan_tf.models import build_generator
from cyclegan_tf.presets import get_preset
from cyclegan_tf.runs import default_folder, open_run
from cyclegan_tf.scans.folders import find_domains, find_scans
from cyclegan_tf.simulation import phantom, protocols
from cyclegan_tf.translation.translate import translate_scans

PAIRS = [Contrasts(x, y) for x in SIMULABLE for y in SIMULABLE if x != y]


def sentence(call, *arguments, **options) -> str:
    with pytest.raises(InputError) as error:
        call(*arguments, **options)
    found = str(error.value)
    assert found.endswith(".") and "\n" not in found and ". " not in found
    return found


def test_a_preset_names_two_contrasts_that_are_t1w_and_t2w_unless_told():
    assert get_preset("paper").contrasts == get_preset("laptop").contrasts == T1_T2
    preset = get_preset("paper", {"source": "FLAIR", "target": "T1wGd"})
    assert preset.contrasts.directions == ("flair_to_t1gd", "t1gd_to_flair")
    assert arrow(preset.contrasts.directions[0]) == "FLAIR → T1Gd"
    assert preset.contrasts.named("fake_y") == "fake_t1gd"
    assert default_folder("scans", preset).name == "scans-flair_to_t1gd-paper-seed100"
    assert default_folder("scans", get_preset("paper")).name == "scans-paper-seed100"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"target": "T9w"}, ("target", "'T9w'", *NAMES.values())),
        ({"target": "T1w"}, ("source and target", "T1w")),
        ({"target": "CT"}, ("No CT can be simulated", "warm_start_epochs")),
        ({"target": "FLAIR", "start": "shipped"}, ("ships", "T1w", "T2w", "FLAIR")),
    ],
)
def test_a_pair_that_cannot_be_is_refused_in_one_sentence(overrides, words):
    refusal = sentence(get_preset, "laptop", overrides)
    assert all(word in refusal for word in words), refusal


def test_what_cannot_be_simulated_is_trained_without_a_warm_start_on_data_of_ones_own(tmp_path):
    own = {"target": "CT", "warm_start_epochs": 0, "simulation_weight": 0}
    assert get_preset("laptop", own).contrasts == ("t1", "ct")
    run = open_run(tmp_path / "run", overrides=own)
    assert "No CT can be simulated" in sentence(prepare, run)


def test_every_contrast_that_is_said_to_be_simulated_is():
    for known in (protocols.PROTOCOLS, protocols.WANTED, phantom.PROTOCOLS):
        assert {*known} == {*SIMULABLE}


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_same_heads_are_simulated_in_every_pair(pair):
    x, y, labels = phantom.simulate_pairs(
        1, 3, 1, phantom.Variation(0, 0, 0, 0), slices=(20, 21), contrasts=pair
    )
    for images, contrast in ((x, pair.x), (y, pair.y)):
        fluid, grey, white = (np.median(images[0, ..., 0][labels[0] == k]) for k in (1, 2, 3))
        assert (white > grey) == (contrast == "t1")
        assert (fluid > max(grey, white)) == (contrast in ("t2", "pd"))
        assert -0.9 < max(grey, white) < 0.9 or contrast == "t2"


@pytest.mark.slow
def test_a_simulated_run_of_t1w_and_flair_carries_their_names(tmp_path):
    run = open_run(tmp_path / "run", overrides={"target": "FLAIR"})
    sets = prepare(run)
    assert (run.folder / "simulated" / "Tr2" / "TrainFLAIR").is_dir()
    assert run.record["data"]["flair_images"] == len(sets.y) and len(sets.truth) == len(sets.x)
    assert {"t1_images", "flair_images"} <= {p.name for p in (run.folder / "images").iterdir()}
    with np.load(run.folder / "data.npz") as stored:
        assert {"t1_names", "flair_names"} <= {*stored.files}
    turned = open_run(run.folder, overrides={"source": "FLAIR", "target": "T1w"})
    sentence(load, turned)  # the truth is that of the other


def test_folders_and_files_are_found_by_the_names_of_the_contrasts(tmp_path):
    pair = Contrasts("t1gd", "flair")
    for name in ("TrainT1Gd", "TrainFLAIR", "TrainT2"):
        (tmp_path / name).mkdir()
    found = find_domains(tmp_path, contrasts=pair)
    assert [path.name for path in found] == ["TrainT1Gd", "TrainFLAIR"]
    bids = tmp_path / "bids" / "sub-01" / "anat"
    bids.mkdir(parents=True)
    for name in ("sub-01_ce-gd_T1w", "sub-01_T1w", "sub-01_FLAIR"):
        (bids / f"{name}.nii.gz").touch()
    assert find_domains(tmp_path / "bids", contrasts=pair) == (tmp_path / "bids",) * 2
    (scan,) = find_scans(tmp_path / "bids", "T1w after contrast agent").scans
    assert scan.name == "sub-01_ce-gd_T1w.nii.gz"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a run T1w → FLAIR with small networks of random weights."""
    overrides = {"filters": 4, "blocks": 1, "target": "FLAIR"}
    run = open_run(tmp_path_factory.mktemp("runs") / "mine", overrides=overrides)
    run.update(data={"frame": (224, 192)})
    for direction in run.preset.contrasts.directions:
        keras.utils.set_random_seed(1)
        build_generator("unet", 4, 1, direction).save(run.path("models", f"{direction}.keras"))
    return run.folder


@pytest.fixture
def dataset(tmp_path):
    """A BIDS data set of one simulated person, T1w and FLAIR."""
    variation, pair = phantom.Variation(noise=0.01), Contrasts("t1", "flair")
    *both, _ = phantom.simulate_pairs(12, 5, 1, variation, contrasts=pair)
    anat = tmp_path / "bids" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for slices, name in zip(both, ("T1w", "FLAIR"), strict=True):
        voxels = np.float32(500 * (slices[:, ::-1, :, 0].transpose(2, 1, 0) + 1))
        image = nibabel.Nifti1Image(voxels, np.diag([1, 1, 4, 1]))
        nibabel.save(image, anat / f"sub-01_{name}.nii.gz")
    return tmp_path / "bids"


@pytest.mark.parametrize(
    ("direction", "source", "target"),
    [("", "T1w", "FLAIR"), ("flair-to-t1", "FLAIR", "T1w")],
)
def test_a_model_translates_its_own_directions(
    model, dataset, tmp_path, direction, source, target, capsys
):
    (job,) = translate_scans(dataset, tmp_path / "out", model, direction, plane="axial")
    assert job.source.name == f"sub-01_{source}.nii.gz"
    assert job.targets[0].name == f"sub-01_desc-synthetic_{target}.nii.gz" and job.done
    sidecar = json.loads(
        (job.targets[0].parent / f"sub-01_desc-synthetic_{target}.json").read_text()
    )
    assert next(iter(sidecar["SourceContrast"])) == source  # as it was simulated
    assert not any("looks like" in doubt for doubt in job.warnings)


def test_a_direction_that_a_model_has_not_is_refused_with_those_it_has(model, dataset, tmp_path):
    refusal = sentence(translate_scans, dataset, tmp_path / "out", model, "t1-to-t2")
    assert "t1_to_t2" in refusal and "t1_to_flair or flair_to_t1" in refusal
    single = model / "models" / "flair_to_t1.keras"
    assert "is a generator flair_to_t1: expected t1_to_flair" in sentence(
        translate_scans, dataset, tmp_path / "out", single, "t1_to_flair"
    )
