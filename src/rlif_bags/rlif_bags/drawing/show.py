# SPDX-License-Identifier: Apache-2.0
"""Episodes of a bag to look at: frames, control sources, labels and outcome."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from rlif_bags.drawing.colours import NEGATIVE, SOURCE_COLOURS
from rlif_bags.reading.info import missing_in
from rlif_bags.relabelling.relabel import Scheme
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome, Source, StepRecord

_PAGE = 50  # episodes in a picture
_WIDTH, _LEGEND = 11.0, 0.4  # inches
_HEIGHTS = {"frames": 1.4, "time": 0.7}
_FRAME_PIXELS = 128  # in the page; larger ones are made smaller


@dataclass(frozen=True)
class EpisodeView:
    """What is drawn of one episode. frames: uint8 [height, width, 3] each, evenly over it."""

    id: int
    outcome: Outcome
    evaluation: bool
    sources: tuple[Source, ...]
    negative: tuple[int, ...]  # indices of steps labelled below 0
    interventions: int
    missing: int
    frames: tuple[np.ndarray, ...]

    @property
    def caption(self) -> str:
        operator = sum(s == Source.OPERATOR for s in self.sources)
        parts = [
            f"episode {self.id}",
            self.outcome.name.lower() if self.outcome else "no end recorded",
            f"{len(self.sources)} steps",
            f"{self.interventions} interventions",
            f"{100 * operator / max(1, len(self.sources)):.0f} % operator",
        ]
        parts += ["evaluation"] * self.evaluation
        parts += [f"{self.missing} steps missing"] * bool(self.missing)
        return ", ".join(parts)


def view_of(
    steps: Sequence[StepRecord], scheme: Scheme = label_rewards, frames: int = 8, camera: int = 0
) -> EpisodeView:
    """The view of one episode. ValueError for a camera that is not in the Steps."""
    with_action = [s for s in steps if not s.is_last]
    rewards = np.asarray(scheme(steps)[0])
    count = max(len(s.images) for s in steps)
    if count and not 0 <= camera < count:
        raise ValueError(f"camera: found {camera}, expected one of {list(range(count))}")
    seen = [s.images[camera] for s in steps if len(s.images) > camera]
    chosen = np.unique(np.linspace(0, len(seen) - 1, frames).round().astype(int)) if seen else ()
    return EpisodeView(
        id=steps[0].episode_id,
        outcome=Outcome(steps[-1].outcome),
        evaluation=steps[0].evaluation,
        sources=tuple(Source(s.source) for s in with_action),
        negative=tuple(np.flatnonzero(rewards < 0.0).tolist()),
        interventions=sum(s.onset for s in steps),
        missing=missing_in(steps),
        frames=tuple(np.broadcast_to(seen[i], (*seen[i].shape[:2], 3)) for i in chosen),
    )


def draw_pngs(shown: Sequence[EpisodeView], path: Path) -> list[Path]:
    """Images of at most _PAGE episodes each: `path`, or its name with numbers."""
    parts = [shown[i : i + _PAGE] for i in range(0, len(shown), _PAGE)]
    paths = [path] if len(parts) == 1 else [
        path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, len(parts) + 1)
    ]  # fmt: skip
    pattern = re.compile(re.escape(path.stem) + r"-\d+" + re.escape(path.suffix))
    for old in path.parent.iterdir():  # of an earlier call, that showed other episodes
        if old == path or pattern.fullmatch(old.name):
            old.unlink()
    for part, target in zip(parts, paths, strict=True):
        draw_png(part, target)
    return paths


def draw_png(shown: Sequence[EpisodeView], path: Path) -> None:
    """One row of frames (where there are any) and one timeline per episode."""
    rows = [(view, kind) for view in shown for kind in ("frames", "time")
            if kind == "time" or view.frames]  # fmt: skip
    height = sum(_HEIGHTS[kind] for _, kind in rows) + _LEGEND
    figure = Figure(figsize=(_WIDTH, height))
    longest = max(len(view.sources) for view in shown)
    top = height
    for view, kind in rows:  # placed by hand: a layout engine takes minutes for many
        top -= _HEIGHTS[kind]
        # Below the title of a timeline, and a little apart from the next row.
        part = _HEIGHTS[kind] - (0.2 if kind == "time" else 0.12)
        axis = figure.add_axes((0.01, top / height, 0.98, part / height))
        axis.set_axis_off()
        if kind == "frames":
            axis.imshow(np.concatenate(view.frames, axis=1))
            continue
        axis.set(xlim=(0, longest), ylim=(0, 1.6))
        axis.set_title(view.caption, fontsize=8, loc="left", pad=1)
        colours = [SOURCE_COLOURS[source] for source in view.sources]
        axis.bar(range(len(colours)), 1.0, width=1.0, align="edge", color=colours, linewidth=0)
        at = [index + 0.5 for index in view.negative]
        axis.plot(at, [1.25] * len(at), "v", color=NEGATIVE, markersize=5)
    keys = [Patch(color=c, label=s.name.lower()) for s, c in SOURCE_COLOURS.items()]
    keys.append(Patch(color=NEGATIVE, label="labelled below 0"))
    figure.legend(handles=keys, loc="lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def html_page(shown: Sequence[EpisodeView], title: str) -> str:
    """A page that holds all it shows: no script, nothing from elsewhere."""
    keys = [(source.name.lower(), colour) for source, colour in SOURCE_COLOURS.items()]
    keys.append(("labelled below 0", NEGATIVE))
    legend = " ".join(f'<span style="color:{c}">■</span> {name}' for name, c in keys)
    style = (
        "body{font:14px sans-serif;margin:1.5em;max-width:1100px}"
        "h2{font-size:14px;margin:1.4em 0 .3em}.f{display:flex;gap:2px}.f img{min-width:0;flex:1}"
        "svg{width:100%;height:26px;display:block}"
    )
    body = "\n".join(_section(view) for view in shown)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1><p>{legend}</p>\n{body}\n</body></html>\n"
    )


def _section(view: EpisodeView) -> str:
    images = "".join(
        f'<img src="data:image/jpeg;base64,{_jpeg(frame)}" alt="frame {i + 1}">'
        for i, frame in enumerate(view.frames)
    )
    strip = f'<div class="f">{images}</div>' if images else ""
    return f"<h2>{html.escape(view.caption)}</h2>{strip}{_timeline(view)}"


def _timeline(view: EpisodeView) -> str:
    """Steps in a row of the same control source as one rectangle each; labels as triangles above."""
    count = max(1, len(view.sources))
    parts, start = [], 0
    for source, group in groupby(view.sources):
        stop = start + len(list(group))
        parts.append(
            f'<rect x="{start}" y="8" width="{stop - start}" height="18" '
            f'fill="{SOURCE_COLOURS[source]}">'
            f"<title>steps {start} to {stop - 1}: {source.name.lower()}</title></rect>"
        )
        start = stop
    parts += [
        f'<path d="M{i} 0h1l-.5 7z" fill="{NEGATIVE}"><title>step {i}</title></path>'
        for i in view.negative
    ]
    return (
        f'<svg viewBox="0 0 {count} 26" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(view.caption)}">{"".join(parts)}</svg>'
    )


def _jpeg(frame: np.ndarray) -> str:
    picture = Image.fromarray(np.ascontiguousarray(frame))
    picture.thumbnail((_FRAME_PIXELS, _FRAME_PIXELS))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return base64.b64encode(stream.getvalue()).decode()
