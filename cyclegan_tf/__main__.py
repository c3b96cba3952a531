"""The command line: `python -m cyclegan_tf run` executes the notebooks, in order, by papermill."""

from __future__ import annotations

import argparse
import builtins
import dataclasses
import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from . import InputError
from .presets import LAPTOP, PAPER, PRESETS, Preset, get_preset
from .runs import SIMULATED, Run, default_folder, open_run

REPOSITORY = Path(__file__).resolve().parent.parent
PIPELINE = ("01_preprocessing", "02_training", "03_figures")
PROGRAM = ["python", "-m", "cyclegan_tf"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake in what was given, 130 interrupted, 1 the kernel died."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = shlex.join(PROGRAM + [word for word in arguments if word != "--fresh"])
        print(f"\nStopped. The same command goes on where it stood: {again}", file=sys.stderr)
        return 130
    return 0


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake in one sentence."""

    def error(self, message: str):
        self.exit(2, f"{message[:1].upper()}{message[1:]}; --help lists what there is.\n")


def _parser() -> Parser:
    parser = Parser(prog=" ".join(PROGRAM), description=sys.modules[__package__].__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser(
        "run",
        help="from images to trained generators and their pictures",
        description="From images to trained generators and their pictures, by the numbered "
        "notebooks. The same command again goes on with a run that was stopped.",
        epilog=_parameters(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.set_defaults(command=run_pipeline)
    run.add_argument("--preset", default=LAPTOP.name, metavar=f"{{{','.join(PRESETS)}}}")
    run.add_argument(
        "--data",
        default=SIMULATED,
        metavar="FOLDER",
        help=f"with the images of both sets; default: {SIMULATED} ones",
    )
    run.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="of the run; default: outputs/ and a name made from data, preset and seed",
    )
    run.add_argument(
        "-p",
        dest="overrides",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="give one of the preset's parameters another value; as often as you like",
    )
    run.add_argument("--fresh", action="store_true", help="start anew, deleting what the run has")
    return parser


def _parameters() -> str:
    """What every preset field means, its unit, and its value in both presets."""
    lines = [f"parameters for -p, with the values of {LAPTOP.name} | {PAPER.name}:"]
    for field in dataclasses.fields(Preset)[1:]:  # without the preset's name
        unit = field.metadata["unit"] and f" ({field.metadata['unit']})"
        values = " | ".join(_shown(getattr(preset, field.name)) for preset in (LAPTOP, PAPER))
        lines.append(f"  {field.name}: {values}")
        lines.append(textwrap.indent(textwrap.fill(field.metadata["meaning"] + unit, 76), " " * 6))
    return "\n".join(lines)


def _shown(value: object) -> str:
    """A value as `-p` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"


def run_pipeline(options: argparse.Namespace) -> None:
    """Open or begin the run, check its data, execute the notebooks that make its results."""
    overrides = dict(options.overrides)
    preset = get_preset(options.preset, overrides)
    folder = (options.output or default_folder(options.data, preset)).absolute()
    new = [path for path in (*reversed(folder.parents), folder) if not path.exists()]
    run = open_run(folder, options.preset, options.data, overrides, options.fresh)
    if run.record["status"] != "finished":
        _execute_all(run, new)
    print(
        f"The run in {run.folder} is finished.",
        f"  pictures  {run.folder / 'figures'}",
        f"  models    {run.folder / 'models'}",
        f"  report    {run.folder / PIPELINE[-1]}.ipynb",
        sep="\n",
    )


def _execute_all(run: Run, new: list[Path]) -> None:
    from . import data

    try:
        data.prepare(run)
    except InputError:
        if new:
            shutil.rmtree(new[0])
        raise
    for number, name in enumerate(PIPELINE, 1):
        print(f"[{number}/{len(PIPELINE)}] {name}", flush=True)
        start = time.monotonic()
        _execute(name, run.folder)
        run = open_run(run.folder)  # the notebook has written to its record
        run.update(durations={name: round(time.monotonic() - start, 2)})
    run.update(status="finished")


def _execute(name: str, folder: Path) -> None:
    """Execute a notebook in a kernel of this very Python, its output shown as it comes."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # not a kernel the user has installed elsewhere
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        papermill.execute_notebook(
            REPOSITORY / "notebooks" / f"{name}.ipynb",
            folder / f"{name}.ipynb",
            {"run_dir": str(folder)},
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            cwd=REPOSITORY,
            extra_arguments=["--log-level=CRITICAL"],
        )
    except papermill.PapermillExecutionError as error:
        kind = getattr(builtins, error.ename, None)
        if error.ename == InputError.__name__ or (kind and issubclass(kind, OSError)):
            raise InputError(error.evalue) from None
        raise
    except DeadKernelError:
        sys.exit(f"The kernel of {name} died, mostly for want of memory; running again goes on.")


if __name__ == "__main__":
    sys.exit(main())
