# SPDX-License-Identifier: Apache-2.0
"""The critics' passes as compiled code for this processor; `critic_kernel.cpp` says how they work.

Compiled once with the machine's C++ compiler (seconds) for the processor's level (rlif_policy.processor),
kept in the user's cache under the hash of source and flags. It is made when a learner is made, never during an episode. Without a
compiler, or for a network it does not cover, the learner uses PyTorch: the same numbers, slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlif_learner.algorithms.critics import EnsembleCritic
from rlif_learner.algorithms.optim import FlatAdam
from rlif_learner.config import RLPDConfig
from rlif_policy.processor import processor

LOGGER = logging.getLogger("rlif_learner")
SOURCE = Path(__file__).with_name("critic_kernel.cpp")
HEADER = Path(__file__).with_name("critic_products.h")
# Fast, but NaN and infinity keep their meaning: the guard against them depends on it.
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fassociative-math",
    "-fno-signed-zeros",
    "-freciprocal-math",
    "-fopenmp",
    "-fPIC",
    "-shared",
]


class KernelUnavailableError(RuntimeError):
    """No kernel on this machine or for this network; the message says why."""


FORMATS = {"float32": 0, "bfloat16": 1, "float16": 2}  # of products, as the C++ counts them
# What `precision: auto` takes, best first. On processors that have both, float16 products are the
# faster ones (those of bfloat16 come at half the rate of float32 there).
LOW_PRECISION = ("float16", "bfloat16")


def _structure(name: str, kind: object, names: str) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": [(n, kind) for n in names.split()]})


# As in critic_kernel.cpp, where they are described.
_Sizes = _structure("_Sizes", ctypes.c_int64, "critics inputs layers width layer_norm threads")
_Begins = _structure("_Begins", ctypes.c_void_p, "weights biases gains shifts")
_State = _structure("_State", ctypes.c_void_p, "values gradients first second target decayed")
_Rates = _structure("_Rates", ctypes.c_float, "eps beta1 beta2 rest1 rest2 shrink tau")
_Counts = _structure("_Counts", ctypes.c_int64, "steps rows subset_size")
_Data = _structure(
    "_Data", ctypes.c_void_p, "inputs next_inputs rewards discounts subset sizes corrections"
)


class _Shape(ctypes.Structure):
    _fields_ = (("sizes", _Sizes), ("begins", _Begins))


class _Batches(ctypes.Structure):
    _fields_ = (("counts", _Counts), ("data", _Data), ("highest", ctypes.c_float))


@dataclass(frozen=True)
class StepData:
    """All that the critic steps of one update need; `steps` of them."""

    inputs: Tensor  # float32 [steps, batch, state + action]
    next_inputs: Tensor  # the same of the next states, with the policy's actions
    rewards: Tensor  # float32 [steps, batch]; target = rewards + discounts * min(subset, highest)
    discounts: Tensor  # float32 [steps, batch]
    subset: Tensor  # int64 [steps, subset]: target critics
    highest: float  # that a value of a next state may be; infinity: no limit


def cache_directory() -> Path:
    """Where compiled kernels are kept: $RLIF_CACHE, $XDG_CACHE_HOME/rlif or ~/.cache/rlif."""
    if own := os.environ.get("RLIF_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rlif"


def compile_kernel(directory: Path | None = None) -> Path:
    """The shared library, compiled unless it is in `directory` (the cache) already.

    KernelUnavailableError without a compiler, or with what the compiler said.
    """
    flags = [*FLAGS, *processor().compiler_flags]
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        raise KernelUnavailableError("no C++ compiler found; install g++, or set CXX")
    directory = directory or cache_directory()
    command = [compiler, *flags, str(SOURCE), "-o"]
    asked = " ".join([compiler, *flags]).encode()
    key = hashlib.sha256(HEADER.read_bytes() + SOURCE.read_bytes() + asked).hexdigest()
    library = directory / f"critic_kernel-{key[:16]}.so"
    if _is_whole(library):
        return library
    LOGGER.info("compiling the critics' passes, once for this processor: a few seconds")
    start = time.monotonic()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            partial = Path(scratch) / library.name
            result = subprocess.run(
                [*command, str(partial)], capture_output=True, text=True, timeout=120, check=False
            )
            if result.returncode:
                raise KernelUnavailableError(f"{' '.join(command)} failed: {result.stderr[-2000:]}")
            _seal(partial)
            partial.replace(library)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelUnavailableError(f"cannot compile into {directory}: {error}") from error
    LOGGER.info(f"compiled in {time.monotonic() - start:.1f} s, kept in {library}")
    return library


def _seal(library: Path) -> None:
    """Append the hash of the file to it, and bring it to the disk: loading one that was cut off by a
    crash ends the process."""
    with library.open("r+b") as file:
        digest = hashlib.sha256(file.read()).digest()
        file.write(digest)
        file.flush()
        os.fsync(file.fileno())


def _is_whole(library: Path) -> bool:
    if not library.exists():
        return False
    data = library.read_bytes()
    return hashlib.sha256(data[:-32]).digest() == data[-32:]


def load_library(directory: Path | None = None) -> ctypes.CDLL:
    """The compiled kernel, compiled first unless the cache has it, and anew if the cached file is
    not as it was written.

    KernelUnavailableError without a compiler, or if the system will not load it.
    """
    library = compile_kernel(directory)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise KernelUnavailableError(f"cannot load {library}: {error}") from error


class CriticKernel:
    """Compiled passes of one kind of ensemble. Results do not depend on the number of threads.

    KernelUnavailableError for networks that are not covered: dropout, hidden layers of different
    widths, parameters that are not float32 on the processor.
    """

    def __init__(self, critic: EnsembleCritic, config: RLPDConfig) -> None:
        if config.dropout or len(set(config.hidden)) > 1:
            raise KernelUnavailableError("dropout and unequal hidden widths are not covered")
        if critic.flat.values.device.type != "cpu":
            raise KernelUnavailableError("the critics are not on the processor")
        self._library = load_library()
        self._library.critic_steps.restype = ctypes.c_int64
        self.low_precision = next((n for n in LOW_PRECISION if self._has_format(n)), None)
        wanted = config.precision
        if wanted == "auto":
            wanted = self.low_precision or "float32"
        self.precision = wanted if self._has_format(wanted) else "float32"
        self._format = FORMATS[self.precision]
        self.critics, self.inputs = critic.size, critic.weights[0].shape[1]
        offsets, start = {}, 0
        for parameter in critic.flat.parameters:
            offsets[id(parameter)] = start
            start += parameter.numel()
        self._arrays = [
            torch.tensor([offsets[id(p)] for p in group], dtype=torch.int64)
            for group in (critic.weights, critic.biases, critic.gains, critic.shifts)
        ]
        self._shape = _Shape(
            _Sizes(
                critic.size, self.inputs, len(config.hidden), config.hidden[0],
                int(config.layer_norm), 1,
            ),
            _Begins(*(array.data_ptr() for array in self._arrays)),
        )  # fmt: skip

    def _has_format(self, name: str) -> bool:
        return bool(self._library.has_format(FORMATS[name]))

    def critic_steps(
        self, optimiser: FlatAdam, gradients: Tensor, target: Tensor, tau: float, data: StepData
    ) -> tuple[int, Tensor]:
        """Gradient steps of all critics, the target following each: how many were done, and
        [steps, 3], float64: loss, mean value and gradient norm of each.

        A step whose numbers are not finite is not done, nor are those after it.
        """
        steps, rows = data.rewards.shape
        counts = range(optimiser.steps + 1, optimiser.steps + 1 + steps)
        sizes, corrections = (
            torch.tensor(numbers) for numbers in self._adam_sizes(optimiser, counts)
        )
        batches = _Batches(
            _Counts(steps, rows, data.subset.shape[1]),
            _Data(
                *(_pointer(t) for t in (data.inputs, data.next_inputs, data.rewards, data.discounts)),
                _pointer(data.subset, torch.int64), _pointer(sizes), _pointer(corrections),
            ),
            data.highest,
        )  # fmt: skip
        sums = torch.full((steps, self.critics, 3), torch.nan, dtype=torch.float64)
        done = self._library.critic_steps(
            self._now(), self._format, self._state(optimiser, gradients, target),
            self._rates(optimiser, tau), ctypes.byref(batches), _pointer(sums, torch.float64),
        )  # fmt: skip
        optimiser.steps += done
        squares, values, norms = sums.sum(1).unbind(-1)
        count = self.critics * rows
        return done, torch.stack([squares / count, values / count, norms.sqrt()], -1)

    def values(self, flat: Tensor, inputs: Tensor, subset: Tensor) -> Tensor:
        """Q of the critics in `subset`, [subset, batch], for inputs [batch, state + action]."""
        rows, count = len(inputs), len(subset)
        values = torch.empty(count, rows)
        self._library.critic_values(
            self._now(), self._format, _pointer(flat), _pointer(inputs), ctypes.c_int64(rows),
            _pointer(subset, torch.int64), ctypes.c_int64(count), _pointer(values),
        )  # fmt: skip
        return values

    def loss_gradients(
        self, flat: Tensor, inputs: Tensor, target: Tensor, gradients: Tensor
    ) -> tuple[float, float]:
        """Mean squared error to target [batch] and mean value; fills `gradients` of the former."""
        sums = torch.empty(self.critics, 3, dtype=torch.float64)
        self._library.critic_loss_gradients(
            self._now(), self._format, _pointer(flat), _pointer(inputs), _pointer(target),
            ctypes.c_int64(len(inputs)), _pointer(gradients), _pointer(sums, torch.float64),
        )  # fmt: skip
        loss, value, _ = (sums.sum(0) / (self.critics * len(inputs))).tolist()
        return loss, value

    def input_gradients(self, flat: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over the critics of Q [batch], and of its derivatives by the inputs."""
        rows = len(inputs)
        values = torch.empty(self.critics, rows)
        derivatives = torch.empty(self.critics, rows, self.inputs)
        self._library.critic_input_gradients(
            self._now(), self._format, _pointer(flat), _pointer(inputs), ctypes.c_int64(rows),
            _pointer(values), _pointer(derivatives),
        )  # fmt: skip
        return values.mean(0), derivatives.mean(0)

    def adam_and_average(
        self, optimiser: FlatAdam, gradients: Tensor, target: Tensor, tau: float
    ) -> None:
        """`optimiser.step(gradients)` and target.lerp_(values, tau), in one pass over memory."""
        optimiser.steps += 1
        (size,), (correction,) = self._adam_sizes(optimiser, [optimiser.steps])
        self._library.adam_and_average(
            ctypes.c_int64(len(target)), self._state(optimiser, gradients, target),
            self._rates(optimiser, tau), ctypes.c_float(size), ctypes.c_float(correction),
            ctypes.c_int64(torch.get_num_threads()),
        )  # fmt: skip

    @staticmethod
    def _adam_sizes(
        optimiser: FlatAdam, counts: Iterable[int]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of the steps with these numbers: their size, and what eps is multiplied by."""
        beta1, beta2 = optimiser.betas
        pairs = [(math.sqrt(1.0 - beta2**n), 1.0 - beta1**n) for n in counts]
        sizes = tuple(optimiser.learning_rate * second / first for second, first in pairs)
        return sizes, tuple(second for second, _ in pairs)

    def _state(self, optimiser: FlatAdam, gradients: Tensor, target: Tensor) -> Any:
        decayed = optimiser.decayed if optimiser.weight_decay else None
        vectors = (optimiser.values, gradients, optimiser.first, optimiser.second, target)
        return ctypes.byref(
            _State(
                *(_pointer(vector) for vector in vectors),
                None if decayed is None else _pointer(decayed),
            )
        )

    def _rates(self, optimiser: FlatAdam, tau: float) -> Any:
        shrink = optimiser.learning_rate * optimiser.weight_decay
        rests = (1.0 - beta for beta in optimiser.betas)
        return ctypes.byref(_Rates(optimiser.eps, *optimiser.betas, *rests, shrink, tau))

    def _now(self) -> Any:
        self._shape.sizes.threads = torch.get_num_threads()
        return ctypes.byref(self._shape)


def _pointer(tensor: Tensor, dtype: torch.dtype = torch.float32) -> ctypes.c_void_p:
    if tensor.dtype != dtype or not tensor.is_contiguous():
        raise TypeError(
            f"found {tensor.dtype}, contiguous: {tensor.is_contiguous()}; expected contiguous {dtype}"
        )
    return ctypes.c_void_p(tensor.data_ptr())
