# SPDX-License-Identifier: Apache-2.0
"""Bags of Steps, written with the rosbags library: for imports and for tests."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from rlif_bags.reading.files import BagError, new_bag, refuse_existing
from rlif_bags.reading.open import STEP_TYPE
from rlif_bags.reading.types import add_installed
from rlif_intervention.bag_writer import qos_profile
from rlif_learner.data.steps import Source, StepRecord

REPLAY_TOPIC = "/replay"
_PROFILE: Any = qos_profile(depth=1000)


@functools.cache
def step_typestore() -> Typestore:
    """Jazzy's common messages and the installed rlif_msgs/Step. BagError if that is missing.

    Made once, since it compiles its (de)serialisers; nothing may be registered in it.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    try:
        add_installed(store, STEP_TYPE)
    except (ValueError, LookupError) as error:
        raise BagError(
            f"rlif_msgs is not on the path: source the workspace first ({error})"
        ) from error
    return store


def step_bytes(store: Typestore, record: StepRecord, stamp: int) -> bytes:
    """The Step of a record as CDR; `stamp` in ns. What a record does not hold stays empty."""
    types = store.types
    sec, nanosec = divmod(stamp, 1_000_000_000)
    time = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    header = types["std_msgs/msg/Header"](time, frame_id="")
    action, empty = np.asarray(record.action, np.float32), np.zeros(0, np.float32)
    refused = np.asarray(record.refused_action, np.float32)
    # Not as the message has them.
    own = ("state", "action", "images", "cameras", "stamp", "robot", "refused_action")
    message = types[STEP_TYPE](
        **{name: value for name, value in vars(record).items() if name not in own},
        header=header,
        tick=record.sequence,
        state=np.asarray(record.state, np.float32),
        camera_names=list(record.cameras),
        images=[_image(store, header, image) for image in record.images],
        policy_action=action if record.source == Source.POLICY else refused,
        operator_action=action if record.source == Source.OPERATOR else empty,
        executed_action=action,
        policy_version=0,
    )
    return bytes(store.serialize_cdr(message, STEP_TYPE))


def _image(store: Typestore, header: Any, image: np.ndarray) -> Any:
    height, width, channels = image.shape
    return store.types["sensor_msgs/msg/Image"](
        header=header,
        height=height,
        width=width,
        encoding="rgb8" if channels == 3 else "mono8",
        is_bigendian=0,
        step=width * channels,
        data=np.ascontiguousarray(image).reshape(-1),
    )


class StepWriter:
    """A new bag of Steps: `with StepWriter(path) as w: w.write(record, stamp)`.

    The bag appears under its name when it is complete; after an exception there is none.
    """

    def __init__(self, output: Path) -> None:
        refuse_existing(output)
        self._output, self._store, self.count = output, step_typestore(), 0
        self._stack = ExitStack()

    def __enter__(self) -> StepWriter:
        self._writer = self._stack.enter_context(new_bag(self._output))
        self._connection = self._writer.add_connection(
            REPLAY_TOPIC,
            STEP_TYPE,
            typestore=self._store,
            offered_qos_profiles=parse_qos([_PROFILE]),
        )
        return self

    def write(self, record: StepRecord, stamp: int) -> None:
        """Append one Step, observed and logged at `stamp` (ns)."""
        data = step_bytes(self._store, record, stamp)
        self._writer.write(self._connection, stamp, data)
        self.count += 1

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
