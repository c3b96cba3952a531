"""The command line: `cyclegan-tf run` executes the notebooks in order with papermill."""

import argparse
import builtins
import dataclasses
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import InputError, __version__, devices, machine
from .contrasts import Contrasts
from .parameters import user_path
from .presets import CONTRASTS, LAPTOP, PAPER, PRESETS, Preset, get_preset
from .runs import SIMULATED, Run, default_folder, open_run, read_run

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
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(arguments)
    _heed_interrupts("what is being computed")
    try:
        options.command(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(InputError(f"A file cannot be used: {error}."), file=sys.stderr)
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
    """Let Ctrl-C, and SIGTERM as batch queues end a run, be answered at once, then end `what`.

    Also in the background of a shell script, which has what it starts ignore Ctrl-C.
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
    add = _command(
        commands,
        "run",
        run_pipeline,
        help="train generators on images, and draw and measure what they make",
        description="Executes the numbered notebooks. The same command goes on with a stopped run.",
        epilog=_parameters(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add("--preset", help=f"{' or '.join(PRESETS)}; default: {LAPTOP.name}")
    for side in ("source", "target"):
        what = f"the {side}'s contrast, {', '.join(CONTRASTS)}; default: {getattr(LAPTOP, side)}"
        add(f"--{side}", metavar="CONTRAST", help=what)
    data = "a folder that holds a folder of images of each contrast, such as T1 and T2, or these "
    data += "two; default: simulated"
    add("--data", nargs="+", metavar="FOLDER", help=data)
    record = "a run.json: repeat that run, with its data and all its parameters"
    add("--from", dest="record", type=user_path, metavar="FILE", help=record)
    output = "the run's folder; default: outputs/ and a name made from data, preset and seed"
    add("--output", type=user_path, metavar="FOLDER", help=output)
    overrides = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    add("-p", dest="overrides", **overrides, help="set a parameter of the preset")
    add("--fresh", action="store_true", help="delete what the run's folder holds and start anew")

    add = _command(
        commands,
        "evaluate",
        evaluate_run,
        help="measure how far generators are from the truth",
        description="Prints the figures of one run or several, and writes each to metrics.json. "
        "Real heads (a folder for each subject with T1.nii.gz and T2.nii.gz, or BIDS) are measured "
        "in three dimensions, source → target: figures and pictures are in a run's heads/, or in "
        "outputs/heads-MODEL.",
    )
    which = "a run's folder; several are compared; for real heads also a .keras file or 'shipped'"
    add("runs", nargs="+", type=user_path, metavar="RUN", help=which)
    data = "measure on these images or real heads, not on the run's own images"
    add("--data", nargs="+", metavar="FOLDER", help=data)
    add("--oracle", type=user_path, metavar="RUN", help="an evaluated run with -p oracle true")
    slices = "print the figures of these source images and their partners alone; as in holdout"
    lesions = "measure what becomes of lesions in simulated heads; needs --anatomies"
    add("--lesions", action="store_true", help=lesions)
    maps = "label maps as SynthSeg's: measure on heads simulated around the last four, which "
    maps += "nothing was trained on, as if they were real"
    add("--anatomies", type=user_path, metavar="FOLDER", help=maps)
    add("--slices", default="", metavar="NAMES", help=slices)

    add = _command(
        commands,
        "translate",
        translate_input,
        help="make a synthetic T2, or what a model makes, of your own scans",
        description="What is translated already is not made again. Not for clinical use.",
    )
    scans = "an image, a NIfTI file, a DICOM series' folder, a folder of images or of NIfTI files"
    result = "a file for one, a folder for several, a derivatives data set"
    add("input", type=user_path, help=f"{scans}, or a BIDS data set")
    add("output", type=user_path, help=result)
    model = "a run's folder, a .keras or an .onnx file; default: the pair that ships"
    add("--model", type=user_path, metavar="RUN_OR_FILE", help=model)
    way = {"default": "", "metavar": "WAY", "help": "such as t2-to-t1; default: source to target"}
    add("--direction", **way)
    planes = ("axial", "coronal", "sagittal", "all")
    plane = "of the slices; all: the mean of three; default: of what ships all, of a run the one "
    plane += "that shows most"
    add("--plane", choices=planes, default="", help=plane)
    add(
        "--series",
        default="",
        metavar="NAME",
        help="which of several DICOM series, such as 5, MPRAGE or EchoTime=4.92",
    )
    trust = "also write maps of the error to expect: four times the work"
    add("--trust", action="store_true", help=trust)
    strict = "translate no scan that looks like another contrast, or like no head"
    add("--strict", action="store_true", help=strict)
    dicom = "of a DICOM series: write a derived series into the folder OUTPUT, not NIfTI"
    add("--dicom", action="store_true", help=dicom)
    add("--anonymous", action="store_true", help="with --dicom: nothing about the patient")

    add = _command(
        commands,
        "bids",
        translate_bids,
        help="translate a BIDS data set as a BIDS App",
        description="Writes a derivatives data set and a page for each participant.",
    )
    add("bids_dir", type=user_path, help="the data set")
    add("output_dir", type=user_path, help="where the derivatives data set goes")
    add("level", choices=("participant",), help="of the analysis")
    labels = {"nargs": "+", "default": [], "metavar": "LABEL"}
    add("--participant-label", "--participant_label", **labels, help="these alone")
    add("--session-label", "--session_label", **labels, help="these alone")
    add("--model", type=user_path, metavar="RUN_OR_FILE", help=model)
    add("--trust", action="store_true", help=trust)

    add = _command(
        commands,
        "export",
        export_generator,
        help="write a generator as ONNX, to translate with where there is no TensorFlow",
    )
    add("model", type=user_path, metavar="RUN_OR_FILE", help="a run's folder or a .keras file")
    add("output", type=user_path, metavar="FILE.onnx", help="what `translate --model` takes")
    add("--direction", **way)

    add = _command(
        commands,
        "calibrate",
        calibrate_model,
        help="fit what a scan is taken for, or how far a model's trust maps are to be believed",
        description="On heads simulated around label maps; takes some minutes.",
    )
    add("model", metavar="MODEL", help="'gate', 'shipped' or a run's folder")
    maps = "label maps as SynthSeg's; the last four are held out"
    add("--anatomies", type=user_path, required=True, metavar="FOLDER", help=maps)
    return parser


def _command(commands, name: str, function: Callable, **options) -> Callable:
    """Add a command that calls a function with its options; returns what adds an argument to it."""
    parser = commands.add_parser(name, allow_abbrev=False, **options)
    parser.set_defaults(command=function)
    return parser.add_argument


def _parameters() -> str:
    """What every preset field means, its values as `-p` takes them, and its unit."""
    lines = [f"parameters for -p, with the values of {LAPTOP.name} | {PAPER.name}:"]
    for field in dataclasses.fields(Preset)[1:]:  # without the preset's name
        values = " | ".join(_shown(getattr(preset, field.name)) for preset in (LAPTOP, PAPER))
        lines.append(f"  {field.name}: {values} {field.metadata['unit']}".rstrip())
        lines.append(textwrap.indent(textwrap.fill(field.metadata["meaning"], 76), " " * 6))
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"


def run_pipeline(options: argparse.Namespace) -> None:
    """Open or begin the run, check its data, and execute the notebooks that make its results."""
    name, data, overrides = _recorded(options.record) if options.record else (None, None, {})
    name, data = options.preset or name or LAPTOP.name, options.data or data or [SIMULATED]
    named = {"source": options.source, "target": options.target}
    overrides |= {k: v for k, v in named.items() if v} | dict(options.overrides)
    preset = get_preset(name, overrides)
    if len(data) > 2:
        raise InputError(
            f"--data has {len(data)} folders: expected one, or the source's and the target's."
        )
    default = default_folder(data, preset)
    if options.record:
        default = default.with_name(f"{default.name}-again")  # not the run to be repeated
    folder = (options.output or default).absolute()
    (chief, *others), place = devices.team()
    devices.share_batch(preset, 1 + len(others))
    if not devices.leads():
        print(f"This is worker {place}: it helps the chief at {chief} to train.", flush=True)
        with devices.borrowed(folder) as copy:
            if copy:
                _execute(PIPELINE[1], copy)
        return
    workers = devices.gather()
    if options.fresh and data != [SIMULATED]:
        from .scans.folders import find_domains

        find_domains(
            *map(user_path, data), contrasts=preset.contrasts
        )  # before anything is deleted
    created = [path for path in (*reversed(folder.parents), folder) if not path.exists()]
    run = open_run(folder, name, data, overrides, options.fresh)
    stages = PIPELINE if preset.epochs else PIPELINE[:-1]  # untrained networks are not measured
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
    report = "report.html" if preset.epochs else f"{stages[-1]}.ipynb"
    for what, name in (("pictures", "figures"), ("models", "models"), ("report", report)):
        print(f"  {what:8}  {folder / name}")


def _recorded(path: Path) -> tuple[str, list[str], dict]:
    """Preset, data and all parameters of the run that a `run.json` records."""
    run = read_run(path)
    values = dataclasses.asdict(run.preset)
    if "precision" in run.record:  # as it was chosen there
        values["precision"] = run.record["precision"]["policy"]
    return values.pop("name"), [run.data] if isinstance(run.data, str) else run.data, values


def _prepare(run: Run, created: list[Path]) -> None:
    """Read the data before the first notebook starts; if that fails, remove new folders."""
    try:
        from . import data

        data.prepare(run)
    except (InputError, OSError, ModuleNotFoundError):
        if created:
            shutil.rmtree(
                created[0], ignore_errors=True
            )  # an open lock file cannot be removed on NFS
        raise


def _execute(name: str, folder: Path) -> None:
    """Execute a notebook in a kernel of this Python and show its output as it comes."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    _heed_interrupts(f"the kernel of {name}")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # not a kernel that is installed elsewhere
    machine.quieten_tensorflow()
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
        reason = error.strerror or error
        raise InputError(
            f"{folder} cannot be written ({reason}): what was there is kept."
        ) from None
    except DeadKernelError:
        sys.exit(f"The kernel of {name} died, probably out of memory: run again to go on.")
    run = open_run(folder, begin=False)  # the notebook has written to its record
    before = run.record["durations"].get(name, 0)
    run.update(durations={name: round(before + time.monotonic() - start, 2)})


def evaluate_run(options: argparse.Namespace) -> None:
    """Measure the generators of runs; on other data, in the folder `evaluation/` of each run."""
    if options.lesions:
        return _on_lesions(options)
    if options.anatomies:
        return _on_simulated_heads(options)
    if options.data and _on_real_heads(options.runs, *options.data):
        return
    runs = [open_run(folder, begin=False) for folder in options.runs]
    from . import data
    from .splitting import named
    from .study.evaluation import evaluate, marked
    from .study.report import compare, only, summarise

    results = []
    for run in runs:
        sets, models = data.load(run), run.folder / "models"
        if options.data:
            same = ("fit", "size", "source", "target")
            own = {name: getattr(run.preset, name) for name in same}
            folder = models.parent / "evaluation" / default_folder(options.data, run.preset).name
            run = open_run(folder, run.preset.name, options.data, own)
            sets = marked(data.prepare(run), trained=sets)
        result = evaluate(run, sets, options.oracle, models)
        results.append(only(result, named(sets, options.slices)) if options.slices else result)
        print(f"All figures: {run.folder / 'metrics.json'}\n")
    if len(runs) > 1:
        _show_beside_each_other(runs, compare(results))
    else:
        print(summarise(results[0]))


def calibrate_model(options: argparse.Namespace) -> None:
    """Fit the gate, or the trust maps of a model, and print how right it is on other heads."""
    machine.quieten_tensorflow()
    from .study import calibration

    if options.model == "gate":
        found = calibration.calibrate_gate(options.anatomies)
    else:
        found = calibration.calibrate_trust(options.model, options.anatomies)
    print(json.dumps(found, indent=1))


def _beside(model: Path, what: str) -> Path:
    """The folder for what was measured on a model: in a run's, or in `outputs`."""
    return model / what if model.is_dir() else Path("outputs", f"{what}-{model.stem}")


def _on_lesions(options: argparse.Namespace) -> None:
    """Put lesions into simulated heads and say which a model shows."""
    from .study.lesions import evaluate_lesions, report_lesions

    if not options.anatomies:
        raise InputError("--anatomies is missing: expected a folder of label maps.")
    for model in options.runs:
        folder = _beside(model, "lesions")
        result = evaluate_lesions(model, options.anatomies, folder)
        print(f"{report_lesions(result)}\n\nAll figures: {folder}\n")


def _on_simulated_heads(options: argparse.Namespace) -> None:
    """Simulate whole heads in a model's contrasts, and measure it on them as on real ones."""
    from .study.downstream import write_heads

    for model in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            write_heads(options.anatomies, Path(folder), _contrasts_of(model))
            _on_real_heads([model], folder, what="simulated-heads")


def _contrasts_of(model: Path) -> Contrasts:
    from .translator import by_name, directions

    return Contrasts.of(directions(by_name(model))[0])


def _on_real_heads(models: Sequence[Path], data: str, *more: str, what: str = "heads") -> bool:
    """Measure models on pairs of volumes, if the data are such or the models are no runs."""
    from .study.heads import evaluate_heads, find_heads, report_heads

    runs = all((model / "run.json").is_file() for model in models)
    try:
        if runs and (more or not find_heads(data, _contrasts_of(models[0]))):
            return False
    except InputError:  # no pairs of volumes, so they must be images
        return False
    for model in models:
        folder = _beside(model, what)
        print(f"{report_heads(evaluate_heads(model, data, folder))}\n\nAll figures: {folder}\n")
    return True


def _show_beside_each_other(runs: Sequence[Run], found: dict) -> None:
    """Print what `report.compare` found, and draw it in the folder that holds the runs."""
    from .study.figures import comparison
    from .study.report import by_run, summarise

    folders = [run.folder.resolve() for run in runs]
    parent = Path(os.path.commonpath([folder.parent for folder in folders]))
    names = [str(folder.relative_to(parent)) for folder in folders]
    parts = ("warm_start", "training")
    minutes = [sum(run.record["durations"].get(part, 0) for part in parts) / 60 for run in runs]
    print(f"{summarise(found)}\n\n{by_run(found, names, minutes)}\n")
    comparison(parent, found, names, minutes)
    print(f"The runs beside each other: {parent / 'comparison.png'}")


def translate_input(options: argparse.Namespace) -> None:
    """Translate what is not translated yet; exit status 1 if some of it could not be."""
    if not os.path.lexists(options.input):
        raise InputError(f"{options.input} is not there: expected images or volumes.")
    machine.quieten_tensorflow()
    from .translation import translate_scans

    jobs = translate_scans(
        options.input,
        options.output,
        options.model,
        options.direction,
        options.plane,
        options.series,
        options.trust,
        options.strict,
        options.dicom,
        options.anonymous,
    )
    _say_what_was_done(jobs, options.output)


def translate_bids(options: argparse.Namespace) -> None:
    """Translate the participants of a BIDS data set; exit status 1 if some could not be."""
    machine.quieten_tensorflow()
    from .study.bids import translate_participants

    jobs = translate_participants(
        options.bids_dir,
        options.output_dir,
        options.participant_label,
        options.session_label,
        model=options.model,
        trust=options.trust,
    )
    _say_what_was_done(jobs, options.output_dir)


def _say_what_was_done(jobs: Sequence, output: Path) -> None:
    failed = sum(bool(job.error) for job in jobs)
    if failed:
        sys.exit(f"{failed} of {len(jobs)} could not be translated.")
    print(f"Translated: {output}")


def export_generator(options: argparse.Namespace) -> None:
    """Write the ONNX file of a generator, which is compared with it."""
    machine.quieten_tensorflow()
    from .handover import export_onnx

    export_onnx(options.model, options.output, options.direction)
    print(f"Exported: {options.output}")


if __name__ == "__main__":
    sys.exit(main())
