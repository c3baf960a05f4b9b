# SPDX-License-Identifier: Apache-2.0
"""The bounds on suboptimality of Luo et al. (2024, arXiv 2311.12996, theory section), exactly computed.

    RLIF    V* - V <= min(V* - V_ref, V* - V_exp) + delta epsilon / (1 - gamma)
    DAgger  V* - V <= V* - V_exp                  + delta epsilon / (1 - gamma)

Small random MDPs with finitely many states, in which every quantity is the solution of a linear system
or of value iteration. delta is the margin of the value strategy; epsilon is the share of states that a
policy visits (discounted) in which it does something else than the judge (RLIF) or the expert (DAgger).
Both then follow from the performance difference lemma (Kakade and Langford, 2002).

RLIF leaves open which of the policies without avoidable interventions is learned: the worst of all is
tested. The judge is at least as good as the expert here, which makes V* - V_ref the minimum: where the
expert is better than the judge, interventions that follow the judge's values cannot show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rlif_sim.strategies import ValueStrategy

STATES, ACTIONS, DISCOUNT = 8, 4, 0.9
STARTS = np.full(STATES, 1.0 / STATES)  # mu
DELTA = 0.05


@dataclass(frozen=True)
class Mdp:
    """transitions [s, a, s'], rewards [s, a]"""

    transitions: np.ndarray
    rewards: np.ndarray

    def action_values(self, values: np.ndarray) -> np.ndarray:
        return self.rewards + DISCOUNT * self.transitions @ values

    def values(self, policy: np.ndarray) -> np.ndarray:
        """V of a deterministic policy [s]."""
        states = np.arange(STATES)
        chain, paid = self.transitions[states, policy], self.rewards[states, policy]
        return np.linalg.solve(np.eye(STATES) - DISCOUNT * chain, paid)

    def policy(self, allowed: np.ndarray | None = None, sign: float = 1.0) -> np.ndarray:
        """The best policy out of the allowed actions [s, a]; with sign -1 the worst."""
        values = np.zeros(STATES)
        for _ in range(400):
            found = sign * self.action_values(sign * values)
            if allowed is not None:
                found = np.where(allowed, found, -np.inf)
            values = found.max(axis=1)
        return found.argmax(axis=1)

    def visits(self, policy: np.ndarray) -> np.ndarray:
        """Discounted share of each state, from STARTS."""
        chain = self.transitions[np.arange(STATES), policy]
        return (1.0 - DISCOUNT) * np.linalg.solve((np.eye(STATES) - DISCOUNT * chain).T, STARTS)


@dataclass(frozen=True)
class Case:
    """An MDP with a good judge and a bad expert, who acts."""

    mdp: Mdp
    judge: np.ndarray
    expert: np.ndarray

    def start_value(self, policy: np.ndarray) -> float:
        return float(STARTS @ self.mdp.values(policy))

    def gap(self, policy: np.ndarray) -> float:
        """V* - V of the policy, over the starts."""
        return self.start_value(self.mdp.policy()) - self.start_value(policy)

    def margin(self, policy: np.ndarray, imitated: np.ndarray) -> float:
        """delta epsilon / (1 - gamma)"""
        epsilon = self.mdp.visits(policy)[policy != imitated].sum()
        return DELTA * epsilon / (1.0 - DISCOUNT)


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.full(STATES, 0.3), size=(STATES, ACTIONS))
    mdp = Mdp(transitions, rng.uniform(0.0, 1.0, (STATES, ACTIONS)))
    judge = mdp.policy()
    judge[rng.integers(STATES)] = rng.integers(ACTIONS)  # good, not perfect
    return Case(mdp, judge, rng.integers(ACTIONS, size=STATES))


def is_worse(case: Case, reference: np.ndarray) -> np.ndarray:
    """Whether the suite's strategy finds an action [s, a] worse than the reference's."""
    values = case.mdp.values(reference)
    strategy = ValueStrategy(beta=0.95, delta=DELTA)
    return np.array(
        [
            # The reference's own value, computed twice, may differ in the last digit.
            [strategy.is_worse(values[state] - 1e-9, found) for found in row]
            for state, row in enumerate(case.mdp.action_values(values))
        ]
    )


def rlif_optimal_actions(case: Case, beta: float) -> np.ndarray:
    """[s, a]: what policies do that maximise the reward -1 of each intervention.

    The expert takes over with probability beta from a worse action and 1 - beta from others, and acts.
    """
    chance = np.where(is_worse(case, case.judge), beta, 1.0 - beta)
    taken = case.mdp.transitions[np.arange(STATES), case.expert][:, None]
    mixed = chance[..., None] * taken + (1.0 - chance[..., None]) * case.mdp.transitions
    labelled = Mdp(mixed, -chance)
    found = labelled.action_values(labelled.values(labelled.policy()))
    return found >= found.max(axis=1, keepdims=True) - 1e-9


@pytest.mark.parametrize("beta", [0.6, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_rlif_worst_optimal_policy_is_within_the_bound(seed, beta):
    case = random_case(seed)
    allowed = rlif_optimal_actions(case, beta)
    assert (allowed == ~is_worse(case, case.judge)).all(), "interventions are labelled, not rewards"
    worst = case.mdp.policy(allowed, sign=-1.0)
    smaller = min(case.gap(case.judge), case.gap(case.expert))
    assert case.gap(worst) <= smaller + case.margin(worst, case.judge) + 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_dagger_is_within_the_bound_which_exact_imitation_reaches(seed):
    case = random_case(seed)
    worst = case.mdp.policy(~is_worse(case, case.expert), sign=-1.0)  # errors up to delta
    assert case.gap(worst) <= case.gap(case.expert) + case.margin(worst, case.expert) + 1e-6
    assert case.margin(case.expert, case.expert) == 0.0, "exact imitation has the expert's gap"


def test_rlif_bound_is_below_what_imitation_of_a_weak_expert_reaches():
    """The judge, not the actor, bounds the result."""
    cases = [random_case(seed) for seed in range(20)]
    bounds = [case.gap(case.judge) + DELTA / (1.0 - DISCOUNT) for case in cases]
    imitation = [case.gap(case.expert) for case in cases]
    assert np.mean(bounds) < 0.5 * np.mean(imitation)
    below = sum(bound < gap for bound, gap in zip(bounds, imitation, strict=True))
    assert below >= 15
