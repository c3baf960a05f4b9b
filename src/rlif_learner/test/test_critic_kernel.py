"""The compiled critics against PyTorch: any sizes, any number of threads, and without a compiler."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_learner.algorithms.critics import EnsembleCritic
from rlif_learner.algorithms.optim import FlatAdam
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import RLPDConfig
from rlif_learner.data.buffer import Batch
from rlif_learner.engines import critic_kernel
from rlif_learner.engines.critic_kernel import CriticKernel, KernelUnavailableError, compile_kernel
from rlif_policy.networks import PolicySpec


def make(config, state_dim=5, action_dim=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    critic = EnsembleCritic(PolicySpec(state_dim, action_dim), config, generator)
    critic.flat.values.add_(0.1 * torch.randn(critic.flat.values.shape, generator=generator))
    return critic, CriticKernel(critic, config), generator


def make_batch(generator, rows, state_dim=5, action_dim=2):
    states = torch.randn(rows, state_dim, generator=generator)
    actions = torch.randn(rows, action_dim, generator=generator).tanh()
    return states, actions, torch.randn(rows, generator=generator)


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 140), layers=st.integers(1, 3), critics=st.integers(1, 5),
    rows=st.integers(1, 70), state_dim=st.integers(1, 20), norm=st.booleans(),
)  # fmt: skip
def test_equals_pytorch_at_any_size(width, layers, critics, rows, state_dim, norm):
    config = RLPDConfig(
        hidden=(width,) * layers, ensemble_size=critics, subset_size=1, layer_norm=norm
    )
    critic, kernel, generator = make(config, state_dim)
    states, actions, target = make_batch(generator, rows, state_dim)
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
def test_adam_and_average_equal_pytorch(decay):
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
    torch.testing.assert_close(plain.values[decayed > 0], parameters[0].detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        plain.values[decayed == 0], parameters[1].detach(), atol=1e-6, rtol=0
    )


def test_numbers_do_not_depend_on_the_number_of_threads():
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
def test_what_is_not_finite_comes_out_not_finite(broken):
    """The guard before the optimiser depends on it: fast arithmetic must not hide it."""
    critic, kernel, generator = make(RLPDConfig(hidden=(32, 32)))
    states, actions, target = make_batch(generator, 16)
    states[3, 1] = broken
    gradients = torch.empty_like(critic.flat.values)
    loss, _ = kernel.loss_gradients(
        critic.flat.values, critic.inputs(states, actions), target, gradients
    )
    assert not np.isfinite(loss)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", [1.0, 1e-4, 1e4])
def test_low_precision_is_close(precision, size):
    """Whatever the size of the errors: float16 ends at 65504 and, towards zero, at 6e-8."""
    config = RLPDConfig(hidden=(256, 256), precision=precision)
    critic, kernel, generator = make(config, 17, 6)
    if kernel.precision != precision:
        pytest.skip(f"this processor has no {precision} products")
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


def test_what_float16_cannot_hold_is_computed_in_float32():
    config = RLPDConfig(hidden=(32, 32), layer_norm=False, precision="float16")
    critic, kernel, generator = make(config)
    if kernel.precision != "float16":
        pytest.skip("this processor has no float16 products")
    states, actions, target = make_batch(generator, 16)
    states *= 1e6
    loss = (critic(states, actions) - target).square().mean()
    loss.backward()
    gradients = torch.empty_like(critic.flat.values)
    inputs = critic.inputs(states, actions)
    found, _ = kernel.loss_gradients(critic.flat.values, inputs, target, gradients)
    assert found == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(gradients, critic.flat.gradients, rtol=1e-3, atol=1e3)


def test_auto_takes_the_fastest_there_is():
    _, kernel, _ = make(RLPDConfig(hidden=(8,), precision="auto"))
    assert kernel.precision == (kernel.low_precision or "float32")


def test_steps_of_an_update_are_those_of_one_call_each():
    config = RLPDConfig(hidden=(32, 32), ensemble_size=4, utd=3, batch_size=50)
    spec, found = PolicySpec(3, 1), []
    for one_call in (True, False):
        learner = RLPD(config, spec, seed=1)
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
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_without_a_compiler_there_is_a_warning_with_the_cost_and_the_same_learner(monkeypatch):
    config = RLPDConfig(hidden=(8, 8), ensemble_size=3, batch_size=8)
    monkeypatch.setattr(critic_kernel.shutil, "which", lambda name: None)
    spec = PolicySpec(3, 1, state_offset=(1.0, 2.0, 3.0))
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler found.* ms for"):
        learner = RLPD(config, spec)
    assert learner.kernel is None


@pytest.mark.slow
def test_what_the_compiler_says_is_in_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(critic_kernel, "FLAGS", ["--no-such-flag"])
    with pytest.raises(KernelUnavailableError, match="no-such-flag"):
        compile_kernel(tmp_path)
    assert not list(tmp_path.iterdir())  # nothing half made is left


@pytest.mark.slow
def test_compiled_once(tmp_path, monkeypatch):
    first = compile_kernel(tmp_path)
    monkeypatch.setattr(critic_kernel.subprocess, "run", None)  # a second compilation would fail
    assert compile_kernel(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


@pytest.mark.slow
def test_one_that_was_cut_off_is_compiled_anew(tmp_path):
    """Loading it would end the process."""
    library = compile_kernel(tmp_path)
    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 2])
    assert compile_kernel(tmp_path) == library
    assert len(library.read_bytes()) == len(whole)


def test_what_the_system_does_not_load_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(critic_kernel, "compile_kernel", lambda directory: tmp_path / "none.so")
    with pytest.raises(KernelUnavailableError, match=r"cannot load .*none\.so"):
        critic_kernel.load_library()


@pytest.mark.parametrize("change", [{"dropout": 0.1}, {"hidden": (8, 16)}])
def test_what_is_not_covered_is_said(change):
    config = replace(RLPDConfig(hidden=(8, 8)), **change)
    with pytest.raises(KernelUnavailableError, match="not covered"):
        make(config)


def test_wrong_memory_is_refused():
    critic, kernel, _ = make(RLPDConfig(hidden=(8,)))
    with pytest.raises(TypeError, match="float64"):
        kernel.values(critic.flat.values, torch.zeros(4, 7).double(), torch.tensor([0]))
    with pytest.raises(TypeError, match="contiguous"):
        kernel.values(critic.flat.values, torch.zeros(7, 4).T, torch.tensor([0]))
