"""What a browser shows: the report on a phone, and a notebook that is walked through."""

import json
import shutil
import subprocess
import sys

import papermill
import pytest
from conftest import REPOSITORY
from nilearn.datasets import load_mni152_template
from playwright.sync_api import expect, sync_playwright
from test_notebooks import environment, until
from test_page import GALLERY

from cyclegan_tf.runs import Run
from cyclegan_tf.study.page import FIDELITY, ORIGIN, RESULT, write_page

PHONE = {"width": 390, "height": 844}
NOTEBOOK, SLIDER, PARAMETERS = "05_translation", "z", {"scan": "head.nii.gz", "trust": False}
SETTINGS = {  # all cells are drawn, not only those in sight
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


def test_the_report_is_whole_on_a_phone_without_network_or_scrolling_sideways(browser, tmp_path):
    folder = tmp_path / "a run & more"
    shutil.copytree(GALLERY, folder)
    page = browser.new_page(viewport=PHONE, offline=True)
    page.goto(write_page(Run(folder, json.loads((folder / "run.json").read_text()))).as_uri())
    drawn = page.evaluate("[...document.images].map(x => x.complete && x.naturalWidth > 0)")
    assert drawn == [True] * len(RESULT | FIDELITY | ORIGIN)
    fetched = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.fixture
def jupyterlab(tmp_path):
    """JupyterLab on a free port, with its own settings: its address and token, and its folder."""
    names = ("CONFIG", "DATA", "RUNTIME")
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in names}
    own |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(tmp_path / "IPYTHON"), "JUPYTER_PREFER_ENV_PATH": "1"}
    for name, values in SETTINGS.items():
        path = tmp_path / "SETTINGS" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    words = ["--no-browser", "--allow-root", "--ServerApp.port=0", f"--ServerApp.root_dir={folder}"]
    with subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *words],
        env=environment() | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        record = tmp_path / "RUNTIME" / f"jpserver-{server.pid}.json"
        try:
            until(lambda: record.is_file() and record.read_text().endswith("}"), 60)
            yield json.loads(record.read_text()), folder
        finally:
            server.terminate()


@pytest.mark.slow
def test_a_slider_in_jupyterlab_changes_the_picture(browser, jupyterlab):
    address, folder = jupyterlab
    load_mni152_template(resolution=2).slicer[:, :, 40:52].to_filename(folder / "head.nii.gz")
    source = REPOSITORY / "notebooks" / f"{NOTEBOOK}.ipynb"
    papermill.execute_notebook(source, folder / source.name, PARAMETERS, prepare_only=True)
    page = browser.new_page()
    page.goto(f"{address['url']}doc/tree/{source.name}?token={address['token']}")
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    slider = page.locator(".widget-slider").filter(has=page.get_by_text(SLIDER, exact=True))
    slider.scroll_into_view_if_needed(timeout=60_000)
    picture = page.locator(".widget-vbox").filter(has=slider).locator("img")
    before = picture.get_attribute("src")
    slider.locator(".noUi-handle").press("End")
    expect(picture).not_to_have_attribute("src", before, timeout=20_000)
