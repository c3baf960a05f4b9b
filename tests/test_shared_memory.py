# SPDX-License-Identifier: Apache-2.0
"""Which nodes use Fast DDS's shared memory: those that images pass through, and no other."""

from __future__ import annotations

import importlib
import importlib.metadata

import pytest

WITHOUT = {
    "arbiter", "watchdog", "episode", "gripper", "servo_adapter", "reset_by_planning", "show_workspace",
}  # fmt: skip
WITH = {"observer", "policy", "success_detector", "recorder", "learner", "console", "robot"}


@pytest.mark.parametrize("name", sorted(WITHOUT | WITH))
def test_node_uses_shared_memory_only_where_images_pass_through(name, monkeypatch):
    points = importlib.metadata.entry_points(group="console_scripts", name=name)
    (point,) = (p for p in points if p.module.startswith("rlif_"))
    module = importlib.import_module(point.module)
    found: list[bool] = []

    def run(*_args: object, shared_memory: bool = True, **_options: object) -> int:
        found.append(shared_memory)
        return 0

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr("sys.argv", [name])
    try:
        point.load()()
    except SystemExit as ended:
        assert not ended.code
    assert found == [name in WITH]
