import ast
import re

from conftest import REPOSITORY

PACKAGE = REPOSITORY / "cyclegan_tf"


def test_no_file_imports_one_that_stands_after_it_in_the_readme():
    layout = (
        (REPOSITORY / "README.md").read_text().split("cyclegan_tf/    ")[1].split("(no file")[0]
    )
    files = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    first = sorted(name for name in files if name.endswith("__init__"))
    order = [*first, *re.findall(r"[\w.]+", layout)]
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
    rooms = [*PACKAGE.glob("scans/*.py"), *PACKAGE.glob("simulation/*.py")]
    without = ["presets", "runs", "data", "study/metrics", "study/report", "study/figures"]
    for path in [*rooms, *(PACKAGE / f"{name}.py" for name in [*without, "study/page"])]:
        assert not re.search(r"import (tensorflow|keras)", path.read_text()), path.name
