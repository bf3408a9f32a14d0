"""Ranges of configuration values, declared with a field and checked on the finished RunSpec."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from harness.config.errors import ConfigError

#: Remedy → the activations that it works with; other remedies work with all activations.
WORKS_WITH = {"sugar": ("relu",), "leaky_swap": ("relu",), "bias_lift": ("relu", "relu6")}


@dataclass(frozen=True)
class Limits:
    """The valid range of a number, or of the items of a list if `length` is given."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    one_of: tuple[Any, ...] | None = None
    length: int | None = None

    def allows(self, value: float) -> bool:
        """Whether a single number lies in the range; NaN and infinities never do."""
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
            and (self.one_of is None or value in self.one_of)
        )

    def __str__(self) -> str:
        """Describe the range in words.

        >>> print(Limits(above=0)), print(Limits(at_least=0, below=1, length=2))
        a number above 0
        a list of 2 numbers, each at least 0 and below 1
        (None, None)
        """
        words = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
        bounds = [
            f"{words[name]} {_short(getattr(self, name))}"
            for name in words
            if getattr(self, name) is not None
        ]
        if self.one_of is not None:
            return f"one of {', '.join(map(str, self.one_of))}"
        text = " and ".join(bounds) or "finite"
        if self.length is not None:
            return f"a list of {self.length} numbers, each {text}"
        return f"a number {text}" if bounds else "a finite number"


def _short(value: float) -> str:
    return f"{value}" if isinstance(value, int) else f"{value:g}"


def limits(**bounds: Any) -> Any:
    """Declare a dataclass field without default whose value must lie in `Limits(**bounds)`."""
    return field(default=MISSING, metadata={"limits": Limits(**bounds)})


def limited_fields(spec: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    """Iterate over the leaves of a nested dataclass as (dotted key, field, value)."""
    for item in fields(spec):
        key, value = f"{prefix}{item.name}", getattr(spec, item.name)
        if is_dataclass(value):
            yield from limited_fields(value, f"{key}.")
        else:
            yield key, item, value


def check_ranges(spec: Any) -> None:
    """Raise ConfigError, naming the dotted key, for the first value that is out of range or empty text."""
    for key, item, value in limited_fields(spec):
        check_value(key, item, value)


def check_value(key: str, item: Field[Any], value: Any) -> None:
    """Raise ConfigError if `value` is not valid for the field `item`."""
    if value == "":
        raise ConfigError(key, expected="text", came=value)
    allowed: Limits | None = item.metadata.get("limits")
    if allowed is None or value is None:
        return
    values = value if isinstance(value, list) else [value]
    wrong_length = allowed.length is not None and len(values) != allowed.length
    if wrong_length or not all(allowed.allows(one) for one in values):
        words = str(allowed)
        if isinstance(value, int) and words.startswith("a number"):
            words = words.replace("a number", "a whole number", 1)
        raise ConfigError(key, expected=words, came=value)


def check_together(spec: Any) -> None:
    """Raise ConfigError for values that are valid separately but not in combination."""
    if getattr(spec.optim, "nesterov", False) and spec.optim.momentum == 0:
        raise ConfigError("optim.nesterov", "needs a momentum above 0", hint="Set optim.momentum too.")
    if spec.train.stop_when_dead is not None and not spec.record.enabled:
        raise ConfigError("train.stop_when_dead", "needs censuses", hint="Choose another record than off.")
    if spec.remedy.name == "auto" and not spec.record.enabled:
        raise ConfigError(
            "remedy", "auto needs censuses to diagnose from", hint="Choose another record than off."
        )
    custom = spec.model.name == "custom"
    for group, own in (("init", spec.init.name == "own"), ("bias", spec.bias.base.name == "own")):
        if own and not custom:
            raise ConfigError(group, "own is for model=custom", hint="It keeps what that model's code made.")
    if custom and spec.init.name == "sign_flip":
        raise ConfigError("init", "sign_flip is made for our own networks, not for model=custom")
    if spec.init.name == "stored" and (spec.init.gain, spec.init.mean, spec.bias.offset) != (1, 0, 0):
        problem = "stored keeps weights and biases as they are"
        raise ConfigError("init", problem, hint="Leave init.gain, init.mean and bias.offset at 1, 0 and 0.")
    remedy, activation = spec.remedy.name, spec.activation.name
    works = WORKS_WITH.get(remedy, (activation,))
    if activation not in works:
        raise ConfigError(
            "remedy",
            f"{remedy} is made for activation={' or '.join(works)}, but the run has activation={activation}",
            hint="Choose that activation, or another remedy.",
        )
