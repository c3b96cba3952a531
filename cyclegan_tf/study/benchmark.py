"""What training and translating cost, measured in turns in one process, and what bounds it.

Every section returns {row: {column: number}}; `write` puts them into the run's `benchmark.json`.
"""

import multiprocessing
import platform
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import keras
import nibabel
import numpy as np
import tensorflow as tf

from ..compat import GROUPS, ReferenceNormalization
from ..cyclegan import CycleGAN
from ..layers import InstanceNormalization
from ..machines.machine import choose_precision, in_turns, share_cores
from ..presets import Preset
from ..runs import Run, open_run, write_json
from ..scans.frame import Frame
from ..training import build_cyclegan
from ..translation.generators import predict
from ..translation.handover import export_onnx
from .report import markdown_table


class OriginalNormalization(ReferenceNormalization):
    """Instance normalisation written out, as the original has it from TensorFlow's examples."""

    def call(self, inputs):
        mean, variance = tf.nn.moments(inputs, axes=[1, 2], keepdims=True)
        return self.gamma * (inputs - mean) * tf.math.rsqrt(variance + self.epsilon) + self.beta


VARIANTS = {  # preset, precision, normalisation of a plain form; a preset's first is the measure
    "original": ("paper", "float32", OriginalNormalization),
    "paper in float32": ("paper", "float32", None),
    "paper": ("paper", "auto", None),
    "laptop, plain": ("laptop", "float32", ReferenceNormalization),
    "laptop": ("laptop", "auto", None),
}
QUICK = {  # the least that runs
    "filters": 4,
    "blocks": 0,
    "discriminator_filters": 4,
    "discriminator_depth": 1,
    "fit": "resize",
    "size": 64,
}
SLICES = {"8 slices": 8, "181 slices": 181}  # the latter a head at 1 mm, as BrainWeb has it
VOLUMES = {"1 slice": 1, **SLICES}


class PlainCycleGAN(CycleGAN):
    """The step as the original notebook has it: images go through a network one by one."""

    def each(self, network, *images):
        return [None if image is None else network(image, training=True) for image in images]


def plain(model: CycleGAN, normalisation: type[keras.layers.Layer]) -> PlainCycleGAN:
    """A model with the same networks and weights, another normalisation and the plain step."""

    def layer_of(layer):
        if isinstance(layer, InstanceNormalization):
            return normalisation(epsilon=layer.epsilon, **GROUPS)
        twin = type(layer).from_config(layer.get_config())
        if hasattr(twin, "plain"):
            twin.convolve = twin.plain
        return twin

    networks = [keras.models.clone_model(net, clone_function=layer_of) for net in model.networks]
    for network, own in zip(networks, model.networks, strict=True):
        network.set_weights(own.get_weights())
    weights = model.cycle_weight, model.identity_weight, model.simulation_weight
    twin = PlainCycleGAN(*networks, *weights, model.micro_batch)
    adams = model.optimizer, model.discriminator_optimizer
    twin.compile(*(keras.optimizers.Adam.from_config(adam.get_config()) for adam in adams))
    return twin


def build(variant: str, overrides: Mapping) -> tuple[CycleGAN, Preset]:
    """An untrained model of VARIANTS, for one pair a step unless overridden; its preset."""
    preset, precision, normalisation = VARIANTS[variant]
    overrides = {"precision": precision, "batch_size": 1, **overrides}
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(Path(folder) / "run", preset, overrides=overrides)
        model = build_cyclegan(run, steps=1000)
    return plain(model, normalisation) if normalisation else model, run.preset


def framed(images: Sequence[np.ndarray], preset: Preset, count: int) -> np.ndarray:
    """`count` images (count, h, w, 1) in the preset's frame: the first, repeated if too few."""
    frame = Frame.of([image.shape for image in images], preset)
    few = np.stack([frame.apply(image) for image in images[:count]])  # (H, W) -> (n, h, w, 1)
    return np.resize(few, (count, *few.shape[1:]))


def stepper(variant: str, images: Sequence[np.ndarray], overrides: Mapping) -> tuple:
    """A call that takes one training step and waits for its end; its model and its images."""
    model, preset = build(variant, overrides)
    batch = tf.constant(framed(images, preset, preset.batch_size))
    data = (batch,) * (6 if preset.simulation_weight else 2)
    step = tf.function(model.train_step)
    return lambda: float(step(data)["cycle"]), model, batch


def spread(seconds: np.ndarray) -> dict[str, float]:
    return {"seconds": np.median(seconds), "least": seconds.min(), "most": seconds.max()}


def limit(model: CycleGAN, image: tf.Tensor) -> tuple[Callable, float]:
    """A call that computes the convolutions of a step on one pair, nothing else, and their FLOPs.

    They are computed forward, and differentiated by the kernel and, if the step needs it, by the
    input: for what enters a generator first (real, identity, simulated), what enters it again for
    the cycle, and a real and a synthetic image in a discriminator. The generators' gradient through
    the discriminators, under 1 %, is left out. Layers that join inputs or sort pixels within their
    convolution do so here, too. `image` is (1, H, W, 1).
    """
    entering = 1 + bool(model.identity_weight) + bool(model.simulation_weight)
    passes, flops = [], 0.0
    for network, count, differentiated in (
        (model.G, entering, False),
        (model.G, 1, True),
        (model.D_x, 2, False),
    ):
        layers = [layer for layer in network.layers if hasattr(layer, "kernel")]
        probe = keras.Model(network.inputs, [[layer.input, layer.output] for layer in layers])
        # (1, H, W, 1) -> (count, H, W, 1); traced, not computed: only the shapes are needed
        images = tf.TensorSpec([count, *image.shape[1:]])
        ends = tf.function(probe).get_concrete_function(images).structured_outputs
        for position, (layer, (enters, leaves)) in enumerate(zip(layers, ends, strict=True)):
            small = tf.nest.flatten(enters)[0] if "Transpose" in type(layer).__name__ else leaves
            through = differentiated or position > 0
            # Two like networks; multiply and add; forward, by the kernel and by the inputs.
            products = float(np.prod([*small.shape[:3], *layer.kernel.shape]))
            flops += 2 * 2 * (2 + through) * products
            for _ in range(2):
                draw = partial(_noise, layer.compute_dtype)
                passes.append((layer, tf.nest.map_structure(draw, enters), through))

    @tf.function
    def alone():
        results = []
        for layer, inputs, through in passes:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                y = layer(inputs)
            sought = [layer.kernel, inputs] if through else [layer.kernel]
            results += [y, *tf.nest.flatten(tape.gradient(y, sought))]
        # A number of each, as what nobody asks for is not computed.
        return tf.add_n([tf.cast(tf.reshape(x, [-1])[0], tf.float32) for x in results])

    return lambda: float(alone()), flops


def _noise(dtype: str, like: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.random.normal(like.shape), dtype)


def steps(images: Sequence[np.ndarray], rounds: int, overrides: Mapping) -> dict:
    """A training step on one pair: time, GFLOP/s, share of the limit, speed-up over the first."""
    rows = {}
    for preset, turns in (("paper", rounds), ("laptop", 5 * rounds)):
        names = [name for name, variant in VARIANTS.items() if variant[0] == preset]
        calls, flops = {}, {}
        for name in names:
            calls[name], *case = stepper(name, images, overrides)
            calls[f"limit of {name}"], flops[name] = limit(*case)
        seconds = in_turns(calls, turns)
        for name in names:
            own, alone = seconds[name], seconds[f"limit of {name}"]
            rows[name] = spread(own) | {
                "gflop_per_s": flops[name] / 1e9 / np.median(own),
                "share_of_limit": np.median(alone / own),
                "speedup": np.median(seconds[names[0]] / own),
            }
    return rows


def memory(images: Sequence[np.ndarray], variants: Sequence[str], overrides: Mapping) -> dict:
    """Peak memory in GB of a process that takes a training step, and its ratio to the original's.

    `variants` are names in VARIANTS, "original" among them.
    """
    peaks = {}
    for name in variants:
        # Forked from a server: a process inherits the peak of the one that it is forked from.
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            peaks[name] = process.submit(_peak, name, images[:1], overrides).result()
    return {name: {"gb": x, "times_original": x / peaks["original"]} for name, x in peaks.items()}


def _peak(*case) -> float:
    share_cores()  # this process is a new one
    stepper(*case)[0]()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit / 1e9 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def inference(images: Sequence[np.ndarray], rounds: int, overrides: Mapping) -> dict:
    """Translating the same slices: slices a second, and the speed-up over the original."""
    calls, counts = {}, {}
    for name, (preset, *_) in VARIANTS.items():
        model, settings = build(name, overrides)
        for title, count in [*SLICES.items()][: 2 if preset == "laptop" else 1]:
            row = f"{name}, {title}"
            calls[row] = partial(predict, model.G, framed(images, settings, count))
            counts[row] = count
    seconds = in_turns(calls, rounds)
    first = seconds["original, 8 slices"] / 8
    return {
        row: spread(own)
        | {"slices_per_s": count / np.median(own), "speedup": np.median(first * count / own)}
        for (row, own), count in zip(seconds.items(), counts.values(), strict=True)
    }


def commands(images: Sequence[np.ndarray], rounds: int, overrides: Mapping) -> dict:
    """Seconds of the whole command `translate` on a slice and a head, by Keras and by ONNX."""
    with tempfile.TemporaryDirectory() as name:
        folder, calls = Path(name), {}
        model, preset = build("laptop", overrides)
        model.G.save(folder / "t1_to_t2.keras")
        export_onnx(folder / "t1_to_t2.keras", folder / "t1_to_t2.onnx")
        for title, count in VOLUMES.items():
            slices = framed(images, preset, count)[:, ::-1, :, 0]  # (S, H, W), upside down
            volume = nibabel.Nifti1Image(slices.T, np.eye(4))
            nibabel.save(volume, folder / f"{count}.nii.gz")
            for kind, suffix in (("Keras", ".keras"), ("onnxruntime", ".onnx")):
                words = [folder / f"{count}.nii.gz", folder / f"t2-{count}{suffix}.nii.gz"]
                words += ["--model", folder / f"t1_to_t2{suffix}"]
                calls[f"{kind}, {title}"] = partial(_translate_anew, *words)
        return {row: spread(seconds) for row, seconds in in_turns(calls, rounds).items()}


def _translate_anew(source: Path, target: Path, *options) -> None:
    target.unlink(missing_ok=True)
    words = [sys.executable, "-m", "cyclegan_tf", "translate", source, target, *options]
    home = Path(__file__).parents[2]  # where the package is found even if it is not installed
    subprocess.run([*map(str, words)], cwd=home, check=True, capture_output=True)


def write(run: Run, **sections: Mapping) -> dict:
    """Write and return `benchmark.json`: ratios, machine, versions, precision and the sections."""
    choose_precision(run)
    steps, cpu = sections["steps"], Path("/proc/cpuinfo")
    processors = re.findall("model name.*: (.*)", cpu.read_text() if cpu.is_file() else "")
    result = {
        "ratios": {
            "paper_step_fp32": steps["paper in float32"]["speedup"],
            "paper_step_auto": steps["paper"]["speedup"],
            "paper_share_of_limit": steps["paper"]["share_of_limit"],
            "paper_memory": sections["memory"]["paper in float32"]["times_original"],
            "laptop_step": steps["laptop"]["speedup"],
            "laptop_inference": sections["inference"]["laptop, 181 slices"]["speedup"],
        },
        "processor": processors[0] if processors else platform.machine(),
        "versions": run.record["versions"],
        "precision": run.record["precision"],
        **sections,
    }
    write_json(run.path("benchmark.json"), result)
    return result


def table(rows: Mapping[str, Mapping]) -> str:
    """A section as Markdown."""
    titles = [name.replace("_", " ") for name in next(iter(rows.values()))]
    lines = [[row, *(f"{x:.3g}" for x in values.values())] for row, values in rows.items()]
    return markdown_table([["", *titles], *lines])
