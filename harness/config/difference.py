"""What makes a run other than the default one."""

from __future__ import annotations

from omegaconf import OmegaConf

from harness.config.choices import own
from harness.config.identity import WITHOUT_EFFECT
from harness.config.schema import RunSpec
from harness.config.stored import flatten, to_mapping


def differences(spec: RunSpec) -> list[str]:
    """The choices that are not the default ones, and the values that are not their choice's default.

    Example:
        >>> from harness.config import compose
        >>> differences(compose(["optim=adam", "optim.lr=0.01", "output=elsewhere"]))
        ['optim=adam', 'optim.lr=0.01 (0.001)']
    """
    mapping = to_mapping(spec)
    usual = flatten(values_of(()))
    names = {group: values["name"] for group, values in mapping.items() if _named(values)}
    chosen = [f"{group}={name}" for group, name in names.items() if usual.get(f"{group}.name") != name]
    implied = ["init=own"] if "model=custom" in chosen else []
    default = flatten(values_of(tuple(chosen)))
    values = [
        f"{key}={_shown(value)}" + (f" ({_shown(default[key])})" if default.get(key, "???") != "???" else "")
        for key, value in flatten(mapping).items()
        if not key.endswith(".name") and key not in WITHOUT_EFFECT and default.get(key) != value
    ]
    return [*(choice for choice in chosen if choice not in implied), *values]


def values_of(choices: tuple[str, ...]) -> dict[str, object]:
    """The plain values of some choices; "???" where one has to be given."""
    found = OmegaConf.to_container(own(choices), resolve=True, enum_to_str=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _named(values: object) -> bool:
    return isinstance(values, dict) and "name" in values


def _shown(value: object) -> str:
    if value is None:
        return "null"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else f"{value}"
    )
