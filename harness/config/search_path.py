"""Search path for configurations: our tree, and the folders that Hydra's options and key add to it.

Options such as `--config-dir` are words of a command line, like overrides:
`compose(["--config-dir=conf", "seed=1"])`. As in Hydra, the first match wins:

1. the folder of `--config-path`, if given;
2. our tree;
3. the folder of `--config-dir`;
4. `hydra.searchpath=[…]`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin

from harness.config.errors import ConfigError
from harness.config.tree import PRIMARY, PROVIDER, config_dir, our_groups, register_schema

SHORT = {"-cd": "--config-dir", "-cp": "--config-path", "-cn": "--config-name"}
OPTIONS = tuple(SHORT.values())
VALUED = {"--config-name": "the name of a configuration", "--explain": "a key or a group, e.g. optim.lr"}
SEARCHPATH = "hydra.searchpath="
HIDDEN = ("common", "schema", "hydra")  # internal groups and Hydra's


def joined(argv: Sequence[str]) -> list[str]:
    """Normalise a command line: join each option with its value, and make folders absolute.

    Compositions can then be cached by their words, in any working directory and any process.

    Raises:
        ConfigError: an option has no value, or a folder does not exist.

    Example:
        >>> joined(["-cn", "mine", "seed=1"])
        ['--config-name=mine', 'seed=1']
    """
    words, left = list[str](), list(argv)
    while left:
        option, equals, value = left.pop(0).partition("=")
        name = SHORT.get(option, option)
        if name not in (*OPTIONS, *VALUED):
            word = f"{option}{equals}{value}"
            words.append(_absolute(word) if word.startswith(SEARCHPATH) else word)
            continue
        if not equals and left and not left[0].startswith("-"):
            value = left.pop(0)
        if not value:
            raise ConfigError(name, expected=VALUED.get(name, "a folder"), came="nothing")
        words.append(f"{name}={value if name in VALUED else _folder(name, value)}")
    return words


def is_option(word: str) -> bool:
    """Whether a word is one of the three `--config-…` options, in the form that `joined` returns."""
    return word.partition("=")[0] in OPTIONS


def places(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command line that affect the search path or the primary configuration."""
    return tuple(word for word in words if is_option(word) or word.startswith(SEARCHPATH))


def primary(words: Sequence[str]) -> str:
    """Return the name of the primary configuration of a command line."""
    return value_of(words, "--config-name") or PRIMARY


def folders(words: Sequence[str]) -> list[Path]:
    """Return the folders of the search path, in order, without packages."""
    more = [one for word in words if word.startswith(SEARCHPATH) for one in _listed(word) or ()]
    named = [value_of(words, "--config-path"), str(config_dir()), value_of(words, "--config-dir"), *more]
    return [Path(one.removeprefix("file://")) for one in named if one and not one.startswith("pkg://")]


class OurTree(SearchPathPlugin):
    """Hydra plugin that adds our tree to the search path, also with `--config-path`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append our tree if it is not there already."""
        ours = f"file://{config_dir()}"
        if all(one.path not in (ours, str(config_dir())) for one in search_path.get_path()):
            search_path.append(PROVIDER, ours)


def prepare() -> None:
    """Register our tree and its types with Hydra's application in this process (idempotent)."""
    register_schema()
    Plugins.instance().register(OurTree)


@contextmanager
def composing(words: Sequence[str]) -> Iterator[ConfigLoader]:
    """Set up Hydra for a command line, and restore its former state afterwards.

    Raises:
        ConfigError: `hydra.searchpath` is not a list of existing folders.
    """
    register_schema()
    version.setbase("1.3")
    search_path = create_config_search_path(value_of(words, "--config-path") or str(config_dir()))
    schema = search_path.get_path().pop()
    OurTree().manipulate_search_path(search_path)
    search_path.get_path().append(schema)
    if folder := value_of(words, "--config-dir"):
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    instance = GlobalHydra.instance()
    outer = instance.hydra
    instance.clear()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=")  # a folder that does not exist
            yield Hydra.create_main_hydra2("harness", search_path).config_loader
    except UserWarning as warning:
        place = str(warning).partition("path=")[2].removesuffix(" is not available.")
        raise ConfigError("hydra.searchpath", f"there is no folder {place}") from None
    except ConfigCompositionException as error:
        if not str(error).startswith("hydra.searchpath"):
            raise
        came = str(error).partition("Got: ")[2]
        raise ConfigError(
            "hydra.searchpath", expected="a list of folders, e.g. [file://conf]", came=came
        ) from None
    finally:
        instance.hydra = outer


@lru_cache(maxsize=64)
def groups(where: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return all groups with their choices: ours, and those of the folders that `places` finds."""
    if not where:
        return our_groups()
    with composing(where) as loader:
        name, more = primary(where), [word for word in where if not is_option(word)]

        def within(group: str, kind: ObjectType) -> list[str]:
            return loader.get_group_options(group, kind, name, more)

        def choices(group: str) -> Iterator[str]:
            yield from within(group, ObjectType.CONFIG)
            for folder in within(group, ObjectType.GROUP):
                yield from (f"{folder}/{choice}" for choice in choices(f"{group}/{folder}"))

        found = {g: sorted(set(choices(g))) for g in within("", ObjectType.GROUP) if g not in HIDDEN}
    return dict(sorted(found.items()))


def value_of(words: Sequence[str], option: str) -> str:
    """Return the value of an option in a command line; "" if it is absent."""
    return next((word.partition("=")[2] for word in words if word.partition("=")[0] == option), "")


def _listed(word: str) -> list[str] | None:
    """Return the items of a `hydra.searchpath=[…]`; None if it is not a list of texts (Hydra reports it)."""
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:
        return None
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return [str(one) for one in value] if isinstance(value, list) and texts else None


def _absolute(word: str) -> str:
    """Make the folders of a `hydra.searchpath=[…]` absolute."""
    listed = _listed(word)
    if listed is None:
        return word
    found = [_folder("hydra.searchpath", place) for place in listed]
    quoted = ("'" + (one if "://" in one else f"file://{one}").replace("'", r"\'") + "'" for one in found)
    return f"{SEARCHPATH}[{','.join(quoted)}]"


def _folder(option: str, value: str) -> str:
    if "://" in value and not value.startswith("file://"):
        return value
    folder = Path(value.removeprefix("file://")).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(option, expected="a folder", came=f"{value} (there is none)")
    return str(folder)
