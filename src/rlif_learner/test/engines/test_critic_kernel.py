# SPDX-License-Identifier: Apache-2.0
"""The compiled critics against PyTorch: at each level of the processor, of any sizes, with any number
of threads, for arm64, and without a compiler."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import cpu_levels
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlif_learner.algorithms.critics import EnsembleCritic
from rlif_learner.algorithms.optim import FlatAdam
from rlif_learner.algorithms.rlpd import RLPD, Engine
from rlif_learner.config import RLPDConfig
from rlif_learner.data.batch import Batch
from rlif_learner.engines import critic_kernel
from rlif_learner.engines.critic_kernel import CriticKernel, KernelUnavailableError, compile_kernel
from rlif_learner.engines.select import accelerate
from rlif_policy.networks import PolicySpec
from rlif_policy.processor import VARIABLE, processor

ARM64_COMPILER = "aarch64-linux-gnu-g++"
ARM64_EMULATOR = "qemu-aarch64-static"


@pytest.fixture(scope="module", params=cpu_levels.PARAMETERS)
def level(request):
    """Each level that this machine has; its kernel is compiled once and kept in the cache."""
    with cpu_levels.enter(request.param) as name:
        yield name


def make(config, state_dim=5, action_dim=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    critic = EnsembleCritic(PolicySpec(state_dim, action_dim), config, generator)
    critic.flat.values.add_(0.1 * torch.randn(critic.flat.values.shape, generator=generator))
    return critic, CriticKernel(critic, config), generator


def make_batch(generator, rows, state_dim=5, action_dim=2):
    states = torch.randn(rows, state_dim, generator=generator)
    actions = torch.randn(rows, action_dim, generator=generator).tanh()
    return states, actions, torch.randn(rows, generator=generator)


def nearest_to_a_kink(critic, states, actions):
    """The least |input| of any ReLU: where it is a rounding error, its slope is anybody's guess."""
    found, relu = [], torch.relu

    def record(hidden):
        found.append(float(hidden.detach().abs().min()))
        return relu(hidden)

    with patch.object(torch, "relu", record):
        critic(states, actions)
    return min(found)


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    width=st.integers(1, 140), layers=st.integers(1, 3), critics=st.integers(1, 5),
    rows=st.integers(1, 70), state_dim=st.integers(1, 20), norm=st.booleans(),
)  # fmt: skip
def test_passes_of_any_size_equal_pytorch(level, width, layers, critics, rows, state_dim, norm):
    config = RLPDConfig(
        hidden=(width,) * layers, ensemble_size=critics, subset_size=1, layer_norm=norm
    )
    critic, kernel, generator = make(config, state_dim)
    states, actions, target = make_batch(generator, rows, state_dim)
    assume(nearest_to_a_kink(critic, states, actions) > 2e-6)
    actions.requires_grad_()
    values = critic(states, actions)
    loss = (values - target).square().mean()
    loss.backward(retain_graph=True, inputs=critic.flat.parameters)
    expected = critic.flat.gradients
    flat, inputs = critic.flat.values, critic.inputs(states, actions).detach()
    found = torch.full_like(expected, torch.nan)  # each entry must be written
    found_loss, found_value = kernel.loss_gradients(flat, inputs, target, found)
    scale = 1.0 + float(expected.abs().max())
    assert found_loss == pytest.approx(loss.item(), rel=1e-4, abs=1e-5)
    assert found_value == pytest.approx(values.mean().item(), abs=1e-4)
    if not (norm and width <= 2):  # one or two values normalised: noise over noise
        torch.testing.assert_close(found, expected, atol=2e-4 * scale, rtol=1e-3)
    subset = torch.tensor([critics - 1])
    torch.testing.assert_close(
        kernel.values(flat, inputs, subset), values[subset].detach(), atol=1e-4, rtol=1e-3
    )
    slope = torch.autograd.grad(values.mean(0).sum(), actions)[0]
    mean, found_slope = kernel.input_gradients(flat, inputs)
    torch.testing.assert_close(mean, values.mean(0).detach(), atol=1e-4, rtol=1e-3)
    if not (norm and width <= 2):
        torch.testing.assert_close(found_slope[:, state_dim:], slope, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_and_average_equals_pytorch(level, decay):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1000, generator=generator)
    decayed = (start > 0).float()
    parameters = (
        torch.nn.Parameter(start[decayed > 0].clone()),
        torch.nn.Parameter(start[decayed == 0].clone()),
    )
    groups = [{"params": [parameters[0]], "weight_decay": decay}, {"params": [parameters[1]]}]
    reference = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.0)
    _, kernel, _ = make(RLPDConfig(hidden=(8,)))
    plain = FlatAdam(start.clone(), 1e-2, decay, decayed)
    compiled = FlatAdam(start.clone(), 1e-2, decay, decayed)
    target = torch.zeros(1000)
    for _ in range(5):
        gradients = torch.randn(1000, generator=generator)
        for parameter, chosen in zip(parameters, (decayed > 0, decayed == 0), strict=True):
            parameter.grad = gradients[chosen]
        reference.step()
        plain.step(gradients)
        expected = target.lerp(plain.values, 0.1)
        kernel.adam_and_average(compiled, gradients, target, 0.1)
        torch.testing.assert_close(target, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(plain.values, compiled.values, atol=1e-6, rtol=1e-5)
    # Regression: 1 - beta2 was formed in float32, 1.3e-5 off.
    torch.testing.assert_close(compiled.second, plain.second, atol=0.0, rtol=2e-6)
    torch.testing.assert_close(plain.values[decayed > 0], parameters[0].detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        plain.values[decayed == 0], parameters[1].detach(), atol=1e-6, rtol=0
    )


def test_passes_with_any_number_of_threads_give_the_same_bits(level):
    config = RLPDConfig(hidden=(32, 32))
    critic, kernel, generator = make(config)
    states, actions, target = make_batch(generator, 100)
    flat, inputs = critic.flat.values, critic.inputs(states, actions)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            gradients = torch.empty_like(flat)
            kernel.loss_gradients(flat, inputs, target, gradients)
            values = kernel.values(flat, inputs, torch.tensor([3, 0]))
            results.append(torch.cat([gradients, values.flatten()]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_loss_of_a_batch_that_is_not_finite_is_not_finite(level, broken):
    """The guard before the optimiser depends on it: fast arithmetic must not hide it."""
    critic, kernel, generator = make(RLPDConfig(hidden=(32, 32)))
    states, actions, target = make_batch(generator, 16)
    states[3, 1] = broken
    gradients = torch.empty_like(critic.flat.values)
    loss, _ = kernel.loss_gradients(
        critic.flat.values, critic.inputs(states, actions), target, gradients
    )
    assert not np.isfinite(loss)


@pytest.fixture(scope="module")
def float16_level():
    with cpu_levels.enter("avx512_fp16") as name:
        yield name


@pytest.fixture(scope="module", params=[("avx512_fp16", "float16"), ("avx512_bf16", "bfloat16")])
def precision(request):
    with cpu_levels.enter(request.param[0]):
        yield request.param[1]


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e4])
def test_products_of_16_bits_are_close_to_float32(precision, size):
    """Whatever the size of the errors: float16 ends at 65504 and, towards zero, at 6e-8."""
    config = RLPDConfig(hidden=(256, 256), precision=precision)
    critic, kernel, generator = make(config, 17, 6)
    assert kernel.precision == precision
    states, actions, target = make_batch(generator, 256, 17, 6)
    values = critic(states, actions)
    target = values.mean(0).detach() + size * target
    loss = (values - target).square().mean()
    loss.backward()
    gradients = torch.empty_like(critic.flat.values)
    inputs = critic.inputs(states, actions)
    found, _ = kernel.loss_gradients(critic.flat.values, inputs, target, gradients)
    assert found == pytest.approx(loss.item(), rel=0.01)
    similarity = torch.cosine_similarity(gradients, critic.flat.gradients, dim=0)
    assert similarity > (0.999 if precision == "float16" else 0.998)


def test_loss_beyond_the_range_of_float16_is_computed_in_float32(float16_level):
    config = RLPDConfig(hidden=(32, 32), layer_norm=False, precision="float16")
    critic, kernel, generator = make(config)
    assert kernel.precision == "float16"
    states, actions, target = make_batch(generator, 16)
    states *= 1e6
    loss = (critic(states, actions) - target).square().mean()
    loss.backward()
    gradients = torch.empty_like(critic.flat.values)
    inputs = critic.inputs(states, actions)
    found, _ = kernel.loss_gradients(critic.flat.values, inputs, target, gradients)
    assert found == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(gradients, critic.flat.gradients, rtol=1e-3, atol=1e3)


def test_precision_is_one_that_the_level_has(level):
    formats = processor().formats
    fastest = next((f for f in ("float16", "bfloat16") if f in formats), "float32")
    _, kernel, _ = make(RLPDConfig(hidden=(8,), precision="auto"))
    assert kernel.precision == fastest
    for wanted in ("float16", "bfloat16", "float32"):
        _, kernel, _ = make(RLPDConfig(hidden=(8,), precision=wanted))
        assert kernel.precision == (wanted if wanted in formats else "float32")


@pytest.mark.slow
def test_precision_that_the_level_has_not_is_replaced_with_a_warning(monkeypatch):
    monkeypatch.setenv(VARIABLE, "generic")
    config = RLPDConfig(hidden=(8,), ensemble_size=2, precision="float16")
    with pytest.warns(UserWarning, match="found 'float16'.*level generic; float32 is used"):
        accelerate(RLPD(config, PolicySpec(3, 1)))


@pytest.mark.parametrize("clipped", [False, True])
def test_critic_steps_in_one_call_equal_one_call_each(level, clipped):
    config = RLPDConfig(
        hidden=(32, 32), ensemble_size=4, utd=3, batch_size=50,
        entropy_in_target=not clipped, clip_positive_values=clipped,
    )  # fmt: skip
    spec, found = PolicySpec(3, 1), []
    for one_call in (True, False):
        learner = accelerate(RLPD(config, spec, seed=1))
        generator = torch.Generator().manual_seed(0)
        batches = Batch.from_tensors(
            torch.rand(3, 50, *size, generator=generator) for size in [(3,), (1,), (), (3,), ()]
        )
        if not one_call:
            learner.average_gradients = lambda gradients: None  # of one process
        record = learner.learn(batches, learner.draw_noise())
        tensors = learner.state_tensors()
        found.append((record.critics.float(), record.actor, *(tensors[n] for n in sorted(tensors))))
        assert learner.critic_optimiser.steps == 3
    if clipped:
        learner = RLPD(replace(config, clip_positive_values=False), spec, seed=1)
        unclipped = learner.learn(batches, learner.draw_noise()).critics
        assert abs(unclipped[0, 0] - found[0][0][0, 0]) > 1e-3  # or nothing was clipped
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_learner_without_a_compiler_uses_pytorch_and_warns_of_the_cost(monkeypatch):
    config = RLPDConfig(hidden=(8, 8), ensemble_size=3, batch_size=8)
    monkeypatch.setattr(critic_kernel.shutil, "which", lambda name: None)
    spec = PolicySpec(3, 1, state_offset=(1.0, 2.0, 3.0))
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler found.* ms for"):
        learner = accelerate(RLPD(config, spec))
    assert type(learner.engine) is Engine


@pytest.fixture
def short_source(tmp_path, monkeypatch):
    """A source that compiles at once: how it is kept does not depend on what it says."""
    source = tmp_path / "short.cpp"
    source.write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setattr(critic_kernel, "SOURCE", source)


@pytest.mark.slow
def test_compile_with_a_wrong_flag_reports_what_the_compiler_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(critic_kernel, "FLAGS", ["--no-such-flag"])
    with pytest.raises(KernelUnavailableError, match="no-such-flag"):
        compile_kernel(tmp_path)
    assert not list(tmp_path.iterdir())  # nothing half made is left


@pytest.mark.slow
def test_compile_is_done_once_for_each_level(tmp_path, monkeypatch, short_source):
    first = compile_kernel(tmp_path / "cache")
    with monkeypatch.context() as other:
        other.setenv(VARIABLE, "generic")
        generic = compile_kernel(tmp_path / "cache")
    assert generic != first or processor().level.name == "generic"
    monkeypatch.setattr(critic_kernel.subprocess, "run", None)  # another compilation would fail
    assert compile_kernel(tmp_path / "cache") == first
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {first.name, generic.name}


@pytest.mark.slow
def test_compile_of_one_that_was_cut_off_is_done_anew(tmp_path, short_source):
    """Loading it would end the process."""
    library = compile_kernel(tmp_path / "cache")
    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 2])
    assert compile_kernel(tmp_path / "cache") == library
    assert len(library.read_bytes()) == len(whole)
    assert critic_kernel.load_library(tmp_path / "cache").answer() == 42


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(ARM64_COMPILER) is None, reason=f"no {ARM64_COMPILER} here")
def test_kernel_for_arm64_compiles_and_equals_pytorch(tmp_path):
    """By a cross compiler, with the flags of the generic level; run where there is an emulator."""
    folder, program = Path(critic_kernel.SOURCE).parent, tmp_path / "critic_kernel_arm64"
    shared = ("-fPIC", "-shared")
    flags = [*(f for f in critic_kernel.FLAGS if f not in shared), *generic_flags()]
    main = Path(__file__).with_name("critic_kernel_main.cpp")
    command = [ARM64_COMPILER, *flags, "-static", f"-I{folder}", str(main), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    emulator = shutil.which(ARM64_EMULATOR)
    if emulator is None:
        pytest.skip(f"compiled; not run, as there is no {ARM64_EMULATOR} here")
    config = RLPDConfig(hidden=(37, 37), ensemble_size=3)
    critic, kernel, generator = make(config, 7)
    states, actions, target = make_batch(generator, 50, 7)
    loss = (critic(states, actions) - target).square().mean()
    loss.backward()
    flat, inputs = critic.flat.values, critic.inputs(states, actions)
    sizes = [3, inputs.shape[1], 2, 37, 1, 50, len(flat)]
    parts = [np.array(sizes), *kernel._arrays, flat, inputs, target]
    given_bytes = b"".join(np.asarray(part.detach() if torch.is_tensor(part) else part).tobytes()
                           for part in parts)  # fmt: skip
    run = subprocess.run([emulator, program], input=given_bytes, capture_output=True, timeout=60)
    assert run.returncode == 0, run.stderr
    found = torch.frombuffer(bytearray(run.stdout[: 4 * len(flat)]), dtype=torch.float32)
    sums = np.frombuffer(run.stdout[4 * len(flat) :], np.float64).reshape(3, 3)
    assert sums[:, 0].sum() / (3 * 50) == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(found, critic.flat.gradients, atol=2e-4, rtol=1e-3)


def generic_flags():
    with cpu_levels.enter("generic"):
        return processor().compiler_flags


def test_load_of_what_the_system_does_not_load_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(critic_kernel, "compile_kernel", lambda directory: tmp_path / "none.so")
    with pytest.raises(KernelUnavailableError, match=r"cannot load .*none\.so"):
        critic_kernel.load_library()


@pytest.mark.parametrize("change", [{"dropout": 0.1}, {"hidden": (8, 16)}])
def test_kernel_of_a_network_that_is_not_covered_is_refused(change):
    config = replace(RLPDConfig(hidden=(8, 8)), **change)
    with pytest.raises(KernelUnavailableError, match="not covered"):
        make(config)


def test_passes_with_tensors_of_another_type_are_refused():
    critic, kernel, _ = make(RLPDConfig(hidden=(8,)))
    with pytest.raises(TypeError, match="float64"):
        kernel.values(critic.flat.values, torch.zeros(4, 7).double(), torch.tensor([0]))
    with pytest.raises(TypeError, match="contiguous"):
        kernel.values(critic.flat.values, torch.zeros(7, 4).T, torch.tensor([0]))
