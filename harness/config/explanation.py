"""Explain a key or a group: its comments, valid values, default and choices."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.activations.registry import OPTIONS
from harness.config.choices import composed, own, single_choices
from harness.config.errors import ConfigError, did_you_mean
from harness.config.overrides import leaf_keys
from harness.config.schema import OPEN, SCHEMAS, RunSpec
from harness.config.search_path import folders, groups, joined, places
from harness.config.tree import Workers, kind_of, our_groups
from harness.config.type_text import range_of

LAUNCHER = "hydra.launcher"


def explain(key: str, words: Sequence[str] = ()) -> str:
    """Explain a key or a group.

    Args:
        key: a dotted key, or a group's name.
        words: words of the command line; defaults are those of the choices that they make.

    Raises:
        ConfigError: there is no such key.

    Example:
        >>> print(explain("optim.lr"))
        optim.lr: learning rate at its peak; beyond, float32 overflows
          takes    a number above 0 and at most 1e+36
          default  0.1 (optim=sgd); adam 0.001, adamw 0.001, momentum 0.02
    """
    words = joined(words)
    where, choices = places(words), single_choices(words)
    config = own(choices)
    if key in groups(where):
        return _of_group(key, where, config, _choice(key, choices))
    if any(key.startswith(f"{one}.") for one in OPEN):
        group = key.partition(".")[0]
        return f"{key}: an argument of the function that {group}.target names; harness --explain {group}.args"
    group, _, leaf = key.rpartition(".")
    if group == LAUNCHER and leaf in Workers.__dataclass_fields__:
        default = Workers.__dataclass_fields__[leaf].default
        return _entry(key, [_beside(Workers, leaf)], range_of(Workers, leaf), _shown(default))
    if not group and leaf in RunSpec.__dataclass_fields__:
        comments = [_in_yaml(leaf, where, "config")[1], _beside(RunSpec, leaf)]
        return _entry(key, comments, range_of(RunSpec, leaf), _shown(OmegaConf.select(config, key)))
    kinds = {choice: _kind(group, choice, where) for choice in groups(where).get(group, ())}
    have = {
        choice: kind for choice, kind in kinds.items() if leaf in getattr(kind, "__dataclass_fields__", {})
    }
    if not have or leaf == "name":
        known = {f"{one}.{f}" for one in SCHEMAS for c in our_groups()[one] for f in _fields(kind_of(one, c))}
        near = did_you_mean(key, sorted({*known, *leaf_keys(config), *groups(where)}))
        raise ConfigError(key, "there is no such key", hint=near or "harness --help shows what there is.")
    return _of_key(key, have, where, config, _choice(group, choices))


def _of_key(key: str, have: dict[str, Any], where: tuple[str, ...], config: DictConfig, chosen: str) -> str:
    """Explain a key of a group, using all choices that have it."""
    group, _, leaf = key.rpartition(".")
    found = {choice: _in_yaml(leaf, where, f"{group}/{choice}", f"common/{group}") for choice in have}
    if group == "activation":
        found |= {choice: (str(OPTIONS[choice][leaf][1]), "") for choice in have if choice in OPTIONS}
    usual = found.get(chosen, ("", ""))[0]
    others = [f"{choice} {text}" for choice, (text, _) in found.items() if text not in ("", usual)]
    takes = range_of(have.get(chosen) or next(iter(have.values())), leaf)
    if chosen not in have:
        comments = [*(comment for _, comment in found.values()), *(_beside(k, leaf) for k in have.values())]
        return _entry(f"{key} (of {group}={', '.join(have)})", comments, takes, ", ".join(others))
    same_kind = [found[choice][1] for choice, kind in have.items() if kind is have[chosen]]
    comments = [next(filter(None, (found[chosen][1], *same_kind, _beside(have[chosen], leaf))), "")]
    default = f"{_shown(OmegaConf.select(config, key))} ({group}={chosen})"
    return _entry(key, comments, takes, "; ".join(filter(None, (default, ", ".join(others)))))


def _of_group(group: str, where: tuple[str, ...], config: DictConfig, chosen: str) -> str:
    """Explain a group: its choices with their first comment, and the keys of the selected choice."""
    known, kinds = groups(where)[group], list(SCHEMAS.get(group, {}).values())
    about = inspect.getdoc(inspect.getmro(kinds[0])[-2]) if kinds else ""
    lines = [f"{group}: {(about or '').partition(chr(10))[0]}".rstrip(": ")]
    width = max((len(choice) for choice in known), default=0)
    for choice in known:
        said = _header(where, f"{group}/{choice}")
        if not said and len(kinds) > 1 and group != "activation":
            said = (inspect.getdoc(_kind(group, choice, where) or object) or "").partition("\n")[0]
        lines.append(f"{'*' if choice == chosen else ' '} {choice:<{width}}  {said}".rstrip())
    node = OmegaConf.select(config, group)
    for leaf in node if isinstance(node, DictConfig) else ():
        if leaf != "name":
            words = [*where, f"{group}={chosen}"]
            lines += ["", *explain(f"{group}.{leaf}", words).splitlines()]
    return "\n".join(lines)


def _entry(key: str, comments: Iterable[str], takes: str, default: str) -> str:
    said = "; ".join(dict.fromkeys(filter(None, comments)))
    return f"{key}: {said}".rstrip(": ") + f"\n  takes    {takes}\n  default  {default}"


def _choice(group: str, choices: tuple[str, ...]) -> str:
    return str(composed(choices).hydra.runtime.choices.get(group, ""))


def _kind(group: str, choice: str, where: tuple[str, ...]) -> type | None:
    if group not in SCHEMAS:
        return None
    if choice in our_groups()[group]:
        return kind_of(group, choice)
    with suppress(ConfigError):  # a faulty file, which a run would report
        return OmegaConf.get_type(own((*where, f"{group}={choice}"))[group])
    return None


def _fields(kind: type) -> Iterable[str]:
    return getattr(kind, "__dataclass_fields__", {})


def _beside(kind: type, leaf: str) -> str:
    """Return the comment next to a field in the source of its class."""
    for owner in inspect.getmro(kind)[:-1]:
        if found := re.search(rf"^    {leaf}: .*?  # (.*)$", inspect.getsource(owner), re.MULTILINE):
            return "" if found[1].startswith("noqa") else found[1]
    return ""


def _in_yaml(leaf: str, where: tuple[str, ...], *names: str) -> tuple[str, str]:
    """Return the value and comment of a key from the first file that has it."""
    for text in _texts(where, names):
        if found := re.search(rf"^{leaf}: *([^#\n]*?) *(?:# *(.*))?$", text, re.MULTILINE):
            return found[1], found[2] or ""
    return "", ""


def _header(where: tuple[str, ...], name: str) -> str:
    first = next(_texts(where, (name,)), "").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") and not first.startswith("# @") else ""


def _texts(where: tuple[str, ...], names: Sequence[str]) -> Iterator[str]:
    files = (folder / f"{name}.yaml" for name in names for folder in folders(where))
    return (file.read_text(encoding="utf-8") for file in files if file.is_file())


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "name", value))
