# SPDX-License-Identifier: Apache-2.0
"""Draws docs/pictures/graph.png, the graph of README:  python docs/draw_graph.py"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

OUTSIDE, NODE, SAFE, LEARN = "#e8eaed", "#d7e8fb", "#fbe0d7", "#dff3dc"
# name: (x, y, width, height, colour, lines)
BOXES = {
    "robot": (0.2, 2.6, 2.2, 1.7, OUTSIDE, ["your robot,", "your cameras", "(or rlif_sim)"]),
    "operator": (0.2, 0.2, 2.2, 1.2, OUTSIDE, ["joystick, 3D mouse", "(or rlif_sim)"]),
    "observer": (3.9, 3.3, 1.7, 1.0, NODE, ["observer"]),
    "policy": (7.2, 3.3, 1.7, 1.0, NODE, ["policy"]),
    "arbiter": (7.2, 0.4, 1.7, 1.2, SAFE, ["arbiter", "table, limits"]),
    "episode": (3.9, 0.2, 1.7, 0.9, NODE, ["episode"]),
    "recorder": (10.4, 1.7, 1.7, 1.0, NODE, ["recorder"]),
    "learner": (10.4, 3.3, 1.7, 1.0, LEARN, ["learner", "RLPD"]),
    "bag": (10.4, 0.2, 1.7, 0.8, OUTSIDE, ["MCAP bag"]),
    "servo": (3.9, 1.55, 1.7, 0.95, OUTSIDE, ["MoveIt Servo", "or a controller"]),
}
# from, to, label, place of the label
ARROWS = [
    ((2.4, 3.8), (3.9, 3.8), "joints, pose,\nwrench, images", (3.15, 4.02)),
    ((5.6, 3.8), (7.2, 3.8), "observation", (6.4, 3.92)),
    ((8.05, 3.3), (8.05, 1.6), "policy_action", (8.72, 2.3)),
    ((2.4, 1.25), (7.2, 1.25), "joy", (2.95, 1.33)),
    ((7.2, 1.5), (5.6, 2.0), "command", (6.5, 1.98)),
    ((3.9, 2.1), (2.4, 2.9), "", (0, 0)),
    ((5.6, 0.65), (7.2, 0.65), "episode", (6.4, 0.73)),
    ((8.9, 1.2), (10.4, 2.0), "decision,\nintervention", (9.35, 1.95)),
    ((5.6, 3.5), (10.4, 2.4), "observation", (7.1, 3.02)),
    ((11.25, 2.7), (11.25, 3.3), "replay", (11.65, 2.95)),
    ((11.25, 1.7), (11.25, 1.0), "", (0, 0)),
    ((10.4, 3.95), (8.9, 3.95), "weights", (9.65, 4.05)),
]


def draw(axes: Axes) -> None:
    """The boxes, then the arrows over them."""
    for x, y, width, height, colour, lines in BOXES.values():
        axes.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.12",
                facecolor=colour,
                edgecolor="#56606b",
                linewidth=1.2,
            )  # fmt: skip
        )
        axes.text(
            x + width / 2, y + height / 2, "\n".join(lines), ha="center", va="center", fontsize=11
        )
    for start, end, label, place in ARROWS:
        axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": "#333a42", "linewidth": 1.3}
        )
        if label:
            axes.text(
                *place, label, ha="center", va="bottom", fontsize=9, color="#333a42",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
    axes.set_xlim(0, 12.4)
    axes.set_ylim(0, 4.6)
    axes.set_aspect("equal")
    axes.axis("off")


if __name__ == "__main__":
    figure, axes = plt.subplots(figsize=(12.4, 4.6))
    draw(axes)
    figure.savefig(Path(__file__).parent / "pictures" / "graph.png", dpi=110, bbox_inches="tight")
