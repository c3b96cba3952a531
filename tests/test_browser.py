"""What a browser shows: report, viewer and site, and notebooks that are walked through."""

import json
import os
import re
import shutil
import subprocess
import sys
from urllib.parse import unquote

import nibabel
import numpy as np
import papermill
import pytest
from conftest import REPOSITORY
from nilearn.datasets import load_mni152_template
from playwright.sync_api import expect, sync_playwright
from test_notebooks import environment, until
from test_page import GALLERY
from test_volumes import ALL_48

from cyclegan_tf.runs import Run
from cyclegan_tf.study.page import TEXT, write_page
from cyclegan_tf.study.viewer import SPACING, viewer

pytestmark = pytest.mark.slow  # on one stack: a browser does the same with pages of either
PHONE = {"width": 390, "height": 844}
BLOB = np.zeros((30, 40, 20), np.float32)
BLOB[3:6, 33:36, 15:18] = 1000  # left, in front, on top
BLOB = nibabel.Nifti1Image(BLOB, np.diag([SPACING] * 3 + [1])).as_reoriented(ALL_48[7])
SIDEWAYS = "document.documentElement.scrollWidth - innerWidth"  # to be scrolled
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
    (folder / "heads").mkdir()
    (folder / "heads" / "viewer.html").write_text(viewer({"source": BLOB}))
    page = browser.new_page(viewport=PHONE, offline=True)
    page.goto(write_page(Run(folder, json.loads((folder / "run.json").read_text()))).as_uri())
    drawn = page.evaluate("[...document.images].map(x => x.complete && x.naturalWidth > 0)")
    assert drawn == [True] * TEXT.count("](figures/")
    fetched = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    page.frame_locator("iframe").locator("canvas").first.wait_for()
    assert [frame.evaluate(SIDEWAYS) <= 0 for frame in page.frames] == [True, True]


def pixel(canvas, row: int, column: int) -> list[int]:
    """Red, green and blue of a pixel of the picture that is drawn."""
    script = "(c, at) => [...c.getContext('2d').getImageData(...at, 1, 1).data].slice(0, 3)"
    return canvas.evaluate(script, [column, row])


@pytest.fixture
def planes(browser):
    """The viewer of BLOB in two contrasts and of a map: a canvas, by volume and plane."""
    page = browser.new_page(offline=True)
    half = nibabel.Nifti1Image(BLOB.get_fdata() / 2, BLOB.affine)
    page.set_content(viewer({"source": BLOB, "synthetic": half, "trust": half}))
    frame = page.frame_locator("iframe")
    frame.locator("canvas").nth(8).wait_for()

    def canvas(volume, plane):
        return frame.locator(f"canvas[title^='{volume}'][title$='{plane}']")

    return canvas, page


def click(canvas, row: int, column: int):
    """On the middle of a pixel of the picture that is drawn."""
    width, height = canvas.evaluate("c => [c.clientWidth / c.width, c.clientHeight / c.height]")
    canvas.click(position={"x": (column + 0.5) * width, "y": (row + 0.5) * height})


def test_a_click_in_one_plane_takes_all_volumes_there_with_left_at_the_left(planes):
    plane, _ = planes
    assert max(pixel(plane("synthetic", "axial"), 4, 3)) < 20
    click(plane("source", "coronal"), 3, 4)  # of a blob in the left of the head, in front, on top
    for row, column in ((4, 3), (6, 5)):
        assert min(pixel(plane("source", "axial"), row, column)) > 235
        assert abs(pixel(plane("synthetic", "axial"), row, column)[0] - 128) < 20
    assert max(pixel(plane("source", "coronal"), 2, 3)) < 20  # still cut in the middle
    click(plane("trust", "axial"), 5, 4)
    assert min(pixel(plane("source", "sagittal"), 2, 33)) > 235
    assert min(pixel(plane("source", "coronal"), 2, 3)) > 235


def test_the_wheel_goes_through_the_slices(planes):
    plane, page = planes
    click(plane("source", "coronal"), 3, 4)
    plane("source", "axial").hover(position={"x": 5, "y": 5})
    for _ in range(2):
        page.mouse.wheel(0, 100)
    page.wait_for_timeout(200)
    assert max(pixel(plane("source", "axial"), 4, 3)) < 20


def test_the_mouse_sets_opacity_and_window(planes):
    plane, page = planes
    click(plane("source", "coronal"), 3, 4)
    axial = plane("synthetic", "axial")
    page.frame_locator("iframe").locator("input").fill("50")
    red, green, blue = pixel(axial, 4, 3)  # half grey, half the map's white
    assert min(red, green, blue) > 170
    page.frame_locator("iframe").locator("input").fill("0")
    box = axial.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down(button="right")
    page.mouse.move(box["x"] + 20, box["y"] + 50)
    page.mouse.up(button="right")
    assert pixel(axial, 4, 3)[0] < 110
    assert min(pixel(plane("trust", "axial"), 4, 3)) > 200  # a map keeps its scale


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """JupyterLab on a free port, with its own settings: its address and token, and its folder."""
    root, names = tmp_path_factory.mktemp("jupyterlab"), ("CONFIG", "DATA", "RUNTIME")
    own = {f"JUPYTER_{name}_DIR": str(root / name) for name in names}
    own |= {f"JUPYTERLAB_{name}_DIR": str(root / name) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(root / "IPYTHON"), "JUPYTER_PREFER_ENV_PATH": "1"}
    for name, values in SETTINGS.items():
        path = root / "SETTINGS" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    folder = root / "notebooks"
    folder.mkdir()
    words = ["--no-browser", "--allow-root", "--ServerApp.port=0", f"--ServerApp.root_dir={folder}"]
    with subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *words],
        env=environment() | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        record = root / "RUNTIME" / f"jpserver-{server.pid}.json"
        try:
            until(lambda: record.is_file() and record.read_text().endswith("}"), 60)
            yield json.loads(record.read_text()), folder
        finally:
            server.terminate()


def open_notebook(browser, jupyterlab, name: str, **parameters):
    """A page with a notebook of the course that is running from top to bottom."""
    address, folder = jupyterlab
    source = REPOSITORY / "notebooks" / f"{name}.ipynb"
    papermill.execute_notebook(source, folder / source.name, parameters, prepare_only=True)
    page = browser.new_page()
    page.goto(f"{address['url']}doc/tree/{source.name}?token={address['token']}")
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    return page


def test_a_slider_in_jupyterlab_changes_the_picture(browser, jupyterlab, heads):
    page = open_notebook(browser, jupyterlab, "01_preprocessing", run_dir="run", data=str(heads))
    slider = page.locator(".widget-slider").filter(has=page.get_by_text("TE, ms", exact=True))
    slider.scroll_into_view_if_needed(timeout=120_000)
    picture = page.locator(".widget-vbox").filter(has=slider).locator("img")
    before = picture.get_attribute("src")
    slider.locator(".noUi-handle").press("End")
    expect(picture).not_to_have_attribute("src", before, timeout=20_000)


def test_a_head_is_looked_through_in_jupyterlab(browser, jupyterlab):
    _, folder = jupyterlab
    load_mni152_template(resolution=2).slicer[:, :, 40:52].to_filename(folder / "head.nii.gz")
    page = open_notebook(browser, jupyterlab, "05_translation", scan="head.nii.gz", trust=False)
    frame = page.frame_locator("iframe[title='three planes']")
    coronal, other = (frame.get_by_title(f"{name}, coronal") for name in ("source", "synthetic"))
    other.scroll_into_view_if_needed(timeout=120_000)
    before = other.evaluate("canvas => canvas.toDataURL()")
    click(coronal, 1, 10)
    assert other.evaluate("canvas => canvas.toDataURL()") != before


LINKS = "[...document.querySelectorAll('a[href], img[src]')].map(x => x.href || x.src)"


def test_the_site_is_whole_without_network_and_no_page_of_it_scrolls_sideways_on_a_phone(
    browser, tmp_path
):
    variables = [f"VENV={sys.prefix}", f"BUILD={tmp_path}"]
    words = ["make", "-o", f"{sys.prefix}/.ready", "site", *variables]
    result = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    page = browser.new_page(viewport=PHONE, offline=True)
    waiting, seen = [(tmp_path / "site" / "index.html").as_uri()], set()
    while waiting:
        address = waiting.pop().partition("#")[0]
        if address in seen or not address.startswith("file:"):
            continue
        seen.add(address)
        path = unquote(address.removeprefix("file://"))
        assert os.path.isfile(path), address
        if not path.endswith(".html"):
            continue
        page.goto(address)
        for frame in page.frames:  # the page's own and a viewer's
            if frame.parent_frame:
                frame.locator("canvas").first.wait_for()
            assert frame.evaluate(SIDEWAYS) <= 0, address
        assert page.evaluate("[...document.images].every(x => x.complete && x.naturalWidth > 0)")
        fetched = page.evaluate("performance.getEntriesByType('resource').map(x => x.name)")
        assert [x for x in fetched if not x.startswith(("file:", "data:"))] == []
        shown = page.inner_text("article")
        assert not re.search(r"\$\$|\\frac|\| ---", shown), address  # equations and tables
        waiting += page.evaluate(LINKS)
    names = [*(REPOSITORY / "notebooks").glob("*.ipynb")]
    assert {(tmp_path / "site" / "notebooks" / f"{x.stem}.html").as_uri() for x in names} <= seen
