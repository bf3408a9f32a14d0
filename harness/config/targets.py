"""Import a user's function by `package.module:name`, check its arguments, and call it.

Anything that the user's code raises becomes a ConfigError with a one-line message.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.config.errors import ConfigError, did_you_mean, type_of
from harness.config.type_text import NAMES, in_words

Function = Callable[..., Any]
EXAMPLE = "package.module:function"
NOT_THEIRS = (f"{Path(__file__).parent.parent}{os.sep}", "<frozen importlib", str(importlib.__file__))
KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def imported(place: str, key: str) -> Function:
    """Import `package.module:name`; the current folder is searched too, as with `python -m`.

    Args:
        place: module and name.
        key: the dotted key that holds it, for errors.

    Raises:
        ConfigError: the module or name does not exist, the import fails, or the object is not callable.

    Example:
        >>> imported("collections:Counter", "model.target").__name__
        'Counter'
    """
    module, colon, name = place.partition(":")
    if not (colon and name and all(part.isidentifier() for part in module.split("."))):
        raise ConfigError(key, expected=EXAMPLE, came=place)
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(key, f"importing {module} raised {error_text(error)}") from error
        hint = f"It is looked for in {here}, in PYTHONPATH and among what is installed."
        raise ConfigError(key, f"there is no module {error.name}", hint=hint) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ConfigError(key, f"importing {module} raised {error_text(error)}") from error
    try:
        function = functools.reduce(getattr, name.split("."), found)
    except AttributeError:
        near = did_you_mean(name, [one for one in vars(found) if not one.startswith("_")])
        raise ConfigError(key, f"{module} has no {name}", hint=near) from None
    if not callable(function):
        raise ConfigError(key, expected="a function or class", came=f"{place}, {type_of(function)}")
    return function


def arguments(
    function: Function, given: Mapping[str, Any], offered: Mapping[str, Any], key: str
) -> dict[str, Any]:
    """Determine the keyword arguments for a function.

    Args:
        function: result of `imported`.
        given: arguments from the user under `key`; they take precedence.
        offered: arguments from the harness, passed only if the signature names them.
        key: key of the user's arguments, e.g. model.args.

    Raises:
        ConfigError: an argument is unknown, missing or of the wrong type.

    Example:
        >>> def wide(width: int, classes: int): ...
        >>> arguments(wide, {"width": 8}, {"classes": 10, "input_shape": (4,)}, "model.args")
        {'width': 8, 'classes': 10}
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # builtins without a signature: the call will raise if needed
        return dict(given)
    parameters = {p.name: p for p in signature.parameters.values() if p.kind in KEYWORDS}
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    hints = _hints(function)
    for name, value in given.items():
        if name not in parameters and not anything:
            takes = f"It takes {', '.join(parameters)}." if parameters else "It takes none."
            hint = f"{did_you_mean(str(name), parameters)} {takes}".strip()
            raise ConfigError(f"{key}.{name}", f"{_called(function)} takes no such argument", hint=hint)
        if name in hints and not _fits(value, hints[name]):
            raise ConfigError(f"{key}.{name}", expected=in_words(hints[name]), came=repr(value))
    found = dict(given) | {n: v for n, v in offered.items() if n in parameters and n not in given}
    for parameter in signature.parameters.values():
        if parameter.default is not inspect.Parameter.empty or parameter.name in found:
            continue
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            problem = f"{_called(function)} takes {parameter.name} by position alone"
            raise ConfigError(key, problem, hint="Make it a keyword argument.")
        if parameter.kind in KEYWORDS:
            where = f"{key}.{parameter.name}"
            problem = f"a value is needed, as {_called(function)} has no default for it"
            raise ConfigError(where, problem, hint=f"Give it with {where}=…")
    return found


def call(place: str, function: Function, keywords: Mapping[str, Any], key: str) -> Any:
    """Call a function and return its result.

    Raises:
        ConfigError: the function raised.
    """
    try:
        return function(**keywords)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ConfigError(key, f"{place} raised {error_text(error)}") from error


def error_text(error: BaseException) -> str:
    """Describe an error of user code in one line, with its place (HARNESS_DEBUG=1 shows the traceback)."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if not frame.filename.startswith(NOT_THEIRS)]
    theirs = [f for f in foreign if "site-packages" not in f.filename]
    where = "".join(f" ({f.filename}, line {f.lineno})" for f in (theirs or foreign)[-1:])
    said = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {said}' if said else ''}{where}"


def _called(function: Function) -> str:
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _hints(function: Function) -> dict[str, Any]:
    """Return the annotations of a function's arguments; empty if they cannot be resolved."""
    try:
        return typing.get_type_hints(function.__init__ if isinstance(function, type) else function)
    except Exception:  # names that exist only for type checkers
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value matches an annotation; annotations that are not plain types accept anything."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in options)
    if origin is typing.Literal:
        return value in options
    if hint in (None, type(None)):
        return value is None
    if hint not in NAMES:
        return True
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
