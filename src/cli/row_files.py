"""Rows from a file: JSON lines, CSV, Parquet. Read as they are needed, not at once."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from ..errors import ConfigError, InputError
from ..export import load_pyarrow

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

__all__ = ["ENDINGS", "FileRows"]

ENDINGS: Final = (".jsonl", ".ndjson", ".csv", ".parquet")

_BATCH: Final = 1000

FIELD_CHARS_MAX: Final = 2**24
"""Of one value in CSV. Python's own bound is 131,072, which a document passes. Without one a quote that nobody closes
would have the whole file read into memory, eight bytes for each character.
"""


class FileRows:
    """The rows of a file, as often as they are asked for. Raises ConfigError if there is no file to read."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in ENDINGS:
            raise ConfigError(f"rows {str(path)!r}: a file of rows ends in {', '.join(ENDINGS)}")
        if not path.is_file():
            raise ConfigError(f"rows {str(path)!r}: there is no such file")
        self.path = path
        if path.suffix == ".parquet":
            load_pyarrow()

    def count(self) -> int:
        """Read the whole file once and return how many rows it has. Raises InputError that names the first bad one."""
        if self.path.suffix == ".parquet":
            with self._readable():
                return int(load_pyarrow()[1].ParquetFile(self.path).metadata.num_rows)
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row. Raises InputError that names the file and the line."""
        with self._readable():
            if self.path.suffix == ".parquet":
                yield from self._parquet()
            elif self.path.suffix == ".csv":
                yield from self._csv()
            else:
                yield from self._json_lines()

    def _json_lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
                if not text:
                    continue
                try:
                    row: object = from_json(text)
                except ValueError as error:
                    raise InputError(f"{self.path}, line {number}: not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise InputError(f"{self.path}, line {number}: {_kind(row)}; every line must be an object {{...}}")
                yield row

    def _csv(self) -> Iterator[dict[str, Any]]:
        csv.field_size_limit(FIELD_CHARS_MAX)  # of the whole process, which is the command's own
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = next(lines, list[str]())
            if len(set(names)) < len(names):
                raise InputError(f"{self.path}, line 1: a field is named twice: {', '.join(names)}")
            for values in lines:
                if not values:
                    continue
                if len(values) != len(names):
                    raise InputError(
                        f"{self.path}, line {lines.line_num}: {len(values)} values for {len(names)} fields in line 1"
                    )
                yield dict(zip(names, values, strict=True))

    def _parquet(self) -> Iterator[dict[str, Any]]:
        for batch in load_pyarrow()[1].ParquetFile(self.path).iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()

    @contextmanager
    def _readable(self) -> Generator[None]:
        try:
            yield
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is not UTF-8 text: {error}") from error
        except csv.Error as error:
            raise InputError(f"{self.path} is not CSV: {error}") from error
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from error
        except Exception as error:
            if type(error).__module__.startswith("pyarrow"):
                raise InputError(f"{self.path} is not Parquet: {error}") from error
            raise


def _kind(row: object) -> str:
    return "null" if row is None else f"a {type(row).__name__}"
