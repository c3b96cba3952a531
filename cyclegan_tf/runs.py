"""A run's folder: its record, `run.json`, who works in it, and how files are written there."""

import dataclasses
import glob
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import portalocker
from tqdm import tqdm

from . import InputError, __version__
from .contrasts import T1_T2
from .parameters import parse, user_path
from .presets import Preset, get_preset

SIMULATED = "simulated"
Sources = list[list[str]]  # of each source its folders: one, or one of each contrast
STATUSES = ("new", "training", "trained", "finished")
PACKAGES = ("tensorflow", "tensorflow-cpu", "tensorflow-addons", "keras")
PACKAGES += ("numpy", "scikit-image", "nilearn")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A name to write to; it becomes `path` when the block ends, and is removed if that fails.

    It may become a file or a folder, and is another one in every process. The folders on the way
    to it are made.

    Raises InputError if the file system refuses: full, read-only, gone, not permitted.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, path)
        finally:
            _remove(partial)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written ({reason}): what was there is kept.") from None


def check_writable(folder: Path) -> None:
    """Raises InputError if nothing can be written to a folder, which may not be there yet."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{there} cannot be written to ({reason}): expected a folder.") from None


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file atomically, text as UTF-8."""
    with write_atomically(path) as partial:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """`write_file` of a record, in which there is no NaN."""
    write_file(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


@contextmanager
def intact(what: Path | str, advice: str, fault: str = "damaged") -> Iterator[None]:
    """While a file of ours is read: what readers raise because of a fault is an InputError."""
    try:
        yield
    except Exception as error:  # of a zip file nearly any
        reason = textwrap.shorten(str(error) or type(error).__name__, 150)
        raise InputError(f"{what} is {fault} ({reason}): {advice}.") from None


def _remove(path: Path) -> None:
    """Remove a file or a folder that may be there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lock(file: IO) -> bool | None:
    """Whether this process has the operating system's lock on an open file; None without locks.

    The lock ends with its process, however that ends.
    """
    try:
        portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException:  # a file system without locks
        return None
    return True


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process may make this file; until the block ends no other process may.

    What a killed process left half-written is removed, and so are folders that were made for the
    file and stayed empty. Where no lock can be made, every process may make the file.
    """
    lock = path.with_name(f".lock-{path.name}")
    created = [folder for folder in lock.parents if not folder.exists()]
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError:  # who writes there says what is wrong
        yield True
        return
    try:
        with file:
            if _lock(file) is False:
                lock = None
            for partial in path.parent.glob(f".partial-*-{glob.escape(path.name)}") if lock else ():
                _remove(partial)
            yield lock is not None
    finally:
        if lock:
            with suppress(OSError):
                lock.unlink()
                for folder in created:
                    folder.rmdir()


@dataclass(eq=False)
class Run:
    """A run's folder and its record.

    `record` is what `run.json` holds: `status` (of STATUSES), `data`, `preset` (all values),
    `overrides`, `seed`, `versions`, `commit`, `durations` in seconds, and what the stages add.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def preset(self) -> Preset:
        values = {key: value for key, value in self.record["preset"].items() if key != "name"}
        return get_preset(self.record["preset"]["name"], values)

    @property
    def data(self) -> Sources:
        """The folder of each source, or the two of its contrasts; or `simulated`."""
        return parse("data", self.record["data"]["source"], "folders")

    @property
    def source_names(self) -> list[str]:
        """A name for each source, from its folders; all are numbered if two are the same."""
        names = ["-".join(Path(folder).name for folder in source) for source in self.data]
        alike = len({*names}) < len(names)
        return [f"{k}-{name}" if alike else name for k, name in enumerate(names, 1)]

    def path(self, *names: str) -> Path:
        """A path in the run's folder; the folders on the way to it are made.

        Raises InputError if the run is gone: a new folder in its place would hide that.
        """
        if not (self.folder / "run.json").is_file():
            raise InputError(f"{self.folder} is gone: expected the run that was opened there.")
        path = self.folder.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def update(self, **entries: Any) -> None:
        """Set entries of the record; a dictionary is merged into the one that is there."""
        for key, value in entries.items():
            known = self.record.get(key)
            merge = isinstance(value, dict) and isinstance(known, dict)
            self.record[key] = known | value if merge else value
        write_json(self.path("run.json"), self.record)

    def warn(self, warning: str, epoch: int) -> None:
        """Print a warning and keep it in the record's `warnings`; the same one only once."""
        known = self.record.get("warnings", [])
        if not any(line.endswith(warning) for line in known):
            tqdm.write(f"Epoch {epoch}: {warning}")
            self.update(warnings=[*known, f"Epoch {epoch}: {warning}"])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out of the folder; remove what a killed one left half-written.

        The process that holds the lock may take it again, and so may the kernels that it has
        started, which work for it. Raises InputError naming the process that holds it.
        """
        me = f"process {{}} on {platform.node()} since "
        # Who holds the lock stands in another file, as Windows lets nobody read a locked one.
        holder = self.path(".holder")
        with self.path(".lock").open("a") as lock:
            free = _lock(lock)
            if free is False:
                name = holder.read_text() if holder.is_file() else "another process"
                if not name.startswith((me.format(os.getpid()), me.format(os.getppid()))):
                    raise InputError(f"{self.folder} is in use by {name}.")
            elif free:
                holder.write_text(me.format(os.getpid()) + time.strftime("%Y-%m-%d %H:%M:%S"))
                for partial in [*self.folder.rglob(".partial-*")]:
                    _remove(partial)
            yield

    def spend(self, stage: str, seconds: float) -> None:
        """Add to the stage's entry in `durations`."""
        before = self.record["durations"].get(stage, 0)
        self.update(durations={stage: round(before + seconds, 2)})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds that the block takes to the stage's entry in `durations`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.spend(stage, time.monotonic() - start)


def listed(data: Sources) -> str:
    """The sources as a sentence has them, such as "one and two, three"."""
    return ", ".join(map(" and ".join, data))


def default_folder(data: Any, preset: Preset) -> Path:
    """The run's folder if the user names none: made from data, contrasts, preset and seed."""
    folders = sum(parse("data", data, "folders"), [])
    source = "-".join(Path(folder).resolve().name for folder in folders)
    pair = "" if preset.contrasts == T1_T2 else f"-{preset.contrasts.directions[0]}"
    return Path("outputs") / f"{source}{pair}-{preset.name}-seed{preset.seed}"


def open_run(
    folder: str | Path,
    preset: str | None = None,
    data: Any = None,
    overrides: dict[str, Any] | str | None = None,
    begin: bool = True,
) -> Run:
    """Open the run in a folder, or begin one there; with `begin` false, only open it.

    What is not given is as recorded in the folder or, in a new one, preset `laptop` on simulated
    data. Raises InputError if the folder holds something that is no run, or a run that has begun
    training with other settings, and if another process is at work in a folder whose settings are
    to change.
    """
    folder, overrides = user_path(folder), _with_maps(parse("overrides", overrides, "settings"))
    data = _resolved(parse("data", data, "folders"))
    record = folder / "run.json"
    if record.is_file():
        return _with_settings(read_run(record), preset, data, overrides)
    if folder.is_file() or not begin or (folder.is_dir() and any(folder.iterdir())):
        of_run = "the folder of a run (run notebooks/01_preprocessing first)"
        expected = "a run or a new folder" if begin else of_run
        raise InputError(f"{folder} holds no run.json: expected {expected}.")
    wanted = get_preset(preset or "laptop", overrides)
    new = {
        "status": "new",
        "data": {"source": data or [[SIMULATED]]},
        "preset": dataclasses.asdict(wanted),
        "overrides": overrides,
        "seed": wanted.seed,
        "versions": versions_here(),
        "commit": _commit(),
        "durations": {},
    }
    write_json(record, new)
    return Run(folder, new)


def _with_settings(run: Run, preset: str | None, data: Sources, overrides: dict[str, Any]) -> Run:
    """The run with what is given; if it has begun training, an InputError names the differences."""
    old = _with_maps(dataclasses.asdict(run.preset))
    recorded = {key: value for key, value in old.items() if key != "name" and not preset}
    new = dataclasses.asdict(get_preset(preset or old["name"], recorded | overrides))
    data = data or run.data
    there, here = old | {"data": listed(run.data)}, new | {"data": listed(data)}
    changed = [key for key in here if there[key] != here[key]]
    differences = [f"{key} is {there[key]} there and {here[key]} here" for key in changed]
    if differences and run.record["status"] != "new":
        raise InputError(
            f"{run.folder} holds a run with other settings ({'; '.join(differences)}): "
            "give another output folder, or --fresh to start anew."
        )
    if differences:
        if data != run.data:
            run.record["data"] = {"source": data}
        if preset:
            run.record["overrides"] = {}
        for chosen in ("precision", "epoch_steps", "validation_begun"):  # by the old settings
            run.record.pop(chosen, None)
        with run.alone():
            run.update(preset=new, overrides=overrides, seed=new["seed"])
    return run


def read_run(path: Path) -> Run:
    """The run whose record is `path`, a `run.json`. Raises InputError if that is no record."""
    try:
        run = Run(path.parent, json.loads(path.read_text()))
        if not (run.preset and _resolved(run.data) and run.record["status"] in STATUSES):
            raise ValueError(f"status {run.record['status']!r}")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 150)
        raise InputError(f"{path} is damaged ({reason}): expected the record of a run.") from None
    return run


def _whole(folder: str) -> str:
    """A folder as it is recorded: notebooks run in another one."""
    return str(user_path(folder).resolve())


def _with_maps(settings: dict[str, Any]) -> dict[str, Any]:
    folder = settings.get("anatomies")
    return settings | {"anatomies": _whole(folder)} if folder else settings


def _resolved(data: Sources) -> Sources:
    if len(data) > 1 and [SIMULATED] in data:
        raise InputError(f"Of several sources none can be {SIMULATED!r}: expected folders.")
    return [[x if x == SIMULATED else _whole(x) for x in folders] for folders in data]


def versions_here() -> dict[str, str]:
    """The versions of this package, Python, PACKAGES and the machine, as in a record."""
    versions = {"cyclegan_tf": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    here = f"{platform.system()}-{platform.machine()}"  # no kernel's release: it tells whose it is
    return versions | {"platform": here, "processors": os.cpu_count()}


def _commit() -> str:
    """The package's commit: what pip has noted (PEP 610), or else its repository's HEAD."""
    home = Path(__file__).parent.parent
    for package in importlib.metadata.distributions(name="cyclegan_tf", path=[str(home)]):
        origin = json.loads(package.read_text("direct_url.json") or "{}")
        if "vcs_info" in origin:
            return origin["vcs_info"]["commit_id"]
    # Named, as git would otherwise look in the folders above, too.
    command = ["git", "--git-dir", str(home / ".git"), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git
        return "none"
    return result.stdout.strip() or "none"
