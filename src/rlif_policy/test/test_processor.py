# SPDX-License-Identifier: Apache-2.0
"""What a processor can do, out of made-up texts of /proc/cpuinfo, and on this machine."""

from __future__ import annotations

import os

import pytest
import torch

from rlif_policy import processor as module
from rlif_policy.processor import LEVELS, VARIABLE, detect, processor, torch_environment

V3 = "fpu sse2 avx avx2 bmi1 bmi2 f16c fma abm movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"
INTEL = f"{V4} avx512_bf16 avx512_fp16 amx_bf16"
# Flags, and what they make: the highest level, formats of 16 bits, flags of the compiler.
PROCESSORS = {
    "old": ("fpu sse2", "baseline", set(), "-march=x86-64"),
    "avx_without_2": ("fpu sse2 avx", "baseline", set(), "-march=x86-64"),
    "avx2_without_fma": (V3.replace("fma ", ""), "baseline", set(), "-march=x86-64"),
    "avx2": (V3, "avx2", set(), "-march=x86-64-v3"),
    "avx512_without_vl": (V4.replace(" avx512vl", ""), "avx2", set(), "-march=x86-64-v3"),
    "avx512": (V4, "avx512", set(), "-march=x86-64-v4"),
    "amd": (f"{V4} avx512_bf16", "avx512_bf16", {"bfloat16"}, "-mavx512bf16"),
    "fp16_alone": (f"{V4} avx512_fp16", "avx512_fp16", {"float16"}, "-mavx512fp16"),
    "intel": (INTEL, "avx512_fp16", {"bfloat16", "float16"}, "-mavx512bf16 -mavx512fp16"),
}


def cpuinfo(flags):
    return f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: none\n"


@pytest.mark.parametrize("name", PROCESSORS)
def test_detect_of_x86_gives_the_highest_level_whose_flags_are_there(name):
    flags, level, formats, compiler = PROCESSORS[name]
    found = detect(cpuinfo(flags), "x86_64")
    assert (found.level.name, found.formats) == (level, formats)
    assert set(compiler.split()) <= set(found.compiler_flags)
    assert len([flag for flag in found.compiler_flags if flag.startswith("-mavx")]) == len(formats)


def test_detect_of_another_architecture_gives_the_generic_level_without_flags_of_x86():
    plain = detect("processor : 0\nFeatures\t: fp asimd\n", "aarch64")
    found = detect("processor : 0\nFeatures\t: fp asimd bf16\n", "aarch64")
    assert plain.level.name == found.level.name == "generic"
    assert (plain.formats, found.formats) == (set(), {"bfloat16"})
    assert found.compiler_flags == ("-DRLIF_NO_INTRINSICS",)
    assert detect("", "riscv64").level.name == "generic"
    assert torch_environment(found.level) == {}


def test_detect_without_cpuinfo_takes_the_baseline():
    assert detect("", "x86_64").level.name == "baseline"


@pytest.mark.parametrize("wanted", ["generic", "baseline", "avx2", "avx512", "avx512_bf16"])
def test_detect_with_a_lower_level_uses_nothing_above_it(wanted):
    found = detect(cpuinfo(INTEL), "x86_64", wanted)
    assert found.level.name == wanted
    assert found.levels[-1].name == "avx512_fp16"
    assert found.formats == ({"bfloat16"} if wanted == "avx512_bf16" else set())
    assert "-mavx512fp16" not in found.compiler_flags


@pytest.mark.parametrize(
    ("flags", "machine", "wanted", "words"),
    [
        (V3, "x86_64", "avx512", "lacks avx512f, avx512bw, .*expected one of generic, baseline, avx2,"),
        (f"{V4} avx512_bf16", "x86_64", "avx512_fp16", "lacks avx512_fp16; expected .*avx512_bf16"),
        (V4, "x86_64", "avx1024", "no level; expected one of"),
        ("fp asimd", "aarch64", "avx2", "of x86-64, on aarch64; expected one of generic, or unset"),
    ],
)  # fmt: skip
def test_detect_with_a_level_that_is_missing_names_what_is_found_and_possible(
    flags, machine, wanted, words
):
    with pytest.raises(ValueError, match=f"RLIF_CPU_LEVEL: found '{wanted}', .*{words}"):
        detect(cpuinfo(flags), machine, wanted)


def test_processor_asks_the_environment_and_reads_the_flags_once(monkeypatch, tmp_path):
    text = tmp_path / "cpuinfo"
    text.write_text(cpuinfo(INTEL))
    monkeypatch.setattr(module, "CPUINFO", text)
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    module._cpuinfo.cache_clear()
    try:
        for name in (level.name for level in LEVELS):
            monkeypatch.setenv(VARIABLE, name)
            assert processor().level.name == name
            text.unlink(missing_ok=True)
        monkeypatch.delenv(VARIABLE)
        assert processor().level.name == "avx512_fp16"
    finally:
        module._cpuinfo.cache_clear()


def test_torch_environment_is_empty_unless_a_level_is_asked_for(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert torch_environment() == {}
    monkeypatch.setenv(VARIABLE, "generic")
    assert torch_environment() == {}
    by_name = {level.name: torch_environment(level) for level in LEVELS}
    assert by_name["avx2"] == {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert by_name["avx512_bf16"]["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_BF16"


def test_torch_uses_the_level_of_this_run():
    """With RLIF_CPU_LEVEL, as in tests/test_processor_levels.py: conftest.py has set the rest."""
    expected = torch_environment()
    if not expected:
        assert not os.environ.get(VARIABLE) or processor().level.torch is None
        return
    assert {name: os.environ[name] for name in expected} == expected
    found = torch.backends.cpu.get_cpu_capability().lower()
    assert found == expected["ATEN_CPU_CAPABILITY"]
