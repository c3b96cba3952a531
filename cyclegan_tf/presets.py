"""Every hyper-parameter, once: the presets `paper` and `laptop`, and how a user overrides them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from . import InputError
from .contrasts import BODY_PARTS, HEAD, NAMES, SPINE, Contrasts, check_simulable
from .parameters import parse


def setting(
    default: Any,
    meaning: str,
    unit: str = "",
    low: float | None = None,
    choices: tuple = (),
    high: float = math.inf,
) -> Any:
    """A field with preset `paper`'s value, what `--help` says of it and the values it takes."""
    values = {"low": low, "high": high, "choices": choices}
    return field(default=default, metadata={"meaning": meaning, "unit": unit, **values})


CONTRASTS = tuple(NAMES.values())


@dataclass(frozen=True)
class Preset:
    """The settings of a run; their first values are those of preset `paper`.

    "published" in a field's meaning points to the original experiment, a Kaggle notebook of
    May 2024, whose values these are; "CycleGAN" to Zhu et al., ICCV 2017.
    """

    name: str = setting("paper", "which preset the values come from")
    seed: int = setting(
        100, "decides initial weights, order of images and simulated heads", low=0, high=2**32 - 1
    )

    source: str = setting(
        "T1w", "the contrast that is given; T1wGd: after agent", choices=CONTRASTS
    )
    target: str = setting("T2w", "the contrast that is to be made of it", choices=CONTRASTS)
    body_part: str = setting(
        HEAD,
        "what is scanned: a `head`, whose grey values are scaled by its brain, a `spine` or any "
        "`other`: MR is scaled by what is brightest in it, CT by Hounsfield units",
        choices=BODY_PARTS,
    )

    fit: str = setting(
        "resize",
        "how images come to the networks' size: `resize` to a square as published, or `pad`, "
        "which loses nothing",
        choices=("resize", "pad"),
    )
    size: int = setting(256, "side of the square for `fit` = resize", "pixels", low=16)
    flip: bool = setting(False, "mirror training images left-right at random")
    shift: int = setting(0, "move training images by up to this much at random", "pixels", low=0)
    plane: str = setting(
        "axial",
        "slices of volumes (NIfTI, DICOM) that are trained on",
        choices=("axial", "coronal", "sagittal"),
    )
    holdout: str = setting(
        "",
        "source images kept from training, with their partners: numbers in the file names or "
        "names, e.g. 28-32,46-50; of volumes subjects, e.g. sub-01,sub-07",
    )
    disjoint: bool = setting(
        False,
        "train on source and target images of different slices, so that no true partner is seen",
    )

    generator: str = setting(
        "published",
        "the networks' form: `published` (concatenating residual blocks), `residual` (the same, "
        "but adding, as in CycleGAN) or `unet` (space to depth, long skips, adding blocks)",
        choices=("published", "residual", "unet"),
    )
    filters: int = setting(64, "generator's first width", "channels", low=1)
    blocks: int = setting(9, "generator's residual blocks", low=0)
    discriminator_filters: int = setting(64, "discriminator's first width", low=1)
    discriminator_depth: int = setting(
        3,
        "discriminator's convolutions of stride 2: 3 for patches of 70 x 70 pixels (published), 2 "
        "for 34 x 34, 1 for 16 x 16; small patches show texture rather than which slice it is",
        low=1,
    )

    cycle_weight: float = setting(
        20.0, "weight of the L1 cycle loss; published: 10, added twice, so 20 in effect", low=0
    )
    identity_weight: float = setting(
        0.5, "weight of the L1 identity loss (CycleGAN: half the cycle weight)", low=0
    )
    simulation_weight: float = setting(
        0.0,
        "weight of the L1 loss on a simulated pair in every step, which keeps the generators "
        "from exchanging tissues; 0 is CycleGAN's own objective",
        low=0,
    )
    learning_rate: float = setting(2e-4, "Adam's rate before it decays", low=0)
    beta_1: float = setting(0.5, "Adam's decay of the first moment", low=0)
    batch_size: int = setting(4, "image pairs a step (CycleGAN: 1)", low=1)
    micro_batch: int = setting(
        1,
        "image pairs that go through the networks at once, a divisor of `batch_size`; the step is "
        "the same to rounding, and needs the memory of so many",
        low=1,
    )
    epochs: int = setting(200, "epochs of unpaired training", low=0)
    minutes: float = setting(
        0.0,
        "what the unpaired training may take on this machine: an epoch then has as many steps as "
        "fill it, however many images there are; 0: an epoch shows every image of the smaller set",
        "minutes",
        low=0,
    )
    decay_epoch: int = setting(
        100, "the rate falls linearly from here to 0 at the last epoch", low=0
    )
    decay: str = setting(
        "linear",
        "`linear`, as CycleGAN means it, or `published`, what the original's code made of it: from "
        "the end of epoch 145 on the rate rises without bound",
        choices=("linear", "published"),
    )

    start: str = setting(
        "random",
        "the generators' first weights: `random`, to be followed by the warm start, or `shipped`, "
        "those that come with the package, without a warm start unless the simulator is `varied`",
        choices=("random", "shipped"),
    )
    warm_start_epochs: int = setting(
        0,
        "epochs of 100 steps in which both generators learn simulated pairs before the first "
        "real image; 0 leaves the warm start out",
        low=0,
    )
    warm_start_rate: float = setting(1e-3, "Adam's rate in the warm start, falling to 0", low=0)
    warm_start_pairs: int = setting(320, "simulated slice pairs to learn from", low=1)

    warm_start_loss: str = setting(
        "mae",
        "what the warm start minimises: `mae`, which gives sharp edges, or `mse`, which gives the "
        "mean of what may be there",
        choices=("mae", "mse"),
    )

    simulator: str = setting(
        "brainweb",
        "what the simulated pairs are: `brainweb` (1.5 T, the published data's sequences and "
        "range of slices), `varied` (many scanners and protocols, whole heads and stripped ones, "
        "lesions) or, to see what a bad guess costs, `wrong` (3 T, other TR and TE, no skull)",
        choices=("brainweb", "varied", "wrong"),
    )
    anatomies: str = setting(
        "",
        "folder of label maps (NIfTI) of whole heads for `simulator` = varied; without one its "
        "heads are around the average brain",
    )
    oracle: bool = setting(
        False,
        "let the warm start learn the true pairs of the training images and leave the unpaired "
        "training out: the upper bound that evaluation compares with",
    )

    precision: str = setting(
        "float32",
        "number format of the convolutions; `auto` takes bfloat16 where the processor has "
        "instructions for it",
        choices=("auto", "float32", "mixed_bfloat16"),
    )
    practice_steps: int = setting(300, "steps of the small trainings that notebook 02 shows", low=1)
    snapshot_epochs: tuple[int, ...] = setting(
        (0, 1, 100, 145), "epochs whose pictures are kept; 0 is the untrained network"
    )
    frame_interval: int = setting(5, "epochs between the frames of the animation", low=1)

    @property
    def contrasts(self) -> Contrasts:
        """Source and target, as code and files call them."""
        keys = {name: key for key, name in NAMES.items()}
        return Contrasts(keys[self.source], keys[self.target])


PAPER = Preset()

LAPTOP = dataclasses.replace(
    PAPER,
    name="laptop",
    seed=1,
    fit="pad",
    flip=True,
    generator="unet",
    filters=32,
    blocks=3,
    discriminator_filters=16,
    cycle_weight=40.0,
    identity_weight=0.0,
    simulation_weight=40.0,
    learning_rate=2e-5,
    batch_size=1,
    epochs=145,
    decay_epoch=72,
    warm_start_epochs=40,
    warm_start_pairs=480,
    precision="auto",
)

PRESETS = {preset.name: preset for preset in (PAPER, LAPTOP)}

# The original notebook's schedule: an epoch has 11 steps; the code believed in 16, from the length
# of the path's text, and so began to decay at step 100 · 16.
PUBLISHED_STEPS = 11
PUBLISHED_START = 100 * 16
PUBLISHED_EPOCH = 145  # of the published result


def published_rate(step: int) -> float:
    """The learning rate that the original's code computed for a step, counted from 0.

    Its factor 1 − floor(1 / (total − start)), meant to make the rate fall, is always 1.
    """
    return PAPER.learning_rate * (1 if step < PUBLISHED_START else step - PUBLISHED_START)


def get_preset(name: str, overrides: dict[str, Any] | str | None = None) -> Preset:
    """The preset `name` with some of its values replaced.

    All or each of them may be given as text: `{"epochs": "10"}`, `"{epochs: 10}"`.
    Raises InputError for an unknown preset or parameter and for a value of the wrong kind.
    """
    if name not in PRESETS:
        raise InputError(f"There is no preset {name!r}: expected one of {', '.join(PRESETS)}.")
    settings = {f.name: f for f in dataclasses.fields(Preset) if f.name != "name"}
    values = {}
    for key, value in parse("overrides", overrides, "settings").items():
        if key not in settings:
            raise InputError(
                f"There is no parameter {key!r}: expected one of {', '.join(settings)}."
            )
        known = settings[key].metadata
        limits = {limit: known[limit] for limit in ("choices", "low", "high")}
        values[key] = parse(key, value, settings[key].type, **limits)
    preset = dataclasses.replace(PRESETS[name], **values)
    pair = preset.source, preset.target
    if pair[0] == pair[1]:
        raise InputError(f"Parameters source and target are both {pair[0]}: expected two.")
    if preset.start == "shipped" and {*pair} != {"T1w", "T2w"}:
        raise InputError(
            f"What ships translates T1w and T2w alone: expected them, or start = random, with "
            f"source {pair[0]} and target {pair[1]}."
        )
    if preset.simulation_weight or (preset.warm_start_epochs and not preset.oracle):
        expected = "warm_start_epochs and simulation_weight to be 0"
        check_simulable(preset.contrasts, expected, preset.body_part)
        if preset.body_part == SPINE and preset.simulator != "brainweb":
            found = f"Parameter simulator cannot be {preset.simulator!r} of a {SPINE}"
            raise InputError(f"{found}: expected brainweb.")
    if preset.oracle and not preset.warm_start_epochs:
        raise InputError("Parameter oracle is true: expected warm_start_epochs above 0, found 0.")
    if preset.batch_size % preset.micro_batch:
        raise InputError(
            f"Parameter micro_batch cannot be {preset.micro_batch}: expected a divisor of "
            f"batch_size, {preset.batch_size}."
        )
    return preset
