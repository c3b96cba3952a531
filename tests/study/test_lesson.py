from inspect import getsource

import numpy as np
import pytest
import reference
from conftest import begin
from test_training import assert_identical, rows, state

from cyclegan_tf import losses
from cyclegan_tf.cyclegan import CycleGAN
from cyclegan_tf.learning.schedules import PublishedRate
from cyclegan_tf.models import build_generator, published_generator
from cyclegan_tf.runs import open_run
from cyclegan_tf.study import lesson
from cyclegan_tf.study.lesson import (
    Practice,
    one_step,
    shapes_on_the_way,
    show_source,
    show_tried,
    try_published_rate,
)
from cyclegan_tf.training import train


def cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table, without its heading."""
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


# What is on the page


@pytest.mark.parametrize("shown", [published_generator, CycleGAN.train_step, losses.cycle_loss])
def test_the_code_on_the_page_is_the_code_that_runs(shown):
    page = show_source(shown, losses.identity_loss)
    lines = [line.strip() for line in getsource(shown).splitlines()]
    assert [line.strip() for line in page.data.splitlines()][: len(lines)] == lines
    assert page.data.startswith("def ") and "def identity_loss" in page.data
    assert '<span class="k">def</span>' in page._repr_html_()  # highlighted


@pytest.mark.parametrize(("form", "sums"), [("published", 0), ("residual", 2)])
def test_the_shapes_on_the_way_are_those_of_the_layers(form, sums):
    network = build_generator(form, 4, 2, form)
    table = cells(shapes_on_the_way(network, np.zeros((1, 32, 32, 1), np.float32)))
    assert table[0][1] == table[-1][1] == "32 × 32 × 1"
    assert {row[1] for row in table if row[0] == "Conv2D"} >= {"32 × 32 × 4", "8 × 8 × 16"}
    assert sum(int(row[2].replace(",", "")) for row in table) == network.count_params()
    assert [row[0] for row in table].count("Add") == sums


def test_with_sums_for_concatenations_the_trunk_keeps_its_width():
    published, residual = (build_generator(f, 4, 3, f) for f in ("published", "residual"))
    widest = [
        max(w.shape[2] for w in n.get_weights() if w.ndim == 4) for n in (published, residual)
    ]
    assert widest == [3 * 16, 16]


# Practice


LEAST = {
    "filters": 2,
    "blocks": 0,
    "discriminator_filters": 2,
    "discriminator_depth": 1,
    "practice_steps": 8,
}


def practice(sets, **settings):
    return Practice(sets, **LEAST | settings)


def test_a_step_on_a_batch_makes_the_networks_better_at_it(trained):
    small = practice(trained[1])
    x, y = small.x[:1], small.y[:1]
    before = [w.copy() for network in small.model.networks for w in network.get_weights()]
    table = {row[0]: (float(row[1]), float(row[2])) for row in cells(one_step(small.model, x, y))}
    after = [w for network in small.model.networks for w in network.get_weights()]
    assert {"adversarial", "cycle", "identity", "generator"} < set(table)
    assert table["cycle"][1] < table["cycle"][0]
    assert all((a != b).any() for a, b in zip(before, after, strict=True) if a.ndim == 4)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def practised(trained):
    """Practice on the images of a trained run, what it has made, and how the run was before."""
    run, sets, model = trained
    before = contents(run.folder), state(model)
    small = practice(sets)
    return small, small.train(), before


@pytest.fixture(scope="module")
def practised_before(images, tmp_path_factory):
    """A run that began to train after the same practice, its model and what the practice made."""
    run, sets, model = begin(tmp_path_factory.mktemp("runs") / "practised-before", images)
    made = practice(sets).train()
    train(model, run, sets)
    return run, model, made


def test_practice_is_as_small_whatever_the_run_is_and_changes_nothing_of_it(trained, practised):
    (run, _, model), (_, made, (files, before)) = trained, practised
    assert made["fake_y"].shape == (4, 64, 64, 1)
    assert_identical(state(model), before)
    assert contents(run.folder) == files


def test_practice_before_a_training_changes_no_number_of_it(trained, practised_before):
    run, model, _ = practised_before
    assert_identical(state(model), state(trained[2]))
    assert rows(run) == rows(trained[0])


def test_practice_repeats_itself_and_shows_what_a_setting_changes(
    trained, practised, practised_before
):
    once, again = practised[1]["fake_y"], practised_before[2]["fake_y"]
    np.testing.assert_array_equal(once, again)
    other = practice(trained[1], cycle_weight=0).train()["fake_y"]
    assert (once != other).any()


def test_without_steps_of_practice_no_network_is_built_and_nothing_drawn(trained):
    run, sets, _ = trained
    small = practice(sets, practice_steps=0)
    made = small.train()
    assert small.model is None and not made
    shown = [
        small.look(shapes_on_the_way),
        show_tried(run, "changed", "Changed", {"as it was": made}),
        show_tried(run, "rate", "At another rate", try_published_rate(small)),
    ]
    assert [part.data for part in shown] == [lesson.NONE] * 3
    drawn = {path.stem for path in (run.folder / "figures").glob("*")}
    assert not drawn & {"changed", "rate"}


def test_what_was_practised_is_drawn_beside_what_was_not(trained, practised, tmp_path):
    run = open_run(tmp_path / "run", "laptop", overrides={"practice_steps": 0})
    figure = show_tried(run, "changed", "Changed", {"as it was": {}, "with practice": practised[1]})
    titles = [axes.get_title() for axes in figure.axes]
    assert any(title.startswith("with practice") for title in titles)
    assert not any(title.startswith("as it was") for title in titles)
    assert (run.folder / "figures" / "changed.png").is_file()


# The original's rate


def test_the_rate_from_epoch_146_on_is_the_one_that_the_original_computed():
    rate = PublishedRate(1e-3, begun=20)
    assert [float(rate(step)) for step in (0, 19)] == pytest.approx([1e-3] * 2)
    found = [float(rate(step)) for step in range(20, 20 + 33)]
    published = [reference.published_rate(145 * 11 + k, steps_per_epoch=16) for k in range(33)]
    np.testing.assert_allclose(found, published, rtol=1e-6)
    assert found[:5] == [found[0]] * 5 and found[5] == 0 and max(found) == found[-1]


def test_the_originals_rate_is_tried_on_trained_networks(practised):
    small, trained_so_far, _ = practised
    after = try_published_rate(small)
    # Epoch 146 ends with step 1605 from 0: five of 2e-4, then 0 at 1600, and 2e-4 more a step.
    rates = ["epoch 146, rate to 0.0010", "epoch 147, rate to 0.0032", "epoch 148, rate to 0.0054"]
    assert list(after) == ["as trained", *rates]
    first, one, _, last = after.values()
    assert_identical(list(first.values()), list(trained_so_far.values()))
    assert (one["fake_y"] != last["fake_y"]).any()
