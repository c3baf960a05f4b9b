"""The compiled critics are there before any test: one that is not marked `slow` may not compile."""

from __future__ import annotations

from contextlib import suppress

import pytest

from rlif_learner.engines.critic_kernel import KernelUnavailableError, compile_kernel


@pytest.fixture(scope="session", autouse=True)
def compiled_critics() -> None:
    with suppress(KernelUnavailableError):  # the tests that need it say what is missing
        compile_kernel()
