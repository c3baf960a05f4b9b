# SPDX-License-Identifier: Apache-2.0
"""Runs as a LeRobot dataset, format v3.0, written with pyarrow and PyAV: LeRobot is not needed.

    meta/info.json, stats.json, tasks.parquet, episodes/chunk-…/file-….parquet
    data/chunk-…/file-….parquet              one row for each action, one row group per episode
    videos/observation.images.NAME/chunk-…/file-….mp4
    rlif/final.parquet                       the last image of each episode, as PNG

A run of T transitions is an episode of T frames: each has an action that was executed, as LeRobot's
policies expect. The observation after the last action is in `next.observation.state` of the last
row, and its images in rlif/final.parquet, which LeRobot ignores. docs/bags.md lists the columns.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from rlif_bags.formats.export import ExportReader, Run
from rlif_bags.formats.lerobot_stats import Stats, add_stats, image_stats, vector_stats
from rlif_bags.formats.video import VideoFormat, VideoWriter
from rlif_bags.optional import optional
from rlif_bags.reading.files import new_directory

VERSION = "v3.0"
CHUNK_FILES = 1000
DATA_MIB, VIDEO_MIB = 100, 200
_RATE_STEPS = 10  # of which the median gap is a rate
_OTHER_RATE = 0.05  # a rate that differs by this part is another one
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FINAL_PATH = "rlif/final.parquet"
PLACE = ("chunk_index", "file_index")
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
# Column of the dataset: column of a run, and its type. Vectors have the size of state or action.
SCALARS: Mapping[str, tuple[str, str]] = {
    "next.reward": ("rewards", "float32"),
    "next.done": ("dones", "bool"),
    "next.success": ("terminals", "bool"),
    "next.truncated": ("timeouts", "bool"),
    "next.outcome": ("outcomes", "int64"),
    "intervention": ("interventions", "bool"),
    "onset": ("onsets", "bool"),
    "source": ("sources", "int64"),
    "evaluation": ("evaluations", "bool"),
    "policy_action_known": ("policy_actions_known", "bool"),
    "operator_action_known": ("operator_actions_known", "bool"),
    "step_index": ("step_indices", "int64"),
    "stamp_ns": ("stamps", "int64"),
}
VECTORS: Mapping[str, str] = {
    STATE: "observations",
    ACTION: "actions",
    "next.observation.state": "next_observations",
    "policy_action": "policy_actions",
    "operator_action": "operator_actions",
}
ASKED = ("policy_actions", "operator_actions")
INDICES: Mapping[str, str] = {
    "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
    "task_index": "int64",
}  # fmt: skip


@dataclass(frozen=True)
class LeRobotConfig:
    """What is not in the bags.

    task: as text; fps: 0 takes the rate of the Steps; codec: of video.py; robot: its type
    """

    task: str = "unnamed task"
    fps: float = 0.0
    codec: str = "h264"
    robot: str = "unknown"

    def __post_init__(self) -> None:
        if not (self.fps >= 0.0 and np.isfinite(self.fps)):
            raise ValueError(f"fps: found {self.fps}, expected above 0, or 0 for the recorded rate")


def write_lerobot(reader: ExportReader, output: Path, config: LeRobotConfig | None = None) -> None:
    """The runs of `reader` as a dataset at `output`, complete or not at all. BagError names why.

    Holds one episode in memory at a time.
    """
    config = config or LeRobotConfig()
    optional("pyarrow.parquet")
    with new_directory(output) as partial, ExitStack() as stack:
        runs = iter(reader)
        first: list[Run] = []  # up to one that is long enough: few Steps have no stable rate
        for run in runs:
            first.append(run)
            if len(run) >= _RATE_STEPS:
                break
        rate = config.fps or rate_of(max(first, key=len))
        fps = _whole(rate, reader.notes)
        writer = stack.enter_context(closing(_Dataset(partial, config, fps, first[0])))
        checked: set[Path] = set()  # bags
        for run in chain(first, runs):
            if not config.fps and run.bag not in checked and len(run) >= _RATE_STEPS:
                checked.add(run.bag)
                _refuse_other_rate(run, rate)
            writer.add(run)
        writer.finish()


def rate_of(run: Run) -> float:
    """Hz. ValueError where the stamps of its Steps have none."""
    gaps = np.diff([step.stamp for step in run.steps])
    if not (gaps > 0).all():
        raise ValueError(
            f"{run.bag}: the stamps of its Steps do not grow; give the rate with --fps"
        )
    return 1e9 / float(np.median(gaps))


def _whole(rate: float, notes: list[str]) -> int:
    """Frames a second, as LeRobot has it."""
    whole = max(1, round(rate))
    if abs(whole - rate) > _OTHER_RATE * whole:
        notes.append(f"Steps came at {rate:.2f} Hz; LeRobot's fps is a whole number, {whole}")
    return whole


def _refuse_other_rate(run: Run, expected: float) -> None:
    """A dataset has one rate."""
    rate = rate_of(run)
    if abs(rate - expected) > _OTHER_RATE * expected:
        raise ValueError(
            f"{run.bag}: its Steps came at {rate:.2f} Hz, those before at {expected:.2f}; a dataset "
            "has one fps: export it apart, or give one for all with --fps"
        )


class _Files:
    """Files of one kind, one after another, by the rule that none is to exceed a size."""

    def __init__(self, root: Path, pattern: str, mib: float, key: str = "") -> None:
        self.key = key  # of a camera
        self._root, self._pattern, self._limit = root, pattern, mib * 2**20
        self._number = 0
        self.writer: Any = None
        self.size = 0  # bytes written so far, about

    def place(self) -> dict[str, int]:
        """Chunk and file into which the next episode goes."""
        if self.writer is not None and self.size >= self._limit:
            self.close()
            self._number += 1
        return dict(zip(PLACE, divmod(self._number, CHUNK_FILES), strict=True))

    def _open(self, make_writer: Callable[[Path], Any]) -> dict[str, int]:
        place = self.place()
        if self.writer is None:
            path = self._root / self._pattern.format(video_key=self.key, **place)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writer, self.size = make_writer(path), 0
        return place

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer = None

    def add_rows(self, table: Any) -> dict[str, int]:
        """Append a pyarrow table, as a row group of its own."""
        parquet = optional("pyarrow.parquet")
        place = self._open(lambda path: parquet.ParquetWriter(path, table.schema))
        self.writer.write_table(table)
        self.size += table.nbytes
        return place

    def add_video(self, images: Sequence[np.ndarray], form: VideoFormat) -> dict[str, Any]:
        """Append the frames of an episode; returns its metadata."""
        place = self._open(lambda path: VideoWriter(path, form))
        first = self.writer.count
        for image in images:
            self.writer.write(image)
        self.size = self.writer.path.stat().st_size
        times = (float(number / form.fps) for number in (first, self.writer.count))
        found = {**place, **dict(zip(("from_timestamp", "to_timestamp"), times, strict=True))}
        return {f"videos/{self.key}/{name}": value for name, value in found.items()}


class _Dataset:
    """A dataset that grows by episodes."""

    def __init__(self, root: Path, config: LeRobotConfig, fps: int, run: Run) -> None:
        self.root, self.config, self.fps = root, config, fps
        self.episodes = self.frames = 0
        self.stats: dict[str, Stats] = {}
        shapes = [image.shape for image in run.steps[0].images]
        self.forms = {
            IMAGES + name: VideoFormat(Fraction(fps), height, width, channels, config.codec)
            for name, (height, width, channels) in zip(run.cameras, shapes, strict=True)
        }
        self.features = _features(run, self.forms, fps)
        self.data = _Files(root, DATA_PATH, DATA_MIB)
        self.meta = _Files(root, EPISODES_PATH, DATA_MIB)
        self.final = _Files(root, FINAL_PATH, math.inf)
        self.videos = [_Files(root, VIDEO_PATH, VIDEO_MIB, key) for key in self.forms]

    def close(self) -> None:
        for files in (self.data, self.meta, self.final, *self.videos):
            files.close()

    def add(self, run: Run) -> None:
        arrow, count, columns = optional("pyarrow"), len(run), self._columns(run)
        place = self.data.add_rows(arrow.table({k: _column(v) for k, v in columns.items()}))
        episode: dict[str, Any] = {
            "episode_index": self.episodes, "tasks": [self.config.task], "length": count,
            **{f"data/{name}": number for name, number in place.items()},
            "dataset_from_index": self.frames, "dataset_to_index": self.frames + count,
        }  # fmt: skip
        stats = {key: vector_stats(values) for key, values in columns.items()}
        for camera, videos in enumerate(self.videos):
            *images, last = run.images(camera)
            episode |= videos.add_video(images, self.forms[videos.key])
            stats[videos.key] = image_stats(images)
            final = {"episode_index": self.episodes, "key": videos.key, "png": _png(last)}
            self.final.add_rows(arrow.Table.from_pylist([final]))
        for key, values in stats.items():
            for name, value in values.items():
                episode[f"stats/{key}/{name}"] = value.tolist()
        episode |= {f"meta/episodes/{name}": at for name, at in self.meta.place().items()}
        self.meta.add_rows(arrow.Table.from_pylist([episode]))
        add_stats(self.stats, stats)
        self.episodes, self.frames = self.episodes + 1, self.frames + count

    def _columns(self, run: Run) -> dict[str, np.ndarray]:
        count, found = len(run), run.columns()
        frame = np.arange(count)
        found |= {"dones": frame == count - 1}
        for name in ASKED:  # NaN becomes null when LeRobot merges datasets, and cannot be read then
            known = ~np.isnan(found[name]).any(axis=1)
            found |= {name: np.nan_to_num(found[name]), f"{name}_known": known}
        columns = {key: found[name].astype(np.float32) for key, name in VECTORS.items()}
        columns |= {key: found[name].astype(kind) for key, (name, kind) in SCALARS.items()}
        values: Sequence[Any] = (frame / self.fps, frame, self.episodes, self.frames + frame, 0)
        for (name, kind), value in zip(INDICES.items(), values, strict=True):
            columns[name] = np.broadcast_to(value, count).astype(kind)
        return columns

    def finish(self) -> None:
        """What is known only at the end."""
        _write_tasks(self.root / "meta/tasks.parquet", [self.config.task])
        info = {
            "codebase_version": VERSION, "robot_type": self.config.robot,
            "total_episodes": self.episodes, "total_frames": self.frames, "total_tasks": 1,
            "chunks_size": CHUNK_FILES, "data_files_size_in_mb": DATA_MIB,
            "video_files_size_in_mb": VIDEO_MIB, "fps": self.fps,
            "splits": {"train": f"0:{self.episodes}"}, "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.videos else None, "features": self.features,
        }  # fmt: skip
        for name, content in (("info", info), ("stats", self.stats)):
            text = json.dumps(content, indent=4, default=np.ndarray.tolist)
            (self.root / f"meta/{name}.json").write_text(text, encoding="utf-8")


def _features(run: Run, forms: Mapping[str, VideoFormat], fps: int) -> dict[str, Any]:
    """The `features` of info.json."""
    found: dict[str, Any] = {}
    step = run.steps[0]
    for key, name in VECTORS.items():
        size = len(step.state if name.endswith("observations") else step.action)
        names = [f"{key.rpartition('.')[2]}_{i}" for i in range(size)]
        found[key] = {"dtype": "float32", "shape": [size], "names": names}
    for key, form in forms.items():
        found[key] = {
            "dtype": "video",
            "shape": [form.height, form.width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": form.height, "video.width": form.width, "video.codec": "h264",
                "video.pix_fmt": "gbrp" if form.codec == "lossless" else form.pixels,
                "video.is_depth_map": False, "video.fps": fps, "video.channels": 3,
                "has_audio": False, "rlif.channels": form.channels,
            },
        }  # fmt: skip
    scalars = {key: kind for key, (_, kind) in SCALARS.items()} | dict(INDICES)
    for key, kind in scalars.items():
        found[key] = {"dtype": kind, "shape": [1], "names": None}
    return found


def _column(values: np.ndarray) -> Any:
    """Of a data file: rows of one entry are plain values, others are lists of fixed size."""
    arrow, flat = optional("pyarrow"), values.reshape(-1)
    if len(flat) == len(values):
        return arrow.array(flat)
    return arrow.FixedSizeListArray.from_arrays(arrow.array(flat), values.shape[1])


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """uint8 [height, width, 1 or 3] of the file of an image."""
    image = PillowImage.open(io.BytesIO(data))
    return np.atleast_3d(np.asarray(image if image.mode == "L" else image.convert("RGB")))


def _write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """As pandas writes a frame whose index is the task: LeRobot reads it with pandas."""
    arrow, parquet = optional("pyarrow"), optional("pyarrow.parquet")

    def about(name: str, kind: str, stored: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": stored,
                "metadata": None}  # fmt: skip

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [about("task_index", "int64", "int64"), about("task", "unicode", "object")],
    }
    fields = [("task_index", arrow.int64()), ("task", arrow.string())]
    schema = arrow.schema(fields, metadata={"pandas": json.dumps(pandas)})
    columns = {"task_index": list(range(len(tasks))), "task": list(tasks)}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns, schema=schema), path)


def final_images(root: Path) -> Iterator[tuple[int, str, np.ndarray]]:
    """Episode, key and image of rlif/final.parquet, in order; nothing where there is none."""
    path = root / FINAL_PATH
    if not path.exists():
        return
    with optional("pyarrow.parquet").ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=16):
            for row in batch.to_pylist():
                yield row["episode_index"], row["key"], decoded(row["png"])
