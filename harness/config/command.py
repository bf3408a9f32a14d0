"""Reconstruct the command line of a stored run, and what it changes from the defaults."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from harness.config.composition import compose, shown
from harness.config.errors import ConfigError
from harness.config.restored import restore
from harness.config.stored import flatten, to_mapping

PLACE = ("output", "force")  # keys that say where and how to run, not what
WORD = re.compile(r"[A-Za-z_]\w*|[A-Za-z_.]*/[\w./-]+")  # an identifier or a path
OTHERS = ("null", "true", "false", "inf", "nan")  # words that are not strings in Hydra's grammar
PLAIN = re.compile(r"[\w./~-]+")  # needs no quotes in Hydra's grammar or a shell


def changes(mapping: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what a run's configuration changes: key → (its value, the default).

    The key of a group's choice is, for example, `optim.name`. Other values of a group are compared with the
    defaults of the run's choice.

    Args:
        mapping: a run's stored configuration.

    Raises:
        ConfigError: it is not a run's configuration, or comes from a version with other keys.

    Example:
        >>> changes(to_mapping(compose(["optim=adam", "bias.offset=-1"])))
        {'bias.offset': (-1.0, 0.0), 'optim.name': ('adam', 'sgd')}
    """
    wanted, default = (flatten(to_mapping(spec)) for spec in (restore(mapping), compose()))
    named = {key: (value, default[key]) for key, value in wanted.items() if _is_choice(key)}
    named = {key: pair for key, pair in named.items() if pair[0] != pair[1]}
    base = flatten(shown(_choices(named)))
    values = {
        key: (value, base.get(key))
        for key, value in wanted.items()
        if key not in named and key not in PLACE and value != base.get(key)
    }
    return {key: (named | values)[key] for key in wanted if key in named or key in values}


def overrides_of(mapping: dict[str, Any]) -> list[str]:
    """Return the smallest list of overrides that gives a run's configuration, without its output folder.

    Raises:
        ConfigError: no overrides give this configuration.

    Example:
        >>> overrides_of(to_mapping(compose(["optim=adam", "bias.offset=-1", "output=elsewhere"])))
        ['optim=adam', 'bias.offset=-1.0']
    """
    found = changes(mapping)
    named = {key: pair for key, pair in found.items() if _is_choice(key)}
    values = [f"{key}={value_word(value)}" for key, (value, _) in found.items() if key not in named]
    overrides = [*_choices(named), *values]
    mine, theirs = (flatten(to_mapping(spec)) for spec in (restore(mapping), compose(overrides)))
    if any(mine[key] != theirs.get(key) for key in mine if key not in PLACE):
        raise ConfigError("", "no command line gives this configuration")
    return overrides


def command_of(mapping: dict[str, Any], output: str) -> str:
    """Return the shell command that trains a run again and replaces its result.

    Args:
        mapping: its stored configuration.
        output: parent of the run's folder.

    Raises:
        ConfigError: no command line gives this configuration.

    Example:
        >>> command_of(to_mapping(compose(["seed=3"])), "runs")
        'harness seed=3 output=runs force=true'
    """
    return shlex.join(["harness", *overrides_of(mapping), place(output), "force=true"])


def place(output: str) -> str:
    """Return the override that sets the output folder.

    Example:
        >>> place("runs"), place("my runs")
        ('output=runs', "output='my runs'")
    """
    return f"output={output if PLAIN.fullmatch(output) else grammar_word(output)}"


def merged(words: Sequence[str], changes: Sequence[str]) -> list[str]:
    """Apply changes on top of overrides; a new choice of a group drops the values of the former one.

    Example:
        >>> merged(["activation=prelu", "activation.slope=0.1", "seed=1"], ["activation=gelu"])
        ['seed=1', 'activation=gelu']
    """
    keys = [word.partition("=")[0] for word in changes]
    groups = [f"{key}." for key in keys if "." not in key]
    stays = [w for w in words if w.partition("=")[0] not in keys and not w.startswith(tuple(groups))]
    return [*stays, *changes]


def value_word(value: Any) -> str:
    """Format a value for an override; strings stay unquoted unless Hydra would read another value.

    Example:
        >>> value_word("batch"), value_word("null"), value_word("two words"), value_word("runs/a-1.pt")
        ('batch', "'null'", "'two words'", 'runs/a-1.pt')
    """
    is_word = isinstance(value, str) and WORD.fullmatch(value) and value.lower() not in OTHERS
    return value if is_word else grammar_word(value)


def grammar_word(value: Any) -> str:
    """Format a plain value in Hydra's grammar.

    Example:
        >>> grammar_word([None, True, "it", {"a": 1}])
        "[null,true,'it',{a:1}]"
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(grammar_word(inner) for inner in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{grammar_word(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, str):
        end = len(value) - len(value.rstrip("\\"))  # backslashes are escapes only before a quote
        return "'" + value.replace("'", "\\'") + "\\" * end + "'"
    return repr(value)


def _is_choice(key: str) -> bool:
    return key.count(".") == 1 and key.endswith(".name")


def _choices(named: dict[str, tuple[Any, Any]]) -> list[str]:
    return [f"{key.removesuffix('.name')}={value}" for key, (value, _) in named.items()]
