# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a power cut: complete or absent, checked by hash, exact on resume.

    <root>/checkpoints/000042/manifest.json      what it is, and the sha256 of every file of it
                             /manifest.sha256    of the manifest itself, for `sha256sum -c`
                             /state.safetensors  networks, optimisers, random state
    <root>/segments/online-….safetensors         rows of the buffers, each written once

Everything is written under another name, flushed to the disk and then renamed; the old is removed
only after the new is complete. A checkpoint writes the rows that are new since the last one, and
names all segments it needs. No file is executable in any sense: safetensors and JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.sampling import Buffers
from rlif_policy.checkpoint_files import (
    FORMAT,
    MANIFEST,
    MANIFEST_DIGEST,
    STATE,
    CheckpointError,
    DamagedError,
    MismatchError,
    numbered,
    read_checked,
    read_manifest,
    read_state,
)
from rlif_policy.networks import PolicySpec

SEGMENT_BYTES = 64 << 20  # rows are written in files of about this size


class Learner(Protocol):
    """What every algorithm offers to a checkpoint."""

    @property
    def spec(self) -> PolicySpec: ...
    @property
    def config(self) -> Any: ...
    def state_tensors(self) -> dict[str, torch.Tensor]: ...
    def state_values(self) -> dict[str, Any]: ...
    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None: ...


class CheckpointStore:
    """The checkpoints of one run. Keeps the newest `keep_last` and the one of the best score.

    What it finds in the directory is another run's, and is never removed, until it loads one of
    them: that makes all of them its own.
    """

    def __init__(self, root: Path | str, keep_last: int = 3) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last: found {keep_last}, expected at least 1")
        self.root, self.keep_last = Path(root), keep_last
        self.checkpoints, self.segments = self.root / "checkpoints", self.root / "segments"
        for directory in (self.checkpoints, self.segments):
            directory.mkdir(parents=True, exist_ok=True)
        # Segments of each buffer by this store, oldest first; what is newer, the buffer knows.
        self._written: WeakKeyDictionary[ReplayBuffer, list[dict[str, Any]]] = WeakKeyDictionary()
        self._own: set[Path] = set()  # checkpoints of this run: those that may be removed

    def paths(self) -> list[Path]:
        """All complete checkpoints, oldest first."""
        return numbered(self.checkpoints)

    def save(
        self,
        learner: Learner,
        buffers: Buffers,
        score: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint; when this returns, it is on the disk. Then remove what is too old.

        `score`: how good the policy is, the higher the better; None: not known. `extra`: more
        counters, as JSON holds them. The learner must not update meanwhile; steps may be added.
        ValueError for a score that is not finite.
        """
        if score is not None and not math.isfinite(score):
            raise ValueError(
                f"score: found {score}, expected a finite number, or None for no score"
            )
        manifest = {
            "format": FORMAT,
            "algorithm": type(learner).__name__,
            "spec": json.loads(learner.spec.to_json()),
            "config": learner.config.to_mapping(),
            "values": learner.state_values(),
            "score": None if score is None else float(score),
            "extra": extra or {},
            "buffers": {
                name: self._save_buffer(name, buffer) for name, buffer in _named(buffers).items()
            },
        }
        path = self._write_checkpoint(manifest, learner.state_tensors())
        self._own.add(path)
        self._prune()
        return path

    def _write_checkpoint(self, manifest: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
        number = max([int(path.name) for path in self.paths()], default=0) + 1
        path = self.checkpoints / f"{number:06d}"
        partial = self.checkpoints / f".partial-{path.name}"
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed while writing
        partial.mkdir()
        state = safetensors.torch.save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        )
        _write(partial / STATE, state)
        manifest = {**manifest, "state_sha256": hashlib.sha256(state).hexdigest()}
        text = json.dumps(manifest, indent=1).encode()
        _write(partial / MANIFEST, text)
        digest = hashlib.sha256(text).hexdigest()
        _write(partial / MANIFEST_DIGEST, f"{digest}  {MANIFEST}\n".encode())
        _sync_directory(partial)
        os.rename(partial, path)  # noqa: PTH104 - the rename is what makes it exist
        _sync_directory(self.checkpoints)
        return path

    def manifest(self, path: Path) -> dict[str, Any]:
        """What the checkpoint says of itself, found as it was written; its other files are not read.

        DamagedError names the file and offers the last good checkpoint; MismatchError if it is of
        another format.
        """
        try:
            return _read_complete_manifest(path)
        except DamagedError as error:
            raise self._with_offer(error) from error

    def verify(self, path: Path) -> dict[str, Any]:
        """The manifest, after every file of the checkpoint was read and found as it was written.

        DamagedError names the file.
        """
        manifest = _read_complete_manifest(path)
        read_checked(path / STATE, manifest["state_sha256"])
        self._check_segments(manifest)
        return manifest

    def _check_segments(self, manifest: dict[str, Any]) -> None:
        for buffer in manifest["buffers"].values():
            for segment in buffer["segments"]:
                read_checked(self.segments / segment["file"], segment["sha256"])

    def last_good(self) -> Path | None:
        """The newest checkpoint that is intact and of this format; None if there is none."""
        for path in reversed(self.paths()):
            try:
                self.verify(path)
            except CheckpointError:
                continue
            return path
        return None

    def _with_offer(self, error: DamagedError) -> DamagedError:
        return DamagedError(f"{error}. The last good checkpoint: {self.last_good() or 'none'}")

    def best(self) -> Path | None:
        """The checkpoint of the highest score; None if none has one."""
        return self._best(self.paths())

    def _best(self, paths: list[Path]) -> Path | None:
        scored = []
        for path in paths:
            try:
                score = _read_complete_manifest(path)["score"]
            except CheckpointError:
                continue
            if score is not None:
                scored.append((score, path))
        return max(scored)[1] if scored else None

    def load(self, path: Path, learner: Learner, buffers: Buffers) -> dict[str, Any]:
        """Put `learner` and `buffers` into the state of the checkpoint; returns its `extra`.

        DamagedError names the file and offers the last good checkpoint; MismatchError names each
        difference. In both cases nothing was changed.
        """
        named = _named(buffers)
        try:
            manifest, tensors = read_state(path)
            _check_complete(path, manifest)
            differences = _differences(manifest, learner, buffers)
            if differences:
                raise MismatchError(f"{path} is of something else: " + "; ".join(differences))
            if any(buffer.total for buffer in named.values()):
                self._check_segments(manifest)  # before what they hold is overwritten
            self._restore_buffers(manifest["buffers"], named)
        except DamagedError as error:
            raise self._with_offer(error) from error
        learner.load_state(tensors, manifest["values"])
        self._own.update(self.paths())
        return manifest["extra"]

    def _restore_buffers(
        self, described: dict[str, dict[str, Any]], named: dict[str, ReplayBuffer]
    ) -> None:
        """Each segment is read once, checked, and put in. Empty buffers are empty after an error."""
        empty = {name: buffer.state() for name, buffer in named.items() if not buffer.total}
        try:
            for name, buffer in named.items():
                segments = described[name]["segments"]
                buffer.restore(described[name]["state"], self._read_segments(segments))
                self._written[buffer] = list(segments)
                buffer.mark_saved(self, buffer.total)
        except DamagedError:
            for name, state in empty.items():
                named[name].restore(state, ())
            raise

    def _save_buffer(self, name: str, buffer: ReplayBuffer) -> dict[str, Any]:
        """Write the rows that this store has not written yet, and describe the buffer.

        Rows are copied, part by part, while nothing is added, and written while the buffer goes
        on. What is saved is the moment when no row is left to write.
        """
        segments = self._written.setdefault(buffer, [])
        if any(not (self.segments / s["file"]).is_file() for s in segments):
            with buffer.unchanging():
                buffer.mark_saved(self, 0)  # another store has removed some: write all anew
        while True:
            with buffer.unchanging():
                oldest, steps = max(0, buffer.total - buffer.capacity), _next_part(buffer, self)
                if steps.start <= oldest:
                    segments.clear()  # of this buffer's past, or of before it was restored
                if not steps:
                    segments[:] = [s for s in segments if s["stop"] > oldest]
                    return {"state": buffer.state(), "segments": list(segments)}
                rows = buffer.read_rows(steps)
                buffer.mark_saved(self, steps.stop)
            try:
                segment = self._write_segment(name, steps, rows)
            except BaseException:
                with buffer.unchanging():
                    first = buffer.changed_steps(self).start
                    buffer.mark_saved(self, min(first, steps.start))
                raise
            segments[:] = [*(s for s in segments if s["start"] < steps.start), segment]

    def _write_segment(
        self, name: str, steps: range, rows: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        data = safetensors.numpy.save(rows)
        digest = hashlib.sha256(data).hexdigest()
        # The hash in the name: never two contents under one, also after a resume.
        file = f"{name}-{steps.start:012d}-{steps.stop:012d}-{digest[:12]}.safetensors"
        _write_atomically(self.segments / file, data)
        return {"file": file, "start": steps.start, "stop": steps.stop, "sha256": digest}

    def _read_segments(
        self, segments: list[dict[str, Any]]
    ) -> Iterable[tuple[range, dict[str, np.ndarray]]]:
        for segment in segments:
            data = read_checked(self.segments / segment["file"], segment["sha256"])
            yield range(segment["start"], segment["stop"]), safetensors.numpy.load(data)

    def _prune(self) -> None:
        """Remove own checkpoints beyond those to keep, then segments that no checkpoint needs."""
        paths = [path for path in self.paths() if path in self._own]
        kept = {*paths[-self.keep_last :], self._best(paths)}
        for path in paths:
            if path not in kept:
                doomed = path.with_name(f".old-{path.name}")
                os.rename(path, doomed)  # noqa: PTH104 - gone at once, not file by file
        for leftover in self.checkpoints.glob(".old-*"):
            shutil.rmtree(leftover)
        needed: set[str] = set()
        for path in self.paths():
            try:
                manifest = _read_complete_manifest(path)
            except CheckpointError:
                return  # what that one needs cannot be known: remove nothing
            for buffer in manifest["buffers"].values():
                needed.update(segment["file"] for segment in buffer["segments"])
        for segment in self.segments.iterdir():
            if segment.name not in needed:
                segment.unlink()


def _named(buffers: Buffers) -> dict[str, ReplayBuffer]:
    named = {"online": buffers.online}
    if buffers.prior is not None:
        named["prior"] = buffers.prior
    return named


def _next_part(buffer: ReplayBuffer, store: CheckpointStore) -> range:
    """The first of the steps that `store` has not written, as many as fit a file."""
    row = sum(column[:1].nbytes for column in buffer.columns.values())
    return buffer.changed_steps(store)[: max(1, SEGMENT_BYTES // row)]


def _differences(manifest: dict[str, Any], learner: Learner, buffers: Buffers) -> list[str]:
    """Each setting in which the checkpoint and what it shall be loaded into differ."""
    pairs = [
        ("algorithm", manifest["algorithm"], type(learner).__name__),
        ("buffers", sorted(manifest["buffers"]), sorted(_named(buffers))),
    ]
    own = {"spec": json.loads(learner.spec.to_json()), "config": learner.config.to_mapping()}
    defaults = {"config": type(learner.config)().to_mapping()}  # new settings do nothing by default
    for part, expected in own.items():
        held = defaults.get(part, {}) | manifest[part]
        pairs += [(f"{part}.{k}", held.get(k), expected.get(k)) for k in sorted({*held, *expected})]
    for name, buffer in _named(buffers).items():
        found = manifest["buffers"].get(name, {"state": {}})["state"]
        wanted = buffer.state()
        sizes = ("capacity", "state_dim", "action_dim", "images")
        pairs += [(f"{name} buffer.{k}", found.get(k), wanted[k]) for k in sizes]
        if "robots" in found and not buffer.interleaved:
            several = sorted(name for name in found["robots"] if name)
            pairs.append((f"{name} buffer.robots", several, []))
        labels = {"failure_reward": 0.0, **found.get("labels", {})}
        pairs += [
            (f"{name} buffer.{k}", labels.get(k), wanted["labels"][k])
            for k in ("scheme", "failure_reward")
        ]
    return [
        f"{name} is {found!r}, expected {want!r}" for name, found, want in pairs if found != want
    ]


def _read_complete_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint at `path`, whose segments hold all steps."""
    manifest = read_manifest(path)
    _check_complete(path, manifest)
    return manifest


def _check_complete(path: Path, manifest: dict[str, Any]) -> None:
    """DamagedError unless the segments named hold every step of the buffers."""
    for name, buffer in manifest["buffers"].items():
        missing = _first_missing(buffer["state"], buffer["segments"])
        if missing is not None:
            raise DamagedError(
                f"{path / MANIFEST}: no segment holds step {missing} of the {name} buffer, expected "
                f"all of the last {buffer['state']['capacity']} up to "
                f"{buffer['state']['total'] - 1}: it was written incompletely"
            )


def _first_missing(state: dict[str, Any], segments: list[dict[str, Any]]) -> int | None:
    """The first step that the buffer held and no segment has; None if there is none."""
    step = max(0, state["total"] - state["capacity"])
    for segment in sorted(segments, key=lambda s: s["start"]):
        if segment["start"] > step:
            break
        step = max(step, segment["stop"])
    return step if step < state["total"] else None


def _write(path: Path, data: bytes) -> None:
    """Write and flush to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_atomically(path: Path, data: bytes) -> None:
    partial = path.with_name(f".partial-{path.name}")
    _write(partial, data)
    partial.replace(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
