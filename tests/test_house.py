import ast
import re
import subprocess
import sys

from conftest import REPOSITORY

PACKAGE = REPOSITORY / "cyclegan_tf"


def test_no_file_imports_one_that_stands_after_it_in_the_readme():
    layout = (REPOSITORY / "README.md").read_text().split("measures and draws.\n\n")[1]
    files = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    order, room = sorted(name for name in files if name.endswith("__init__")), ""
    for line in layout.split("\n\n")[0].splitlines():
        title, listed = re.fullmatch(r" {4}(.{18})  (.+)", line).groups()
        if title.strip():
            room = title.strip().replace("/", ".") if "/" in title else ""
        order += [room + name for name in re.findall(r"\w+", listed)]
    order = [name for place, name in enumerate(order) if name not in order[place + 1 :]]
    assert sorted(order) == sorted(files)
    for name, path in files.items():
        for imported in imports(name, path.read_text(), files):
            assert order.index(imported) < order.index(name), f"{name} imports {imported}"


def imports(name: str, text: str, names) -> set[str]:
    """The files of the package, of those named, that the one with this name and text imports."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:  # the dots before its module
            base = [*name.split(".")[: -node.level], *filter(None, [node.module])]
            for alias in node.names:
                whole = ".".join([*base, alias.name])  # from ..study import metrics
                inside = whole if whole in names else ".".join(base)  # from ..study.metrics import
                found.add(inside if inside in names else ".".join([*base, "__init__"]))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            absolute = [getattr(node, "module", None), *(alias.name for alias in node.names)]
            assert PACKAGE.name not in [str(module).split(".")[0] for module in absolute]
    return found


def test_imports_are_found_at_any_depth():
    names = {"__init__", "runs", "losses", "study.__init__", "study.report", "study.metrics"}
    text = """
from .. import InputError, losses
from ..runs import Run
from ..study import nothing
def late():
    from . import metrics
    from .report import (
        one,
    )
"""
    assert imports("study.page", text, names) == names


def test_only_what_trains_or_translates_imports_tensorflow():
    rooms = ("machines", "scans", "simulation", "dataset", "study/figures")
    files = [path for room in rooms for path in PACKAGE.glob(f"{room}/*.py")]
    without = ["presets", "runs", "metrics", "learning/snapshots", "learning/symptoms"]
    without += ["study/report", "study/page"]
    for path in [*files, *(PACKAGE / f"{name}.py" for name in without)]:
        assert not re.search(r"^(import|from) (tensorflow|keras)", path.read_text(), re.M), (
            path.name
        )


def test_no_two_modules_have_a_public_function_or_class_of_one_name():
    places = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


CHANGES = """
import importlib, logging, os, signal, sys, warnings
ours, others = sys.argv[1].split(), sys.argv[2].split()

def state():
    from tensorflow import config, dtypes
    from keras import mixed_precision
    import numpy, matplotlib, random
    return {
        "threads": [f() for f in (config.threading.get_inter_op_parallelism_threads,
                                  config.threading.get_intra_op_parallelism_threads)],
        "precision": str(mixed_precision.dtype_policy()
                         if hasattr(mixed_precision, "dtype_policy")
                         else mixed_precision.global_policy()),
        "loggers": {name: (logger.level, logger.disabled, len(logger.handlers))
                    for name, logger in logging.root.manager.loggerDict.items()
                    if isinstance(logger, logging.Logger)},
        "logging": (logging.root.level, logging.root.manager.disable),
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)],
        "errors": numpy.geterr(),
        "pictures": dict(matplotlib.rcParams),
        "randomness": (random.getstate(), numpy.random.get_state()[1].tolist()),
        "folder": os.getcwd(),
        "paths": list(sys.path),
    }

for name in others:
    importlib.import_module(name)
before = state()
for name in ours:
    importlib.import_module(name)
after = state()
for key in before:
    if key == "loggers":  # a library that is loaded by ours alone may have its own
        after[key] = {name: after[key][name] for name in before[key]}
    assert before[key] == after[key], f"{key}: {before[key]} became {after[key]}"
"""


def test_importing_the_package_changes_nothing_in_the_process():
    ours, others = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        ours.append(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
        for node in ast.parse(path.read_text()).body:  # what is imported with the module
            if isinstance(node, ast.Import):
                others |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                others.add(node.module)
    words = [sys.executable, "-c", CHANGES, " ".join(ours), " ".join(sorted(others))]
    result = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
