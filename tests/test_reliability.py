"""Whatever happens to a run, nothing finished is lost and the result is the same."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
from conftest import REPOSITORY, STEPS, TINY, begin
from test_notebooks import LEAST, environment, execute, until
from test_training import assert_identical, rows, state

from cyclegan_tf import InputError, training
from cyclegan_tf.__main__ import PROGRAM, main
from cyclegan_tf.dataset.preparation import prepare
from cyclegan_tf.learning import symptoms, warmstart
from cyclegan_tf.learning.batches import steps_per_epoch
from cyclegan_tf.learning.checkpoints import Checkpoints
from cyclegan_tf.learning.snapshots import write_snapshot
from cyclegan_tf.learning.symptoms import find_symptoms
from cyclegan_tf.presets import get_preset
from cyclegan_tf.runs import open_run
from cyclegan_tf.scans.frame import Frame
from cyclegan_tf.scans.images import write_image
from cyclegan_tf.simulation import phantom
from cyclegan_tf.training import build_cyclegan, train, watched_images
from cyclegan_tf.translation.generators import predict


def sentence(error):
    """What an InputError says, which must be one line."""
    text = str(getattr(error, "value", error)).strip()
    assert text.endswith(".") and "\n" not in text
    return text


# Killed and resumed: the same as never killed

SMALL = LEAST | {
    "epochs": "16",
    "warm_start_epochs": "2",
    "discriminator_filters": "32",  # of 8 MB, so that writing it takes a while
    "discriminator_depth": "3",
    "snapshot_epochs": "0,1,16",
    "frame_interval": "10",
    "precision": "float32",
}


@pytest.fixture(scope="module")
def alone(heads, tmp_path_factory):
    """The folder of a run that nothing happened to, by what trains in the notebooks."""
    run = open_run(tmp_path_factory.mktemp("alone") / "run", "laptop", str(heads), SMALL)
    sets = prepare(run)
    model = build_cyclegan(run, training.epoch_steps(run, sets))
    write_snapshot(run, 0, watched_images(model, sets))
    warmstart.warm_start(model, run, sets)
    train(model, run, sets)
    return run.folder


def arrays(path):
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def assert_same_result(folder, other):
    """Weights, optimisers, losses and snapshots, bit for bit."""
    for pattern in ("checkpoints/**/*.npz", "snapshots/*.npz"):
        names = sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))
        assert names == sorted(str(path.relative_to(other)) for path in other.glob(pattern))
        for name in names:
            ours, theirs = arrays(folder / name), arrays(other / name)
            assert_identical([*ours], [*theirs])
            assert_identical([*ours.values()], [*theirs.values()])
    for name in ("losses.csv", *(f"snapshots/epoch_{epoch:03d}.png" for epoch in (0, 1, 10, 16))):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    warned = [
        json.loads((path / "run.json").read_text()).get("warnings") for path in (folder, other)
    ]
    assert warned[0] == warned[1]


def epoch(folder):
    """The last one that has a checkpoint."""
    return max((int(path.stem[-4:]) for path in folder.glob("checkpoints/epoch_*.npz")), default=0)


def half_written(folder):
    return list(folder.glob("checkpoints/.partial-*"))


EARLY = (
    "data.npz",
    "01_preprocessing.ipynb",
    "snapshots/epoch_000.npz",
    "checkpoints/warm_start/epoch_0001.npz",
)


def mount(*words):
    return subprocess.run(["mount", *map(str, words)], capture_output=True, check=False).returncode


@pytest.fixture
def disk():
    """A file system of 60 MB of its own; None where none may be mounted."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    mounted = not mount("-t", "tmpfs", "-o", "size=60m,mode=755", "tmpfs", folder)
    if not mounted:
        warnings.warn("no file system may be mounted here: no full disk is tried", stacklevel=1)
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


def without_room(disk, words):
    """A command that ends, as its disk is full; then there is room."""
    mount("-o", "remount,size=30m", disk)
    result = execute(words)
    assert result.returncode == 2
    assert str(disk / "run") in sentence(result.stderr) and "No space left" in result.stderr
    mount("-o", "remount,size=200m", disk)


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def halt(process):
    process.suspend()
    until(lambda: process.status() == psutil.STATUS_STOPPED)  # which takes its time


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 6))]
)
def test_a_run_repeated_from_its_record_killed_and_out_of_room_ends_as_one_left_alone(
    alone, tmp_path, disk, seed
):
    folder, rng = (disk or tmp_path) / "run", np.random.default_rng(seed)
    record = ["--from", str(alone / "run.json"), "--output", str(folder)]
    words = [sys.executable, *PROGRAM[1:], "run", *record]
    left = []  # kernels left behind, which may still write
    for kill in ("before training", "its kernel left behind", "in a checkpoint"):
        early, later = rng.choice(EARLY), epoch(folder) + rng.integers(1, 5)
        with subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                time.sleep(0.003 if kill == "in a checkpoint" else 0.05)
                if kill == "before training" and (folder / early).exists():
                    break
                if kill == "in a checkpoint" and half_written(folder) and not any(map(alive, left)):
                    writing = psutil.Process(process.pid).children(recursive=True)
                    for kernel in writing:  # or it may be done before it is killed
                        halt(kernel)
                    if half_written(folder):
                        break
                    for kernel in writing:
                        kernel.resume()
                if kill == "its kernel left behind" and epoch(folder) >= later:
                    time.sleep(rng.uniform(0, 0.3))
                    break
            kernels = psutil.Process(process.pid).children(recursive=True)
            assert process.poll() is None
            process.kill()
            if kill == "its kernel left behind":
                left, kernels = kernels, []
            for kernel in kernels:
                kernel.kill()
        print(f"seed {seed}: killed {kill}, after epoch {epoch(folder)}")
        if kill == "before training" and disk:
            without_room(disk, words)
    assert half_written(folder)
    assert not (folder / "models").exists()
    result = execute(words)
    assert result.returncode == 0, result.stderr
    assert not list(folder.rglob(".partial-*"))
    assert_same_result(folder, alone)


def test_beside_a_record_to_repeat_other_values_may_be_given(tmp_path, monkeypatch):
    run = open_run(tmp_path / "run", "paper", overrides={"epochs": 7, "precision": "auto"})
    run.update(status="finished", precision={"policy": "mixed_bfloat16"})
    monkeypatch.setattr("cyclegan_tf.__main__._prepare", lambda run, created: exit())
    words = ["run", "--from", str(run.folder / "run.json"), "--output", str(tmp_path / "other")]
    with pytest.raises(SystemExit):
        main([*words, "-p", "seed", "5"])
    wanted = {"epochs": 7, "precision": "mixed_bfloat16", "seed": 5}
    assert open_run(tmp_path / "other").preset == get_preset("paper", wanted)


def test_a_record_to_repeat_must_be_one(tmp_path, capsys):
    (tmp_path / "notes.json").write_text("{}")
    for name in ("notes.json", "absent.json"):
        assert main(["run", "--from", str(tmp_path / name)]) == 2
        assert name in sentence(capsys.readouterr().err)


# Faults of the file system, on a real one


@contextlib.contextmanager
def full(folder):
    filler = folder.parent / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


@contextlib.contextmanager
def gone(folder):
    folder.rename(folder.with_name("elsewhere"))
    yield
    assert not folder.exists()
    folder.with_name("elsewhere").rename(folder)


@contextlib.contextmanager
def read_only(folder):
    assert mount("--bind", folder, folder) == mount("-o", "remount,bind,ro", folder) == 0
    yield
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def not_permitted(folder):
    os.seteuid(65534)  # to root nothing is forbidden
    yield
    os.seteuid(0)


FAULTS = {
    full: "No space left on device",
    gone: "is gone",
    read_only: "Read-only file system",
    not_permitted: "Permission denied",
}


@pytest.mark.slow
def test_faults_of_the_file_system_end_the_training_in_a_sentence_and_it_goes_on_after_each(
    disk, images, trained, monkeypatch
):
    if not disk:
        pytest.skip("no file system may be mounted here")
    run, sets, model = begin(disk / "run", images)
    write_losses = training.write_losses
    for epoch, (fault, reason) in zip((2, 2, 3, 4), FAULTS.items(), strict=True):
        happening = fault(run.folder)

        def struck(run, history, epoch=epoch, happening=happening):
            if len(history) == epoch:
                happening.__enter__()
            write_losses(run, history)

        monkeypatch.setattr(training, "write_losses", struck)
        try:
            with pytest.raises(InputError, match=reason) as raised:
                train(model, run, sets)
        finally:
            happening.__exit__(None, None, None)
        assert str(run.folder) in sentence(raised)
        kept = [path.name for path in run.folder.glob("checkpoints/epoch*")]
        assert sorted(kept) == [f"epoch_{k:04d}.npz" for k in (epoch - 2, epoch - 1)]
    monkeypatch.undo()
    train(model, open_run(run.folder), sets)
    assert_identical(state(model), state(trained[2]))
    assert rows(run) == rows(trained[0])
    assert not list(run.folder.rglob(".partial-*"))


def test_a_later_stage_creates_no_folder(tmp_path, capsys):
    with pytest.raises(InputError, match="01_preprocessing first") as raised:
        open_run(tmp_path / "mistyped", begin=False)
    sentence(raised)
    assert main(["evaluate", str(tmp_path / "mistyped")]) == 2
    assert "mistyped" in sentence(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


# Two runs in one folder

HOLDER = """
import sys, time
from cyclegan_tf.runs import open_run
with open_run(sys.argv[1]).alone():
    print("holding", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder, seconds, *before):
    words = [*before, sys.executable, "-c", HOLDER, str(folder), str(seconds)]
    return subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_folder_in_use_is_refused_naming_whose_it_is_until_that_is_killed(tmp_path, capsys):
    folder = open_run(tmp_path / "run").folder
    with holder(folder, 600) as process:
        assert process.stdout.readline() == "holding\n"
        (folder / ".partial-losses.csv").write_text("half")
        today = time.strftime("%Y-%m-%d")
        for more in ([], ["--fresh"], ["-p", "epochs", "3"]):
            assert main(["run", "--output", str(folder), *more]) == 2
            refusal = sentence(capsys.readouterr().err)
            assert f"process {process.pid} on" in refusal and f"since {today}" in refusal
        assert (folder / ".partial-losses.csv").exists()
        assert open_run(folder).preset.epochs == 145
        process.send_signal(signal.SIGKILL)
    with open_run(folder).alone():
        assert not (folder / ".partial-losses.csv").exists()


def test_who_prepares_the_data_keeps_others_out_meanwhile(tmp_path):
    run = open_run(tmp_path / "run", data=str(write_noise(tmp_path, 250, (16, 16))))
    program = "from cyclegan_tf import runs; from cyclegan_tf.dataset.preparation import prepare; "
    program += "prepare(runs.open_run({!r}))"
    words = [sys.executable, "-c", program.format(str(run.folder))]
    with subprocess.Popen(words, env=environment()) as process:
        until(lambda: any(run.folder.glob(".partial-*-images")))
        with pytest.raises(InputError, match=f"in use by process {process.pid} on") as raised:
            prepare(run)
        sentence(raised)
        process.kill()
    assert not (run.folder / "data.npz").exists()


def test_a_training_is_refused_before_it_touches_anothers_checkpoints(images, tmp_path):
    run, sets, model = begin(tmp_path / "run", images, warm_start_epochs=1)
    with holder(run.folder, 600) as process:
        assert process.stdout.readline() == "holding\n"
        for learn in (warmstart.warm_start, train):
            with pytest.raises(InputError, match="in use by process"):
                learn(model, run, sets)
        process.kill()
    assert not list(run.folder.rglob("epoch_*"))


def test_a_run_does_not_keep_itself_or_its_kernels_out_but_others(tmp_path):
    run = open_run(tmp_path / "run")
    with run.alone(), run.alone():
        with holder(run.folder, 0) as kernel:
            assert kernel.communicate()[0] == "holding\n"
        with holder(run.folder, 0, "sh", "-c", '"$@"; exit $?', "sh") as stranger:
            assert f"in use by process {os.getpid()} on" in stranger.communicate()[1]


# Training that goes wrong


def test_nan_ends_the_training_at_the_last_good_checkpoint(images, tmp_path, monkeypatch):
    run, sets, model = begin(tmp_path / "run", images)
    good = []

    def spoilt(run, history):
        if len(history) == 2:
            good.extend(state(model))
            monkeypatch.setattr(Checkpoints, "save", save_and_spoil)

    def save_and_spoil(checkpoints, epoch, history):
        save(checkpoints, epoch, history)
        model.D_x.trainable_variables[0].assign_add([[[[np.nan] * 4]] * 4] * 4)

    save = Checkpoints.save
    monkeypatch.setattr(training, "write_losses", spoilt)
    with pytest.raises(InputError, match="^Epoch 3: losses or weights are NaN") as raised:
        train(model, run, sets)
    assert "lower rate" in sentence(raised)
    assert open_run(run.folder).record["warnings"] == [str(raised.value)]
    fresh = build_cyclegan(run, STEPS)
    variables = [
        *(variable for network in fresh.networks for variable in network.weights),
        *fresh.optimizer.variables,
        *fresh.discriminator_optimizer.variables,
    ]
    assert Checkpoints(run.folder / "checkpoints", variables).restore()[0] == 2
    assert_identical(state(fresh), good)


@pytest.mark.slow
def test_a_rate_that_explodes_is_named_and_nothing_of_it_is_kept(images, tmp_path):
    run, sets, model = begin(tmp_path / "run", images, learning_rate=1e38)
    with pytest.raises(InputError, match="^Epoch 1: losses or weights are NaN"):
        train(model, run, sets)
    assert [path.name for path in run.folder.glob("checkpoints/*")] == ["epoch_0000.npz"]


def losses(name):
    with (REPOSITORY / "outputs" / "gallery" / name / "losses.csv").open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["mri_t1_t2-laptop", "mri_t1_t2-laptop-disjoint"])
def test_the_losses_of_good_runs_raise_no_warning(name):
    history = losses(name)
    assert not any(find_symptoms(history[:epoch], {}) for epoch in range(1, len(history) + 1))


def test_a_discriminator_that_has_won_for_long_is_named():
    row = {"discriminator_t1": 0.2, "discriminator_t2": 0.06}
    assert find_symptoms([row] * 9, {}) == []
    (warning,) = find_symptoms([row] * 10, {})
    assert warning.startswith("discriminator_t2 has won") and "learning_rate" in sentence(warning)
    assert find_symptoms([row] * 9 + [row | {"discriminator_t2": 0.25}], {}) == []


@pytest.mark.slow
def test_a_warning_is_printed_and_recorded_once(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(symptoms, "WON_LOSS", 9.0)
    run, sets, model = begin(tmp_path / "run", images, epochs=12)
    train(model, run, sets)
    lines = [line for line in capsys.readouterr().out.splitlines() if "has won" in line]
    assert [line[:29] for line in lines] == [
        "Epoch 10: discriminator_t1 ha",
        "Epoch 10: discriminator_t2 ha",
    ]
    warned = open_run(run.folder).record["warnings"]
    assert [line for line in warned if "has won" in line] == lines


@pytest.fixture(scope="module")
def pairs():
    """Simulated T1 and T2, and T2 with fluid and white matter exchanged, (8, 96, 96, 1)."""
    t1, t2, labels = phantom.simulate_pairs(8, 3, heads=2)
    wrong, (fluid, white) = t2.copy(), (labels == 1, labels == 3)
    wrong[fluid], wrong[white] = t2[white].mean(), t2[fluid].mean()
    frame = Frame("resize", 96, 96)
    return [frame.apply(x[..., 0]) for x in (t1, t2, wrong)]


def snapshot_of_trained_towards(tmp_path, t1, t2):
    """What a run's generators make of the T1 and the T2 images after learning these pairs."""
    for contrast, images in (("T1", t1), ("T2", t2)):
        (tmp_path / contrast).mkdir()
        for number, image in enumerate(images[..., 0]):
            write_image(tmp_path / contrast / f"{number}.png", image)
    run = open_run(
        tmp_path / "run", "laptop", str(tmp_path), TINY | {"filters": 8, "warm_start_epochs": 2}
    )
    sets = prepare(run)
    model = build_cyclegan(run, STEPS)
    learner = warmstart._pair_learner(model.networks[:2], run.preset)
    learner.fit((t1, t2), (t2, t1), batch_size=1, epochs=12, verbose=0)
    return watched_images(model, sets)


@pytest.mark.slow
def test_fluid_and_white_matter_exchanged_are_noticed(pairs, tmp_path):
    t1, t2, wrong = pairs
    exchanged = find_symptoms([], snapshot_of_trained_towards(tmp_path, t1, wrong))
    assert [warning[:7] for warning in exchanged] == ["fake_t2", "fake_t1"]
    assert all("exchanged" in sentence(warning) for warning in exchanged)


@pytest.mark.slow
def test_the_right_contrast_raises_no_warning(pairs, tmp_path):
    t1, t2, _ = pairs
    assert find_symptoms([], snapshot_of_trained_towards(tmp_path, t1, t2)) == []


def test_a_generator_that_makes_the_same_grey_of_everything_is_named(pairs):
    t1, t2, _ = pairs
    snapshot = {"real_x": t1, "fake_y": np.full_like(t1, 0.3), "real_y": t2, "fake_x": t1}
    (warning,) = find_symptoms([], snapshot)
    assert warning.startswith("fake_t2 is the same grey") and "collapsed" in sentence(warning)


# Limits


def write_noise(root, count, shape):
    rng = np.random.default_rng(0)
    for folder in ("T1", "T2"):
        (root / folder).mkdir()
        for number in range(count):
            coarse = rng.uniform(-1, 1, (4, 4))
            image = np.kron(coarse, np.ones([-(-side // 4) for side in shape]))
            write_image(root / folder / f"{number}.png", image[: shape[0], : shape[1]])
    return root


@pytest.mark.parametrize(
    ("count", "shape", "options"),
    [
        (2, (64, 48), {}),
        (3, (16, 16), {"batch_size": 7}),
        (2, (1024, 1024), {"filters": 1, "discriminator_filters": 1, "simulation_weight": 0}),
        (501, (16, 16), {"batch_size": 20}),  # more than pairs are looked for among
    ],
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no pairs looked for")
def test_sets_as_small_and_as_large_as_they_come_are_trained_on(tmp_path, count, shape, options):
    data = write_noise(tmp_path, count, shape)
    run = open_run(tmp_path / "run", "laptop", str(data), TINY | {"epochs": 1} | options)
    sets = prepare(run)
    steps = steps_per_epoch(*sets.train, run.preset)
    model = build_cyclegan(run, steps)
    train(model, run, sets)
    generator = keras.models.load_model(run.folder / "models" / "t1_to_t2.keras")
    assert predict(generator, sets.x[:1]).shape == sets.x[:1].shape


@pytest.mark.slow
def test_too_little_memory_is_foreseen(images, tmp_path):
    run, sets, model = begin(tmp_path / "run", images, batch_size=10**7, micro_batch=10**7)
    with pytest.raises(InputError, match="GB of memory and this machine has") as raised:
        training.estimate(model, run, sets)
    assert "micro_batch than 10000000" in sentence(raised)


def test_names_with_line_ends_and_escape_codes_make_no_second_line():
    assert str(InputError("a\nb\x1b[2J\udcff é is no image.")) == "a?b?[2J? é is no image."
