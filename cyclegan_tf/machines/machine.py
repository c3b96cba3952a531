"""What computes here: its memory, its number formats, and how TensorFlow uses it.

TensorFlow is imported when a function is called: its log level must be set before that.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil

from ..runs import Run
from .devices import agree

SHORTER = 0.8  # of float32's time: with instructions that help it is 0.6, with others above 1


def cores_here() -> int:
    """How many cores this process may use: Slurm, for one, gives it some of the machine's."""
    given = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(given(0)) if given else os.cpu_count() or 1


def share_cores() -> None:
    """Give half of this process's cores to each of two operations that TensorFlow runs at once.

    The two generators do not depend on each other, nor do the two discriminators. Small networks
    train a quarter faster like this than with all cores for one operation after the other. Without
    effect where TensorFlow has already begun to compute in this process.
    """
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_inter_op_parallelism_threads(2)
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores_here() // 2))


def memory_here() -> float:
    """GB of memory that this process may use: the machine's, or its container's (cgroup v2)."""
    limit = "max"
    with contextlib.suppress(OSError):
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    machine = psutil.virtual_memory().total
    return (machine if limit == "max" else min(machine, int(limit))) / 1e9


def choose_precision(run: Run) -> str:
    """The run's Keras dtype policy: chosen once, written into `run.json` and kept on resuming."""
    if "precision" not in run.record:
        policy, reason = run.preset.precision, "asked for"
        if policy == "auto":
            policy, reason = automatic_precision()
            policy = ("float32", "mixed_bfloat16")[agree(policy != "float32")]
        run.update(precision={"policy": policy, "reason": reason})
    return run.record["precision"]["policy"]


def automatic_precision() -> tuple[str, str]:
    """The Keras dtype policy for what computes here, and why: bfloat16 where that is faster.

    GPUs of NVIDIA have instructions for it from compute capability 8.0 (Ampere) on. Older ones have
    float16, which would take a scaling of the losses. Of a processor with such instructions it is
    measured: some are slower by them than in float32.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device = details.get("device_name", "the GPU")
        fast = details.get("compute_capability", (0, 0)) >= (8, 0)
    else:
        cpu = Path("/proc/cpuinfo")
        flags = cpu.read_text() if cpu.is_file() else ""
        device, fast = "the processor", "avx512_bf16" in flags or "amx_bf16" in flags
    reason = f"{device} has {'' if fast else 'no '}bfloat16 instructions"
    if fast and not gpus:
        share = bfloat16_time()
        fast = share < SHORTER
        reason += f", by which a convolution takes {share:.1f} times as long as in float32"
    return "mixed_bfloat16" if fast else "float32", reason


def bfloat16_time() -> float:
    """What a convolution takes in bfloat16 on this processor, in multiples of float32's time."""
    import tensorflow as tf

    def convolution(dtype: str):
        image, kernel = tf.ones((1, 128, 128, 64), dtype), tf.ones((3, 3, 64, 64), dtype)
        computed = tf.function(lambda: tf.nn.conv2d(image, kernel, 1, "SAME"))
        return lambda: computed().numpy()

    kinds = "bfloat16", "float32"
    ours, theirs = in_turns({dtype: convolution(dtype) for dtype in kinds}, 7).values()
    return ours.min() / theirs.min()


def in_turns(calls: Mapping[str, Callable], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of `rounds` calls of each, made in turns after a first call, which compiles."""
    seconds = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values[1:]) for name, values in seconds.items()}
