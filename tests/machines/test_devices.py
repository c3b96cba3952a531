"""Several devices, real ones as far as a processor has them: virtual devices, and processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import REPOSITORY
from test_notebooks import command, environment, until

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import main
from cyclegan_tf.machines import devices
from cyclegan_tf.presets import get_preset
from cyclegan_tf.runs import open_run

SMALL = {
    "generator": "published",
    "blocks": "0",
    "discriminator_depth": "1",
    "epochs": "20",
    "decay_epoch": "10",
    "practice_steps": "0",
    "frame_interval": "20",
    "precision": "float32",
    "snapshot_epochs": "0",
    "size": "32",
}


def small(folder, *more, count):
    """The words of a small run by so many processes, each of which has two images of a batch."""
    return command(folder, *more, **SMALL, batch_size=2 * count)


def free_addresses(count):
    """So many addresses of this machine at which nobody listens."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def config(addresses, place):
    """TF_CONFIG of one of the processes at these addresses, of which the first is the chief."""
    cluster = {"chief": addresses[:1], "worker": addresses[1:]}
    task = {"type": "worker", "index": place - 1} if place else {"type": "chief", "index": 0}
    return json.dumps({"cluster": cluster, "task": task})


# One machine

REPLICAS = """
import sys
import numpy as np, tensorflow as tf
from cyclegan_tf import training
from cyclegan_tf.dataset.preparation import prepare
from cyclegan_tf.learning import loop, warmstart
from cyclegan_tf.machines import devices, machine
from cyclegan_tf.runs import open_run

machine.share_cores()
processor, = tf.config.list_physical_devices("CPU")
virtual = [tf.config.LogicalDeviceConfiguration()] * 3  # of which two can share four images
tf.config.set_logical_device_configuration(processor, virtual)

folder, data = sys.argv[1:]
settings = dict(
    generator="published", filters=4, blocks=0, discriminator_filters=4, discriminator_depth=1,
    epochs=2, decay_epoch=1, warm_start_epochs=1, warm_start_pairs=8, shift=2, precision="float32",
    batch_size=4, frame_interval=1, identity_weight=1.0,
)
warmstart.STEPS = 3

def train(name, micro_batch, replicas, **others):
    overrides = settings | {"micro_batch": micro_batch} | others
    run = open_run(f"{folder}/{name}", "laptop", data, overrides)
    sets = prepare(run)
    model = training.build_cyclegan(run, training.epoch_steps(run, sets))
    warmstart.warm_start(model, run, sets)
    assert run.record["replicas"]["count"] == replicas, run.record
    if "simulator" in others:  # whose frames of many sizes are shown in the warm start alone
        return
    training.train(model, run, sets)
    np.savez(f"{folder}/{name}.npz", *(x.numpy() for x in training.state(model)))

train("in-parts", 1, 2)
train("at-once", 2, 2)
train("frames", 2, 2, simulator="varied")
alone = tf.distribute.get_strategy()
devices.strategy = loop.strategy = lambda preset: alone
train("one", 4, 1)
train("frames-one", 4, 1, simulator="varied")
"""


@pytest.fixture(scope="module")
def shared_out(images, tmp_path_factory):
    """The folder of three trainings: by one device, and by two in parts of a share or at once."""
    folder = tmp_path_factory.mktemp("shared-out")
    words = [sys.executable, "-c", REPLICAS, str(folder), str(images)]
    result = subprocess.run(
        words, env=environment(), cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "2 of 3 devices train" in result.stdout
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["in-parts", "at-once"])
def test_as_many_devices_as_can_share_a_batch_train_as_one_to_rounding(shared_out, name):
    with np.load(shared_out / f"{name}.npz") as ours, np.load(shared_out / "one.npz") as theirs:
        assert ours.files == theirs.files
        for key in ours.files:
            several, one = ours[key].astype(float), theirs[key]
            # Adam makes of rounding, where a gradient is nothing else, a step of up to its rate.
            error = np.abs(several - one)
            assert np.percentile(error, 90) <= 2e-3 * np.abs(one).max() + 1e-6
    rows = [(shared_out / x / "losses.csv").read_text().split()[1:] for x in (name, "one")]
    several, one = (np.array([row.split(",") for row in each], float) for each in rows)
    np.testing.assert_allclose(several, one, rtol=2e-3)


@pytest.mark.slow
def test_devices_share_simulated_heads_in_frames_of_any_size(shared_out):
    records = [
        json.loads((shared_out / x / "run.json").read_text()) for x in ("frames", "frames-one")
    ]
    several, one = (list(record["warm_start"].values()) for record in records)
    np.testing.assert_allclose(several, one, rtol=2e-3)


@pytest.mark.parametrize(("batch", "micro_batch", "replicas"), [(1, 1, 2), (6, 1, 4), (4, 4, 2)])
def test_a_batch_that_cannot_be_shared_out_is_refused(batch, micro_batch, replicas):
    preset = get_preset("laptop", {"batch_size": batch, "micro_batch": micro_batch})
    with pytest.raises(InputError, match=f"multiple of {replicas * micro_batch}\\."):
        devices.share_batch(preset, replicas)
    devices.share_batch(preset, 1)


# TF_CONFIG

CHIEF, WORKER = {"type": "chief", "index": 0}, {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("cluster", "task", "words"),
    [
        ({"worker": ["a:1", "b:1"]}, WORKER, "a single chief"),
        ({"chief": [], "worker": ["a:1"]}, WORKER, "a single chief"),
        ({"chief": ["a:1", "b:1"], "worker": ["c:1"]}, CHIEF, "a single chief"),
        ({"chief": ["a:1"], "worker": ["b:1"]}, {"type": "worker", "index": 1}, "worker 1 of"),
        ({"chief": ["a:1"], "worker": ["a:1"]}, WORKER, "its own address"),
        ({"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}, WORKER, "single chief and workers"),
        ({"chief": ["a"], "worker": ["b:1"]}, WORKER, "cannot be read"),
        (None, CHIEF, "cannot be read"),
        ({"chief": ["a:1"]}, {}, "cannot be read"),
    ],
)
def test_a_tf_config_that_cannot_be_is_refused_in_a_sentence(
    cluster, task, words, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert main(["run", "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and told.endswith(".") and "\n" not in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"cluster": {"chief": ["a:1"]}, "task": {}}', "{"])
def test_without_others_in_tf_config_this_process_is_alone_or_told_what_is_wrong(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    if text in ("", "{}"):
        assert devices.team() == ([""], 0) and devices.leads() and devices.gather() == {}
    else:
        with pytest.raises(InputError, match="TF_CONFIG cannot be read"):
            devices.team()


@pytest.mark.parametrize("place", [0, 1])
def test_who_does_not_come_is_waited_for_no_longer_than_said(place, monkeypatch, capsys, tmp_path):
    addresses = free_addresses(2)
    monkeypatch.setattr(devices, "WAIT", 1)
    monkeypatch.setenv("TF_CONFIG", config(addresses, place))
    begun = time.monotonic()
    assert main(["run", "--output", str(tmp_path / "run"), "-p", "batch_size", "2"]) == 2
    assert time.monotonic() - begun < 30
    told = capsys.readouterr().err.strip()
    assert f"at {addresses[1 - place]} has not come within 1 s" in told and "\n" not in told
    assert not (tmp_path / "run").exists()


def test_a_second_chief_on_the_machine_is_refused(monkeypatch, tmp_path, capsys):
    addresses = free_addresses(2)
    monkeypatch.setenv("TF_CONFIG", config(addresses, 0))
    with socket.create_server(("", int(addresses[0].split(":")[1]))):
        assert main(["run", "--output", str(tmp_path / "run"), "-p", "batch_size", "2"]) == 2
    assert "is there a second one?" in capsys.readouterr().err


@pytest.mark.parametrize("word", [b"", devices.DONE, devices.TRAIN])
def test_a_worker_does_what_the_chief_says_and_writes_nothing_into_its_folder(
    word, monkeypatch, tmp_path
):
    addresses = free_addresses(2)
    run = open_run(tmp_path / "run", overrides={"batch_size": 2})
    (run.folder / "losses.csv").write_text("epoch\n")
    before = sorted(path.name for path in run.folder.rglob("*"))

    def chief():
        monkeypatch.setenv("TF_CONFIG", config(addresses, 0))
        lines = devices.gather()
        monkeypatch.setenv("TF_CONFIG", config(addresses, 1))
        devices.tell(lines, word) if word else [line.close() for line in lines.values()]

    monkeypatch.setenv("TF_CONFIG", config(addresses, 0))
    threading.Thread(target=chief, daemon=True).start()
    time.sleep(0.5)
    monkeypatch.setenv("TF_CONFIG", config(addresses, 1))
    if not word:
        with (
            pytest.raises(InputError, match="has ended before it trains"),
            devices.borrowed(run.folder),
        ):
            pass
        return
    with devices.borrowed(run.folder) as copy:
        assert (copy is None) == (word == devices.DONE)
        if copy:
            assert open_run(copy).preset == run.preset and (copy / "losses.csv").is_file()
            assert (copy / "checkpoints").resolve() == run.folder / "checkpoints"
            open_run(copy).update(status="trained")
    assert sorted(path.name for path in run.folder.rglob("*")) == before
    assert open_run(run.folder).record["status"] == "new"


# Several processes, each as on a machine of its own

RUN = """
import sys
from cyclegan_tf import __main__, training
from cyclegan_tf.dataset.preparation import load
from cyclegan_tf.learning import warmstart
from cyclegan_tf.machines import devices, machine
from cyclegan_tf.runs import open_run

def execute(name, folder):  # what trains in the notebooks
    run = open_run(folder, begin=False)
    if name == __main__.PIPELINE[1]:
        sets, _ = load(run), devices.strategy(run.preset)
        model = training.build_cyclegan(run, training.epoch_steps(run, sets))
        warmstart.warm_start(model, run, sets)
        training.train(model, run, sets)
    run.update(durations={name: 0})

machine.share_cores()
__main__._execute = execute
sys.exit(__main__.main(sys.argv[1:]))
"""


def start(folder, data, addresses):
    """The same command in every process."""
    options = small(folder, "--data", str(data), count=len(addresses))[3:]
    words = [sys.executable, "-c", RUN, *options]
    quiet = environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [
        subprocess.Popen(words, env=quiet | {"TF_CONFIG": config(addresses, place)}, **streams)
        for place in range(len(addresses))
    ]


def ended(processes):
    """Their exit statuses and what they said, after a bounded time."""
    try:
        said = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


SRUN = """#!/bin/sh
while [ "$1" != bash ]; do shift; done
for place in {places}; do SLURM_PROCID=$place "$@" & ids="$ids $!"; done
for id in $ids; do wait $id || exit 1; done
"""


class Whole(NamedTuple):
    """A run that nothing happened to, by the script for Slurm."""

    count: int  # of processes
    folder: Path
    said: str


@pytest.fixture(
    scope="module",
    params=[pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.soak)],
)
def whole(request, images, tmp_path_factory):
    count, folder = request.param, tmp_path_factory.mktemp("slurm")
    readme = (REPOSITORY / "README.md").read_text()
    script = "#!/bin/bash\n" + readme.split("    #!/bin/bash\n")[1].split("\n\n")[0]
    script = script.replace("23456", free_addresses(1)[0].split(":")[1])
    tiny = " ".join(small("run", count=count)[4:])
    script = script.replace("scans", str(images)).replace("--output outputs/mine", tiny)
    assert str(images) in script and tiny in script
    places = " ".join(map(str, range(count)))
    hosts = "echo localhost\n" * count
    programs = {"srun": SRUN.format(places=places), "scontrol": f"#!/bin/sh\n{hosts}"}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    paths = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        ["bash", "-c", script],
        env=environment() | {"PATH": paths},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    return Whole(count, folder / "run", result.stdout)


def test_the_script_for_slurm_runs_the_notebooks_on_several_processes(whole):
    record = json.loads((whole.folder / "run.json").read_text())
    assert record["status"] == "finished" and record["replicas"]["count"] == whole.count
    assert "The run in" in whole.said
    for place in range(1, whole.count):
        assert f"This is worker {place}: it helps the chief" in whole.said
    assert (whole.folder / "report.html").is_file()


def test_with_a_worker_killed_and_all_started_again_the_result_is_that_without(
    whole, images, tmp_path
):
    struck, count = tmp_path / "struck", whole.count
    processes = start(struck, images, free_addresses(count))
    until((struck / "checkpoints" / "epoch_0003.npz").exists)
    processes[1].kill()
    codes, said = ended(processes)
    assert codes[0] == 2 and codes[1] == -signal.SIGKILL, said
    assert "A process that trains with this one is gone" in said[0]
    assert not (struck / "models").exists()
    codes, said = ended(start(struck, images, free_addresses(count)))
    assert codes == [0] * count, said
    last = f"checkpoints/epoch_{SMALL['epochs']:>04}.npz"
    with np.load(struck / last) as ours, np.load(whole.folder / last) as theirs:
        for name in theirs.files:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert (struck / "losses.csv").read_bytes() == (whole.folder / "losses.csv").read_bytes()
