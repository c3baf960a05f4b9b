# SPDX-License-Identifier: Apache-2.0
"""Updates on a GPU, with nothing that waits: the host draws the next batches while the device learns.

The update is recorded once as a CUDA graph, before the first episode, and replayed from then on. The
metrics of an update are looked at during the next one; one that is not finite has stopped every later
change on the device by then (RLPD.healthy). On the processor the same code runs without graph and
streams, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from rlif_learner.algorithms.noise import UpdateNoise
from rlif_learner.algorithms.optim import NonFiniteError
from rlif_learner.algorithms.rlpd import RLPD, Engine, Record
from rlif_learner.data.batch import Batch
from rlif_learner.data.sampling import Buffers

WARM_UPS = 3  # eager updates before the recording, as CUDA graphs ask for


class CudaGraphEngine(Engine):
    """The updates of one learner. Batches are drawn one update ahead of their use."""

    def __init__(self, learner: RLPD) -> None:
        super().__init__(learner)
        self.device = learner.device
        on_gpu = self.device.type == "cuda"
        # Host, device, rng before.
        self._staged: tuple[Batch, Batch, Mapping[str, Any]] | None = None
        # Of the update that runs.
        self._pending: tuple[Record, Batch, tuple[int, int]] | None = None
        self._copies = torch.cuda.Stream(self.device) if on_gpu else None
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu and not learner.config.dropout:  # whose masks are many
            self._record_graph()

    def update(self, buffers: Buffers) -> dict[str, float]:
        """Start an update; returns the metrics of the one before, none the first time.

        NonFiniteError for the one before; this one has then changed nothing.
        """
        host, device, _ = self._staged or self._stage(buffers)
        begun = self.learner.count()
        before, self._pending = self._pending, (self._launch(device), host, begun)
        self._stage(buffers)  # while the device works
        return self._report(before)

    def finish(self) -> dict[str, float]:
        """Wait for the update that runs; returns its metrics. NonFiniteError as of `update`."""
        before, self._pending = self._pending, None
        return self._report(before)

    def _report(self, update: tuple[Record, Batch, tuple[int, int]] | None) -> dict[str, float]:
        if update is None:
            return {}
        try:
            return self.learner.report(*update)
        except NonFiniteError:
            self._pending = None  # it has changed nothing either
            raise

    def rng_state(self) -> Mapping[str, Any]:
        """State of the generator before what was drawn ahead."""
        return self._staged[2] if self._staged else self.learner.rng.bit_generator.state

    def forget(self) -> None:
        """Drop what was drawn ahead and the update that runs: the learner's state has changed."""
        self._staged = self._pending = None

    def _stage(self, buffers: Buffers) -> tuple[Batch, Batch, Mapping[str, Any]]:
        """Draw the batches of the next update, and begin to bring them to the device."""
        before = self.learner.rng.bit_generator.state
        host = self.learner.draw_batches(buffers)
        if self._copies is None:
            self._staged = (host, host, before)
            return self._staged
        host = Batch.from_tensors(tensor.pin_memory() for tensor in host.tensors())
        with torch.cuda.stream(self._copies):
            device = Batch.from_tensors(
                tensor.to(self.device, non_blocking=True) for tensor in host.tensors()
            )
        self._staged = (host, device, before)
        return self._staged

    def _launch(self, batches: Batch) -> Record:
        if self._copies is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._copies)
            for tensor in batches.tensors():
                tensor.record_stream(current)
        noise = self.learner.draw_noise()
        if self._graph is None or self.learner.average_gradients is not None:
            return self.learner.learn(batches, noise)
        for to, found in zip(
            self._inputs(), (*batches.tensors(), *noise_tensors(noise)), strict=True
        ):
            to.copy_(found)
        self._graph.replay()
        return clone(self._record)

    def _inputs(self) -> Iterable[Tensor]:
        """What the graph reads."""
        return (*self._batches.tensors(), *noise_tensors(self._noise))

    def _empty_images(self, leading: tuple[int, int]) -> list[Tensor]:
        """Of each camera before and after the action, as `Batch` holds them."""
        encoder = self.learner.encoder
        if encoder is None:
            return []
        shapes = encoder.map_shapes if encoder.spec.frozen else encoder.images
        dtype = torch.float16 if encoder.spec.frozen else torch.uint8
        return [
            torch.zeros(*leading, *shape, dtype=dtype, device=self.device)
            for shape in (*shapes, *shapes)
        ]

    def _record_graph(self) -> None:
        """Warm up and record; the state is afterwards as it was."""
        learner, config, spec = self.learner, self.learner.config, self.learner.spec
        leading = (config.utd, config.batch_size)
        sizes = [(spec.state_dim,), (spec.action_dim,), (), (spec.state_dim,), ()]
        plain = [torch.zeros(*leading, *size, device=self.device) for size in sizes]
        self._batches = Batch.from_tensors([*plain, *self._empty_images(leading)])
        before = {k: v.clone() for k, v in learner.state_tensors().items()}
        values = learner.state_values()
        self._noise = learner.draw_noise()
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                learner.learn(self._batches, self._noise)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._record = learner.learn(self._batches, self._noise)
        self._graph = graph
        learner.load_state(before, values)


def noise_tensors(noise: UpdateNoise) -> tuple[Tensor, ...]:
    """Those that a graph reads; there is no dropout in one."""
    plain = (noise.critics.next_action, noise.critics.subset, noise.action)
    return plain if noise.shifts is None else (*plain, noise.shifts)


def clone(record: Record) -> Record:
    """A copy that the next update does not write to."""
    return type(record)(*(getattr(record, field.name).clone() for field in fields(record)))
