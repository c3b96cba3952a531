"""Every hyper-parameter, once: the presets, and how a user overrides their values.

`paper` is the published experiment, `laptop` what two processor cores train in minutes, `finetune`
what goes on from the pair that ships on scans of one's own.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from . import InputError
from .contrasts import BODY_PARTS, HEAD, NAMES, SPINE, Contrasts, check_simulable
from .parameters import parse


def setting(default: Any, unit: str = "", **limits: Any) -> Any:
    """A field with preset `paper`'s value, its unit, and the limits that `parse` keeps it in."""
    return field(default=default, metadata={"unit": unit, "limits": limits})


CONTRASTS = tuple(NAMES.values())
PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Preset:
    """The settings of a run; their first values are those of preset `paper`.

    "published" under a field points to the original experiment, a Kaggle notebook of
    May 2024, whose values these are; "CycleGAN" to Zhu et al., ICCV 2017.
    """

    name: str = setting("paper")
    """Which preset the values come from."""
    seed: int = setting(100, low=0, high=2**32 - 1)
    """Decides initial weights, order of images and simulated heads."""

    source: str = setting("T1w", choices=CONTRASTS)
    """The contrast of the scans that are given; T1wGd: T1w after contrast agent."""
    target: str = setting("T2w", choices=CONTRASTS)
    """The contrast that is made of them."""
    body_part: str = setting(HEAD, choices=BODY_PARTS)
    """What is scanned: a `head`, whose grey values are scaled by its brain; or a `spine` or any
    `other`, where MR is scaled by its brightest tissue and CT by Hounsfield units."""

    fit: str = setting("resize", choices=("resize", "pad"))
    """How images come to the networks' size: `resize` to a square as published, or `pad`, which
    loses nothing."""
    size: int = setting(256, "pixels", low=16)
    """Side of the square for `fit` = resize."""
    flip: bool = setting(False)
    """Mirror training images left-right at random."""
    shift: int = setting(0, "pixels", low=0)
    """Move training images by up to this much at random."""
    plane: str = setting("axial", choices=PLANES)
    """Plane of the slices of volumes (NIfTI, DICOM) that are trained on."""
    holdout: str = setting("")
    """Source images kept from training, with their partners: numbers in the file names or
    names, e.g. 28-32,46-50; of volumes subjects, e.g. sub-01,sub-07."""
    disjoint: bool = setting(False)
    """Train on source and target images of different slices, so that no true partner is seen."""

    generator: str = setting("published", choices=("published", "residual", "unet"))
    """The networks' form: `published` (concatenating residual blocks), `residual` (the same,
    but adding, as in CycleGAN) or `unet` (space to depth, long skips, adding blocks)."""
    filters: int = setting(64, "channels", low=1)
    """Generator's first width."""
    blocks: int = setting(9, low=0)
    """Generator's residual blocks."""
    discriminator_filters: int = setting(64, low=1)
    """Discriminator's first width."""
    discriminator_depth: int = setting(3, low=1)
    """Discriminator's convolutions of stride 2: 3 for patches of 70 x 70 pixels (published), 2
    for 34 x 34, 1 for 16 x 16; small patches show texture rather than which slice it is."""

    cycle_weight: float = setting(20.0, low=0)
    """Weight of the L1 cycle loss; published: 10, added twice, so 20 in effect."""
    identity_weight: float = setting(0.5, low=0)
    """Weight of the L1 identity loss (CycleGAN: half the cycle weight)."""
    simulation_weight: float = setting(0.0, low=0)
    """Weight of the L1 loss on a simulated pair in every step, which keeps the generators from
    exchanging tissues; 0 is CycleGAN's own objective."""
    learning_rate: float = setting(2e-4, low=0)
    """Adam's rate before it decays."""
    beta_1: float = setting(0.5, low=0, high=0.999)
    """Adam's decay of the first moment."""
    batch_size: int = setting(4, low=1)
    """Image pairs a step (CycleGAN: 1)."""
    micro_batch: int = setting(1, low=1)
    """Image pairs that go through the networks at once, a divisor of `batch_size`; up to rounding
    the step is the same, and it needs only the memory of so many pairs."""
    epochs: int = setting(200, low=0)
    """Epochs of unpaired training."""
    minutes: float = setting(0.0, "minutes", low=0)
    """How long the unpaired training may take on this machine: an epoch then has as many steps as
    fill this time, however many images there are; 0: an epoch shows every image of the smaller
    set."""
    decay_epoch: int = setting(100, low=0)
    """The epoch from which the rate falls linearly, to 0 at the last epoch."""
    decay: str = setting("linear", choices=("linear", "published"))
    """`linear`, as CycleGAN means it, or `published`, what the original's code made of it: from
    the end of epoch 145 on the rate rises without bound."""
    patience: int = setting(0, "epochs", low=0)
    """End the training after so many epochs without a lower error on heads that are kept from it,
    and keep the best epoch. These heads are the middle tenth by name, at least one, of those in
    training that have both contrasts. 0: train on all heads, to the last epoch."""

    start: str = setting("random", choices=("random", "shipped"))
    """The generators' first weights: `random`, which need a warm start, or `shipped`, those that
    come with the package."""
    warm_start_epochs: int = setting(0, low=0)
    """Epochs of 100 steps in which both generators learn simulated pairs before the first real
    image; 0 leaves the warm start out."""
    warm_start_rate: float = setting(1e-3, low=0)
    """Adam's rate in the warm start, falling to 0."""
    warm_start_pairs: int = setting(320, low=1)
    """Simulated slice pairs to learn from; with `simulator` = varied every epoch of the warm start
    takes some of their heads through new scanners."""
    warm_start_loss: str = setting("mae", choices=("mae", "mse"))
    """What the warm start minimises: `mae`, which gives sharp edges, or `mse`, which gives the
    mean of what may be there."""

    simulator: str = setting("brainweb", choices=("brainweb", "varied", "wrong"))
    """What the simulated pairs are: `brainweb` (1.5 T, the published data's sequences and range
    of slices), `varied` (many scanners and protocols, whole heads and stripped ones, lesions)
    or, to see what a bad guess costs, `wrong` (3 T, other TR and TE, no skull)."""
    anatomies: str = setting("")
    """Folder of label maps (NIfTI) of whole heads for `simulator` = varied; without one its
    heads are around the average brain."""
    oracle: bool = setting(False)
    """Let the warm start learn the true pairs of the training images, and leave out the unpaired
    training: an upper bound to compare with."""

    precision: str = setting("float32", choices=("auto", "float32", "mixed_bfloat16"))
    """Number format of the convolutions; `auto` takes bfloat16 where the GPU has
    instructions for it, or the processor is faster by it."""
    practice_steps: int = setting(300, low=0)
    """Steps of the small trainings that notebook 02 shows; 0 leaves these out."""
    snapshot_epochs: tuple[int, ...] = setting((0, 1, 100, 145))
    """Epochs whose pictures are kept; 0 is the untrained network."""
    frame_interval: int = setting(5, low=1)
    """Epochs between the frames of the animation."""

    @property
    def contrasts(self) -> Contrasts:
        """Source and target, as code and files call them."""
        keys = {name: key for key, name in NAMES.items()}
        return Contrasts(keys[self.source], keys[self.target])

    @property
    def unpaired_epochs(self) -> int:
        """The `epochs` that are trained: none for an oracle, which learns in the warm start."""
        return 0 if self.oracle else self.epochs


def meanings() -> dict[str, str]:
    """What stands under each field of `Preset`, for `--help`."""
    lines = ast.parse(inspect.getsource(Preset)).body[0].body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(lines)
        if isinstance(field, ast.AnnAssign)
    }


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

FINETUNE = dataclasses.replace(
    LAPTOP,
    name="finetune",
    cycle_weight=4.0,  # of 40 and 4 the better on a validation head: it keeps the source's noise
    epochs=100,
    minutes=25.0,
    decay_epoch=50,
    patience=20,
    start="shipped",
    warm_start_epochs=0,
    warm_start_pairs=160,
    simulator="varied",
)

PRESETS = {preset.name: preset for preset in (PAPER, LAPTOP, FINETUNE)}

# The original notebook's schedule: an epoch has 11 steps; the code believed in 16, from the length
# of the path's text, and so began to decay at step 100 · 16.
PUBLISHED_STEPS = 11
PUBLISHED_START = 100 * 16
PUBLISHED_EPOCH = 145  # of the published result


def published_rate(step: Any, where: Callable = lambda early, a, b: a if early else b) -> Any:
    """The learning rate that the original's code computed for a step, counted from 0.

    Its factor 1 − floor(1 / (total − start)), meant to make the rate fall, is always 1. Of a tensor
    it takes TensorFlow's `where`.
    """
    rising = step - PUBLISHED_START
    return PAPER.learning_rate * where(rising < 0, 1.0, rising)


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
            near = get_close_matches(key.lower(), settings) or ["one of " + ", ".join(settings)]
            raise InputError(f"There is no parameter {key!r}: expected {' or '.join(near)}.")
        values[key] = parse(key, value, settings[key].type, **settings[key].metadata["limits"])
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
