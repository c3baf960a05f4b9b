# SPDX-License-Identifier: Apache-2.0
"""The paper's benchmark: who sees a reward, which episodes are played, what is labelled and written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

import bench_paper  # noqa: E402 - only where gymnasium is installed
from paper import experts, judging, report, tasks  # noqa: E402
from paper.cells import run_cell  # noqa: E402
from paper.session import Session  # noqa: E402
from paper.settings import (  # noqa: E402
    ABLATIONS,
    METHODS,
    SETTINGS,
    Cell,
    Settings,
    ablation_cells,
    main_cells,
    with_defaults,
)
from waiting import wait_until  # noqa: E402

from rlif_learner import ReplayBuffer, Source  # noqa: E402

TINY = Settings(
    steps=40, evaluate_every=20, hidden=(8,),
    rlpd={"hidden": (8, 8), "ensemble_size": 2, "utd": 1, "batch_size": 8},
    imitation={"utd": 1, "batch_size": 8}, prior_episodes=2, prior_noise=0.1,
    prior_into_online=True, alpha=None, delta=0.1, pretraining=3, warmup=5, curve_episodes=2,
    final_episodes=3,
)  # fmt: skip


class Line(gymnasium.Env):
    """A point is pushed along a line for ten steps; beyond 1 it falls. `paid` scales its reward."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    max_steps = 10

    def __init__(self, paid: float, seen: list[int]) -> None:
        self.paid, self.seen = paid, seen

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        assert seed is not None, "every episode has a seed of its own"
        self.seen.append(seed)
        self.x, self.t = np.random.default_rng(seed).uniform(-0.5, 0.5), 0
        return np.array([self.x]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x, self.t = self.x + 0.3 * float(action[0]), self.t + 1
        return np.array([self.x]), self.paid * self.x, abs(self.x) > 1.0, self.t == 10, {}


class Judge:
    """Towards the middle, and the operator acts so too."""

    def value(self, state: np.ndarray, action: np.ndarray, /) -> float:
        return -abs(float(state[0] + 0.3 * action[0]))

    def best_action(self, state: np.ndarray, /) -> np.ndarray:
        return np.clip(-state / 0.3, -1.0, 1.0)

    def start_episode(self) -> None:
        """Nothing differs between episodes."""

    def action(self, state: np.ndarray, /) -> np.ndarray:
        return self.best_action(state)


EXPERTS = experts.Experts(Judge(), lambda level, seed: Judge(), {}, "double")


def run_line(
    monkeypatch: pytest.MonkeyPatch, method: str, paid: float = 1.0, **changes: Any
) -> tuple[dict[str, Any], list[float], list[int]]:
    """Result of a tiny cell, its policy's actions, and the seeds that were played."""
    seen: list[int] = []
    task = tasks.Task("line", lambda: Line(paid, seen), (3.0, 2.0, 1.0), (0.0, 1.0))
    monkeypatch.setitem(tasks.TASKS, "line", task)
    learned = []
    scores = tasks.scores

    def record(task: Any, env: Any, policy: Any, *rest: Any) -> list[float]:
        learned.extend(float(policy(np.array([x]))[0]) for x in (-0.4, 0.1, 0.7))
        return scores(task, env, policy, *rest)

    monkeypatch.setattr("paper.cells.scores", record)
    settings = replace(TINY, **changes)
    result = run_cell(Cell("line", "weak", method, 3), EXPERTS, log=str, settings=settings)
    return result, learned, seen


@pytest.mark.parametrize("method", METHODS)
def test_reward_of_the_task_reaches_no_method(monkeypatch, method):
    result, learned, _ = run_line(monkeypatch, method, paid=1.0)
    other, same, _ = run_line(monkeypatch, method, paid=-50.0)
    assert learned == same
    assert result["scores"] != other["scores"], "the score is of the reward"


@pytest.mark.parametrize("method", ["rlif", "hg_dagger"])
def test_average_of_the_actor_is_scored_but_does_not_act(monkeypatch, method):
    last, learned, episodes = run_line(monkeypatch, method, paid=1.0)
    averaged, other, same = run_line(monkeypatch, method, paid=1.0, average=0.9)
    assert learned != other
    assert set(episodes) == set(same)
    assert last["counts"] == averaged["counts"]
    assert last["other_averages"] == {}
    assert averaged["other_averages"]["last actor"] == {
        "scores": last["scores"],
        "curve": last["curve"],
    }
    assert averaged["scores"] != last["scores"]


def test_settings_of_a_result_get_the_defaults_of_what_was_added_since():
    old = TINY.to_mapping()
    del old["average"], old["rest"], old["rlpd"]["dropout"]
    assert with_defaults(old) == TINY.to_mapping()
    assert with_defaults(old) != replace(TINY, average=0.9).to_mapping()


def test_reward_of_the_task_reaches_the_ablation(monkeypatch):
    _, learned, _ = run_line(monkeypatch, "rlif", paid=1.0, task_reward=True)
    _, other, _ = run_line(monkeypatch, "rlif", paid=-50.0, task_reward=True)
    assert learned != other


def test_evaluation_plays_no_episode_of_training(monkeypatch):
    training: list[int] = []
    step = Session.begin_episode

    def begin(session: Session) -> None:
        step(session)
        training.append(session.env.seen[-1])

    monkeypatch.setattr(Session, "begin_episode", begin)
    _, _, seen = run_line(monkeypatch, "rlif")
    evaluation = [seed for seed in seen if seed not in training]
    assert len(training) == len(set(training)) > 4
    assert len(seen) == len(training) + len(evaluation), "no seed is in both"
    assert set(evaluation) == {tasks.episode_seed(tasks.EVALUATION, i) for i in range(3)}


def test_episode_seeds_of_all_uses_and_runs_differ():
    uses = (tasks.TRAINING, tasks.PRIOR, tasks.SELECTION, tasks.EVALUATION, tasks.REPORT)
    ends = [
        tasks.episode_seed(use, e, run) for use in uses for run in range(100) for e in (0, 999_999)
    ]
    assert ends == sorted(set(ends)), "the ranges follow each other"
    with pytest.raises(ValueError, match="episode 1000000"):
        tasks.episode_seed(tasks.TRAINING, 1_000_000)


def test_methods_count_what_the_operator_did(monkeypatch):
    methods = ("bc", "dagger", "dagger_85", "hg_dagger")
    counts = {name: run_line(monkeypatch, name)[0]["counts"] for name in methods}
    assert counts["bc"] == {"steps": 0, "take_overs": 0, "operator_steps": 0}
    assert counts["dagger"]["operator_steps"] == 40
    assert 25 < counts["dagger_85"]["operator_steps"] < 40
    assert 0 < counts["hg_dagger"]["take_overs"] < counts["hg_dagger"]["operator_steps"] < 40


class Script:
    """An operator-free environment whose episode ends after `length` steps."""

    def __init__(self, length: int, terminated: bool, success: bool = False) -> None:
        self._end, self._length, self._t = (terminated, success), length, 0

    def reset(self, seed: int) -> tuple[np.ndarray, dict]:
        self._t = 0
        return np.zeros(1), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._t += 1
        over, (terminated, success) = self._t == self._length, self._end
        info = {"success": success}
        return np.array([self._t]), 99.0, over and terminated, over and not terminated, info


def labels(env: Script, sources: str, **options: Any) -> dict[int, tuple[float, float]]:
    """Reward and terminal of each stored transition by its state, of one episode: p and o drive."""
    buffer = ReplayBuffer(50, 1, 1)
    session = Session(env, buffer, iter(range(9)), **options)
    before = "-"
    for letter in sources:
        source = Source.OPERATOR if letter == "o" else Source.POLICY
        session.step(np.zeros(1), source, onset=letter == "o" != before)
        before = letter
    rows = np.flatnonzero(buffer.columns["valid"])
    column = buffer.columns
    return {
        int(column["state"][i, 0]): (float(column["reward"][i]), float(column["terminal"][i]))
        for i in rows
    }


def test_session_labels_the_step_before_a_take_over():
    found = labels(Script(6, terminated=False), "ppoopp")
    assert found == {i: (-1.0 if i == 1 else 0.0, 0.0) for i in range(6)}


def test_session_drops_the_operators_transitions_but_the_last():
    found = labels(Script(8, terminated=False), "ppooooop", keep_operator=False)
    assert found == {0: (0.0, 0.0), 1: (-1.0, 0.0), 6: (0.0, 0.0), 7: (0.0, 0.0)}


@pytest.mark.parametrize(
    ("success", "fall_is_failure", "last"),
    [(True, False, (0.0, 1.0)), (False, False, (0.0, 0.0)), (False, True, (-1.0, 0.0))],
)
def test_session_stores_no_fall_as_a_terminal(success, fall_is_failure, last):
    env = Script(3, terminated=True, success=success)
    assert labels(env, "ppp", fall_is_failure=fall_is_failure)[2] == last


def test_cells_of_bc_and_task_reward_have_no_level():
    cells = main_cells(["hopper", "peg"], list(METHODS), ["medium", "weak"], [0, 1])
    assert len(cells) == 2 * 2 * (6 * 2 + 1) == len({cell.name for cell in cells})
    assert [
        c.level for c in ablation_cells(["hopper"], ["task_reward"], ["rlif"], ["weak"], [0])
    ] == ["any"]


AS_IT_IS = {  # all other tasks clip values already
    "peg": ["fall_unlabelled", "fall_truncated", "unclipped_values", "raw_states",
            "authors_actor_rate", "executed_actions", "whole_episodes"],
}  # fmt: skip


@pytest.mark.parametrize("task", SETTINGS)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_that_changes_nothing_is_refused(task, ablation):
    if ablation in AS_IT_IS.get(task, ["clip_positive_values"]):
        with pytest.raises(ValueError, match=f"ablation {ablation}: rlif of {task} has it so"):
            ablation_cells([task], [ablation], ["rlif"], ["weak"], [0])
    else:
        assert ablation_cells([task], [ablation], ["rlif"], ["weak"], [0])


def test_a_fall_costs_most_where_no_policy_can_avoid_take_overs():
    found = [
        Cell("hopper", "weak", method, 0, ablation).settings.failure_reward
        for method, ablation in (
            ("rlif", ""),
            ("rlif_random", ""),
            ("rlif_random", "fall_truncated"),
        )
    ]
    assert found == [-20.0, -100.0, 0.0]
    assert Cell("peg", "weak", "rlif_random", 0).settings.failure_reward == 0.0


def test_an_ablation_of_rlpd_changes_no_imitation():
    found = ablation_cells(["hopper"], ["executed_actions"], ["rlif_random"], ["weak"], [0])
    assert found == [Cell("hopper", "weak", "rlif_random", 0, "executed_actions")]
    with pytest.raises(ValueError, match="executed_actions: dagger of hopper has it so"):
        ablation_cells(["hopper"], ["executed_actions"], ["dagger"], ["weak"], [0])


def test_peg_environment_ends_in_success_for_the_judge():
    task = tasks.TASKS["peg"]
    judge = experts.ReferenceJudge(experts.peg_approach())
    found = tasks.scores(
        task, task.make(), lambda s: judge.best_action(task.view(s)), tasks.SELECTION, 2
    )
    assert found == [100.0, 100.0]


def test_return_from_a_place_is_that_of_the_episode_that_went_on():
    task, judge = tasks.TASKS["hopper"], experts.load("hopper").judge
    env = task.make()
    state, _ = env.reset(seed=1)
    total = weight = 0.0
    for step in range(420):
        action = judge.best_action(state)
        if step == 20:
            data, first, weight = env.unwrapped.data, action, 1.0
            place = data.qpos.copy(), data.qvel.copy()
        state, reward, terminated, _, _ = env.step(action)
        assert not terminated, "the judge walks on"
        total, weight = total + weight * float(reward), 0.99 * weight
    found = judging.followed(task.make().unwrapped, judge, place, first, 0.99)
    assert found == pytest.approx(total, rel=0.02) and total > 200.0


def test_moments_lie_before_falls():
    task = tasks.TASKS["hopper"]
    weak = experts.load("hopper").make_operator("weak", 0)
    found = judging.moments(task, weak, falls=2)
    assert [m.before for m in found] == [*judging.BEFORE, *judging.BEFORE]
    env = task.make().unwrapped
    env.reset()
    for moment in found:
        if moment.before == 1:
            env.set_state(*moment.place)
            assert env.step(moment.action.astype(np.float32))[2], "the next step is the fall"


def test_judge_objects_to_what_loses_more_than_the_margin():
    task = tasks.Task("line", lambda: Line(1.0, []), (3.0, 2.0, 1.0), (0.0, 1.0))
    printed: list[str] = []
    found = judging.measure(task, EXPERTS, replace(TINY, delta=0.1), printed.append)
    rows = found["drivers"]
    assert len(printed) == 1 + len(rows)
    assert rows["judge, noise 0.0"] == {"value": 0.0, "lost": [0.0, 0.0], "objections": 0.0}
    assert rows["weak operator"]["objections"] == 0.0, "it acts as the judge"
    # The point stays where it starts, uniformly in [-0.5, 0.5]; up to 0.3 the judge would be at 0 next.
    idle = rows["action 0"]
    assert idle["lost"][1] == pytest.approx(0.3, abs=0.01)
    assert 0.6 < idle["objections"] < 0.95
    assert judging.measure(task, EXPERTS, replace(TINY, delta=0.4), str)["drivers"]["action 0"][
        "objections"
    ] == 0.0  # fmt: skip


# ---- experts


def test_nearest_is_the_score_beside_the_wanted_one():
    found = {experts.Candidate(1): 10.0, experts.Candidate(2): 60.0, experts.Candidate(3): 90.0}
    assert experts.nearest(found, 70.0) == experts.Candidate(2)


def test_experts_training_goes_on_where_it_stopped_and_is_loaded(tmp_path, monkeypatch):
    task = tasks.Task("hopper", lambda: Line(1.0, []), (9.0, 0.0, -9.0), (0.0, 1.0))
    training = experts.Training(60, 1e9, warmup=5, evaluate_every=20, rlpd=tuple(TINY.rlpd.items()))
    monkeypatch.setitem(experts.TRAININGS, "hopper", training)
    monkeypatch.setattr(experts, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(experts, "REPORT_EPISODES", 3)
    monkeypatch.setattr(experts, "SELECTION_EPISODES", 2)
    monkeypatch.setitem(experts.TRAININGS, "hopper", replace(training, steps=40))
    experts.train(task, 0, str)  # as if it had been stopped there
    monkeypatch.setitem(experts.TRAININGS, "hopper", training)
    lines: list[str] = []
    experts.make(task, 0, lines.append, directory=tmp_path / "experts")
    assert "hopper expert: goes on after 40 steps" in lines
    loaded = experts.load("hopper", tmp_path / "experts")
    assert {name: len(scores) for name, scores in loaded.scores.items()} == dict.fromkeys(
        ("judge", *tasks.LEVELS), 3
    )
    state, action = np.array([0.2]), np.array([-0.5])
    assert -1.0 <= loaded.make_operator("weak", 1).action(state)[0] <= 1.0
    other = loaded.judge.value(state, -action)
    assert loaded.judge.value(state, action) != other, "the critics are trained ones"


def test_experts_that_were_not_made_are_named_with_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="experts --only hopper"):
        experts.load("hopper", tmp_path)
    assert experts.missing(["hopper"], tmp_path) == ["hopper"]


# ---- bench_paper


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Iterator[list[Cell]]:
    """bench_paper with results in a temporary folder and cells that only say what they are."""
    ran: list[Cell] = []
    monkeypatch.setattr(bench_paper, "CELLS", tmp_path)
    monkeypatch.setattr(bench_paper.experts, "missing", lambda tasks: [])
    monkeypatch.setattr(bench_paper.experts, "load", lambda task: EXPERTS)

    def stream(cells: list[Cell], jobs: int, device: str) -> Iterator[Any]:
        for cell in cells:
            ran.append(cell)
            failed = cell.method == "bc"
            yield cell, None if failed else result(cell, [50.0, 70.0])

    monkeypatch.setattr(bench_paper, "in_processes", stream)
    monkeypatch.setattr(bench_paper, "report", lambda: None)
    monkeypatch.setattr(bench_paper, "machine", dict)  # which start processes
    monkeypatch.setattr(bench_paper, "commit", str)
    yield ran


def result(cell: Cell, scores: list[float]) -> dict[str, Any]:
    return {
        "cell": vars(cell),
        "settings": cell.settings.to_mapping(),
        "scores": scores,
        "curve": [[1, 0.0], [2, float(np.mean(scores))]],
        "experts": "double",
        "seconds": {"wall": 1.0},
    }


def test_run_goes_on_with_the_cells_that_have_no_result(bench):
    arguments = ["--only", "hopper", "--methods", "rlif", "bc", "--seeds", "0", "--levels", "weak"]
    assert bench_paper.main(arguments) == 1, "a cell failed"
    assert bench_paper.main(arguments) == 1
    rlif, bc = Cell("hopper", "weak", "rlif", 0), Cell("hopper", "any", "bc", 0)
    assert bench == [rlif, bc, bc]


def test_run_refuses_results_of_other_settings(bench, monkeypatch):
    arguments = ["--only", "hopper", "--methods", "rlif", "--seeds", "0"]
    assert bench_paper.main(arguments) == 0
    monkeypatch.setitem(SETTINGS, "hopper", replace(SETTINGS["hopper"], beta=0.7))
    with pytest.raises(SystemExit, match="3 results of other settings"):
        bench_paper.main(arguments)
    assert bench_paper.main([*arguments, "--again"]) == 0
    assert len(bench) == 6


def test_run_keeps_results_that_do_not_depend_on_what_changed(bench, monkeypatch):
    arguments = ["--only", "hopper", "--methods", "dagger", "rlif", "--seeds", "0"]
    assert bench_paper.main(arguments) == 0
    rlpd = {**SETTINGS["hopper"].rlpd, "utd": 9}
    monkeypatch.setitem(SETTINGS, "hopper", replace(SETTINGS["hopper"], rlpd=rlpd))
    assert bench_paper.main([*arguments[:4], "--seeds", "0"]) == 0, "imitation has no critics"
    with pytest.raises(SystemExit, match="3 results of other settings.*rlif"):
        bench_paper.main(arguments)


def runs(pid: int) -> bool:
    """A process that has ended may have a number still, but no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.mark.slow
def test_a_worker_ends_when_its_parent_is_killed():
    script = (
        "import bench_paper, os, time; pool = bench_paper.workers(1); "
        "print(pool.submit(os.getpid).result(), flush=True); pool.submit(time.sleep, 600).result()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert runs(worker)
        parent.kill()
    wait_until(lambda: not runs(worker), "the worker to end")


# ---- report


def test_bootstrap_interval_holds_the_mean_and_narrows_with_equal_seeds():
    rng = np.random.default_rng(1)
    runs = [rng.normal(mean, 5.0, 50).tolist() for mean in (20.0, 60.0, 70.0)]
    apart, equal = report.bootstrap(runs), report.bootstrap([runs[1]] * 3)
    assert apart.low < apart.mean < apart.high
    assert apart.high - apart.low > 5 * (equal.high - equal.low)
    assert apart.seeds == 3
    with pytest.raises(ValueError, match="bootstrap"):
        report.bootstrap([])


def test_report_has_a_dash_for_what_was_not_run(tmp_path, monkeypatch):
    document = tmp_path / "paper.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(report, "DOCUMENT", document)
    monkeypatch.setattr(report.write_document, "__defaults__", (document,))
    cells = [Cell("hopper", "any", "bc", 0)]
    cells += [Cell("hopper", "weak", m, s) for m in ("rlif", "dagger") for s in (0, 1, 2)]
    cells.append(Cell("hopper", "weak", "rlif", 0, "beta_1"))
    for cell in cells:
        score = 90.0 if cell.method == "rlif" else 30.0
        others = {"last actor": {"scores": [score - 50.0] * 3}}
        content = {**result(cell, [score] * 3), "other_averages": others}
        report.write_json(tmp_path / "cells" / f"{cell.name}.json", content)
    measured = {"hopper": {"judge": [100.0], "strong": [99.0], "medium": [60.0], "weak": [20.0]}}
    written = list(report.write_report(tmp_path / "cells", measured, tmp_path))
    assert [path.name for path in written] == ["paper.json", "paper_hopper.png", "paper.md"]
    text = document.read_text()
    row = next(line for line in text.splitlines() if line.startswith("| hopper | 20 %"))
    assert row == (
        "| hopper | 20 % | 100 % | 90.0 (90 to 90) | – | – | – | 30.0 (30 to 30) | – | 30.0 (30 to 30), 1 seed |"
    )
    assert "*102.8*" in text, "the paper's figures stand below ours"
    assert "hopper, weakest operator: RLIF value has 90% of the judge's score." in text
    assert "best DAgger variant" not in text, "not all variants were run"
    assert "| hopper, weak operator | 90.0 (90 to 90) | 40.0 (40 to 40) |" in text
    assert "`beta_1`" in text and "old" not in text and text.startswith("before")
