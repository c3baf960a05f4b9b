# SPDX-License-Identifier: Apache-2.0
"""Decisions and interventions of the arbiter's core as ROS messages."""

from __future__ import annotations

from rlif_node.stamps import to_msg

from rlif_msgs.msg import Decision, InterventionEvent

from . import ticks


def decision_message(d: ticks.Decision) -> Decision:
    message = Decision(
        tick=d.tick,
        episode_id=d.episode_id,
        step_index=d.step_index,
        source=int(d.source),
        policy_action=d.policy_action,
        operator_action=d.operator_action,
        executed_action=d.executed_action,
        onset=d.onset,
        intervention_id=d.intervention_id,
        limited=d.limited,
        blocked=d.blocked,
        limits=list(d.limits),
        policy_version=d.policy_version,
        speed_scale=d.speed_scale,
    )
    message.header.stamp = to_msg(d.stamp)
    return message


def intervention_message(c: ticks.InterventionChange) -> InterventionEvent:
    message = InterventionEvent(
        event=InterventionEvent.STARTED if c.started else InterventionEvent.ENDED,
        intervention_id=c.intervention.id,
        episode_id=c.episode_id,
        step_index=c.step_index,
        device=c.intervention.device,
        policy_action=c.policy_action,
        operator_action=c.operator_action,
        duration=c.duration,
    )
    message.header.stamp = to_msg(c.stamp)
    return message
