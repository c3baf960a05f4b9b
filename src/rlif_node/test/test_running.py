"""What a node that cannot be made says, and with what it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.ros

SCRIPT = """
import sys
from rclpy.node import Node
from rlif_node.running import run
from std_msgs.msg import String

class Camera(Node):
    def __init__(self):
        super().__init__("camera")
        {body}

sys.exit(run("camera", Camera))
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('self.create_subscription(String, "wrist-left/image", print, 1)', "wrist-left/image"),
        ('raise ValueError("cameras: found none")', "cameras: found none"),
        ('raise MemoryError("Unable to allocate 4 TiB")', "Unable to allocate 4 TiB"),
    ],
)
def test_a_node_that_is_told_nonsense_ends_with_a_line(body: str, words: str) -> None:
    """Regression: a traceback for a camera whose name makes no topic, or too large a buffer."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stdout
    assert "[FATAL]" in ended.stdout and words in ended.stdout
    assert "Traceback" not in ended.stdout
