# SPDX-License-Identifier: Apache-2.0
"""Passes logs and warnings of libraries to the log of the node that uses them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.logging import get_logger


class _NodeLog(logging.Handler):
    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        # A line for each: rclpy ties a level to the line that it is called from.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


@contextmanager
def logs_shown(node: str, *names: str) -> Iterator[None]:
    """Within it, logs of the Python loggers of these names from INFO on, and all warnings, go to the
    log of `node`."""
    handler, loggers = _NodeLog(get_logger(node)), [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    warned = logging.getLogger("py.warnings")
    logging.captureWarnings(True)
    for logger in (*loggers, warned):
        logger.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger in (*loggers, warned):
            logger.removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
