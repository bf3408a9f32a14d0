"""Choices of groups as Hydra composes them: once for each selection, since that takes a tenth of a second."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

from hydra import compose as hydra_compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config.errors import ConfigError, did_you_mean
from harness.config.overrides import is_hydras, key_of, parse_one
from harness.config.schema import RunSpec
from harness.config.search_path import composing, groups, is_option, places, primary

OTHER_NAME = "Give the file another name than config; its defaults list begins with `- config`."
FROM_OURS = "A file of one's own begins with one of ours, e.g. `defaults: [mlp, _self_]` in model/mine.yaml."


def decides(word: str, where: tuple[str, ...]) -> bool:
    """Whether a word of a command line decides what Hydra composes: a group's choice, or Hydra's own key."""
    if is_option(word):
        return True
    override = parse_one(word)
    return is_hydras(override) or _group_of(override) in groups(where)


def single_choices(words: Sequence[str]) -> tuple[str, ...]:
    """The words that decide what Hydra composes, but for those that are swept over."""
    where = places(words)
    return tuple(
        word
        for word in words
        if decides(word, where) and (is_option(word) or not parse_one(word).is_sweep_override())
    )


@lru_cache(maxsize=256)
def own(choices: tuple[str, ...]) -> DictConfig:
    """The composition without Hydra's node; copy it before you change it."""
    config = copy.deepcopy(composed(choices))
    with open_dict(config):
        del config["hydra"]
    return config


@lru_cache(maxsize=256)
def composed(choices: tuple[str, ...]) -> DictConfig:
    """Hydra's composition of the choices, Hydra's own node included.

    Raises:
        ConfigError: there is no such choice, or what it stands for is no configuration of ours.
    """
    overrides = [word for word in choices if not is_option(word)]
    for word in overrides:
        _check_choice(word, places(choices))
    try:
        with composing(choices):
            config = hydra_compose(primary(choices), overrides, return_hydra_config=True)
    except ConfigError:
        raise
    except MissingConfigException as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError("", f"cannot compose {' '.join(choices)}: {reason}") from error
    except (HydraException, OmegaConfBaseException, YAMLError, OSError, AssertionError, ValueError) as error:
        # Hydra says which override it was, its cause says why
        reason = " ".join(f"{error} {str(error.__cause__ or '').split('full_key')[0]}".split())
        hint = FROM_OURS if places(choices) else ""
        raise ConfigError(
            "", f"cannot compose {' '.join(choices)}: {reason.rstrip('.')}", hint=hint
        ) from error
    if OmegaConf.get_type(config) is not RunSpec:
        raise ConfigError(
            "--config-name", f"{primary(choices)} is no configuration of a run", hint=OTHER_NAME
        )
    return config


def _group_of(override: Override) -> str:
    return key_of(override).split("@", 1)[0]


def _check_choice(word: str, where: tuple[str, ...]) -> None:
    """Refuse what is no choice of its group, with the choices that there are."""
    override = parse_one(word)
    group, name = _group_of(override), word.partition("=")[2]
    known = groups(where).get(group)
    if known is not None and name not in known and (group, name) != ("experiment", "null"):
        raise ConfigError(
            group, expected=f"one of {', '.join(known)}", came=name, hint=did_you_mean(name, known)
        )
