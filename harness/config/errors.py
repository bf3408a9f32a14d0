"""The error for everything that a user can configure wrongly."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot be run.

    Args:
        key: the wrong dotted key, or "" if there is none.
        problem: what is wrong, if "expected … but got …" does not fit.
        expected: description of valid values.
        came: the given value.
        hint: what to do.

    Example:
        >>> print(ConfigError("optim.lr", expected="a number above 0", came=-1))
        optim.lr: expected a number above 0, but got -1.
    """

    def __init__(
        self, key: str, problem: str = "", *, expected: str = "", came: Any = None, hint: str = ""
    ) -> None:
        self.key = key
        said = problem or f"expected {expected}, but got {came if came != '' else 'an empty value'}"
        text = f"{key}: {said}." if key else f"{said}."
        super().__init__(f"{text} {hint}".rstrip())

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.key, str(self)))


def _rebuild(key: str, text: str) -> ConfigError:
    error = ConfigError(key, "")
    error.args = (text,)
    return error


def type_of(value: Any) -> str:
    """The type of a value with its article, as in "a str" or "an Embedding"; "None" for None."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the closest known words, or "".

    >>> did_you_mean("optim.lrr", ["optim.lr", "seed"]), did_you_mean("LeakyReLU", ["leaky_relu", "relu6"])
    ('Did you mean optim.lr?', 'Did you mean leaky_relu?')
    """
    known = list(known)
    near = [k for k in known if k.replace("_", "") == word.replace("_", "").lower()]
    near = near or difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.6)
    if not near:  # compare only the last part: lr -> optim.lr
        near = [k for k in known if k.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1]][:3]
    return f"Did you mean {' or '.join(near)}?" if near else ""
