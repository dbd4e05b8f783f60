"""The file of answers beside a result: written whole, and read like a file of unknown origin."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from outputs._analysis.answer import Answer
from outputs._errors import ResultError
from outputs._format.creation import write_attributes
from outputs._format.tables import dataset, group_of
from outputs._format.validation import scalar, whole
from outputs._format.verification_state import Verdict
from outputs._storage.files import create_file, open_file, parsed, require_space, seal

FORMAT, VERSION = "autodiff-jobs-analysis", 1
_TEXTS = ("method", "error_kind", "summary", "request", "facts")
_BYTES_AT_ONCE = 16 * 2**20


class Source(Protocol):
    """What the file of answers says about its result."""

    path: Path
    operation: str
    function: str
    fingerprint: str

    @property
    def verdict(self) -> Verdict:
        """How far the numbers are verified."""
        ...

    def content_identity(self) -> str:
        """Return a hash of all that the result holds."""
        ...


def record_path(result: Path) -> Path:
    """Return where the answers of a result are by default."""
    return result.with_suffix(".analysis.h5")


def is_record(path: Path) -> bool:
    """Return whether a file holds answers; False for any other file."""
    try:
        with parsed(path), open_file(path, "r") as file:
            return "format" in file.attrs and scalar(file, "format") == FORMAT
    except ResultError:
        return False


def stored_answers(path: Path, identity: str) -> dict[str, Answer] | None:
    """Read the answers in a file, by name; the entries of Gram matrices stay there.

    Args:
        path: The file.
        identity: The content of the result, as `Source.content_identity` gives it.

    Returns:
        The answers; None if they are of another result, or of another content of this one.

    Raises:
        ResultError: If it is no file of answers, or is damaged.
    """
    with parsed(path), open_file(path, "r") as file:
        if "format" not in file.attrs or scalar(file, "format") != FORMAT:
            raise ResultError(f"{path} is no analysis of {FORMAT}; name another file with -o.")
        if scalar(file, "format_version") != VERSION:
            raise ResultError(f"{path} is an analysis of another version; name another with -o.")
        if scalar(file, "identity") != identity:
            return None
        return {name: _read(group_of(file, name), name) for name in map(str, file)}


def _read(group: h5py.Group, name: str) -> Answer:
    if scalar(group, "digest") != _digest(group):
        raise ResultError(f"{group.file.filename} is damaged: {name} does not have its checksum.")
    method, error_kind, summary, request, facts = (str(scalar(group, key)) for key in _TEXTS)
    is_large = name.startswith("gram_")
    arrays = {key: whole(dataset(group, key)) for key in map(str, group) if not is_large}
    values = arrays.pop("values", np.empty(0))
    error = arrays.pop("error", np.zeros(()))
    return Answer(
        name, values, error, error_kind, method, summary, request, json.loads(facts), arrays
    )


def write_record(
    path: Path,
    source: Source,
    answer: Answer,
    others: Mapping[str, Answer],
    old: Path | None,
) -> None:
    """Write a file of answers, sealed under a name that is not final yet.

    Args:
        path: A path at which no file exists yet.
        source: The result.
        answer: The new answer.
        others: The answers of the old file that are kept.
        old: The old file; None if there is none.
    """
    with create_file(path) as file:
        _write_header(file, source)
        if old is not None:
            with open_file(old, "r") as stored:
                for name in sorted(set(others) - {answer.name}):
                    stored.copy(stored[name], file, name)
        group = file.create_group(answer.name)
        arrays = {"error": answer.error, **answer.arrays}
        if answer.tiles is None:
            arrays["values"] = answer.values
        else:
            _write_tiles(group, answer)
        for name, values in arrays.items():
            group.create_dataset(name, data=np.asarray(values))
        texts = {key: getattr(answer, key) for key in _TEXTS if key != "facts"}
        write_attributes(group, {**texts, "facts": json.dumps(dict(answer.facts))})
        write_attributes(group, {"digest": _digest(group)})
    seal(path)


def _write_header(file: h5py.File, source: Source) -> None:
    verdict = source.verdict
    header = {
        "format": FORMAT,
        "format_version": VERSION,
        "source": source.path.name,
        "fingerprint": source.fingerprint,
        "identity": source.content_identity(),
        "operation": source.operation,
        "function": source.function,
        "verification": verdict.state.value,
        "verification_reason": verdict.reason or "no reason is recorded",
    }
    write_attributes(file, header)


def _write_tiles(group: h5py.Group, answer: Answer) -> None:
    assert answer.tiles is not None
    target = None
    for rows, columns, tile in answer.tiles():
        if target is None:
            needed = 2 * math.prod(answer.shape) * tile.dtype.itemsize
            require_space(Path(group.file.filename).parent, needed, "The products take")
            target = group.create_dataset("values", answer.shape, tile.dtype)
        target[rows, columns] = tile
        if rows != columns:
            target[columns, rows] = tile.conj().T


def _digest(group: h5py.Group) -> str:
    """Return the SHA-256 of the arrays and texts of an answer."""
    digest = hashlib.sha256()
    for key in _TEXTS:
        digest.update(json.dumps([key, str(scalar(group, key))]).encode())
    for name in sorted(map(str, group)):
        stored = dataset(group, name)
        digest.update(json.dumps([name, stored.dtype.str, stored.shape]).encode())
        for part in _parts(stored):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _parts(stored: h5py.Dataset) -> Iterator[Any]:
    if stored.nbytes <= _BYTES_AT_ONCE:
        yield stored[()]
        return
    step = max(1, _BYTES_AT_ONCE * stored.shape[0] // stored.nbytes)
    for start in range(0, stored.shape[0], step):
        yield stored[start : start + step]
