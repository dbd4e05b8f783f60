"""Read columns of CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jobs.configuration.schema import TableSource
from jobs.errors import ConfigurationError, unknown
from jobs.sources.source_array import SourceArray

_SUFFIXES = (".csv", ".parquet")


def read_table(option: str, config: TableSource) -> dict[str, SourceArray]:
    """Read columns as vectors, or several of them as the columns of a matrix.

    Raises:
        ConfigurationError: pyarrow is not installed, the file cannot be read, or there is no
            such column.
    """
    table = _load(option, config.path)
    names = _column_names(option, config.path, table)
    arrays = {}
    for name, wanted in _wanted(option, config.columns, names).items():
        columns = [wanted] if isinstance(wanted, str) else list(wanted)
        for column in columns:
            if column not in names:
                raise unknown(f"{option}.columns", column, names)
            if names.count(column) > 1:
                raise ConfigurationError(
                    f"{option}.path={config.path}: there are {names.count(column)} columns {column}"
                )
        vectors = [_vector(option, config.path, table, column) for column in columns]
        values = vectors[0] if isinstance(wanted, str) else np.stack(vectors, axis=1)
        origin = f"{option}.path={config.path}, columns {', '.join(columns)}"
        arrays[name] = SourceArray(values, origin, is_text=config.path.lower().endswith(".csv"))
    return arrays


def _column_names(option: str, path: str, table: Any) -> list[str]:
    try:
        return table.column_names
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{option}.path={path}: the names of the columns are not text in UTF-8"
        ) from error


def _wanted(option: str, columns: Any, existing: list[str]) -> dict[str, Any]:
    """Return, for each tensor's name, a column or a list of columns."""
    if columns is None:
        return {name: name for name in existing}
    if isinstance(columns, Mapping) and columns:
        wanted = {str(name): value for name, value in columns.items()}
        if all(
            isinstance(v, str) or (isinstance(v, list) and v and all(isinstance(c, str) for c in v))
            for v in wanted.values()
        ):
            return wanted
    if isinstance(columns, str):
        return {columns: columns}
    if isinstance(columns, list) and columns and all(isinstance(c, str) for c in columns):
        return {name: name for name in columns}
    raise ConfigurationError(
        f"{option}.columns={columns}: valid is a list of columns, or a mapping such as "
        "{x: [a,b], y: c}"
    )


def _load(option: str, path: str) -> Any:
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ConfigurationError(f"{option}.path={path}: valid are files {' and '.join(_SUFFIXES)}")
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigurationError(
            f"{option}=table needs pyarrow, which is not installed: "
            "pip install 'autodiff-jobs[tables]'"
        ) from error
    try:
        if suffix == ".csv":
            return pyarrow.csv.read_csv(path)
        # The file is mapped into memory, and pyarrow decodes its columns.
        return pyarrow.parquet.read_table(path, memory_map=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigurationError(
            f"{option}.path={path}: this is not a readable {suffix} file: "
            + str(error).splitlines()[0]
        ) from error


def _vector(option: str, path: str, table: Any, column: str) -> np.ndarray:
    # An empty cell becomes NaN, which `SourceArray.require_numbers` reports.
    return table.column(column).to_numpy()
