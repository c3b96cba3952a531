"""`.ci/run` and the Makefile with stand-ins for what they call: they note their words."""

import os
import shutil
import subprocess

import pytest
from conftest import REPOSITORY

STAND_IN = '#!{bash}\necho "{name} $*" >> {log}\n{does}\n'


def run_ci(folder, **programs):
    """Its result, and the calls of make and apt-get, where these programs do these things."""
    tools, log = folder / "bin", folder / "log"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "ls", "touch", "chmod"):
        (tools / name).symlink_to(shutil.which(name))
    for name, does in {"make": "", "python3.11": "", **programs}.items():
        text = STAND_IN.format(bash=tools / "bash", name=name, log=log, does=does)
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {"PATH": str(tools), "HOME": str(folder)}
    words = [str(REPOSITORY / ".ci" / "run")]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    calls = [line for line in log.read_text().splitlines() if line.startswith(("make", "apt-get"))]
    return result, calls


@pytest.mark.parametrize("works", [True, False])
def test_root_on_debian_gets_a_browser_and_where_that_fails_it_is_said(tmp_path, works):
    programs = {"id": "echo 0", "apt-get": "" if works else "exit 100"}
    result, calls = run_ci(tmp_path, **programs)
    assert result.returncode == 0, result.stderr
    assert ("tests in a browser will be skipped" in result.stderr) == (not works)
    brought = ["apt-get update", "apt-get install --yes --no-install-recommends chromium"]
    assert calls[: 2 if works else 1] == brought[: 2 if works else 1]
    assert [call.split()[:2] for call in calls[-2:]] == [["make", "lint"], ["make", "test"]]


@pytest.mark.parametrize("programs", [{"id": "echo 0", "chromium": ""}, {"id": "echo 1000"}])
def test_nothing_is_installed_where_there_is_a_browser_or_no_root(tmp_path, programs):
    result, calls = run_ci(tmp_path, **{"apt-get": ""} | programs)
    assert result.returncode == 0 and not result.stderr
    assert not any(call.startswith("apt-get") for call in calls)


@pytest.mark.parametrize("target", ["test", "run"])
def test_what_python_compiles_is_kept_though_the_environment_forbids_it(target, tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "kept: ${PYTHONDONTWRITEBYTECODE-yes}"\n')
    python.chmod(0o755)
    made = [word for name in (".ready", ".run") for word in ("-o", tmp_path / name)]
    result = subprocess.run(
        ["make", "-s", *made, target, f"VENV={tmp_path}"],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "kept: yes\n", result.stderr
