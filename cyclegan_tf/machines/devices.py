"""Which devices train together: a machine's GPUs or, by TF_CONFIG, processes on several machines.

Each computes its share of every batch, by TensorFlow's `tf.distribute`. Of several processes one,
the chief, does all of a run; the workers help it to train, and write nothing into its folder.
TensorFlow is imported when a function is called, as in `machine`.
"""

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from .. import InputError
from ..presets import Preset
from ..runs import Run

WAIT = 300  # seconds for a process that is to come
TRAIN, DONE = b"t", b"d"  # the chief's word to its workers
LARGE = ("images", "data.npz", "checkpoints")  # of a run: what workers read where it is
FORM = '{"cluster": {"chief": ["HOST:PORT"], "worker": ["HOST:PORT", ...]}, '
FORM += '"task": {"type": "worker", "index": 0}}'


class Team(NamedTuple):
    """The processes that train together, in TensorFlow's order."""

    addresses: list[str]
    """Host and port of each, the chief's first."""
    place: int
    """Of this process among them; 0 is the chief."""


def team() -> Team:
    """What TF_CONFIG says; without it this process is alone. Raises InputError if it is wrong."""
    text = os.environ.get("TF_CONFIG", "").strip()
    if text in ("", "{}"):
        return Team([""], 0)
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], "{type} {index}".format(**config["task"])
        chiefs, workers = ([str(x) for x in jobs.get(job, [])] for job in ("chief", "worker"))
        for address in (*chiefs, *workers):
            _port(address)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"TF_CONFIG cannot be read ({reason}): expected {FORM}.") from None
    addresses, tasks = chiefs + workers, ["chief 0", *(f"worker {k}" for k in range(len(workers)))]
    known = len(chiefs) == 1 and not {*jobs} - {"chief", "worker"} and task in tasks
    if not known or len({*addresses}) < len(addresses):
        raise InputError(
            f"TF_CONFIG says {task} of {json.dumps(jobs)}: expected this process to be one of a "
            f"single chief and workers, each with its own address, as in {FORM}."
        )
    return Team(addresses, tasks.index(task))


def leads() -> bool:
    """Whether this process writes into the run's folder: alone, or the chief."""
    return team().place == 0


def strategy(preset: Preset):
    """The `tf.distribute.Strategy` of a run: over the processes of TF_CONFIG, or over devices here.

    Here over as many as can share the preset's batches. The first call of several processes waits
    for all of them; it must come before TensorFlow has computed anything.
    """
    if len(team().addresses) > 1:
        return _cluster()
    here = range(1, len(_devices()) + 1)
    return _mirrored(max(count for count in here if _can_share(preset, count)))


@cache
def _cluster():
    import tensorflow as tf

    if leads():  # the others are waited for here, as TensorFlow would wait for ever
        tell(gather(), TRAIN)
    else:
        line, word = _called()
        with line:
            line.sendall(word)
    return tf.distribute.MultiWorkerMirroredStrategy()


@cache
def _mirrored(count: int):
    import tensorflow as tf

    one = tf.distribute.get_strategy()
    return one if count == 1 else tf.distribute.MirroredStrategy(_devices()[:count])


def _devices() -> list[str]:
    import tensorflow as tf

    devices = tf.config.list_logical_devices
    return [device.name for device in devices("GPU") or devices("CPU")]


def agree(number: int) -> int:
    """The chief's number, in every process; waits until all have asked for it."""
    if len(team().addresses) == 1:
        return number
    import tensorflow as tf

    mine = tf.constant(number if leads() else 0, tf.int64)
    return int(_cluster().reduce("SUM", mine, axis=None))


@contextmanager
def together() -> Iterator[None]:
    """Where processes train together: raises InputError for one that is lost."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if len(team().addresses) == 1:
            raise
        raise InputError(
            f"A process that trains with this one is gone ({type(error).__name__}): expected all "
            "to be started again, with the same command; it goes on from the last epoch."
        ) from None


def share_batch(preset: Preset, replicas: int) -> None:
    """Raises InputError if so many replicas cannot have equal shares of the preset's batches."""
    if not _can_share(preset, replicas):
        batch, part = preset.batch_size, preset.micro_batch
        raise InputError(
            f"Parameter batch_size is {batch} and micro_batch {part}, and {replicas} replicas are "
            f"to share a batch: expected batch_size to be a multiple of {replicas * part}."
        )


def _can_share(preset: Preset, replicas: int) -> bool:
    return preset.batch_size % (replicas * preset.micro_batch) == 0


def use_devices(run: Run) -> None:
    """Record the devices that share the run's batches as its `replicas`; say if some are idle.

    Raises InputError as `share_batch`, for several processes.
    """
    chosen, here = strategy(run.preset), len(_devices())
    count = chosen.num_replicas_in_sync
    share_batch(run.preset, count)
    if count < here:
        wanted = here * run.preset.micro_batch
        print(f"{count} of {here} devices train: all would share a batch_size of {wanted}.")
    known = {"count": count, "strategy": type(chosen).__name__}
    run.update(replicas=known | {"processes": team().addresses, "devices": _devices()[:count]})


def gather() -> dict[int, socket.socket]:
    """As the chief, wait for the workers; returns the lines to them by place, none if alone.

    Raises InputError, after WAIT seconds, for one that does not come.
    """
    addresses, lines, end = team().addresses, {}, time.monotonic() + WAIT
    if len(addresses) == 1:
        return lines
    try:
        server = socket.create_server(("", _port(addresses[0])))
    except OSError as error:
        raise InputError(
            f"The chief cannot wait at {addresses[0]} ({error.strerror}): is there a second one?"
        ) from None
    with server:
        while missing := [x for k, x in enumerate(addresses) if k and k not in lines]:
            server.settimeout(max(0.01, end - time.monotonic()))
            try:
                line, _ = server.accept()
            except TimeoutError:
                raise InputError(
                    f"The worker at {missing[0]} has not come within {WAIT} s: expected the same "
                    "command there, with its own task in TF_CONFIG."
                ) from None
            line.settimeout(WAIT)
            with suppress(OSError, ValueError):  # of a stranger
                lines[int(line.recv(16))] = line
    return lines


def tell(lines: dict[int, socket.socket], word: bytes) -> None:
    """Give the workers the chief's word, wait until they are ready for it, and hang up.

    Raises InputError for one that is gone.
    """
    for line in lines.values():
        with suppress(OSError):
            line.sendall(word)
    for place in sorted(lines):
        with lines.pop(place) as line, suppress(OSError):
            if line.recv(1):
                continue
        raise InputError(f"The worker at {team().addresses[place]} is gone: see what it said.")


@contextmanager
def borrowed(folder: Path) -> Iterator[Path | None]:
    """As a worker, wait for the chief; yields a copy of its run, which is removed in the end.

    Yields None if there is nothing to train. What is large is not copied, but read where it is.
    Raises InputError if the chief does not come within WAIT seconds, or ends before it trains.
    """
    line, word = _called()
    with TemporaryDirectory() as aside, line:
        copy = None
        if word == TRAIN:
            if not (folder / "run.json").is_file():
                raise InputError(f"{folder} is not here: expected the chief's, on a shared disk.")
            copy = Path(aside) / folder.name
            others = ("models", "tensorboard", "*.ipynb", ".*")
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*LARGE, *others))
            for name in LARGE:
                (copy / name).symlink_to(folder / name)
        line.sendall(word)
        yield copy


def _called() -> tuple[socket.socket, bytes]:
    """As a worker, the line to the chief and its word, which comes when the run is prepared."""
    (chief, *_), place = team()
    end = time.monotonic() + WAIT
    while True:
        try:
            line = socket.create_connection((chief.rpartition(":")[0], _port(chief)), timeout=5)
            break
        except OSError as error:
            if time.monotonic() > end:
                raise InputError(
                    f"The chief at {chief} has not come within {WAIT} s ({error}): expected the "
                    "same command there, with its own task in TF_CONFIG."
                ) from None
            time.sleep(0.2)
    line.sendall(str(place).encode())
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    word = b""
    with suppress(OSError):  # if the chief ends before, that ends the line, too
        word = line.recv(1)
    if word not in (TRAIN, DONE):
        raise InputError(f"The chief at {chief} has ended before it trains: see what it said.")
    return line, word


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
