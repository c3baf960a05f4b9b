"""Traces of devices, with irregular timing, through the real inputs into events and labels' facts.

tests/test_device_labels.py checks the labels that come out of the same traces.
"""

from __future__ import annotations

import itertools

import pytest
from trace_rig import TRACES, Replay, load

from rlif_intervention.diagnostics import Level, arbiter_statuses
from rlif_intervention.ticks import Source

PAD = {"pad__preset": "xbox"}
MOUSE = {"devices": ["mouse"], "mouse__preset": "spacemouse"}
KEYS = {"devices": ["keys"], "keys__preset": "twist", "keys__idle_ok": True}


def sources(replay):
    """Who drove, one letter for each run of equal steps."""
    return "".join(
        "NPO"[source] for source, _ in itertools.groupby(d.source for d in replay.decisions)
    )


def onsets(replay):
    return [d.step_index for d in replay.decisions if d.onset]


@pytest.mark.parametrize("path", sorted(TRACES.glob("*.csv")), ids=lambda path: path.stem)
def test_a_trace_says_what_it_is_and_has_the_timing_of_a_driver_not_of_a_grid(path):
    assert "Not recorded from hardware" in path.read_text(encoding="utf-8")
    times = [sample.time for sample in load(path.stem)]
    steps = {round(b - a, 4) for a, b in itertools.pairwise(times)}
    assert len(steps) > 10 or len(times) < 12


def test_a_jittering_thumb_is_one_intervention_and_one_onset():
    replay = Replay(**PAD).play(load("gamepad_jittering_thumb"))
    assert replay.events() == ["STARTED", "ENDED"]
    assert len(onsets(replay)) == 1 and sources(replay) in ("PONP", "POP")
    begin, end = (c.intervention.started + c.duration for c in replay.changes)
    assert begin == pytest.approx(0.6137, abs=0.021) and end == pytest.approx(1.942, abs=0.025)


def test_without_a_dwell_the_same_thumb_is_many_which_is_why_there_is_one():
    replay = Replay(dwell=0.0, **PAD).play(load("gamepad_jittering_thumb"))
    assert replay.events().count("STARTED") >= 5


@pytest.mark.parametrize(("gap", "count"), [(80, 1), (350, 2)])
def test_let_go_for_80_ms_is_one_and_for_350_ms_two(gap, count):
    replay = Replay(**PAD).play(load(f"gamepad_released_{gap}_ms"))
    assert replay.events() == ["STARTED", "ENDED"] * count
    assert len(onsets(replay)) == count
    assert not replay.moved(1.2043 + 0.021, 1.2843), "let go: zeros, within one command"
    assert replay.states(1.2043 + 0.021, 1.2843) == {"OPERATOR"}


def test_unplugged_in_mid_take_over_stops_holds_and_gives_one_label():
    replay = Replay(**PAD).play(load("gamepad_unplugged"))
    last = max(s.time for s in load("gamepad_unplugged") if s.time < 1.13)
    assert replay.states(last, last + 0.5) == {"OPERATOR"}
    assert replay.states(last + 0.521, 2.6) == {"HOLD"} and not replay.moved(last + 0.521, 2.6)
    assert replay.events() == ["STARTED", "ENDED"] and len(onsets(replay)) == 1
    assert replay.states(2.75, 3.1) == {"POLICY"}, "back, and let go"


def test_a_3d_mouse_with_noise_around_its_thresholds_is_one_intervention():
    replay = Replay(**MOUSE).play(load("spacemouse_noise"))
    assert replay.events() == ["STARTED", "ENDED"] and len(onsets(replay)) == 1
    assert replay.states(0.45, 1.0) == {"POLICY"}, "a hand that rests on the cap takes nothing over"
    assert replay.states(1.3, 2.5) == {"OPERATOR"}
    assert not replay.pressed


def test_thresholds_without_a_distance_to_speak_of_make_many_of_the_same_hand():
    close = {"mouse__motion_on": 0.111, "mouse__motion_off": 0.11}
    replay = Replay(dwell=0.0, **MOUSE, **close).play(load("spacemouse_noise"))
    assert replay.events().count("STARTED") >= 3


def test_a_3d_mouse_that_reads_zeros_for_ever_is_reported_and_takes_nothing_over():
    """Pitfall: a 3D mouse that reads zeros for ever, with no diagnosis."""
    replay = Replay(**MOUSE).play(load("spacemouse_zeros"))
    assert not replay.changes and sources(replay) == "P"
    status = next(s for s in arbiter_statuses(replay.core, replay.now) if s.name == "device mouse")
    assert status.level is Level.WARN and "never moved" in status.message


def test_a_mouse_whose_driver_leaves_buttons_out_has_its_buttons():
    replay = Replay(**MOUSE).play(load("spacemouse_buttons"))
    assert replay.pressed == [("mouse", {"success"}), ("mouse", {"failure"})]
    assert "FAULT" not in replay.states(0.0, 2.4) and replay.events() == ["STARTED", "ENDED"]


def test_taps_between_two_observations_are_lost_neither_as_button_nor_as_take_over():
    """Pitfall: a success button tapped within one poll was lost."""
    replay = Replay(**PAD).play(load("gamepad_taps"))
    assert [p - {"deadman"} for _, p in replay.pressed if p - {"deadman"}] == [{"success"}, {"arm"}]
    assert replay.events() == ["STARTED", "ENDED"] and len(onsets(replay)) == 1
    driven = [d for d in replay.decisions if d.source is Source.OPERATOR]
    assert len(driven) == 1 and driven[0].onset


def test_a_keyboard_with_a_switch_is_one_intervention_and_stands_still_between_keys():
    replay = Replay(**KEYS, keys__deadman_topic="held").play(load("keyboard_with_deadman"))
    assert replay.states(0.25, 1.0) == {"POLICY"}, "the switch is the sign of life"
    assert replay.events() == ["STARTED", "ENDED"] and len(onsets(replay)) == 1
    assert replay.states(1.15, 3.3) == {"OPERATOR"}
    assert replay.moved(1.22, 1.3) and not replay.moved(1.6, 1.8), "a tap, then nothing"
    assert replay.moved(2.4, 2.7) and replay.states(3.7, 3.9) == {"POLICY"}


def test_a_switch_that_falls_silent_is_noticed_although_the_keyboard_may_be_silent():
    samples = [s for s in load("keyboard_with_deadman") if not 1.4 < s.time < 3.4]
    replay = Replay(**KEYS, keys__deadman_topic="held").play(samples)
    assert replay.states(1.96, 3.3) == {"HOLD"} and not replay.moved(1.96, 3.3)
    # A keyboard alone is no sign of life where a switch is what takes over.
    keys = [s for s in load("keyboard_with_deadman") if s.topic == "keys"]
    replay = Replay(**KEYS, keys__deadman_topic="held").play(keys, until=4.0)
    assert replay.states(0.3, 4.0) == {"HOLD"} and not replay.changes


def test_a_keyboard_without_a_switch_takes_over_and_k_gives_control_back():
    replay = Replay(**KEYS, keys__timeout=1.0).play(load("keyboard_by_motion"), until=4.6)
    assert replay.states(0.3, 1.2) == {"POLICY"}, "silent at rest is no failure with idle_ok"
    assert replay.states(1.25, 2.5) == {"OPERATOR"}
    assert replay.states(3.65, 3.9) == {"HOLD"} and not replay.moved(3.65, 3.9)
    assert replay.events() == ["STARTED", "ENDED"]
    assert replay.states(4.0, 4.5) == {"POLICY"}


def test_without_idle_ok_a_keyboard_is_gone_while_it_is_silent():
    values = KEYS | {"keys__idle_ok": False}
    replay = Replay(**values, keys__timeout=1.0).play(load("keyboard_by_motion"), until=4.6)
    assert replay.states(1.11, 1.19) == {"HOLD"}


def test_what_is_reported_of_a_silent_keyboard_and_of_a_locked_one():
    replay = Replay(**KEYS, locks=["pause"]).play(load("keyboard_by_motion")[:1], until=1.1)

    def status():
        found = arbiter_statuses(replay.core, replay.now)
        return next(s for s in found if s.name == "device keys")

    assert status().level is Level.OK and "unplugged, it looks the same" in status().message
    replay.core.rack.locks[0].update(True, replay.now)
    assert status().level is Level.WARN and "locked by pause" in status().message
