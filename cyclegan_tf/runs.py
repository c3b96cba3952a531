"""The folder of a run: its record `run.json`, what it was asked to do, files whole or absent."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import InputError, __version__
from .parameters import parse, user_path
from .presets import Preset, get_preset

SIMULATED = "simulated"
STATUSES = ("new", "training", "trained", "finished")
PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-addons",
    "keras",
    "numpy",
    "scikit-image",
    "nilearn",
)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A name to write to; it becomes `path` when the block ends, and vanishes when it fails.

    Raises InputError where the file system refuses: full, read-only, gone, not permitted.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        try:
            yield partial
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written ({reason}): what was there is kept.") from None


class Run:
    """A run's folder and its record.

    `record` is what `run.json` holds: `status` (of STATUSES), `data`, `preset` (all values),
    `overrides`, `seed`, `versions`, `commit`, `durations` in seconds, and what the stages add.
    """

    def __init__(self, folder: Path, record: dict[str, Any]):
        self.folder = folder
        self.record = record

    @property
    def preset(self) -> Preset:
        values = {key: value for key, value in self.record["preset"].items() if key != "name"}
        return get_preset(self.record["preset"]["name"], values)

    @property
    def data(self) -> str | list[str]:
        """`simulated`, or the folder the images come from, or the T1 and the T2 folder."""
        return self.record["data"]["source"]

    def path(self, *names: str) -> Path:
        """A path in the run's folder; the folders on the way are made.

        Raises InputError if the run has gone: another folder in its place would hide that.
        """
        if not (self.folder / "run.json").is_file():
            raise InputError(f"{self.folder} is gone: expected the run that was opened there.")
        path = self.folder.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def update(self, **entries: Any) -> None:
        """Set entries of the record; dictionaries are merged into what is there."""
        for key, value in entries.items():
            known = self.record.get(key)
            merge = isinstance(value, dict) and isinstance(known, dict)
            self.record[key] = known | value if merge else value
        self._write(self.path("run.json"))

    def _write(self, path: Path) -> None:
        with write_atomically(path) as partial:
            partial.write_text(json.dumps(self.record, indent=2) + "\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out of the folder; what a killed one left half-written is removed.

        The lock is the system's (`flock`), so it ends with its process, however that ends. Who
        holds it may take it again, and so may the kernels that it has started, which work for
        it. Raises InputError naming the process that holds it.
        """
        me = f"process {{}} on {platform.node()} since "
        with self.path(".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read()
                if not holder.startswith((me.format(os.getpid()), me.format(os.getppid()))):
                    raise InputError(f"{self.folder} is in use by {holder}.") from None
            except OSError:
                pass  # a file system without locks
            else:
                lock.truncate(0)
                lock.write(me.format(os.getpid()) + time.strftime("%Y-%m-%d %H:%M:%S"))
                lock.flush()
                for partial in [*self.folder.rglob(".partial-*")]:
                    if partial.is_dir():
                        shutil.rmtree(partial)
                    else:
                        partial.unlink(missing_ok=True)
            yield

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds that the block takes to `durations`, over resumed sessions too."""
        start = time.monotonic()
        try:
            yield
        finally:
            before = self.record["durations"].get(stage, 0)
            self.update(durations={stage: round(before + time.monotonic() - start, 2)})


def default_folder(data: str | list[str], preset: Preset) -> Path:
    """The run's folder where the user names none: made from data, preset and seed."""
    folders = parse("data", data, "folders")
    source = "-".join(Path(folder).resolve().name for folder in folders)
    return Path("outputs") / f"{source}-{preset.name}-seed{preset.seed}"


def open_run(
    folder: str | Path,
    preset: str | None = None,
    data: str | list[str] | None = None,
    overrides: dict[str, Any] | str | None = None,
    fresh: bool = False,
    begin: bool = True,
) -> Run:
    """Open a run's folder, or begin it; with `begin` false, only open it.

    What is not given is as recorded in the folder or, in a new one, preset `laptop` on simulated
    data. `fresh` empties the folder first. Raises InputError if the folder holds a run that has
    begun training with other settings, or something that is no run, and if another process works
    in it where it is to be emptied or its settings changed.
    """
    folder, overrides = user_path(folder), parse("overrides", overrides, "settings")
    data = parse("data", data, "folders") or None
    record_path = folder / "run.json"
    occupied = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if not begin and not record_path.is_file():
        made = "run notebooks/01_preprocessing first"
        raise InputError(f"{folder} holds no run.json: expected the folder of a run ({made}).")
    if occupied and not record_path.is_file():
        raise InputError(f"{folder} holds no run.json: expected a run or a new folder.")
    if fresh or not record_path.is_file():
        wanted = get_preset(preset or "laptop", overrides)  # first: a mistake deletes nothing
        if occupied:
            with Run(folder, {}).alone():
                pass  # nobody else is in it
            shutil.rmtree(folder)
        return _begin(folder, wanted, data, overrides)

    run = read_run(record_path)
    recorded = run.preset
    wanted = get_preset(preset, overrides) if preset else _changed(recorded, overrides)
    same_data = data is None or _source(data) == run.data
    begun = run.record["status"] != "new"
    differences = [
        f"{f.name} is {getattr(recorded, f.name)} there and {getattr(wanted, f.name)} here"
        for f in dataclasses.fields(Preset)
        if getattr(recorded, f.name) != getattr(wanted, f.name)
    ]
    if not same_data:
        differences.append(f"data is {run.data} there and {_source(data)} here")
    if differences and begun:
        raise InputError(
            f"{folder} holds a run with other settings ({'; '.join(differences)}): "
            "give another output folder, or --fresh to start anew."
        )
    if differences:
        if not same_data:
            run.record["data"] = {"source": _source(data)}
        if preset:
            run.record["overrides"] = {}
        values = dataclasses.asdict(wanted)
        with run.alone():
            run.update(preset=values, overrides=overrides or {}, seed=wanted.seed)
    return run


def read_run(path: Path) -> Run:
    """The run whose record, `run.json`, this is. Raises InputError if it is none."""
    try:
        run = Run(path.parent, json.loads(path.read_text()))
        if not (run.preset and _source(run.data) and run.record["status"] in STATUSES):
            raise ValueError(f"status {run.record['status']!r}")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 150)
        raise InputError(f"{path} is damaged ({reason}), no run's record.") from None
    return run


def _changed(preset: Preset, overrides: dict[str, Any] | None) -> Preset:
    values = dataclasses.asdict(preset)
    return get_preset(values.pop("name"), values | (overrides or {}))


def _source(data: str | list[str]) -> str | list[str]:
    folders = [data] if isinstance(data, str) else data
    paths = [name if name == SIMULATED else str(Path(name).resolve()) for name in folders]
    return paths if len(paths) > 1 else paths[0]


def _begin(folder: Path, preset: Preset, data, overrides: dict[str, Any] | None) -> Run:
    record = {
        "status": "new",
        "data": {"source": _source(data or SIMULATED)},
        "preset": dataclasses.asdict(preset),
        "overrides": overrides or {},
        "seed": preset.seed,
        "versions": _versions(),
        "commit": _commit(),
        "durations": {},
    }
    run = Run(folder, record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run._write(folder / "run.json")
    except OSError as error:
        raise InputError(f"Cannot write to {folder} ({error.strerror}).") from None
    return run


def _versions() -> dict[str, str]:
    versions = {"cyclegan_tf": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions | {"platform": platform.platform(), "processors": os.cpu_count()}


def _commit() -> str:
    """The commit that the package is of, as pip has noted (PEP 610), or else its repository."""
    home = Path(__file__).parent.parent
    for package in importlib.metadata.distributions(name="cyclegan_tf", path=[str(home)]):
        origin = json.loads(package.read_text("direct_url.json") or "{}")
        if "vcs_info" in origin:
            return origin["vcs_info"]["commit_id"]
    # Named, as git would else look for one in the folders above, too.
    command = ["git", "--git-dir", str(home / ".git"), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git
        return "none"
    return result.stdout.strip() or "none"
