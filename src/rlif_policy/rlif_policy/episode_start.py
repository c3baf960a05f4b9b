# SPDX-License-Identifier: Apache-2.0
"""Where the running episode began: the pose that the features `…_from_start` are relative to. No ROS."""

from __future__ import annotations

from collections import deque

from rlif_node.states import Phase

from rlif_policy.features import FeatureError, Pose

KEPT = 20  # observations that may precede the message that the episode runs


class EpisodeStart:
    """The pose of an episode's first observation, for all observations of it. Stamps in ns.

    It lasts until the next reset begins, since the last observation may come after the end. Without an
    episode it is where the arm is, so that an Episode that is received after its first observation
    changes nothing: that observation was relative to itself already.

    It is unknown in an episode that began before this process had an observation. That Episode messages
    came before says nothing: a new subscription gets the last ones too.
    """

    def __init__(self) -> None:
        self._id = 0
        self._began: int | None = None
        self._start: Pose | None = None
        self._idle: deque[tuple[int, Pose]] = deque(maxlen=KEPT)
        self._first: int | None = None  # oldest stamp of this process's observations
        self._unknown = False

    def episode(self, id: int, phase: Phase, stamp: int) -> None:
        """An Episode message; `stamp`: of its header, for RUNNING that of the start."""
        if phase in (Phase.RESETTING, Phase.READY):
            self._id, self._began, self._start = id, None, None
            self._unknown = False
        elif phase is Phase.RUNNING and (self._began is None or id != self._id):
            self._id, self._began = id, stamp
            self._start = next((pose for when, pose in self._idle if when >= stamp), None)
            self._unknown = self._first is None or self._first >= stamp

    def at(self, stamp: int, pose: Pose) -> Pose:
        """What the observation of `stamp`, with this pose, is relative to.

        Raises FeatureError where the episode's first observation was that of another process.
        """
        if self._first is None or stamp < self._first:  # or the clock of a simulation went back
            self._first = stamp
        if self._unknown:
            raise FeatureError(
                "the start of the episode is unknown: the observer was restarted; features "
                "…_from_start are there again with the next episode"
            )
        if self._start is None and self._began is not None and stamp >= self._began:
            self._start = pose
        if self._start is None:
            self._idle.append((stamp, pose))
            return pose
        return self._start
