"""The command line: `cyclegan-tf run` executes the notebooks in order with papermill."""

import argparse
import builtins
import contextlib
import dataclasses
import inspect
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from . import InputError, __version__
from .machines import devices
from .parameters import user_path
from .presets import CONTRASTS, LAPTOP, PLANES, PRESETS, Preset, get_preset, meanings
from .runs import SIMULATED, Run, default_folder, open_run, read_run, write_atomically

HOME = Path(__file__).resolve().parent.parent  # the repository, or where pip installs packages
NOTEBOOKS = next(p for p in (Path(__file__).parent / "notebooks", HOME / "notebooks") if p.is_dir())
PIPELINE = ("01_preprocessing", "02_training", "03_figures", "04_evaluation")
_CONSOLE = Path(sys.argv[0]).stem == "cyclegan-tf"
PROGRAM = ["cyclegan-tf"] if _CONSOLE else ["python", "-m", "cyclegan_tf"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status.

    0: done. 1: the kernel died, or some of many scans could not be translated. 2: a mistake in
    what was given. 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a notebook's
            stream.reconfigure(errors="replace")  # Windows has no arrow for a file or a pipe
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = vars(_parser().parse_args(arguments))
    _heed_interrupts("what is being computed")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of TensorFlow, here and in kernels: fatal
    try:
        options.pop("command")(**options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(InputError(f"A file cannot be used: {error}."), file=sys.stderr)
        return 2
    except MemoryError as error:
        print(
            InputError(f"There is too little memory: {error or 'none is left'}."), file=sys.stderr
        )
        return 2
    except ModuleNotFoundError as error:
        needed = f"{error.name} is not installed, which this command needs"
        print(f"{needed}: pip install 'cyclegan_tf[train]'.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # nbclient, which watches the kernel, would log a traceback when it ends.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        again = shlex.join(PROGRAM + [word for word in arguments if word != "--fresh"])
        print(f"\nStopped. The same command goes on where it stood: {again}", file=sys.stderr)
        return 130
    return 0


def _heed_interrupts(what: str) -> None:
    """Answer Ctrl-C, and SIGTERM, which batch queues send, at once; then end `what`.

    Also in the background of a shell script, whose commands would otherwise ignore Ctrl-C.
    """

    def stop(*_):
        # Not by print, which may be at work.
        os.write(2, f"\nStopping: {what} ends within 15 s, what was written stays.\n".encode())
        raise KeyboardInterrupt

    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, stop)


class Parser(argparse.ArgumentParser):
    """A parser that says in one sentence what is wrong."""

    def error(self, message: str):
        self.exit(2, f"{message[:1].upper()}{message[1:]}; --help lists what there is.\n")


def _parser() -> Parser:
    parser = Parser(prog=" ".join(PROGRAM), description=sys.modules[__package__].__doc__)
    parser.add_argument("--version", action="version", version=f"cyclegan_tf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    switch = {"action": "store_true"}
    folder = {"type": _path, "metavar": "FOLDER"}
    layout = argparse.RawDescriptionHelpFormatter
    add = _command(commands, "run", run_pipeline, epilog=_parameters(), formatter_class=layout)
    add("--preset", help=f"{', '.join(PRESETS)}; default: {LAPTOP.name}")
    for side in ("source", "target"):
        what = f"the {side}'s contrast, {', '.join(CONTRASTS)}; default: {getattr(LAPTOP, side)}"
        add(f"--{side}", metavar="CONTRAST", help=what)
    data = "a folder of scans, such as one that holds the folders T1 and T2, or these two; given"
    data += " again for each further source, of an equal share; default: simulated images"
    add("--data", nargs="+", action="append", metavar="FOLDER", help=data)
    add("--from", dest="record", type=_path, metavar="FILE", help="a run.json: repeat that run")
    add("--output", **folder, help="of the run; default: in outputs/, named by data, preset, seed")
    overrides = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    add("-p", dest="overrides", **overrides, help="set a parameter of the preset")
    add("--fresh", **switch, help="delete what the run's folder holds and start anew")

    way = {"help": "such as t2-to-t1; default: source → target", "default": "", "metavar": "WAY"}
    add = _command(commands, "evaluate", evaluate_run)
    which = "a run's folder; several are compared; for real heads also a .keras file or 'shipped'"
    add("runs", nargs="+", type=_path, metavar="RUN", help=which)
    add("--data", **folder, help="real heads to measure on; default: the run's own images")
    maps = "label maps, as SynthSeg's: measure on heads simulated around the last four"
    add("--anatomies", **folder, help=maps)
    add("--lesions", **switch, help="with --anatomies: how lesions in such heads are translated")
    add("--direction", **way)

    add = _command(commands, "translate", translate_input)
    scans = "an image, a volume (NIfTI, a DICOM series), a folder of these, a BIDS data set"
    add("input", type=_path, help=scans)
    add("output", type=_path, help="a file for one scan; a folder for several or for a data set")
    model = {"type": _path, "metavar": "RUN_OR_FILE"}
    which = "a run's folder, a .keras or an .onnx file; default: the pair that ships"
    add("--model", **model, help=which)
    add("--direction", **way)
    plane = "of the slices, or all for the mean of three; default: all for the pair that ships, the"
    plane += " one that shows most for a run"
    add("--plane", choices=(*PLANES, "all"), default="", help=plane)
    series = "one of several DICOM series, such as 5 or MPRAGE, or of several echoes: EchoTime=4.92"
    add("--series", default="", metavar="NAME", help=series)
    trust = "also write maps of the error to expect, which takes four times the work"
    add("--trust", **switch, help=trust)
    add("--strict", **switch, help="refuse what looks like another contrast, or no head")
    add("--dicom", **switch, help="write a derived DICOM series into the folder OUTPUT")
    add("--anonymous", **switch, help="with --dicom: write nothing about the patient")

    add = _command(commands, "bids", translate_bids)
    add("bids_dir", type=_path, help="the data set")
    add("output_dir", type=_path, help="where the derivatives data set goes")
    add("level", choices=("participant",), help="level of the analysis")
    labels = {"help": "these alone", "nargs": "+", "default": [], "metavar": "LABEL"}
    for kind in ("participant", "session"):
        add(f"--{kind}-label", f"--{kind}_label", dest=f"{kind}s", **labels)
    add("--model", **model, help=which)
    add("--trust", **switch, help=trust)

    add = _command(commands, "export", export_generator)
    add("model", **model, help="a run's folder or a .keras file")
    add("output", type=_path, metavar="FILE.onnx", help="what `translate --model` takes")
    add("--direction", **way)

    add = _command(commands, "calibrate", calibrate_model)
    add("model", metavar="MODEL", help="'gate', 'shipped' or a run's folder")
    add("--anatomies", **folder, required=True, help="label maps; the last four are held out")
    return parser


def _path(text: str) -> Path:
    """`user_path`, whose sentence argparse would not pass on."""
    try:
        return user_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(error) from None


def _command(commands, name: str, function: Callable, **options) -> Callable:
    """Add a command that calls a function with its options; returns what adds an argument to it.

    What `--help` says of it is the function's docstring.
    """
    about = inspect.getdoc(function)
    first = about.partition("\n")[0]
    parser = commands.add_parser(name, help=first, description=about, allow_abbrev=False, **options)
    parser.set_defaults(command=function)
    return parser.add_argument


def _parameters() -> str:
    """What every preset field means, its values as `-p` takes them, and its unit."""
    meaning = meanings()
    lines = [f"parameters for -p, with the values of {' | '.join(PRESETS)}, or of all:"]
    for field in dataclasses.fields(Preset)[1:]:  # without the preset's name
        values = [_shown(getattr(preset, field.name)) for preset in PRESETS.values()]
        shown = " | ".join(values if len({*values}) > 1 else values[:1])
        lines.append(f"  {field.name}: {shown} {field.metadata['unit']}".rstrip())
        lines.append(textwrap.indent(textwrap.fill(meaning[field.name], 76), " " * 6))
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"


def run_pipeline(
    preset: str | None,
    source: str | None,
    target: str | None,
    data: list[list[str]] | None,
    record: Path | None,
    output: Path | None,
    overrides: list[tuple[str, str]],
    fresh: bool,
) -> None:
    """Train generators on images, and draw and measure what they make.

    Executes the numbered notebooks. The same command goes on with a stopped run.
    """
    if record and preset:
        raise InputError("--from has every parameter of its run: expected no --preset beside it.")
    name, recorded, values = _recorded(record) if record else (LAPTOP.name, [[SIMULATED]], {})
    name, data = preset or name, data or recorded
    named = {"source": source, "target": target}
    values |= {k: v for k, v in named.items() if v} | dict(overrides)
    chosen = get_preset(name, values)
    default = default_folder(data, chosen)
    if record:
        default = default.with_name(f"{default.name}-again")  # not the run to be repeated
    folder = (output or default).absolute()
    (chief, *others), place = devices.team()
    devices.share_batch(chosen, 1 + len(others))
    if not devices.leads():
        print(f"This is worker {place}: it helps the chief at {chief} to train.", flush=True)
        with devices.borrowed(folder) as copy:
            if copy:
                _execute(PIPELINE[1], copy)
        return
    workers = devices.gather()
    created = [path for path in (*reversed(folder.parents), folder) if not path.exists()]
    if fresh and (folder / "run.json").is_file():
        _start_anew(folder, name, data, values)
    run = open_run(folder, name, data, values)
    stages = PIPELINE if chosen.epochs else PIPELINE[:-1]  # untrained networks are not measured
    if run.record["status"] != "finished":
        with run.alone():
            _prepare(run, created)
            for number, stage in enumerate(stages, 1):
                print(f"[{number}/{len(stages)}] {stage}", flush=True)
                if stage == PIPELINE[1]:
                    devices.tell(workers, devices.TRAIN)
                _execute(stage, folder)
            run = open_run(folder, begin=False)
            total = sum(map(run.record["durations"].get, stages))
            run.update(status="finished", durations={"total": round(total, 2)})
    devices.tell(workers, devices.DONE)
    print(f"The run in {folder} is finished.")
    report = "report.html" if chosen.epochs else f"{stages[-1]}.ipynb"
    for what, name in (("pictures", "figures"), ("models", "models"), ("report", report)):
        print(f"  {what:8}  {folder / name}")


def _recorded(path: Path) -> tuple[str, list[list[str]], dict]:
    """Preset, data and all parameters of the run that a `run.json` records."""
    run = read_run(path)
    values = dataclasses.asdict(run.preset)
    if "precision" in run.record:  # as it was chosen there
        values["precision"] = run.record["precision"]["policy"]
    return values.pop("name"), run.data, values


def _start_anew(folder: Path, *settings) -> None:
    """Put a new run in the place of another, once its data are read: a mistake deletes nothing."""
    with Run(folder, {}).alone():
        pass  # no other process is in it
    with write_atomically(folder) as aside:
        _prepare(open_run(aside, *settings), [])
        shutil.rmtree(folder)


def _prepare(run: Run, created: list[Path]) -> None:
    """Read the data before the first notebook starts; if that fails, remove new folders."""
    try:
        from .dataset import preparation

        preparation.prepare(run)
    except (InputError, OSError, MemoryError, ModuleNotFoundError):
        if created:  # an open lock file cannot be removed on NFS
            shutil.rmtree(created[0], ignore_errors=True)
        raise


def _execute(name: str, folder: Path) -> None:
    """Execute a notebook in a kernel of this Python and show its output as it comes."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    _heed_interrupts(f"the kernel of {name}")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # not a kernel that is installed elsewhere
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            folder / f"{name}.ipynb",
            {"run_dir": str(folder)},
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,  # what libraries write to stderr stays in the notebook
            cwd=HOME,  # where the package is found even if it is not installed
            extra_arguments=["--log-level=CRITICAL"],
        )
    except papermill.PapermillExecutionError as error:
        kind = getattr(builtins, error.ename, InputError)
        if error.ename == InputError.__name__:
            raise InputError(error.evalue) from None
        if issubclass(kind, OSError):
            raise OSError(error.evalue) from None
        raise
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{folder} cannot be written ({why}): what was there is kept.") from None
    except DeadKernelError:
        sys.exit(f"The kernel of {name} died, probably out of memory: run again to go on.")
    # Opened anew, as the notebook has written to its record.
    open_run(folder, begin=False).spend(name, time.monotonic() - start)


def evaluate_run(
    runs: list[Path], data: Path | None, lesions: bool, anatomies: Path | None, direction: str
) -> None:
    """Measure how far generators are from the truth.

    Prints the figures of one or several runs and writes those of each to its metrics.json. Real
    heads (`--data`, a folder for each subject with T1.nii.gz and T2.nii.gz, or BIDS) are measured
    as volumes: their figures and pictures go to heads/ in a run's folder, else to
    outputs/heads-MODEL; with `--direction`, to heads-WAY.
    """
    runs = [*dict.fromkeys(runs)]
    if lesions and not anatomies:
        raise InputError("--anatomies is missing: expected a folder of label maps.")
    if data and anatomies:
        raise InputError("--data and --anatomies are given: expected real heads or simulated ones.")
    if direction and (lesions or not (data or anatomies)):
        raise InputError(f"--direction {direction} is for heads: expected --data or --anatomies.")
    if lesions:
        from .study.lesions import evaluate_lesions, report_lesions

        _measure(runs, anatomies, "lesions", evaluate_lesions, report_lesions)
    elif data or anatomies:
        from .study.heads import evaluate_heads, evaluate_simulated, report_heads

        what = "heads" if data else "simulated-heads"
        what += f"-{direction}".replace("_", "-") if direction else ""
        evaluate = partial(evaluate_heads if data else evaluate_simulated, direction=direction)
        _measure(runs, data or anatomies, what, evaluate, report_heads)
    elif others := [run for run in runs if not run.is_dir()]:
        raise InputError(f"{others[0]} is no run, with images of its own: expected one, or --data.")
    else:
        _measure_images([open_run(run, begin=False) for run in runs])


def _measure(
    models: list[Path], source: Path, what: str, evaluate: Callable, report: Callable
) -> None:
    """Evaluate models and print a report of each; all is in a run's folder, or in `outputs`."""
    folders = {}
    for model in models:
        folder = model / what if model.is_dir() else Path("outputs", f"{what}-{model.stem}")
        if folder in folders:
            both = f"{folders[folder]} and {model}"
            raise InputError(f"{both} would both be measured in {folder}: expected one of them.")
        folders[folder] = model
    for folder, model in folders.items():
        print(f"{report(evaluate(model, source, folder))}\n\nAll figures: {folder}\n")


def _measure_images(runs: list[Run]) -> None:
    """Evaluate runs on their own images; compare them."""
    from .dataset.preparation import load
    from .study import report
    from .study.evaluation import evaluate

    results = {}
    for run in runs:
        results[str(run.folder)], _ = evaluate(run, load(run))
        print(f"All figures: {run.folder / 'metrics.json'}\n")
    if len(runs) == 1:
        print(report.summarise(*results.values()))
    else:
        parts = ("warm_start", "training")
        minutes = [sum(run.record["durations"].get(x, 0) for x in parts) / 60 for run in runs]
        print(report.compare(results, minutes))


def calibrate_model(model: str, anatomies: Path) -> None:
    """Fit the check of what a scan shows (`gate`), or the trust maps of a model.

    Uses heads simulated around label maps and takes some minutes. Prints how right the result is on
    other simulated heads.
    """
    from .study.calibration import calibrate_gate, calibrate_trust

    found = calibrate_gate(anatomies) if model == "gate" else calibrate_trust(model, anatomies)
    print(json.dumps(found, indent=1))


def translate_input(input: Path, output: Path, **options) -> None:
    """Make a synthetic T2, or another model's contrast, of your own scans.

    What is translated already is not made again. Exit status 1 if some of several scans could not
    be translated. Not for clinical use.
    """
    if not os.path.lexists(input):
        raise InputError(f"{input} is not there: expected images or volumes.")
    from .translation.translate import translate_scans

    _say_what_was_done(translate_scans(input, output, **options), output)


def translate_bids(bids_dir: Path, output_dir: Path, level: str, **options) -> None:
    """Translate a BIDS data set as a BIDS App.

    Writes a derivatives data set and a page for each participant. Exit status 1 if some scans could
    not be translated.
    """
    from .study.bids import translate_participants

    _say_what_was_done(translate_participants(bids_dir, output_dir, **options), output_dir)


def _say_what_was_done(jobs: Sequence, output: Path) -> None:
    failed = sum(bool(job.error) for job in jobs)
    if failed:
        sys.exit(f"{failed} of {len(jobs)} could not be translated.")
    print(f"Translated: {output}")


def export_generator(model: Path, output: Path, direction: str) -> None:
    """Write a generator as ONNX, to translate with where there is no TensorFlow."""
    from .translation.handover import export_onnx

    export_onnx(model, output, direction)
    print(f"Exported: {output}")


if __name__ == "__main__":
    sys.exit(main())
