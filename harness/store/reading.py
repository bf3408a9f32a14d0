"""Stored files are read here, and checked: a file that is not what it should be has a reason, and no effect.

What lies in a folder of results may be torn, swapped, edited or made by somebody else. A reader gets plain
values of the expected types, or a `DamagedFile`.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.words import printable

LARGEST = 1 << 24  # bytes of a text file
DEEPEST = 16  # levels of nested values
BITS = 1023  # of a whole number; a larger one is no float
MOST = 100_000  # values in a file; aliases of YAML can be short and stand for billions
LONGEST = 120  # characters of a foreign word in a message

Types = Mapping[str, tuple[type, ...]]  # dotted key → what its value may be


class DamagedFile(ValueError):
    """A stored file that is not what it should be.

    Attributes:
        path: the file.
        reason: what is wrong with it; the rest of a sentence that begins with "it".
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(printable(f"{path} cannot be read: it {reason}"))
        self.path, self.reason = path, reason

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.reason)


def is_there(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        DamagedFile: something else is in its place: a folder, a pipe, a device, a link to nowhere.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise DamagedFile(path, "is a link to a file that is not there") from None
        return False
    except OSError as error:
        raise DamagedFile(path, f"cannot be opened ({error.strerror or error})") from None
    if not stat.S_ISREG(mode):
        raise DamagedFile(path, "is no file" if not stat.S_ISDIR(mode) else "is a folder, not a file")
    return True


def read_text(path: Path, largest: int = LARGEST) -> str:
    """The text of a file.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is no file, cannot be read, is larger than `largest` bytes, or no text.
    """
    if not is_there(path):  # before it is opened: opening a pipe waits for somebody who writes
        raise FileNotFoundError(path)
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise DamagedFile(path, f"is larger than {largest:,} bytes")
        return content.decode("utf-8")
    except OSError as error:
        raise DamagedFile(path, f"cannot be opened ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise DamagedFile(path, "is no text") from None


def read_object(path: Path, types: Types) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file.
        types: of the values that are used by name.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is no JSON object of plain values, or one of them is of another type.
    """
    text = read_text(path)
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, f"is no JSON ({one_line(error)})") from None
    return checked(path, value, types)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys come once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def checked(path: Path, value: Any, types: Types, most: int = MOST) -> dict[str, Any]:
    """A copy of a parsed file, of plain values by words.

    Raises:
        DamagedFile: it is no mapping, too deep, too large, or of other types.
    """
    if not isinstance(value, dict):
        raise DamagedFile(path, f"holds no mapping, but {_shown(value)}")
    copied = _plain(path, value, "", [most])
    for key, expected in types.items():
        found: Any = copied
        for part in key.split("."):
            if isinstance(found, dict):
                found = found.get(part)
        if found is not None and (not isinstance(found, expected) or isinstance(found, bool)):
            words = " or ".join(kind.__name__ for kind in expected)
            raise DamagedFile(path, f"has {_shown(found)} as {key}, where a {words} is expected")
    return copied


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in the file, or None if there is no readable one."""
    try:
        return checked(
            path, json.loads(read_text(path, 1 << 28)), {}, 1 << 24
        )  # a sweep can have a million runs
    except (OSError, ValueError, RecursionError):
        return None


def _plain(path: Path, value: Any, key: str, left: list[int], depth: int = 0) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth > DEEPEST:
        raise DamagedFile(path, "is nested too deeply or holds too many values")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise DamagedFile(path, f"has {_shown(name)} as a key{_in(key)}, where a word is expected")
        return {
            name: _plain(path, inner, f"{key}.{name}" if key else name, left, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_plain(path, inner, key, left, depth + 1) for inner in value]
    if isinstance(value, int) and value.bit_length() > BITS:
        raise DamagedFile(path, f"has a number of {value.bit_length():,} bits{_in(key)}")
    if value is None or isinstance(value, str | int | float):
        return value
    raise DamagedFile(path, f"holds a {type(value).__name__}{_in(key)}, which is no plain value")


def _in(key: str) -> str:
    return f" in {key[:LONGEST]}" if key else ""


def _shown(value: Any) -> str:
    """A foreign value in a message, short."""
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value):,} values"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def named_line(error: BaseException) -> str:
    """The kind of an error and what it says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def one_line(error: BaseException) -> str:
    """What a library says, in one short line."""
    return " ".join(str(error).split())[:LONGEST]
