"""Compose group choices with Hydra, cached per selection, since one composition takes a tenth of a second."""

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
    """Whether a command-line word affects Hydra's composition: an option, a group choice or a Hydra key."""
    if is_option(word):
        return True
    override = parse_one(word)
    return is_hydras(override) or _group_of(override) in groups(where)


def single_choices(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words that affect Hydra's composition, except those that are swept over."""
    where = places(words)
    return tuple(
        word
        for word in words
        if decides(word, where) and (is_option(word) or not parse_one(word).is_sweep_override())
    )


@lru_cache(maxsize=256)
def own(choices: tuple[str, ...]) -> DictConfig:
    """Compose the choices without Hydra's node; the result is cached, so copy it before changing it."""
    config = copy.deepcopy(composed(choices))
    with open_dict(config):
        del config["hydra"]
    return config


@lru_cache(maxsize=256)
def composed(choices: tuple[str, ...]) -> DictConfig:
    """Compose the choices, including Hydra's own node.

    Raises:
        ConfigError: there is no such choice, or the result is not the configuration of a run.
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
        # Hydra's message names the override, its cause the reason
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
    """Refuse an unknown choice of a group, and list the known ones."""
    override = parse_one(word)
    group, name = _group_of(override), word.partition("=")[2]
    known = groups(where).get(group)
    if known is not None and name not in known and (group, name) != ("experiment", "null"):
        raise ConfigError(
            group, expected=f"one of {', '.join(known)}", came=name, hint=did_you_mean(name, known)
        )
