"""Read and validate stored files; an invalid file raises an error that names the reason.

Files in a folder of results may be truncated, swapped, edited or foreign. Readers get plain values of the
expected types, or a `DamagedFile`.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.words import printable

LARGEST = 1 << 24  # largest size of a text file in bytes
DEEPEST = 16  # largest depth of nested values
BITS = 1023  # largest size of an integer, so that it fits in a float
MOST = 100_000  # largest number of values in a file; short YAML aliases can expand to billions
LONGEST = 120  # most characters of file content shown in a message

Types = Mapping[str, tuple[type, ...]]  # dotted key → allowed types of its value


class DamagedFile(ValueError):
    """A stored file is invalid.

    Attributes:
        path: the file.
        reason: what is wrong with it, as the rest of a sentence that begins with "it".
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(printable(f"{path} cannot be read: it {reason}"))
        self.path, self.reason = path, reason

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.reason)


def is_there(path: Path) -> bool:
    """Whether the file exists.

    Raises:
        DamagedFile: the path is something else: a folder, a pipe, a device or a broken link.
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
    """Read a text file.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is not a regular file, cannot be read, is larger than `largest` bytes, or is not text.
    """
    if not is_there(path):  # check before opening, since opening a pipe would block
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
    """Read the JSON object in a file.

    Args:
        path: the file.
        types: expected types of the values that are used by name.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is not a JSON object of plain values, or a value has the wrong type.
    """
    text = read_text(path)
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, f"is no JSON ({one_line(error)})") from None
    return checked(path, value, types)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, refusing duplicate keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def checked(path: Path, value: Any, types: Types, most: int = MOST) -> dict[str, Any]:
    """Validate and copy the content of a parsed file, a nested mapping of plain values.

    Raises:
        DamagedFile: it is not a mapping, is too deep or too large, or has values of wrong types.
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
    """Read the JSON object in a file; None if there is no valid one."""
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
    """Format a value from a file for a message, shortened."""
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value):,} values"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def named_line(error: BaseException) -> str:
    """Format type and message of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def one_line(error: BaseException) -> str:
    """Format a library's error message in one short line."""
    return " ".join(str(error).split())[:LONGEST]
