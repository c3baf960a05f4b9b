# SPDX-License-Identifier: Apache-2.0
"""A thread around BagWriter: the caller is never kept waiting by a disk.

The queue is bounded; what does not fit is lost, counted and reported. An error, of the disk or any
other, stops the recording, and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from .bag_writer import BagError, BagWriter, Topic


@dataclass(frozen=True)
class BagStatus:
    """written, lost: messages; error: why recording stopped, empty: it did not."""

    written: int
    lost: int
    waiting: int
    bytes_written: int
    error: str


class LogClock:
    """The time of day in ns, read once and then counted by a steady clock.

    Set back while it records, the machine's clock would put the messages into another order: all
    readers sort by these times.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        steady: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._steady = steady
        self._offset = wall() - steady()

    def __call__(self) -> int:
        return self._offset + self._steady()


class BagRecorder:
    """`record` from any thread; `close` waits until all that was accepted is on disk.

    queue_mib: what may wait for the disk
    """

    def __init__(self, open_bag: Callable[[], BagWriter], queue_mib: int = 256) -> None:
        if queue_mib < 1:
            raise ValueError(f"queue_mib: found {queue_mib}, expected at least 1")
        self._limit = queue_mib * 2**20
        self._bag = open_bag()
        self._queue: deque[tuple[Topic, int, bytes]] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._error = ""
        self._lost: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="bag", daemon=True)
        self._thread.start()

    def record(self, topic: Topic, time_ns: int, data: bytes) -> bool:
        """Queue one serialised message; False: it is lost."""
        with self._changed:
            if self._error or self._closing or self._waiting_bytes + len(data) > self._limit:
                self._lost[topic.name] += 1
                return False
            self._queue.append((topic, time_ns, data))
            self._waiting_bytes += len(data)
        return True

    def status(self) -> BagStatus:
        with self._changed:
            return BagStatus(
                self._bag.message_count,
                sum(self._lost.values()),
                len(self._queue),
                self._bag.bytes_written,
                self._error,
            )

    def lost(self) -> dict[str, int]:
        """Messages lost, by topic."""
        with self._changed:
            return dict(self._lost)

    def close(self, timeout: float = 30.0) -> BagStatus:
        """Write what waits, finish the bag. The status tells whether that worked."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._changed:
                self._error = self._error or f"the disk did not take the bag within {timeout} s"
        return self.status()

    def _run(self) -> None:
        try:
            while self._write_waiting():
                self._bag.flush_if_due()
        except Exception as error:  # noqa: BLE001 - no thread joins this one: it must report why it ends
            self._stop(error)
        try:
            self._bag.close()
        except Exception as error:  # noqa: BLE001 - as above; the caller of `close` reads the status
            self._stop(error)
            with self._changed:
                self._lost.update(self._bag.abandoned)

    def _write_waiting(self) -> bool:
        """Write all that is queued; False: it was the last."""
        with self._changed:
            # Not woken per message: one turn of this thread takes a batch of them.
            self._changed.wait_for(lambda: self._closing, timeout=0.1)
            batch, self._queue = self._queue, deque()
            self._waiting_bytes = 0
            closing = self._closing
        for index, (topic, time_ns, data) in enumerate(batch):
            try:
                self._bag.add_topic(topic)
                self._bag.write(topic.name, time_ns, data)
            except Exception:
                with self._changed:
                    self._lost.update(item[0].name for item in list(batch)[index:])
                raise
        return not closing

    def _stop(self, error: Exception) -> None:
        """Keep the first error; what still waits is lost."""
        expected = isinstance(error, (OSError, BagError))  # their text is enough
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        with self._changed:
            self._error = self._error or f"recording stopped: {reason}"
            self._lost.update(item[0].name for item in self._queue)
            self._queue.clear()
            self._waiting_bytes = 0
