import base64
import io
import re
import time
from functools import partial
from types import SimpleNamespace

import imageio.v3 as iio
import ipywidgets
import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest
from PIL import Image

from cyclegan_tf import InputError
from cyclegan_tf.dataset.sets import ImageSet, Sets
from cyclegan_tf.learning.snapshots import read_snapshots
from cyclegan_tf.runs import open_run
from cyclegan_tf.scans.frame import Frame
from cyclegan_tf.simulation import average
from cyclegan_tf.study import figures
from cyclegan_tf.study.figures import drawing, learning
from cyclegan_tf.study.viewer import viewer

NAMES = ("real_x", "fake_y", "cycled_x", "real_y", "fake_x", "cycled_y")


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "run")


@pytest.fixture
def sets():
    """Five T1 and six T2 images of 40 × 30 in a frame of 64 × 32; T1 0 and T2 2 are a pair."""
    rng = np.random.default_rng(0)
    t1, t2 = (list(rng.uniform(-1, 1, (n, 40, 30)).astype(np.float32)) for n in (5, 6))
    frame = Frame("pad", 64, 32)

    def side(images, names, heads):
        count = len(images)
        known = np.arange(count), np.zeros((count, 4), int), np.zeros(count, int)
        train = np.ones(count, bool)
        return ImageSet(images, frame, *known, np.array(names), np.array(heads), train)

    x_names = [f"T1 #{k} $x.png" for k in range(5)]
    y_names = [f"T2 #{k} $x$.png" for k in range(6)]
    return Sets(
        side(t1, x_names, x_names),
        side(t2, y_names, ["", "", "T1 #0 $x.png", "", "", ""]),
        pairs=np.array([[0, 2]]),
    )


@pytest.fixture
def snapshots(run):
    """What training leaves after 0, 1, 5, 100 and 145 epochs: arrays that can be told apart."""
    rng = np.random.default_rng(1)
    kept = {}
    for epoch in (0, 1, 5, 100, 145):
        kept[epoch] = {name: rng.uniform(-1, 1, (4, 64, 32, 1)).astype("f2") for name in NAMES}
        named = {run.preset.contrasts.named(name): array for name, array in kept[epoch].items()}
        np.savez(run.path("snapshots", f"epoch_{epoch:03d}.npz"), **named)
    return kept


def panels(figure):
    """Title → images from top to bottom, for the columns of a figure."""
    columns, grid = {}, figure.axes[0].get_gridspec()
    for index in range(grid.ncols):
        axes = figure.axes[index :: grid.ncols]
        columns[axes[0].get_title()] = [axis.images[0] if axis.images else None for axis in axes]
    return columns


def drawn(column):
    return np.stack([np.asarray(image.get_array())[..., None] for image in column])


def test_every_image_is_drawn_on_one_grey_scale_with_the_first_row_on_top(run, sets, snapshots):
    made = [
        figures.samples(run, sets),
        figures.snapshot(run),
        figures.epochs(run, sets, "t1_to_t2"),
        figures.cycles(run),
    ]
    for image in (image for figure in made for axis in figure.axes for image in axis.images):
        assert image.get_clim() == (-1, 1)
        assert image.get_cmap().name == "gray"
        assert image.origin == "upper"


def test_the_cycles_show_the_newest_images_and_who_makes_and_judges_them(run, snapshots):
    figure = figures.cycles(run)
    for axis, name in zip(figure.axes, NAMES, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), snapshots[145][name][1, ..., 0])
    labels = [text.get_text() for axis in figure.axes for text in axis.texts if text.get_text()]
    assert labels == ["$G$", "$F$", "$F$", "$G$"]
    judged = [axis.get_xlabel()[:5] for axis in figure.axes[1::3]]
    assert judged == ["$D_y$", "$D_x$"]


def test_samples_are_titled_by_their_file_names(run, sets):
    figure = figures.samples(run, sets, count=3)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [*sets.x.names[[0, 2, 4]], *sets.y.names[[0, 2, 5]]]
    shown = [axis.images[0].get_array() for axis in figure.axes]
    np.testing.assert_array_equal(shown[1], sets.x[2][..., 0])
    np.testing.assert_array_equal(shown[5], sets.y[5][..., 0])


def test_what_is_made_of_a_t1_is_titled_synthetic_t2(run, snapshots):
    columns = panels(figures.snapshot(run, epoch=0))
    titles = ["T1", "synthetic T2", "T1 there and back", "T2", "synthetic T1", "T2 there and back"]
    assert list(columns) == titles
    for title, name in zip(titles, NAMES, strict=True):
        np.testing.assert_array_equal(drawn(columns[title]), snapshots[0][name])


def test_a_snapshot_is_the_newest_unless_another_is_asked_for(run, snapshots):
    columns = panels(figures.snapshot(run))
    np.testing.assert_array_equal(drawn(columns["synthetic T1"]), snapshots[145]["fake_x"])


def test_epochs_stand_side_by_side_between_input_and_truth(run, sets, snapshots):
    columns = panels(figures.epochs(run, sets, "t1_to_t2"))
    synthetic = [f"synthetic T2, epoch {epoch}" for epoch in (1, 100, 145)]
    assert list(columns) == ["T1 (input)", *synthetic, "true T2"]
    np.testing.assert_array_equal(drawn(columns["T1 (input)"]), snapshots[145]["real_x"])
    np.testing.assert_array_equal(drawn(columns[synthetic[1]]), snapshots[100]["fake_y"])
    first, *others = columns["true T2"]
    np.testing.assert_array_equal(first.get_array(), sets.y[2][..., 0])
    assert others == [None] * 3


def test_the_way_back_has_no_column_of_truth_where_none_is_known(run, sets, snapshots):
    columns = panels(figures.epochs(run, sets, "t2_to_t1"))  # T2 2 is not among the four
    assert list(columns)[0] == "T2 (input)"
    assert list(columns)[-1] == "synthetic T1, epoch 145"


def test_an_untrained_run_has_all_its_pictures(run, sets):
    arrays = {run.preset.contrasts.named(name): np.zeros((4, 64, 32, 1)) for name in NAMES}
    np.savez(run.path("snapshots", "epoch_000.npz"), **arrays)
    assert "synthetic T2, epoch 0" in panels(figures.epochs(run, sets, "t1_to_t2"))
    assert "No epoch" in figures.loss_curves(run).get_suptitle()
    assert figures.animation(run).is_file()


def test_pictures_without_snapshots_name_the_notebook_to_run_first(run, sets):
    for picture in (figures.snapshot, figures.animation):
        with pytest.raises(InputError, match="02_training first"):
            picture(run)


def test_loss_curves_are_those_of_the_file(run):
    run.path("losses.csv").write_text("epoch,generator,cycle,simulation\n1,5,2,0\n2,4,1.5,0\n")
    lines = {
        line.get_label(): line for axis in figures.loss_curves(run).axes for line in axis.lines
    }
    assert lines.keys() == {"generator", "cycle"}  # a loss without weight is not drawn
    np.testing.assert_array_equal(lines["cycle"].get_xydata(), [[1, 2], [2, 1.5]])


def test_learning_rates_are_the_one_that_ran_and_the_one_that_was_meant(run):
    lines = {line.get_label(): line for line in figures.learning_rates(run).axes[0].lines}

    published = {}
    for step in range(200 * 11):  # the original notebook's code, with its 64 // 4 steps an epoch
        start, total, rate = 100 * 16, 200 * 16, 2e-4
        decayed = rate * (1 - 1 // (total - start)) * (step - start)
        published[step / 11] = rate if step < start else decayed
    ran = lines["original, as it ran"].get_xydata()
    np.testing.assert_allclose(ran, list(published.items()), atol=1e-12)

    epochs, rates = lines["original, as it was meant"].get_xydata().T
    meant = np.clip(2e-4 * (200 - epochs) / 100, 0, 2e-4)
    np.testing.assert_allclose(rates, meant, atol=1e-12)
    epochs, rates = lines["this run"].get_xydata().T
    rate, start, end = run.preset.learning_rate, run.preset.decay_epoch, run.preset.epochs
    ours = np.clip(rate * (end - epochs) / (end - start), 0, rate)
    np.testing.assert_allclose(rates, ours, atol=1e-12)
    assert any(set(line.get_xdata()) == {145} for line in lines.values())


@pytest.fixture(scope="module")
def networks():
    """Small networks of both forms."""
    from cyclegan_tf.models import build_discriminator, build_generator

    judge = build_discriminator(8, 3, "judge")
    generators = {form: build_generator(form, 8, 2, form) for form in ("published", "unet")}
    return {form: SimpleNamespace(G=generator, D_y=judge) for form, generator in generators.items()}


def boxes(axis):
    """Height in pixels (a full image is 64) and channels of each stage, as they are drawn."""
    tops = {text.get_position()[0]: int(text.get_text()) for text in axis.texts if above(text)}
    middles = [box.get_x() + box.get_width() / 2 for box in axis.patches]
    heights = [round(32 * box.get_height()) for box in axis.patches]
    return list(zip(heights, map(tops.get, middles), strict=True))


def above(text):
    return text.get_text().isdecimal() and text.get_position()[1] > 0


def shortcuts(axis):
    """Which boxes a line leads from and to, over the boxes between."""
    centres = np.array([box.get_x() + box.get_width() / 2 for box in axis.patches])
    tops = np.array([box.get_height() / 2 for box in axis.patches])
    found = []
    for line in axis.lines:
        if len(line.get_xdata()) == 4:
            ends = [int(np.abs(centres - x).argmin()) for x in line.get_xdata()[[0, -1]]]
            assert max(line.get_ydata()) > tops[ends[0] : ends[1] + 1].max()
            found.append(tuple(ends))
    return found


def test_the_published_networks_are_drawn_with_their_growing_trunk(run, networks):
    run.update(data={"frame": [64, 64]})
    figure = figures.draw_networks(run, networks["published"])
    trunk = [(16, 32), (16, 32), (16, 64), (16, 32), (16, 32), (16, 96)]  # joint: 64, 96
    column = [(64, 8), (32, 16), (16, 32), *trunk, (32, 16), (64, 8), (64, 1)]
    assert boxes(figure.axes[0]) == column
    assert sorted(shortcuts(figure.axes[0])) == [(2, 5), (2, 8), (4, 8)]
    # 64 → 32 → 16 → 8 by stride 2, then one less by each 4 × 4 on one row of padding
    assert boxes(figure.axes[1]) == [(32, 8), (16, 16), (8, 32), (7, 64), (6, 1)]
    assert not shortcuts(figure.axes[1])
    kernels = [t.get_text() for t in figure.axes[0].texts if "×" in t.get_text()]
    assert kernels == ["7×7", *["3×3"] * 8, "7×7"]
    colours = [box.get_facecolor() for box in figure.axes[0].patches]
    assert colours[5] == colours[8] != colours[4] and colours[1] == colours[2] != colours[3]


def test_the_unets_long_skips_reach_over_its_residual_blocks(run, networks):
    run.update(data={"frame": [64, 32]})
    figure = figures.draw_networks(run, networks["unet"])
    down = [(32, 4), (32, 8), (32, 8), (16, 16), (16, 16), (8, 32)]
    residual = [(8, 32)] * 6
    up = [(8, 64), (16, 16), (16, 32), (16, 16), (16, 32), (32, 8), (32, 16), (32, 8)]
    assert boxes(figure.axes[0]) == [*down, *residual, *up, (32, 32), (64, 8), (64, 1)]
    assert shortcuts(figure.axes[0]) == [(5, 8), (8, 11), (4, 14), (2, 18)]
    assert f"{networks['unet'].G.count_params():,}" in figure.axes[0].get_title(loc="left")
    assert (run.folder / "figures" / "networks.png").is_file()


def test_a_true_image_is_damaged_by_resizing_and_not_by_padding(run, sets):
    figure = figures.round_trip(run, sets)
    shown = {axis.get_title(): axis.images[0].get_array() for axis in figure.axes}
    images = [axis.images[0].get_array() for axis in figure.axes]
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[1] == "resized to 256 × 256" and titles[5] == "padded to 32 × 64"
    true = sets.y.images[3]
    np.testing.assert_array_equal(shown["true T2, 30 × 40"], true)
    np.testing.assert_array_equal(images[6], true)
    assert (images[7] == -1).all()  # black: no error
    psnr = 10 * np.log10(4 / np.mean((images[2] - true) ** 2))
    assert titles[2] == f"and back: {psnr:.1f} dB"
    np.testing.assert_allclose(images[3], 5 * np.abs(images[2] - true) - 1, atol=1e-6)


def spin_echo(tissue, tr, te):
    """BrainWeb's T1 and T2 in ms and PD, and the signal equation, plainly."""
    t1, t2, pd = {"csf": (2569, 329, 1), "grey": (833, 83, 0.86), "white": (500, 70, 0.77)}[tissue]
    return pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


BRAIN = ("csf", "grey", "white")
PURE = dict(zip(BRAIN, np.eye(3)[:, None], strict=True))  # three pixels, one of each tissue


def test_the_contrast_of_a_spin_echo_is_that_of_its_equation_and_turns_over():
    orders = {}
    for tr, te in ((500, 15), (500, 120), (3300, 15), (3300, 120), (100, 5), (6000, 200)):
        image = figures.spin_echo(PURE, tr, te).axes[0].images[0]
        drawn = np.asarray(image.get_array())[0]
        np.testing.assert_allclose(drawn, [spin_echo(tissue, tr, te) for tissue in BRAIN])
        assert image.get_clim() == (0, drawn.max())
        orders[tr, te] = [BRAIN[k] for k in np.argsort(drawn)]
    assert orders[500, 15] == ["csf", "grey", "white"]  # T1w
    assert orders[3300, 120] == ["white", "grey", "csf"]  # T2w
    # Grey matter is brighter than fluid until the echo is late enough.
    assert orders[3300, 15].index("grey") > orders[3300, 15].index("csf")


def test_the_named_spin_echoes_stand_side_by_side_with_units_and_signals(run):
    figure = figures.spin_echoes(run, PURE)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == "T1w\nTR 500 ms, TE 15 ms" and titles[2] == "T2w\nTR 3300 ms, TE 120 ms"
    signals = [spin_echo(tissue, 3300, 120) for tissue in BRAIN]
    label = "fluid {:.2f}, grey {:.2f}, white {:.2f}".format(*signals)
    assert figure.axes[2].get_xlabel() == label
    assert [t.split()[0] for t in titles] == ["T1w", "PDw", "T2w", "neither"]


@pytest.mark.parametrize("border", [0, 0.25, 0.5, 1])
def test_a_wipe_is_source_at_the_left_of_the_border_and_synthetic_at_its_right(snapshots, border):
    source, synthetic = snapshots[145]["real_x"], snapshots[145]["fake_y"]
    (axis,) = figures.wipe(source, synthetic, border).axes
    (image,) = axis.images
    assert image.get_clim() == (-1, 1) and image.get_cmap().name == "gray"
    column = int(border * 32)
    for k in range(4):
        tile = image.get_array()[:, 32 * k : 32 * (k + 1)]
        np.testing.assert_array_equal(tile[:, :column], source[k, :, :column, 0])
        np.testing.assert_array_equal(tile[:, column:], synthetic[k, :, column:, 0])


def test_dials_draw_the_picture_of_their_values_and_again_when_one_is_moved(snapshots):
    ends = snapshots[145]["real_x"], snapshots[145]["fake_y"]
    border = ipywidgets.FloatSlider(0.5, min=0, max=1)
    *controls, picture = figures.dials(partial(figures.wipe, *ends), border=border).children
    assert controls == [border]
    for place in (0.5, 0.25):
        border.value = place
        assert picture.value == drawing.encode(figures.wipe(*ends, place))


def test_any_epoch_and_any_watched_image_can_be_looked_at(run, snapshots):
    figure = figures.watch(run, read_snapshots(run), epoch=100, image=3)
    assert "100" in figure.get_suptitle()
    for axis, name in zip(figure.axes, NAMES, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), snapshots[100][name][2, ..., 0])
    assert [axis.get_title() for axis in figure.axes][:2] == ["T1", "synthetic T2"]


def test_a_slider_has_its_next_picture_within_a_second_of_the_processor(run, snapshots):
    head = average.Head(np.random.default_rng(0), anatomy=1).fractions(z=20, skull=True)
    images = np.zeros((4, 224, 192, 1), np.float32)
    kept = {1: dict.fromkeys(NAMES, images)}
    for picture in (
        lambda: figures.spin_echo(head, 500, 15),
        lambda: figures.wipe(images, images, 0.3),
        lambda: figures.watch(run, kept, 1, 1),
    ):
        seconds = []
        for _ in range(5):
            start = time.process_time()
            drawing.encode(picture())
            seconds.append(time.process_time() - start)
        assert min(seconds) < 1


def test_what_was_tried_is_told_with_its_cycle_error(run, snapshots):
    said = ["as trained", "epoch 146", "epoch 147"]
    kept = dict(zip(said, snapshots.values(), strict=False))
    columns = panels(figures.tried(run, "exploding_rate", "At the original's rate", kept))
    errors = [np.abs(a["cycled_x"] - a["real_x"].astype(float)).mean() / 2 for a in kept.values()]
    titles = [f"{s}\ncycle error {e:.3f}" for s, e in zip(said, errors, strict=True)]
    assert list(columns) == ["T1", *titles]
    synthetic, back = drawn(columns[titles[2]])
    np.testing.assert_array_equal(synthetic, kept["epoch 147"]["fake_y"][1])
    np.testing.assert_array_equal(back, kept["epoch 147"]["cycled_x"][1])


def test_the_animation_goes_through_the_epochs_and_rests_on_the_last(run, snapshots):
    path = figures.animation(run)
    with iio.imopen(path, "r") as file:
        frames = file.read()
        durations = [file.metadata(index=k)["duration"] for k in range(len(frames))]
    assert len(frames) == len(snapshots)
    assert durations[-1] >= 2000 > 500 >= max(durations[:-1])
    assert path.stat().st_size < 3e6


def test_a_long_training_makes_a_short_animation(run, snapshots, monkeypatch):
    monkeypatch.setattr(learning, "MOST_FRAMES", 3)
    assert len(iio.imread(figures.animation(run))) == 3


def test_every_picture_is_a_file_in_the_run_and_nothing_stays_half_written(run, sets, snapshots):
    figures.samples(run, sets)
    figures.snapshot(run, epoch=0)
    figures.epochs(run, sets, "t1_to_t2")
    figures.loss_curves(run)
    figures.learning_rates(run)
    figures.animation(run)
    names = {path.name for path in (run.folder / "figures").iterdir()}
    pictures = {"samples", "epoch_000", "epochs_t1_to_t2", "losses", "learning_rates"}
    assert names == {f"{name}.png" for name in pictures} | {"training.gif"}


def test_a_notebook_shows_a_figure_as_it_is_once_and_in_two_thirds_of_the_bytes(
    run, snapshots, monkeypatch
):
    shown, whole = [], io.BytesIO()
    monkeypatch.setattr("IPython.display.display", shown.append)
    figure = figures.snapshot(run)
    figure._ipython_display_()
    figure.savefig(whole, bbox_inches="tight")
    few, all_colours = (iio.imread(data)[..., :3] for data in (shown[0].data, whole.getvalue()))
    assert len(shown) == 1 and len(shown[0].data) < len(whole.getvalue()) / 1.5
    assert np.abs(few.astype(int) - all_colours).mean() < 2 and not plt.get_fignums()


def test_a_scan_with_values_below_0_is_drawn_from_its_least_on():
    values = np.linspace(-3, 1, 512).reshape(8, 8, 8)  # as z-scores are
    volume = nibabel.Nifti1Image(values, np.eye(4))
    scale = figures.three_planes({"source": volume}).axes[0].images[0].norm
    assert (scale.vmin, scale.vmax) == pytest.approx((-3, 1), abs=0.05)
    tiles = re.search(r"webp;base64,([^&\"]+)", viewer({"source": volume}))[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(tiles))).convert("L"))
    assert 100 < shown.mean() < 155  # else three quarters of it were black
