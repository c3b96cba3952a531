import dataclasses
import json

import pytest

from cyclegan_tf import InputError
from cyclegan_tf.parameters import KINDS
from cyclegan_tf.presets import LAPTOP, PAPER, PRESETS, Preset, get_preset, meanings


def refusal(name, overrides):
    with pytest.raises(InputError) as caught:
        get_preset(name, overrides)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    return message


def test_paper_has_the_published_values():
    published = {
        "seed": 100,
        "fit": "resize",
        "size": 256,
        "generator": "published",
        "filters": 64,
        "blocks": 9,
        "discriminator_filters": 64,
        "cycle_weight": 20.0,
        "identity_weight": 0.5,
        "simulation_weight": 0.0,
        "learning_rate": 2e-4,
        "beta_1": 0.5,
        "batch_size": 4,
        "micro_batch": 1,
        "epochs": 200,
        "decay_epoch": 100,
        "warm_start_epochs": 0,
        "precision": "float32",
    }
    assert {name: getattr(PAPER, name) for name in published} == published
    assert {0, 1, 100, 145} <= set(PAPER.snapshot_epochs)


def test_laptop_trains_145_epochs_one_image_at_a_time_after_a_warm_start():
    assert (LAPTOP.epochs, LAPTOP.batch_size) == (145, 1)
    assert LAPTOP.warm_start_epochs > 0 and LAPTOP.decay_epoch < LAPTOP.epochs
    assert {1, 100, 145} <= set(LAPTOP.snapshot_epochs)


def test_every_setting_says_what_it_means_and_is_of_a_known_kind():
    for setting in dataclasses.fields(Preset):
        assert meanings()[setting.name].endswith(".")
        assert setting.type in KINDS


@pytest.mark.parametrize("name", PRESETS)
def test_own_values_given_as_overrides_change_nothing(name):
    values = dataclasses.asdict(PRESETS[name])
    del values["name"]
    assert get_preset(name, values) == PRESETS[name]
    assert get_preset(name, json.loads(json.dumps(values))) == PRESETS[name]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "10", 10),
        ("epochs", "1e2", 100),
        ("epochs", 3.0, 3),
        ("epochs", "0", 0),
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("flip", "True", True),
        ("flip", "false", False),
        ("flip", True, True),
        ("fit", "pad", "pad"),
        ("holdout", "28-32,46-50", "28-32,46-50"),
        ("snapshot_epochs", "145,1,1", (1, 145)),
        ("snapshot_epochs", [0, 7], (0, 7)),
    ],
)
def test_overrides_are_parsed_from_text_and_from_json(key, text, value):
    parsed = getattr(get_preset("paper", {key: text}), key)
    assert parsed == value and type(parsed) is type(value)


def test_an_override_leaves_the_other_settings_and_the_preset_itself():
    changed = get_preset("laptop", {"epochs": "3"})
    assert changed == dataclasses.replace(LAPTOP, epochs=3)
    assert get_preset("laptop").epochs == 145


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("epochs", "minus", "whole number"),
        ("epochs", "-1", "at least 0"),
        ("epochs", "1.5", "whole number"),
        ("epochs", True, "whole number"),
        ("epochs", None, "whole number"),
        ("epochs", "inf", "whole number"),
        ("epochs", [3], "whole number"),
        ("batch_size", 0, "at least 1"),
        ("seed", 2**32, "at least 0 and at most 4294967295"),
        ("learning_rate", "nan", "number"),
        ("learning_rate", "fast", "number"),
        ("learning_rate", -1e-4, "at least 0"),
        ("flip", "yes", "true or false"),
        ("flip", 1, "true or false"),
        ("fit", "crop", "resize or pad"),
        ("snapshot_epochs", "1,two", "epoch numbers"),
        ("snapshot_epochs", "-1", "epoch numbers"),
        ("snapshot_epochs", 5, "epoch numbers"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_a_sentence_that_names_it(key, value, expected):
    message = refusal("laptop", {key: value})
    assert key in message and repr(value) in message and expected in message


def test_an_unknown_preset_or_parameter_is_refused_naming_it_and_the_known_ones():
    assert "'desktop'" in refusal("desktop", None) and "laptop" in refusal("desktop", None)
    assert "'epoch'" in refusal("laptop", {"epoch": 3}) and "epochs" in refusal(
        "laptop", {"epoch": 3}
    )
    assert "'name'" in refusal("laptop", {"name": "paper"})
    assert "no parameter 'True'" in refusal("laptop", {True: 1})  # of YAML's "on: 1"


@pytest.mark.parametrize(
    "name", ["epoch", "Epochs", "leraning_rate", "learning-rate", "warmstart_epochs"]
)
def test_of_a_misspelt_parameter_the_near_ones_are_named(name):
    with pytest.raises(InputError) as error:
        get_preset("laptop", {name: 1})
    near = {"epoch": "epochs", "Epochs": "epochs", "warmstart_epochs": "warm_start_epochs"}
    assert near.get(name, "learning_rate") in str(error.value) and len(str(error.value)) < 120


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused():
    message = refusal("paper", {"micro_batch": 3})
    assert "micro_batch cannot be 3" in message and "batch_size, 4" in message
    assert get_preset("paper", {"batch_size": 6, "micro_batch": 3}).micro_batch == 3
