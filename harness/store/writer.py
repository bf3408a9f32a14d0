"""Tables of a running run: appended batch by batch as an Arrow stream, one Parquet file at the end.

A stream is the schema followed by record batches. Its end may be torn by a kill at any moment: what is whole
is read, and a continued run cuts the stream back to where its checkpoint stood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.store.files import whole
from harness.store.schema import TABLES


class TableWriter:
    """One growing table.

    Args:
        folder: of the run; must exist.
        name: a key of `TABLES`.
        position: bytes of an existing stream to keep (from a checkpoint); 0 starts anew.
    """

    def __init__(self, folder: Path, name: str, position: int = 0) -> None:
        self._schema = TABLES[name]
        self._stream, self._parquet = folder / f"{name}.arrows", folder / f"{name}.parquet"
        if position and not self._stream.exists() and self._parquet.exists():
            self._finished: int | None = (
                position  # killed while finishing: this table already is what it shall be
            )
            return
        self._finished = None
        self._extra: list[str] | None = None if position == 0 else []
        if position:
            with self._stream.open("rb") as source, pa.ipc.open_stream(source) as reader:
                self._schema = reader.schema
        self._file: BinaryIO = self._stream.open("r+b" if position else "wb")
        self._file.truncate(position)
        self._file.seek(position)
        if position == 0:
            self._file.write(self._schema.serialize())
            self._file.flush()

    @property
    def position(self) -> int:
        """Bytes written so far: what a checkpoint has to remember."""
        return self._file.tell() if self._finished is None else self._finished

    def append(self, columns: Mapping[str, Any]) -> None:
        """Write rows; they are in the hands of the operating system when this returns.

        Raises:
            ValueError: columns of different lengths, or a missing one.
        """
        if self._extra is None:
            self._extend(columns)
        missing = [name for name in self._schema.names if name not in columns]
        if missing:
            raise ValueError(f"expected the columns {self._schema.names}, but {missing} are missing")
        arrays = [_array(columns[field.name], field.type) for field in self._schema]
        self.append_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _extend(self, columns: Mapping[str, Any]) -> None:
        """Columns of a user's statistic belong to the table, if they come with its first rows."""
        self._extra = [name for name in columns if name not in self._schema.names]
        if self._extra:
            for name in self._extra:
                self._schema = self._schema.append(pa.field(name, pa.array(columns[name]).type))
            self._file.seek(0)
            self._file.truncate()
            self._file.write(self._schema.serialize())

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Write rows that are an Arrow batch of the table's schema already.

        Raises:
            ValueError: it has another schema.
        """
        if batch.schema != self._schema:
            raise ValueError(f"expected the columns {self._schema.names}, but got {batch.schema.names}")
        self._file.write(batch.serialize())
        self._file.flush()

    def finish(self) -> None:
        """Turn the stream into one Parquet file and remove it."""
        if self._finished is not None:
            return
        self._finished = self.position
        self._file.close()
        table = read_stream(self._stream)
        floats: Any = [f.name for f in self._schema if pa.types.is_floating(f.type)]
        words: Any = [f.name for f in self._schema if pa.types.is_string(f.type)]
        with whole(self._parquet) as part:
            pq.write_table(
                table,
                part,
                compression="zstd",
                use_dictionary=words,
                use_byte_stream_split=floats,
            )
        self._stream.unlink()

    def close(self) -> None:
        """Leave the stream as it is."""
        if self._finished is None:
            self._file.close()


def read_table(folder: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A run's table: the Parquet file, or what is whole of the stream, or no rows.

    Args:
        folder: of the run.
        name: a key of `TABLES`.
        columns: which of them alone, in that order, words as dictionaries (in pandas: categories); None: all.

    Raises:
        ValueError: no such column.
    """
    schema = TABLES[name]
    unknown = [column for column in columns or () if column not in schema.names]
    if unknown:
        raise ValueError(f"{name}: expected some of the columns {', '.join(schema.names)}, but got {unknown}")
    parquet, stream = folder / f"{name}.parquet", folder / f"{name}.arrows"
    if columns is None:
        if parquet.is_file():
            return _read_all(parquet, schema)
        return read_stream(stream) if stream.is_file() else schema.empty_table()
    if parquet.is_file():
        table = _read_columns(parquet, schema, columns)
    else:
        table = read_stream(stream) if stream.is_file() else schema.empty_table()
    for column in columns:
        kind = schema.field(column).type
        if column not in table.schema.names:  # written before the table had it
            table = table.append_column(schema.field(column), pa.nulls(len(table), kind))
        if pa.types.is_string(table.schema.field(column).type):
            place = table.schema.get_field_index(column)
            table = table.set_column(place, column, table[column].dictionary_encode())
    return table.select(list(columns))


def _read_all(path: Path, schema: pa.Schema) -> pa.Table:
    """The whole file; columns that it lacks are nulls, those of a user's statistic come last."""
    with pq.ParquetFile(path) as file:
        if file.schema_arrow.equals(schema):
            return file.read()
        for field in file.schema_arrow:
            if field.name not in schema.names:
                schema = schema.append(field)
    return pq.read_table(path, schema=schema)


def _read_columns(path: Path, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Those of the columns that the file has; words stay the dictionaries that they are in the file."""
    words = [column for column in columns if pa.types.is_string(schema.field(column).type)]
    try:
        file = pq.ParquetFile(path, read_dictionary=words)
    except KeyError:  # it lacks one of them
        file = pq.ParquetFile(path)
    with file:
        return file.read([column for column in columns if column in file.schema_arrow.names])


def read_stream(path: Path) -> pa.Table:
    """The whole record batches of a stream; a torn tail costs at most the last one."""
    batches: list[pa.RecordBatch] = []
    schema: pa.Schema | None = None
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            schema = reader.schema
            while True:
                batches.append(reader.read_next_batch())
    except (StopIteration, pa.ArrowInvalid, OSError):
        pass
    if schema is None:
        name = path.stem
        return TABLES[name].empty_table()
    return pa.Table.from_batches(batches, schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray) and pa.types.is_floating(kind):
        values = values.astype(kind.to_pandas_dtype(), copy=False)
    return pa.array(values, type=kind, from_pandas=False)
