"""Read and validate tables of a run, from its Parquet file or from the complete part of its stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from harness.store.digests import check_missing, check_own, is_own
from harness.store.folder import config_digest
from harness.store.reading import DamagedFile, is_there, one_line
from harness.store.schema import COUNTS, NEEDED, SHARES, TABLES, WORDS
from harness.words import UNSAFE, printable

compute: Any = pyarrow.compute  # type checkers do not know its functions, which are created at import
LONGEST = 10_000  # largest size of a text, since names of sites appear in figures, pages and terminals
CONFIG_KEY = b"harness.config"  # Parquet metadata key of the digest of the run's configuration
BEGINS = b"\xff\xff\xff\xff"  # first bytes of every message of a stream


def read_table(folder: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a run's table from the Parquet file or the complete part of the stream; without both, it is empty.

    Args:
        folder: the run's folder.
        name: a key of `TABLES`.
        columns: columns to return, in this order, with text as dictionaries (in pandas: categories); None:
            all, followed by those of user statistics.

    Returns:
        The table, with nulls for columns that an older run lacks.

    Raises:
        ValueError: there is no such column.
        DamagedFile: the file is invalid.
    """
    schema = TABLES[name]
    unknown = [column for column in columns or () if column not in schema.names]
    if unknown:
        raise ValueError(f"{name}: expected some of the columns {', '.join(schema.names)}, but got {unknown}")
    parquet, stream = folder / f"{name}.parquet", folder / f"{name}.arrows"
    if is_there(parquet):
        own = is_own(parquet)
        table = _read_parquet(parquet, name, columns, own=own)
        check_own(parquet, own)  # last, since errors about the values are more specific
        return table
    if is_there(stream):
        found = read_stream(stream)
    else:
        check_missing(parquet)
        found = schema.empty_table()
    return conforming(stream, name, found, found.schema.names, columns)


def _read_parquet(path: Path, name: str, columns: Sequence[str] | None, *, own: bool | None) -> pa.Table:
    words = [column for column in columns or () if pa.types.is_string(TABLES[name].field(column).type)]
    try:
        try:
            table, names, metadata = _read_columns(path, columns, words)
        except KeyError:  # an older run that lacks a text column
            with pq.ParquetFile(path) as file:
                there = set(file.schema_arrow.names)
            table, names, metadata = _read_columns(path, columns, [word for word in words if word in there])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DamagedFile(path, f"is no whole Parquet file ({one_line(error)})") from None
    of = None if own else metadata.get(CONFIG_KEY)
    if of is not None and of.decode("ascii", "replace") != config_digest(path.parent):
        raise DamagedFile(path, "is of another configuration than the one beside it")
    return conforming(path, name, table, names, columns)


def _read_columns(
    path: Path, columns: Sequence[str] | None, words: list[str]
) -> tuple[pa.Table, list[str], dict[bytes, bytes]]:
    """Read the requested columns that exist; also return all column names and the file's metadata."""
    with pq.ParquetFile(path, read_dictionary=words, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        there = names if columns is None else [column for column in columns if column in names]
        return file.read(there), names, file.schema_arrow.metadata or {}


def read_stream(path: Path) -> pa.Table:
    """Read the complete record batches of a stream; a truncated end loses at most the last one.

    Raises:
        DamagedFile: the file is not a stream.
    """
    batches: list[pa.RecordBatch] = []
    schema: pa.Schema | None = None
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            schema = reader.schema
            while True:
                batches.append(reader.read_next_batch())
    except (StopIteration, OSError, ValueError, pa.ArrowException):  # the end, possibly truncated
        pass
    if schema is not None:
        return pa.Table.from_batches(batches, schema)
    with path.open("rb") as file:
        if not BEGINS.startswith(file.read(len(BEGINS))):
            raise DamagedFile(path, "is no stream of tables")
    return TABLES[path.stem].empty_table()


def conforming(
    path: Path, name: str, table: pa.Table, names: Sequence[str], columns: Sequence[str] | None
) -> pa.Table:
    """Validate a table and convert it to the columns and types of its schema.

    Args:
        path: file of the table.
        name: a key of `TABLES`.
        table: the table as read.
        names: all columns of the file.
        columns: requested columns; None: all, followed by further ones of the file.

    Raises:
        DamagedFile: a required column is missing or has nulls, or a column has invalid values.
    """
    lacking = [column for column in NEEDED[name] if column not in names]
    if lacking:
        raise DamagedFile(path, f"lacks the column(s) {', '.join(lacking)}")
    if len(set(names)) < len(names):
        raise DamagedFile(path, "has two columns of one name")
    schema = TABLES[name]
    if columns is None and table.schema.equals(schema):
        found = {field.name: table[field.name] for field in schema}
    else:
        wanted = schema if columns is None else [schema.field(column) for column in columns]
        found = {
            field.name: _as(path, table[field.name], field, decoded=columns is None)
            if field.name in names
            else pa.chunked_array([pa.nulls(len(table), field.type)])
            for field in wanted
        }
        if columns is None:
            found |= {column: table[column] for column in names if column not in found}
        else:
            found = {column: _encoded(values) for column, values in found.items()}
    for column in ("site", "kind", "detail"):
        if column in found:
            found[column] = _shown(found[column])
    for column, values in found.items():
        _check(path, column, values, needed=column in NEEDED[name])
    if {"n", "active"} <= found.keys() and compute.any(compute.greater(found["active"], found["n"])).as_py():
        raise DamagedFile(path, "has units that opened on more inputs than there were")
    if name == "census" and columns is None and _has_twice(found):
        raise DamagedFile(path, "has rows twice")
    if name == "steps" and "step" in found and (np.diff(found["step"].to_numpy()) <= 0).any():
        raise DamagedFile(path, "has steps twice or in another order")
    return pa.table(found)


def _has_twice(census: dict[str, pa.ChunkedArray]) -> bool:
    """Whether a census has two rows with the same step, evidence, site and unit."""
    key: Any = 0
    for column in ("step", "evidence", "site", "unit"):
        values = census[column]
        codes = values.dictionary_encode().combine_chunks().indices if _is_word(values.type) else values
        numbers = codes.to_numpy().astype(np.int64)
        key = key * (int(numbers.max(initial=0)) + 2) + numbers + 1
    return bool((np.diff(key) <= 0).any()) and len(np.unique(key)) < len(key)  # usually sorted: a fast check


def _as(path: Path, values: pa.ChunkedArray, field: pa.Field, *, decoded: bool) -> pa.ChunkedArray:
    """Convert a column to the type of its field; text may stay a dictionary."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    alike = any(
        test(kind) and test(field.type)
        for test in (_is_word, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    )
    if not alike and not pa.types.is_null(kind):
        raise DamagedFile(path, f"has the type {kind} in column {field.name}, where {field.type} is expected")
    if values.type == field.type or (not decoded and pa.types.is_dictionary(values.type)):
        return values
    try:
        return values.cast(field.type)
    except pa.ArrowInvalid as error:
        raise DamagedFile(path, f"does not fit in column {field.name} ({one_line(error)})") from None


def _shown(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Escape control characters in a text column."""
    words = compute.unique(values).to_pylist()
    if not any(word and UNSAFE.search(word) for word in words):
        return values
    return pa.chunked_array(
        [pa.array([word and printable(word) for word in values.to_pylist()], pa.string())]
    )


def _encoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.dictionary_encode() if pa.types.is_string(values.type) else values


def _check(path: Path, column: str, values: pa.ChunkedArray, *, needed: bool) -> None:
    """Refuse nulls in required columns, values out of range, and texts that are invalid or too long."""
    if needed and values.null_count:
        raise DamagedFile(path, f"has rows without {column}")
    if not len(values):
        return
    if column in COUNTS and (compute.min(values).as_py() or 0) < COUNTS[column]:
        raise DamagedFile(path, f"has {compute.min(values).as_py()} in column {column}")
    if column in SHARES:
        extremes = compute.min_max(values).as_py().values()  # NaN where nothing was observed
        for extreme in extremes:
            if extreme is not None and (extreme < 0 or extreme > 1):
                raise DamagedFile(path, f"has {extreme} in column {column}")
    if column in WORDS and (strange := set(compute.unique(values).to_pylist()) - WORDS[column]):
        raise DamagedFile(path, f"has {printable(repr(min(strange)))} in column {column}")
    if _is_word(values.type):
        longest = compute.max(compute.binary_length(values)).as_py() or 0
    elif pa.types.is_dictionary(values.type):
        lengths = [
            compute.max(compute.binary_length(chunk.dictionary)).as_py() or 0 for chunk in values.chunks
        ]
        longest = max(lengths)
    else:
        return
    if longest > LONGEST:
        raise DamagedFile(path, f"has a word of {longest:,} bytes in column {column}")


def _is_word(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
