# SPDX-License-Identifier: Apache-2.0
"""How fast the learner is: critic steps per second, everything of an update included.

    python benchmarks/bench_learner.py            # the table, and benchmarks/results/learner.json
    python benchmarks/bench_learner.py --quick    # ten updates each, nothing written

Ten critics, MLP 256 x 2, observation 17, action 6, batch 256, UTD 20. An update is: sampling from
the buffer, targets, 20 critic steps with the target critics' average, actor, temperature.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import StepRecord
from rlif_learner.engines.compiled_engine import CompiledCriticEngine
from rlif_learner.engines.select import accelerate
from rlif_policy.networks import PolicySpec

RESULTS = Path(__file__).with_name("results") / "learner.json"
SPEC = PolicySpec(state_dim=17, action_dim=6)
CONFIG = RLPDConfig(prior_ratio=0.0)


def filled_buffer(
    images: tuple[tuple[int, int, int], ...] = (), steps: int = 20_000
) -> ReplayBuffer:
    """Random steps in episodes of 100."""
    rng, buffer = np.random.default_rng(0), ReplayBuffer(steps, 17, 6, images)
    pictures = tuple(rng.integers(0, 255, shape, dtype=np.uint8) for shape in images)
    for n in range(steps):
        t, last = n % 101, n % 101 == 100
        action = np.zeros(0) if last else rng.uniform(-1, 1, 6)
        buffer.add_step(
            StepRecord(
                n, 1 + n // 101, t, t == 0, last, 3 if last else 0, 0 if last else 1, False, 0,
                False, rng.normal(size=17), action, pictures,
            )
        )  # fmt: skip
    return buffer


def median_time(call: Callable[[], object], repeats: int, warm_up: int = 3) -> float:
    """Median seconds of a call, after warm-up."""
    times = []
    for i in range(warm_up + repeats):
        start = time.perf_counter()
        call()
        if i >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def steps_per_second(
    buffers: Buffers,
    repeats: int,
    precision: str = "float32",
    device: str = "cpu",
    plain: bool = False,
) -> float:
    """Critic steps per second of whole updates. plain: without compiled critics."""
    learner = RLPD(replace(CONFIG, precision=precision), SPEC, seed=0, device=device)
    learner = learner if plain else accelerate(learner)
    if learner.device.type == "cpu":
        return CONFIG.utd / median_time(lambda: learner.update(buffers), repeats)
    for _ in range(10):
        learner.update(buffers)
    # Updates overlap on a GPU: the time of all of them, and no stop in between.
    learner.engine.finish()
    start = time.perf_counter()
    for _ in range(repeats):
        learner.update(buffers)
    learner.engine.finish()
    return repeats * CONFIG.utd / (time.perf_counter() - start)


def processor() -> str:
    """The processor's name, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def measure(repeats: int) -> dict[str, object]:
    """All numbers of the table."""
    buffers = Buffers(filled_buffer())
    engine = accelerate(RLPD(CONFIG, SPEC)).engine
    low_format = engine.kernel.low_precision if isinstance(engine, CompiledCriticEngine) else None
    float32 = steps_per_second(buffers, repeats)
    low = steps_per_second(buffers, repeats, low_format) if low_format else None
    plain = steps_per_second(buffers, max(5, repeats // 6), plain=True)
    rng = np.random.default_rng(0)
    state_batch = median_time(lambda: buffers.online.sample(256, rng), 200)
    pictured = filled_buffer(((128, 128, 3),), 3000)
    image_batch = median_time(lambda: pictured.sample(256, rng), 30)
    return {
        "critic_steps_per_s_float32": round(float32, 1),
        "critic_steps_per_s_low_precision": None if low is None else round(low, 1),
        "low_precision": low_format,
        "default_precision": CONFIG.precision,
        "critic_steps_per_s_without_compiler": round(plain, 1),
        "sample_256_states_us": round(1e6 * state_batch, 1),
        "sample_256_image_pairs_ms": round(1e3 * image_batch, 2),
        **on_gpu(buffers, repeats),
        "updates_measured": repeats,
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def on_gpu(buffers: Buffers, repeats: int) -> dict[str, object]:
    """Critic steps per second on a GPU, if PyTorch finds one."""
    if not torch.cuda.is_available():
        return {}
    speed = {
        f"critic_steps_per_s_gpu_{name}": round(
            steps_per_second(buffers, 10 * repeats, name, device="cuda"), 1
        )
        for name in ("float32", "bfloat16")
    }
    return {**speed, "gpu": torch.cuda.get_device_name()}


def show(results: dict[str, object]) -> None:
    """The numbers as a table."""
    table = Table("quantity", "value", title="Learner")
    for name, value in results.items():
        table.add_row(
            name.replace("_", " "), "not on this machine" if value is None else str(value)
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the learner's speed.")
    parser.add_argument("--quick", action="store_true", help="ten updates each, write nothing")
    quick = parser.parse_args().quick
    warnings.simplefilter("always")
    results = measure(10 if quick else 40)
    show(results)
    if not quick:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
