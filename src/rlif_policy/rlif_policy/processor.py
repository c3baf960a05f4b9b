# SPDX-License-Identifier: Apache-2.0
"""What this processor can do: the one place that decides which of its instructions are used.

The compiled critics, the precision of the encoders' convolutions and the tests all ask here. Imports
nothing but the standard library, so that it can be asked before PyTorch is imported.

`RLIF_CPU_LEVEL` lowers the level, so that every path can be tried on any machine that has at least
its instructions. PyTorch reads variables of its own when it is imported: see `torch_environment`.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

VARIABLE = "RLIF_CPU_LEVEL"
X86 = ("x86_64", "AMD64")
CPUINFO = Path("/proc/cpuinfo")

# Instructions of the levels that compilers know, as Linux names them.
_V3 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# Formats of 16 bits that a processor multiplies itself, by the flag that says so, and what compilers
# call that. Those of ARM are PyTorch's alone.
PRODUCTS = {
    "avx512_bf16": ("bfloat16", "-mavx512bf16"),
    "avx512_fp16": ("float16", "-mavx512fp16"),
    "bf16": ("bfloat16", ""),
}


@dataclass(frozen=True)
class Level:
    """A set of instructions, and how to ask compilers and PyTorch for it."""

    name: str
    needs: tuple[str, ...] = ()  # flags of the processor
    products: tuple[str, ...] = ()  # those of PRODUCTS that are used where the processor has them
    compiler: tuple[str, ...] = ()  # flags of g++ and clang++, besides those of the products
    torch: tuple[str, str] | None = None  # ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA
    x86: bool = True


_WIDE = ("-march=x86-64-v4", "-mprefer-vector-width=512")  # all vectors: worth the lower clock
# Lowest first. A processor has all levels whose flags it has; it uses the last of them.
LEVELS = (
    # Any architecture: vectors as the compiler makes them, no intrinsics.
    Level("generic", (), ("bf16",), ("-DRLIF_NO_INTRINSICS",), None, x86=False),
    Level("baseline", (), (), ("-march=x86-64",), ("default", "SSE41")),
    Level("avx2", _V3, (), ("-march=x86-64-v3",), ("avx2", "AVX2")),
    Level("avx512", _V4, (), _WIDE, ("avx512", "AVX512_CORE")),
    Level(
        "avx512_bf16", (*_V4, "avx512_bf16"), ("avx512_bf16",), _WIDE,
        ("avx512", "AVX512_CORE_BF16"),
    ),
    Level(
        "avx512_fp16", (*_V4, "avx512_fp16"), ("avx512_bf16", "avx512_fp16"), _WIDE,
        ("avx512", "AVX512_CORE_FP16"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Processor:
    """The level that is used, and all that there are on this machine."""

    level: Level
    levels: tuple[Level, ...]  # that this machine has, lowest first
    flags: frozenset[str]

    @property
    def formats(self) -> frozenset[str]:
        """Formats of 16 bits that it multiplies itself: of float16 and bfloat16."""
        return frozenset(PRODUCTS[flag][0] for flag in self._products())

    @property
    def compiler_flags(self) -> tuple[str, ...]:
        """What g++ or clang++ needs for the level's instructions and for no others."""
        own = (PRODUCTS[flag][1] for flag in self._products())
        return (*self.level.compiler, *(flag for flag in own if flag))

    def _products(self) -> list[str]:
        return [flag for flag in self.level.products if flag in self.flags]


def detect(cpuinfo: str, machine: str, wanted: str = "") -> Processor:
    """What the text of /proc/cpuinfo says, on an architecture as `platform.machine` names it.

    wanted: name of a level; empty: the highest there is. ValueError for one that does not exist, or
    that this processor has not.
    """
    flags = _flags(cpuinfo)
    x86 = machine in X86
    levels = tuple(
        level for level in LEVELS if (x86 or not level.x86) and flags.issuperset(level.needs)
    )
    if not wanted:
        return Processor(levels[-1], levels, flags)
    for level in levels:
        if level.name == wanted:
            return Processor(level, levels, flags)
    raise ValueError(
        f"{VARIABLE}: found {wanted!r}, {why_missing(wanted, flags, machine)}; expected one of "
        f"{', '.join(level.name for level in levels)}, or unset it"
    )


def why_missing(name: str, flags: frozenset[str], machine: str) -> str:
    """Why a processor with these flags has no level of this name."""
    known = {level.name: level for level in LEVELS}
    if name not in known:
        return "which is no level"
    if known[name].x86 and machine not in X86:
        return f"which is of x86-64, on {machine or 'an unknown architecture'}"
    missing = [flag for flag in known[name].needs if flag not in flags]
    return f"which this processor has not: it lacks {', '.join(missing)}"


def _flags(cpuinfo: str) -> frozenset[str]:
    """Of the first processor: `flags` on x86, `Features` on ARM. None where there is no such line."""
    for line in cpuinfo.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(values.split())
    return frozenset()


@lru_cache(maxsize=1)
def _cpuinfo() -> str:
    return CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.exists() else ""


def processor(wanted: str | None = None) -> Processor:
    """This machine's, at the level `wanted`, else of RLIF_CPU_LEVEL, else the highest there is.

    ValueError for a level that it has not.
    """
    if wanted is None:
        wanted = os.environ.get(VARIABLE, "")
    return detect(_cpuinfo(), platform.machine(), wanted)


def torch_environment(level: Level | None = None) -> dict[str, str]:
    """Environment variables by which PyTorch uses no instructions above `level`; without one, that of
    RLIF_CPU_LEVEL, and none of them if that is not set.

    They count only if they are set before torch is imported. MKL, which multiplies large matrices in
    PyTorch's wheels for x86, chooses by itself.
    """
    if level is None:
        if not os.environ.get(VARIABLE):
            return {}
        level = processor().level
    if level.torch is None:
        return {}
    return dict(zip(("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"), level.torch, strict=True))
