"""Write tables of a run in progress: append batches to an Arrow stream, and convert it to Parquet at the end.

A stream is the schema followed by record batches. If the process is killed, its end may be incomplete; a
continued run truncates it to the position of its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.store.files import whole
from harness.store.folder import config_digest
from harness.store.schema import TABLES
from harness.store.tables import CONFIG_KEY, read_stream, read_table


class TableWriter:
    """One growing table.

    Args:
        folder: the run's folder; must exist.
        name: a key of `TABLES`.
        position: bytes of an existing stream to keep (from a checkpoint); 0 starts a new one.
    """

    def __init__(self, folder: Path, name: str, position: int = 0) -> None:
        self._schema = TABLES[name]
        self._stream, self._parquet = folder / f"{name}.arrows", folder / f"{name}.parquet"
        if position and not self._stream.exists() and self._parquet.exists():
            self._finished: int | None = position  # killed while finishing: this table is already complete
            return
        self._finished = None
        self._extra: list[str] | None = None if position == 0 else []
        if position:
            with self._stream.open("rb") as source, pa.ipc.open_stream(source) as reader:
                self._schema = reader.schema
        self._file: BinaryIO = self._stream.open("r+b" if position else "wb")
        self._file.truncate(position)
        self._file.seek(position)
        self._before = position  # bytes before the last batch
        if position == 0:
            self._file.write(self._schema.serialize())
            self._file.flush()

    @property
    def position(self) -> int:
        """Bytes written so far, for a checkpoint."""
        return self._file.tell() if self._finished is None else self._finished

    def take_back(self) -> None:
        """Remove the rows of the last `append`."""
        self._file.truncate(self._before)
        self._file.seek(self._before)

    def append(self, columns: Mapping[str, Any]) -> None:
        """Write rows and flush them to the operating system.

        Raises:
            ValueError: a column is missing, or the columns have different lengths.
        """
        if self._extra is None:
            self._extend(columns)
        missing = [name for name in self._schema.names if name not in columns]
        if missing:
            raise ValueError(f"expected the columns {self._schema.names}, but {missing} are missing")
        arrays = [_array(columns[field.name], field.type) for field in self._schema]
        self.append_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _extend(self, columns: Mapping[str, Any]) -> None:
        """Add columns of user statistics to the schema, if the first rows have any."""
        self._extra = [name for name in columns if name not in self._schema.names]
        if self._extra:
            for name in self._extra:
                self._schema = self._schema.append(pa.field(name, pa.array(columns[name]).type))
            self._file.seek(0)
            self._file.truncate()
            self._file.write(self._schema.serialize())

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Write an Arrow batch of the table's schema.

        Raises:
            ValueError: it has another schema.
        """
        if batch.schema != self._schema:
            raise ValueError(f"expected the columns {self._schema.names}, but got {batch.schema.names}")
        self._before = self._file.tell()
        self._file.write(batch.serialize())
        self._file.flush()

    def finish(self) -> None:
        """Convert the stream to a Parquet file, and remove it."""
        if self._finished is not None:
            return
        self._finished = self.position
        self._file.close()
        digest = config_digest(self._stream.parent)
        table = read_stream(self._stream).replace_schema_metadata({CONFIG_KEY: digest} if digest else None)
        floats: Any = [f.name for f in self._schema if pa.types.is_floating(f.type)]
        words: Any = [f.name for f in self._schema if pa.types.is_string(f.type)]
        with whole(self._parquet) as part:
            pq.write_table(
                table,
                part,
                compression="zstd",
                use_dictionary=words,
                use_byte_stream_split=floats,
                write_page_checksum=True,
            )
        self._stream.unlink()

    def close(self) -> None:
        """Close the stream without converting it."""
        if self._finished is None:
            self._file.close()


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray) and pa.types.is_floating(kind):
        with np.errstate(over="ignore"):
            values = values.astype(kind.to_pandas_dtype(), copy=False)
    return pa.array(values, type=kind, from_pandas=False)


def keep_rows(folder: Path, name: str, step: int) -> int:
    """Convert a run's table back to a stream with the rows up to a step, so that it can be continued.

    Args:
        folder: the run's folder.
        name: a key of `TABLES`.
        step: the last step to keep.

    Returns:
        The stream's length in bytes; 0 if there are no such rows.
    """
    table = read_table(folder, name)
    kept = table.filter(pa.array(table["step"].to_numpy() <= step)).combine_chunks()
    content = kept.schema.serialize().to_pybytes()
    content += b"".join(batch.serialize().to_pybytes() for batch in kept.to_batches())
    with whole(folder / f"{name}.arrows") as part:  # before unlinking, so that one of the two always exists
        part.write_bytes(content)
    (folder / f"{name}.parquet").unlink(missing_ok=True)
    return len(content) if len(kept) else 0
