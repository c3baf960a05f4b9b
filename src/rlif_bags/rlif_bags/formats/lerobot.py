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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from rlif_bags.formats.export import ExportReader, Run
from rlif_bags.formats.lerobot_stats import RunningStats, image_stats, vector_stats
from rlif_bags.formats.video import VideoFormat, VideoWriter
from rlif_bags.optional import optional
from rlif_bags.reading.files import BagError, new_directory

VERSION = "v3.0"
CHUNK_FILES = 1000
DATA_MIB, VIDEO_MIB = 100, 200
_RATE_STEPS = 10  # of which the median gap is a rate
_OTHER_RATE = 0.05  # a rate that differs by this part is another one
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FINAL_PATH = "rlif/final.parquet"
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
    """What the bags do not say.

    task: in words; fps: 0 takes the rate of the Steps; codec: of video.py; robot: its type
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
        first = _until_a_rate_is_known(runs)
        if not first:
            raise BagError("there is no transition to export: " + "; ".join(reader.lines()))
        rate = config.fps or rate_of(first)
        writer = stack.enter_context(
            _Dataset(partial, config, _whole(rate, reader.notes), first[0])
        )
        checked: set[Path] = set()  # bags
        for run in chain(first, runs):
            if not config.fps and run.bag not in checked and len(run) >= _RATE_STEPS:
                checked.add(run.bag)
                _refuse_other_rate(run, rate)
            writer.add(run)
        writer.finish()


def _until_a_rate_is_known(runs: Iterator[Run]) -> list[Run]:
    """The first runs, up to one that is long enough: the gaps of few Steps tremble."""
    found: list[Run] = []
    for run in runs:
        found.append(run)
        if len(run) >= _RATE_STEPS:
            break
    return found


def rate_of(runs: Sequence[Run]) -> float:
    """Hz, by the longest of these runs. ValueError where its stamps tell none."""
    run = max(runs, key=len)
    gaps = np.diff([frame.stamp for frame in run.frames])
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
    rate = rate_of([run])
    if abs(rate - expected) > _OTHER_RATE * expected:
        raise ValueError(
            f"{run.bag}: its Steps came at {rate:.2f} Hz, those before at {expected:.2f}; a dataset "
            "has one fps: export it apart, or give one for all with --fps"
        )


@dataclass
class _Files:
    """Which file of a kind is written, by the rule that a file is not to exceed a size."""

    limit: int
    chunk: int = 0
    file: int = 0

    def next(self) -> None:
        self.file += 1
        if self.file == CHUNK_FILES:
            self.chunk, self.file = self.chunk + 1, 0


@dataclass
class _Table:
    """Parquet files of one schema, a row group for each `write`."""

    root: Path
    pattern: str
    schema: Any
    files: _Files = field(default_factory=lambda: _Files(DATA_MIB << 20))
    writer: Any = None
    size: int = 0

    def write(self, columns: Mapping[str, Sequence[Any] | Any]) -> None:
        """Append these columns; `place()` was where they go."""
        arrow, parquet = optional("pyarrow"), optional("pyarrow.parquet")
        table = arrow.table(dict(columns), schema=self.schema)
        if self.writer is None:
            chunk, file = self.place()
            path = self.root / self.pattern.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = parquet.ParquetWriter(path, self.schema, compression="snappy")
        self.writer.write_table(table)
        self.size += table.nbytes

    def place(self) -> tuple[int, int]:
        """Chunk and file of the next `write`."""
        if self.writer is not None and self.size >= self.files.limit:
            self.close()
            self.files.next()
        return self.files.chunk, self.files.file

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer, self.size = None, 0


@dataclass
class _Videos:
    """The mp4 files of one camera."""

    root: Path
    key: str
    form: VideoFormat
    files: _Files = field(default_factory=lambda: _Files(VIDEO_MIB << 20))
    writer: VideoWriter | None = None

    def add(self, images: Iterable[np.ndarray]) -> dict[str, Any]:
        """Append an episode; what the metadata say of it."""
        if self.writer is not None and self.writer.size() >= self.files.limit:
            self.close()
            self.files.next()
        chunk, file = self.files.chunk, self.files.file
        if self.writer is None:
            relative = VIDEO_PATH.format(video_key=self.key, chunk_index=chunk, file_index=file)
            self.writer = VideoWriter(self.root / relative, self.form)
        first = self.writer.count
        for image in images:
            self.writer.write(image)
        return {
            f"videos/{self.key}/chunk_index": chunk,
            f"videos/{self.key}/file_index": file,
            f"videos/{self.key}/from_timestamp": float(first / self.form.fps),
            f"videos/{self.key}/to_timestamp": float(self.writer.count / self.form.fps),
        }

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer = None


class _Dataset:
    """A dataset that grows by episodes."""

    def __init__(self, root: Path, config: LeRobotConfig, fps: int, run: Run) -> None:
        self.root, self.config, self.fps = root, config, fps
        self.episodes = self.frames = 0
        self.stats = RunningStats()
        sizes = {"observations": len(run.states[0]), "actions": len(run.driven[0].record.action)}
        sizes |= {"next_observations": sizes["observations"]}
        sizes |= dict.fromkeys(ASKED, sizes["actions"])
        self.videos = [
            _Videos(
                root,
                IMAGES + name,
                VideoFormat(Fraction(fps), height, width, channels, codec=config.codec),
            )  # fmt: skip
            for name, (height, width, channels) in zip(
                run.cameras, (image.shape for image in run.frames[0].record.images), strict=True
            )
        ]
        self.features = features(sizes, self.videos, fps)
        arrow = optional("pyarrow")
        self.data = _Table(root, DATA_PATH, data_schema(arrow, self.features))
        self.meta = _Table(root, EPISODES_PATH, episode_schema(arrow, self.features))
        fields = [
            ("episode_index", arrow.int64()),
            ("key", arrow.string()),
            ("png", arrow.binary()),
        ]
        self.final = _Table(root, FINAL_PATH, arrow.schema(fields))

    def __enter__(self) -> _Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        for table in (self.data, self.meta, self.final):
            table.close()
        for videos in self.videos:
            videos.close()

    def add(self, run: Run) -> None:
        count = len(run)
        columns = self._columns(run)
        chunk, file = self.data.place()
        episode: dict[str, Any] = {
            "episode_index": self.episodes, "tasks": [self.config.task], "length": count,
            "data/chunk_index": chunk, "data/file_index": file,
            "dataset_from_index": self.frames, "dataset_to_index": self.frames + count,
        }  # fmt: skip
        self.data.write({k: _arrow(v) for k, v in columns.items()})
        stats = {key: vector_stats(values) for key, values in columns.items()}
        for number, videos in enumerate(self.videos):
            images = run.images(number)
            episode.update(videos.add(images[:-1]))
            stats[videos.key] = image_stats(images[:-1])
            self.final.write(
                {"episode_index": [self.episodes], "key": [videos.key], "png": [_png(images[-1])]}
            )
        for key, values in stats.items():
            for name, value in values.items():
                episode[f"stats/{key}/{name}"] = value.tolist()
        meta_chunk, meta_file = self.meta.place()
        episode |= {"meta/episodes/chunk_index": meta_chunk, "meta/episodes/file_index": meta_file}
        self.meta.write({name: [value] for name, value in episode.items()})
        self.stats.add(stats)
        self.episodes, self.frames = self.episodes + 1, self.frames + count

    def _columns(self, run: Run) -> dict[str, np.ndarray]:
        count, found = len(run), run.columns()
        frame = np.arange(count)
        found |= {"observations": run.states[:-1], "next_observations": run.states[1:]}
        found |= {"dones": frame == count - 1}
        for name in ASKED:  # NaN becomes null when LeRobot merges datasets, and cannot be read then
            known = ~np.isnan(found[name]).any(axis=1)
            found |= {name: np.nan_to_num(found[name]), f"{name}_known": known}
        columns = {key: found[name] for key, name in VECTORS.items()}
        columns |= {key: found[name] for key, (name, _) in SCALARS.items()}
        return columns | {
            "timestamp": (frame / self.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(count, self.episodes),
            "index": self.frames + frame,
            "task_index": np.zeros(count, np.int64),
        }

    def finish(self) -> None:
        """What can be said only at the end."""
        _write_tasks(self.root / "meta/tasks.parquet", [self.config.task])
        info = {
            "codebase_version": VERSION, "robot_type": self.config.robot,
            "total_episodes": self.episodes, "total_frames": self.frames, "total_tasks": 1,
            "chunks_size": CHUNK_FILES, "data_files_size_in_mb": DATA_MIB,
            "video_files_size_in_mb": VIDEO_MIB, "fps": self.fps,
            "splits": {"train": f"0:{self.episodes}"}, "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.videos else None, "features": self.features,
        }  # fmt: skip
        for name, content in (("info", info), ("stats", self.stats.result())):
            text = json.dumps(content, indent=4)
            (self.root / f"meta/{name}.json").write_text(text, encoding="utf-8")


def features(sizes: Mapping[str, int], videos: Sequence[_Videos], fps: int) -> dict[str, Any]:
    """The `features` of info.json."""
    found: dict[str, Any] = {}
    for key, name in VECTORS.items():
        size = sizes[name]
        names = [f"{key.rpartition('.')[2]}_{i}" for i in range(size)]
        found[key] = {"dtype": "float32", "shape": [size], "names": names}
    for videos_of in videos:
        form = videos_of.form
        found[videos_of.key] = {
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


def data_schema(arrow: Any, described: Mapping[str, Any]) -> Any:
    """Of the data files: a feature of one entry is a plain value, others are lists of fixed size."""
    kinds = {"float32": arrow.float32(), "int64": arrow.int64(), "bool": arrow.bool_()}
    fields = []
    for key, feature in described.items():
        if feature["dtype"] != "video":
            kind, size = kinds[feature["dtype"]], feature["shape"][0]
            fields.append((key, kind if size == 1 else arrow.list_(kind, size)))
    return arrow.schema(fields)


def episode_schema(arrow: Any, described: Mapping[str, Any]) -> Any:
    """Of the episodes' metadata."""
    whole = arrow.int64()
    fields = [("episode_index", whole), ("tasks", arrow.list_(arrow.string())), ("length", whole)]
    names = ["data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"]
    fields += [(name, whole) for name in names]
    kind = arrow.list_(arrow.float64())
    image_kind = arrow.list_(arrow.list_(kind))
    for key, feature in described.items():
        if feature["dtype"] == "video":
            fields += [(f"videos/{key}/{name}", whole) for name in ("chunk_index", "file_index")]
            for name in ("from_timestamp", "to_timestamp"):
                fields.append((f"videos/{key}/{name}", arrow.float64()))
    for key, feature in described.items():
        of_key = image_kind if feature["dtype"] == "video" else kind
        for name in RunningStats.NAMES:
            of_name = arrow.list_(whole) if name == "count" else of_key
            fields.append((f"stats/{key}/{name}", of_name))
    fields += [(f"meta/episodes/{name}", whole) for name in ("chunk_index", "file_index")]
    return arrow.schema(fields)


def _arrow(values: np.ndarray) -> Any:
    """A column: rows of one entry are plain values."""
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    return list(values) if values.ndim == 2 else values


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


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
                image = np.asarray(PillowImage.open(io.BytesIO(row["png"])))
                yield row["episode_index"], row["key"], np.atleast_3d(image)
