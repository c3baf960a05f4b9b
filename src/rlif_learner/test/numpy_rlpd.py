# SPDX-License-Identifier: Apache-2.0
"""RLPD once more, in NumPy and float64, with derivatives by hand: what the learner is checked with.

Written from the equations, sharing nothing with the learner: one critic at a time, no batched
products, textbook Adam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

EPS_NORM, EPS_ADAM = 1e-6, 1e-8
ROUNDING = 5e-8  # of gradients in float32, and more


@dataclass
class Adam:
    """Textbook Adam. `undecided`: entries whose first gradient was of the size of its own rounding in
    float32, of which Adam makes a step of the size of the learning rate all the same."""

    rate: float
    steps: int = 0
    first: dict = field(default_factory=dict)
    second: dict = field(default_factory=dict)
    undecided: dict = field(default_factory=dict)

    def step(self, values, gradients, decay=0.0):
        self.steps += 1
        for key, g in gradients.items():
            self.undecided.setdefault(key, (g != 0.0) & (np.abs(g) < ROUNDING))
            m = self.first[key] = 0.9 * self.first.get(key, 0.0) + 0.1 * g
            v = self.second[key] = 0.999 * self.second.get(key, 0.0) + 0.001 * g * g
            m_hat, v_hat = m / (1 - 0.9**self.steps), v / (1 - 0.999**self.steps)
            if decay and key[0] in (
                "weight",
                "gain",
            ):  # all but biases, LayerNorm's "shift" among them
                values[key] = values[key] * (1 - self.rate * decay)
            values[key] = values[key] - self.rate * m_hat / (np.sqrt(v_hat) + EPS_ADAM)


def critic_forward(p, x, layers, norm, masks=None):
    cache = []
    for i in range(layers):
        z = x @ p["weight", i] + p["bias", i]
        if masks is not None:
            z = z * masks[i]
        if norm:
            sigma = np.sqrt(z.var(-1, keepdims=True) + EPS_NORM)
            hat = (z - z.mean(-1, keepdims=True)) / sigma
            y = hat * p["gain", i] + p["shift", i]
        else:
            sigma, hat, y = None, None, z
        cache.append((x, sigma, hat, y))
        x = np.maximum(y, 0)
    return (x @ p["weight", layers] + p["bias", layers])[:, 0], (cache, x)


def critic_backward(p, d_value, cache, layers, norm, masks=None):
    """Gradients of the parameters and of the input, for d loss / d value [batch]."""
    layer_caches, last = cache
    g = {
        ("weight", layers): last.T @ d_value[:, None],
        ("bias", layers): d_value.sum(keepdims=True),
    }
    dx = d_value[:, None] @ p["weight", layers].T
    for i in reversed(range(layers)):
        x, sigma, hat, y = layer_caches[i]
        dy = dx * (y > 0)
        if norm:
            g["gain", i], g["shift", i] = (dy * hat).sum(0), dy.sum(0)
            dh = dy * p["gain", i]
            dy = (
                dh - dh.mean(-1, keepdims=True) - hat * (dh * hat).mean(-1, keepdims=True)
            ) / sigma
        if masks is not None:
            dy = dy * masks[i]
        g["weight", i], g["bias", i] = x.T @ dy, dy.sum(0)
        dx = dy @ p["weight", i].T
    return g, dx


def actor_forward(p, state, noise, layers):
    x, cache = state, []
    for i in range(layers):
        y = x @ p["weight", i].T + p["bias", i]
        cache.append((x, y))
        x = np.maximum(y, 0)
    out = x @ p["weight", layers].T + p["bias", layers]
    mean, log_std = np.split(out, 2, -1)
    log_std = np.clip(log_std, -20, 2)
    raw = mean + np.exp(log_std) * noise
    action = np.tanh(raw)
    log_slope = -2 * np.log(np.cosh(raw))  # of tanh; 1 - action^2 has no digits left near 1
    log_prob = (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - log_slope).sum(-1)
    return action, log_prob, (cache, x, out, noise)


def actor_backward(p, action, d_action, temperature, cache, layers):
    """Gradients of mean over the batch of temperature * log_prob, plus those through d_action."""
    layer_caches, last, out, noise = cache
    mean, raw_log_std = np.split(out, 2, -1)
    std = np.exp(np.clip(raw_log_std, -20, 2))
    batch = len(action)
    du = temperature / batch * 2 * action + d_action * (1 - action**2)
    d_log_std = (du * std * noise - temperature / batch) * (np.abs(raw_log_std + 9) <= 11)
    d = np.concatenate([du, d_log_std], -1)
    g = {("weight", layers): d.T @ last, ("bias", layers): d.sum(0)}
    dx = d @ p["weight", layers]
    for i in reversed(range(layers)):
        x, y = layer_caches[i]
        dy = dx * (y > 0)
        g["weight", i], g["bias", i] = dy.T @ x, dy.sum(0)
        dx = dy @ p["weight", i]
    return g


class NumpyRLPD:
    """The learner's equations on dictionaries of float64 arrays."""

    def __init__(self, config, action_dim, critics, actor, offset=(), scale=()):
        self.offset, self.scale = np.array(offset or 0.0), np.array(scale or 1.0)
        self.c, self.critics, self.actor = config, critics, actor
        self.layers = len(config.hidden)
        self.targets = [{k: v.copy() for k, v in p.items()} for p in critics]
        self.average = {k: v.copy() for k, v in actor.items()}
        self.log_temperature = np.array([math.log(config.initial_temperature)])
        self.target_entropy = (
            -action_dim / 2 if config.target_entropy is None else config.target_entropy
        )
        self.critic_adams = [Adam(config.critic_learning_rate) for _ in critics]
        self.actor_adam = Adam(config.actor_learning_rate)
        self.temperature_adam = Adam(config.temperature_learning_rate)

    def target(self, batch, noise, subset, masks):
        s, a, r, s2, terminal = self.normalised(batch)
        action, log_prob, _ = actor_forward(self.actor, s2, noise, self.actor_layers)
        x = np.concatenate([s2, action], -1)
        values = [
            critic_forward(
                self.targets[j], x, self.layers, self.c.layer_norm, masks and [m[k] for m in masks]
            )[0]
            for k, j in enumerate(subset)
        ]
        value = np.min(values, 0)
        if self.c.clip_positive_values:
            value = np.minimum(value, 0.0)
        if self.c.entropy_in_target:
            value = value - math.exp(self.log_temperature[0]) * log_prob
        return r + self.c.discount * (1 - terminal) * value

    def normalised(self, batch):
        s, a, r, s2, terminal = batch
        return (s - self.offset) / self.scale, a, r, (s2 - self.offset) / self.scale, terminal

    @property
    def actor_layers(self):
        return max(i for _, i in self.actor)

    def critic_step(self, batch, noise, subset, target_masks=None, masks=None):
        s, a, *_ = self.normalised(batch)
        y = self.target(batch, noise, subset, target_masks)
        x = np.concatenate([s, a], -1)
        errors, steps = [], []
        for j, p in enumerate(self.critics):
            own = masks and [m[j] for m in masks]
            value, cache = critic_forward(p, x, self.layers, self.c.layer_norm, own)
            errors.append(value - y)
            d = 2 * (value - y) / (len(y) * len(self.critics))
            steps.append(critic_backward(p, d, cache, self.layers, self.c.layer_norm, own)[0])
        for p, t, adam, g in zip(self.critics, self.targets, self.critic_adams, steps, strict=True):
            adam.step(p, g, self.c.critic_weight_decay)
            for key in t:
                t[key] = (1 - self.c.tau) * t[key] + self.c.tau * p[key]
        return np.mean(np.square(errors)), y

    def actor_step(self, batch, noise, masks=None):
        s, norm, temperature = (
            self.normalised(batch)[0],
            self.c.layer_norm,
            math.exp(self.log_temperature[0]),
        )
        action, log_prob, cache = actor_forward(self.actor, s, noise, self.actor_layers)
        x = np.concatenate([s, action], -1)
        values, d_action = [], np.zeros_like(action)
        d = np.full(len(s), -1 / (len(s) * len(self.critics)))
        for j, p in enumerate(self.critics):
            own = masks and [m[j] for m in masks]
            value, critic_cache = critic_forward(p, x, self.layers, norm, own)
            values.append(value)
            dx = critic_backward(p, d, critic_cache, self.layers, norm, own)[1]
            d_action += dx[:, s.shape[1] :]
        loss = np.mean(temperature * log_prob - np.mean(values, 0))
        g = actor_backward(self.actor, action, d_action, temperature, cache, self.actor_layers)
        self.actor_adam.step(self.actor, g)
        kept = self.c.actor_average
        for key, value in self.actor.items():
            self.average[key] = kept * self.average[key] + (1 - kept) * value
        temperature_loss = temperature * (-log_prob.mean() - self.target_entropy)
        values = {"log": self.log_temperature}
        self.temperature_adam.step(values, {"log": np.array([temperature_loss])})
        self.log_temperature = values["log"]
        return loss, temperature_loss
