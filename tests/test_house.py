import re

from conftest import REPOSITORY

PACKAGE = REPOSITORY / "cyclegan_tf"


def test_no_file_imports_one_that_stands_after_it_in_the_readme():
    layout = (
        (REPOSITORY / "README.md").read_text().split("cyclegan_tf/    ")[1].split("(no file")[0]
    )
    order = ["__init__", *re.findall(r"\w+", layout)]
    assert sorted(order) == sorted(path.stem for path in PACKAGE.glob("*.py"))
    for path in PACKAGE.glob("*.py"):
        text = path.read_text()
        imported = re.findall(r"^ *from \.(\w+) import", text, re.MULTILINE)
        for names in re.findall(r"^ *from \. import ([^#\n]+)", text, re.MULTILINE):
            imported += [name for name in re.findall(r"\w+", names) if name in order]
        assert all(order.index(name) < order.index(path.stem) for name in imported), path.name


def test_only_what_trains_or_translates_imports_tensorflow():
    without = ["presets", "runs", "phantom", "images", "volumes", "metrics", "data", "report"]
    for name in [*without, "figures", "page"]:
        assert not re.search(r"import (tensorflow|keras)", (PACKAGE / f"{name}.py").read_text())
