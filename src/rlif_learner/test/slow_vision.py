# SPDX-License-Identifier: Apache-2.0
"""RLPD with images once more, slowly and in float64: what the learner is checked with.

Written from the equations: pixels moved one by one, one critic after the other, PyTorch's own Adam,
gradients by autograd alone. It shares no code with the learner.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional


def moved(images, shifts):
    """uint8 [batch, height, width, channels], each by its (rows, columns), pixel by pixel."""
    out = torch.empty_like(images)
    _, height, width, _ = images.shape
    for b, (down, right) in enumerate(shifts.tolist()):
        for y in range(height):
            for x in range(width):
                row = min(max(y + down, 0), height - 1)
                column = min(max(x + right, 0), width - 1)
                out[b, y, x] = images[b, row, column]
    return out


class SlowVision:
    """One learner's weights, copied, and the update of them."""

    def __init__(self, learner):
        self.config, self.spec = learner.config, learner.spec

        def copies(named):
            return {n: v.detach().double().clone().requires_grad_() for n, v in named.items()}

        actor = copies(dict(learner.actor.named_parameters()))
        self.encoder = {n: v for n, v in actor.items() if n.startswith("encoder.")}
        self.frozen = {n: v for n, v in self.encoder.items() if ".trunks." in n}
        if not self.spec.encoder.frozen:
            self.frozen = {}
        self.actor = {n: v for n, v in actor.items() if n not in self.encoder}
        self.critics, self.targets = (
            [
                copies(
                    {
                        f"{kind} {i}": p[j] if kind == "weight" else p[j, 0]
                        for kind, group in (
                            ("weight", critic.weights), ("bias", critic.biases),
                            ("gain", critic.gains), ("shift", critic.shifts),
                        )
                        for i, p in enumerate(group)
                    }
                )
                for j in range(critic.size)
            ]
            for critic in (learner.critic, learner.target)
        )  # fmt: skip
        self.log_temperature = learner.log_temperature.detach().double().clone().requires_grad_()
        self.offset = learner.actor.normaliser.offset.double()
        self.scale = learner.actor.normaliser.scale.double()
        c = self.config
        trained = [v for n, v in self.encoder.items() if n not in self.frozen]

        def adam(values, rate):
            return torch.optim.Adam(values, rate)

        self.encoder_adam = adam(trained, c.encoder_learning_rate)
        self.actor_adam = adam(list(self.actor.values()), c.actor_learning_rate)
        self.temperature_adam = adam([self.log_temperature], c.temperature_learning_rate)
        critics = [v for critic in self.critics for v in critic.values()]
        self.critic_adam = adam(critics, c.critic_learning_rate)

    # ---- networks

    def encode(self, images):
        p, parts = self.encoder, []
        for i, image in enumerate(images):
            own = 0 if self.spec.encoder.shared else i
            maps = image.double() if image.is_floating_point() else self.trunk(own, image)
            y = self.pooled(f"encoder.heads.{own}.pooling", maps)
            head = f"encoder.heads.{own}"
            y = y @ p[f"{head}.bottleneck.weight"].T + p[f"{head}.bottleneck.bias"]
            y = (y - y.mean(-1, keepdim=True)) / (
                y.var(-1, unbiased=False, keepdim=True) + 1e-6
            ).sqrt()
            parts.append((y * p[f"{head}.norm.weight"] + p[f"{head}.norm.bias"]).tanh())
        return torch.cat(parts, -1)

    def trunk(self, own, image):
        p, x = self.encoder, image.double().permute(0, 3, 1, 2) / 127.5 - 1.0
        for layer, stride, padding in ((0, 4, 2), (2, 1, 1), (4, 1, 1)):
            name = f"encoder.trunks.{own}.{layer}"
            x = functional.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], stride, padding).relu()
        return x

    def pooled(self, name, maps):
        p, kind = self.encoder, self.spec.encoder.pooling
        batch, channels, height, width = maps.shape
        if kind == "average":
            return maps.sum(3).sum(2) / (height * width)
        if kind == "spatial_embedding":
            out = [
                (maps[:, c].reshape(batch, -1, 1) * p[f"{name}.kernel"][c]).sum(1)
                for c in range(channels)
            ]
            return torch.cat(out, 1)
        xs, ys = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (width, height))
        out = []
        for c in range(channels):
            weight = (maps[:, c] * p[f"{name}.sharpness"][c]).exp()
            weight = weight / weight.sum((1, 2), keepdim=True)
            out += [(weight * xs).sum((1, 2)), (weight * ys[:, None]).sum((1, 2))]
        return torch.stack(out, 1)

    def wide(self, states, images):
        return torch.cat([states.double(), self.encode(images)], -1)

    def normalised(self, wide):
        return (wide - self.offset) / self.scale

    def act(self, wide, noise):
        p, x = self.actor, self.normalised(wide)
        for i in range(len(self.spec.hidden)):
            x = (x @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"]).relu()
        mean, log_std = (x @ p["head.weight"].T + p["head.bias"]).chunk(2, -1)
        log_std = log_std.clamp(-20.0, 2.0)
        action = (mean + log_std.exp() * noise.double()).tanh()
        log_prob = (
            -0.5 * noise.double() ** 2 - log_std - 0.5 * math.log(2 * math.pi)
            - (1 - action**2).log()
        ).sum(-1)  # fmt: skip
        return action, log_prob

    def value(self, critic, wide, action):
        x = torch.cat([self.normalised(wide), action.double()], -1)
        layers = len(self.config.hidden)
        for i in range(layers):
            x = x @ critic[f"weight {i}"] + critic[f"bias {i}"]
            x = (x - x.mean(-1, keepdim=True)) / (
                x.var(-1, unbiased=False, keepdim=True) + 1e-6
            ).sqrt()
            x = (x * critic[f"gain {i}"] + critic[f"shift {i}"]).relu()
        return (x @ critic[f"weight {layers}"] + critic[f"bias {layers}"])[:, 0]

    # ---- the update

    def update(self, batches, noise):
        """Losses of the last critic step, of the actor and of the temperature."""
        c = self.config
        for i in range(c.utd):
            batch, step = batches[i], noise.critics.step(i)
            now, after = self.shifted(batch, None if noise.shifts is None else noise.shifts[i])
            wide = self.wide(batch.states, now)
            with torch.no_grad():
                next_wide = self.wide(batch.next_states, after)
                action, log_prob = self.act(next_wide, step.next_action)
                values = [
                    self.value(self.targets[j], next_wide, action) for j in step.subset.tolist()
                ]
                bootstrap = torch.stack(values).min(0).values
                if c.clip_positive_values:
                    bootstrap = bootstrap.minimum(torch.zeros_like(bootstrap))
                if c.entropy_in_target:
                    bootstrap = bootstrap - self.log_temperature.exp() * log_prob
                target = batch.rewards + c.discount * (1 - batch.terminals) * bootstrap
            errors = [self.value(critic, wide, batch.actions) - target for critic in self.critics]
            loss = torch.stack(errors).square().mean()
            self.descend(loss, self.critic_adam, self.encoder_adam)
            with torch.no_grad():
                for critic, slow in zip(self.critics, self.targets, strict=True):
                    for key, value in slow.items():
                        value.copy_((1 - c.tau) * value + c.tau * critic[key])
        both = c.encoder_gradients == "both"
        seen = self.wide(batch.states, now) if both else wide.detach()
        action, log_prob = self.act(seen, noise.action)
        value = torch.stack(
            [self.value(critic, seen.detach(), action) for critic in self.critics]
        ).mean(0)
        temperature = self.log_temperature.exp().detach()
        actor_loss = (temperature * log_prob - value).mean()
        self.descend(actor_loss, self.actor_adam, *([self.encoder_adam] if both else []))
        goal = -self.spec.action_dim / 2 if c.target_entropy is None else c.target_entropy
        temperature_loss = (self.log_temperature.exp() * (-log_prob.detach().mean() - goal)).sum()
        self.descend(temperature_loss, self.temperature_adam)
        return loss.item(), actor_loss.item(), temperature_loss.item()

    def shifted(self, batch, shifts):
        pair = (batch.images, batch.next_images)
        if shifts is None:
            return pair
        return [
            [moved(image, shifts[when, camera]) for camera, image in enumerate(images)]
            for when, images in enumerate(pair)
        ]

    def descend(self, loss, *optimisers):
        everything = [*self.encoder.values(), *self.actor.values(), self.log_temperature]
        everything += [v for critic in (*self.critics, *self.targets) for v in critic.values()]
        for value in everything:
            value.grad = None
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()

    def assert_equal(self, learner, atol):
        """AssertionError, naming the weight, unless all are those of `learner`."""
        found = dict(learner.actor.named_parameters())
        for name, value in {**self.actor, **self.encoder}.items():
            _close(found[name], value, atol, name)
        for critic, copies in ((learner.critic, self.critics), (learner.target, self.targets)):
            groups = {
                "weight": critic.weights, "bias": critic.biases, "gain": critic.gains,
                "shift": critic.shifts,
            }  # fmt: skip
            for j, copy in enumerate(copies):
                for key, value in copy.items():
                    kind, i = key.split()
                    part = groups[kind][int(i)][j]
                    _close(part if kind == "weight" else part[0], value, atol, f"critic {j} {key}")
        _close(learner.log_temperature, self.log_temperature, atol, "log_temperature")


def _close(found, expected, atol, name):
    np.testing.assert_allclose(
        found.detach().double().numpy(), expected.detach().numpy(), atol=atol, rtol=0, err_msg=name
    )
