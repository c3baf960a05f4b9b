# SPDX-License-Identifier: Apache-2.0
"""The settings of RLPD in one validated place, with the presets `rlpd` and `rlif`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

# Of the matrix products. auto: the processor's fastest of 16 bits, float32 where it has none.
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
ENCODER_GRADIENTS = ("critic", "both")


@dataclass(frozen=True)
class RLPDConfig:
    """The settings of RLPD. The defaults are the reference's (preset `rlpd`).

    Raises ValueError that names the field, what was found and what was expected.
    """

    hidden: tuple[int, ...] = (256, 256)  # widths of the critics
    ensemble_size: int = 10  # critics
    subset_size: int = 2  # target critics whose minimum is the target
    layer_norm: bool = True  # in the critics
    dropout: float = 0.0  # of the critics' hidden units; 0: none
    utd: int = 20  # critic steps per update
    batch_size: int = 256  # of each critic step
    prior_ratio: float = 0.5  # share of each batch that comes from prior data
    refused_ratio: float = 0.0  # of the operator's steps in it, with the action that they overruled
    discount: float = 0.99
    tau: float = 0.005  # share of the critics that moves into the target per critic step
    entropy_in_target: bool = True  # the target holds -temperature * log probability
    clip_positive_values: bool = False  # in the target: for rewards that are never above 0
    initial_temperature: float = 1.0
    target_entropy: float | None = None  # None: -action_dim / 2
    actor_learning_rate: float = 3e-4
    actor_average: float = 0.0  # decay per update of the moving average that drives; 0: no average
    critic_learning_rate: float = 3e-4
    temperature_learning_rate: float = 3e-4
    critic_weight_decay: float = 0.0  # decoupled (AdamW), of all but the biases
    precision: str = "float32"  # of the matrix products; weights and optimisers stay float32
    # With images.
    encoder_learning_rate: float = 3e-4
    encoder_gradients: str = "critic"  # whose loss trains the encoder; both: the actor's too
    random_shift: int = 4  # pixels by which images are moved at most, each way; 0: not at all
    same_shift: bool = False  # the image after an action is moved as the one before it

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", checked("hidden", self.hidden, ()))
        self._check_whole_numbers()
        self._check_ranges()
        if self.subset_size > self.ensemble_size:
            raise ValueError(
                f"subset_size: found {self.subset_size}, expected at most ensemble_size "
                f"({self.ensemble_size})"
            )
        if self.clip_positive_values and self.entropy_in_target:
            raise ValueError(
                "clip_positive_values: found true, expected false with entropy_in_target (preset "
                "rlpd): values that hold the entropy may be above 0; set one of the two to false"
            )
        for name, known in (("precision", PRECISIONS), ("encoder_gradients", ENCODER_GRADIENTS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}: found {getattr(self, name)!r}, expected one of {list(known)}"
                )
        _check_shift(self.random_shift)

    def _check_whole_numbers(self) -> None:
        if not self.hidden:
            raise ValueError("hidden: found no layer, expected at least one width, e.g. [256, 256]")
        named = [("hidden", width) for width in self.hidden]
        named += [
            (name, getattr(self, name))
            for name in ("ensemble_size", "subset_size", "utd", "batch_size")
        ]
        for name, value in named:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: found {value!r}, expected a whole number of at least 1")
        for name in ("layer_norm", "entropy_in_target", "clip_positive_values", "same_shift"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected true or false")

    def _check_ranges(self) -> None:
        infinity = float("inf")
        ranges = {  # name: (smallest, largest, smallest is allowed, largest is allowed)
            "dropout": (0.0, 1.0, True, False),
            "prior_ratio": (0.0, 1.0, True, True),
            "refused_ratio": (0.0, 1.0, True, True),
            "discount": (0.0, 1.0, True, True),
            "tau": (0.0, 1.0, False, True),
            "initial_temperature": (0.0, infinity, False, False),
            "actor_learning_rate": (0.0, infinity, False, False),
            "actor_average": (0.0, 1.0, True, False),
            "critic_learning_rate": (0.0, infinity, False, False),
            "encoder_learning_rate": (0.0, infinity, False, False),
            "temperature_learning_rate": (0.0, infinity, True, False),
            "critic_weight_decay": (0.0, infinity, True, False),
        }
        if self.target_entropy is not None:
            ranges["target_entropy"] = (-infinity, infinity, False, False)
        for name, (low, high, low_in, high_in) in ranges.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            above = number and (value > low or (low_in and value == low))
            below = number and (value < high or (high_in and value == high))
            if not (above and below):
                raise ValueError(
                    f"{name}: found {value!r}, expected a number in "
                    f"{'[' if low_in else '('}{low}, {high}{']' if high_in else ')'}"
                )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], preset: str = "rlpd") -> RLPDConfig:
        """The preset with `values` over it. ValueError names keys that do not exist."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown settings {unknown}; known are {sorted(known)}")
        return replace(named_preset(preset), **dict(values))

    def to_mapping(self) -> dict[str, Any]:
        """The settings as plain values that JSON and YAML can hold."""
        return {**asdict(self), "hidden": list(self.hidden)}


KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
}


def checked(name: str, value: Any, default: Any) -> Any:
    """`value`, a list as a tuple, if it is of the kind of `default`; else ValueError names both."""
    found = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    kind = type(default)
    if type(found) is not kind and not (kind is float and type(found) is int):
        raise ValueError(f"{name}: found {value!r}, expected {KINDS[kind]}")
    return found


def _check_shift(most: Any) -> None:
    if not isinstance(most, int) or isinstance(most, bool) or not 0 <= most < 1000:
        raise ValueError(f"random_shift: found {most!r}, expected a whole number from 0 to 999")


@dataclass(frozen=True)
class ImitationConfig:
    """Settings of BC, HG-DAgger and DAgger. ValueError names the field."""

    utd: int = 20  # gradient steps per update, as RLPD's critic steps
    batch_size: int = 256
    learning_rate: float = 3e-4
    weight_decay: float = 0.0  # decoupled (AdamW)
    random_shift: int = 4  # of images, as RLPDConfig's

    def __post_init__(self) -> None:
        for name in ("utd", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: found {value!r}, expected a whole number of at least 1")
        _check_shift(self.random_shift)
        for name, lowest in (("learning_rate", 1e-12), ("weight_decay", 0.0)):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not lowest <= value < float("inf"):
                raise ValueError(f"{name}: found {value!r}, expected a number of at least {lowest}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ImitationConfig:
        """The defaults with `values` over them. ValueError names keys that do not exist."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown settings {unknown}; known are {sorted(known)}")
        return cls(**dict(values))

    def to_mapping(self) -> dict[str, Any]:
        """The settings as plain values that JSON and YAML can hold."""
        return asdict(self)


# The authors' settings of RLIF: wider critics' MLP (three layers), no entropy in the target, all
# data in one buffer. Their UTD ratio differs by task (1, 5, 15); 5 is that of the manipulation task.
PRESETS: dict[str, RLPDConfig] = {
    "rlpd": RLPDConfig(),
    "rlif": RLPDConfig(hidden=(256, 256, 256), utd=5, prior_ratio=0.0, entropy_in_target=False),
}


def named_preset(name: str) -> RLPDConfig:
    """The preset of this name; ValueError lists those that exist."""
    if name not in PRESETS:
        raise ValueError(f"preset: found {name!r}, expected one of {sorted(PRESETS)}")
    return PRESETS[name]
