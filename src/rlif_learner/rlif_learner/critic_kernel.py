"""The critics' passes as compiled code for this processor; `critic_kernel.cpp` says how they work.

Compiled once with the machine's C++ compiler (seconds), kept in the user's cache under the hash of
source, flags and processor. It is made when a learner is made, never during an episode. Without a
compiler, or for a network it does not cover, the learner uses PyTorch: the same numbers, slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from rlif_learner.config import RLPDConfig
from rlif_learner.networks import EnsembleCritic
from rlif_learner.optim import FlatAdam

SOURCE = Path(__file__).with_name("critic_kernel.cpp")
HEADER = Path(__file__).with_name("critic_products.h")
# Fast, but NaN and infinity keep their meaning: the guard against them depends on it.
FLAGS = [
    "-std=c++17",
    "-O3",
    "-march=native",
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


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("critics", "inputs", "layers", "width")),
        *((name, ctypes.c_int64) for name in ("layer_norm", "threads")),
        *(
            (name, ctypes.POINTER(ctypes.c_int64))
            for name in ("weights", "biases", "gains", "shifts")
        ),
    )


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
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        raise KernelUnavailableError("no C++ compiler found; install g++, or set CXX")
    directory = directory or cache_directory()
    command = [compiler, *FLAGS, str(SOURCE), "-o"]
    said = " ".join([compiler, *FLAGS, _processor()]).encode()
    key = hashlib.sha256(HEADER.read_bytes() + SOURCE.read_bytes() + said).hexdigest()
    library = directory / f"critic_kernel-{key[:16]}.so"
    if library.exists():
        return library
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            partial = Path(scratch) / library.name
            result = subprocess.run(
                [*command, str(partial)], capture_output=True, text=True, timeout=120, check=False
            )
            if result.returncode:
                raise KernelUnavailableError(f"{' '.join(command)} failed: {result.stderr[-2000:]}")
            partial.replace(library)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelUnavailableError(f"cannot compile into {directory}: {error}") from error
    return library


def _processor() -> str:
    """What -march=native depends on, so that a shared home directory does no harm."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()


class CriticKernel:
    """Compiled passes of one kind of ensemble. Results do not depend on the number of threads.

    KernelUnavailableError for networks that are not covered: dropout, hidden layers of different
    widths, parameters that are not float32 on the processor.
    """

    def __init__(
        self, critic: EnsembleCritic, config: RLPDConfig, directory: Path | None = None
    ) -> None:
        if config.dropout or len(set(config.hidden)) > 1:
            raise KernelUnavailableError("dropout and unequal hidden widths are not covered")
        if critic.flat.values.device.type != "cpu":
            raise KernelUnavailableError("the critics are not on the processor")
        self._library = ctypes.CDLL(str(compile_kernel(directory)))
        self.has_low_precision = bool(self._library.low_precision())
        self.low = int(config.precision == "bfloat16" and self.has_low_precision)
        self.critics, self.inputs = critic.size, critic.weights[0].shape[1]
        offsets, start = {}, 0
        for parameter in critic.flat.parameters:
            offsets[id(parameter)] = start
            start += parameter.numel()
        self._arrays = [
            (ctypes.c_int64 * max(1, len(group)))(*(offsets[id(p)] for p in group))
            for group in (critic.weights, critic.biases, critic.gains, critic.shifts)
        ]
        self._shape = _Shape(
            critic.size, self.inputs, len(config.hidden), config.hidden[0],
            int(config.layer_norm), 1, *self._arrays,
        )  # fmt: skip

    def values(self, flat: Tensor, inputs: Tensor, subset: Tensor) -> Tensor:
        """Q of the critics in `subset`, [subset, batch], for inputs [batch, state + action]."""
        rows, count = len(inputs), len(subset)
        values = torch.empty(count, rows)
        self._library.critic_values(
            self._now(), self.low, _pointer(flat), _pointer(inputs), ctypes.c_int64(rows),
            _pointer(subset, torch.int64), ctypes.c_int64(count), _pointer(values),
        )  # fmt: skip
        return values

    def loss_gradients(
        self, flat: Tensor, inputs: Tensor, target: Tensor, gradients: Tensor
    ) -> tuple[float, float]:
        """Mean squared error to target [batch] and mean value; fills `gradients` of the former."""
        sums = torch.empty(self.critics, 2, dtype=torch.float64)
        self._library.critic_loss_gradients(
            self._now(), self.low, _pointer(flat), _pointer(inputs), _pointer(target),
            ctypes.c_int64(len(inputs)), _pointer(gradients), _pointer(sums, torch.float64),
        )  # fmt: skip
        loss, value = (sums.sum(0) / (self.critics * len(inputs))).tolist()
        return loss, value

    def input_gradients(self, flat: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over the critics of Q [batch], and of its derivatives by the inputs."""
        rows = len(inputs)
        values = torch.empty(self.critics, rows)
        derivatives = torch.empty(self.critics, rows, self.inputs)
        self._library.critic_input_gradients(
            self._now(), self.low, _pointer(flat), _pointer(inputs), ctypes.c_int64(rows),
            _pointer(values), _pointer(derivatives),
        )  # fmt: skip
        return values.mean(0), derivatives.mean(0)

    def adam_and_average(
        self, optimiser: FlatAdam, gradients: Tensor, target: Tensor, tau: float
    ) -> None:
        """`optimiser.step(gradients)` and target.lerp_(values, tau), in one pass over memory."""
        optimiser.steps += 1
        beta1, beta2 = optimiser.betas
        correction = math.sqrt(1.0 - beta2**optimiser.steps)
        numbers = (
            optimiser.learning_rate * correction / (1.0 - beta1**optimiser.steps),
            optimiser.eps * correction, beta1, beta2,
            optimiser.learning_rate * optimiser.weight_decay, tau,
        )  # fmt: skip
        decayed = optimiser.decayed if optimiser.weight_decay else None
        tensors = (optimiser.values, gradients, optimiser.first, optimiser.second, target)
        self._library.adam_and_average(
            ctypes.c_int64(len(target)),
            *(_pointer(tensor) for tensor in tensors),
            None if decayed is None else _pointer(decayed),
            *(ctypes.c_float(number) for number in numbers),
            ctypes.c_int64(torch.get_num_threads()),
        )

    def _now(self) -> ctypes._Pointer[_Shape]:
        self._shape.threads = torch.get_num_threads()
        return ctypes.pointer(self._shape)


def _pointer(tensor: Tensor, dtype: torch.dtype = torch.float32) -> ctypes.c_void_p:
    if tensor.dtype != dtype or not tensor.is_contiguous():
        raise TypeError(
            f"found {tensor.dtype}, contiguous: {tensor.is_contiguous()}; expected contiguous {dtype}"
        )
    return ctypes.c_void_p(tensor.data_ptr())
