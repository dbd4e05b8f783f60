"""Find the shard files of a matrix and check that they fit together, before anything is copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from outputs._errors import (
    ChangedFunctionError,
    FingerprintMismatchError,
    ResultError,
    UnfinishedResultError,
)
from outputs._format.axes import Shard
from outputs._format.description import ResultDescription
from outputs._format.verification_state import Verdict
from outputs._reading.result import Result
from outputs._scanning.reference import Reference
from outputs._storage.files import parsed, part_path

# The attributes that the files of one matrix have in common.
_COMMON = ("operation", "function", "strategy", "axis", "rows", "columns", "dtype")
_LISTED = 5
# The execution record has limited space.
_SHARDS_RECORDED = 500


@dataclass(frozen=True)
class ShardFile:
    """A finished file with a part of a matrix.

    Attributes:
        path: The file.
        shard: The part that the file holds.
        blocks: The committed blocks, entries of ``LEDGER_DTYPE`` in order of their start, which
            counts from the first line of the file.
        execution: The execution record of the file.
        verdict: How far its numbers are verified.
        host: Name of the machine that computed it; empty if not recorded.
    """

    path: Path
    shard: Shard
    blocks: np.ndarray
    execution: dict[str, Any]
    verdict: Verdict
    host: str


def find_shards(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the given files, and the shards, finished or not, in the given directories.

    Args:
        paths: Files and directories.

    Returns:
        The files, each once, and a sentence about each file of a directory that cannot be read.

    Raises:
        ResultError: If a path does not exist, or a directory holds no shard.
    """
    found: dict[Path, None] = {}
    unreadable: list[str] = []
    for path in paths:
        if path.is_dir():
            shards = [file for file in _results_below(path) if _is_shard(file, unreadable)]
            if not shards:
                raise ResultError(" ".join([f"There are no shards in {path}.", *unreadable]))
            found |= dict.fromkeys(shards)
        elif path.exists():
            found[path.absolute()] = None
        else:
            raise ResultError(f"There is no file or directory {path}.")
    return list(found), unreadable


def _results_below(directory: Path) -> list[Path]:
    files = {*directory.rglob("*.h5"), *directory.rglob("*.h5.part")}
    return sorted(file.absolute() for file in files if file.is_file())


def _is_shard(path: Path, unreadable: list[str]) -> bool:
    try:
        with Result(path) as result:
            return result.shard is not None
    except ResultError as error:
        unreadable.append(str(error))
        return False


def read_shards(
    paths: Sequence[Path], notes: Sequence[str] = ()
) -> tuple[ResultDescription, list[ShardFile]]:
    """Read the headers of the shards of one matrix and check that they cover it.

    Args:
        paths: The files, in any order.
        notes: Possible reasons for missing lines, as sentences.

    Returns:
        The description of the whole matrix, from the first shard, and the shards in order.

    Raises:
        FingerprintMismatchError: If a shard belongs to another job.
        ChangedFunctionError: If the function of a shard gave another value or other products.
        UnfinishedResultError: If lines are missing between the shards.
        ResultError: If a file is not a shard, two hold the same lines, or a file is damaged.
    """
    first, description = paths[0], _description(paths[0])
    files: list[ShardFile] = []
    explanations = [*notes]
    for path in paths:
        with Result(path) as result, parsed(path):
            _require_same(result, description, first)
            if result.shard is None:
                raise ResultError(f"{path} is not a shard, but a whole matrix.")
            if not result.complete or path.suffix == ".part":
                explanations.append(f"{path} is unfinished: {result.progress}.")
                continue
            if not result.is_finished:
                explanations.append(
                    f"{path} is unfinished, whatever its name: its job has not verified it; with "
                    f"the name {part_path(path).name} that job finishes it."
                )
                continue
            result.require_intact()
            files.append(_shard_file(result, result.shard))
    files.sort(key=lambda file: file.shard.start)
    _require_cover(files, description, explanations)
    return description, files


def _description(path: Path) -> ResultDescription:
    with Result(path) as result:
        return replace(result.description(), shard=None)


def _shard_file(result: Result, shard: Shard) -> ShardFile:
    return ShardFile(
        path=result.path,
        shard=shard,
        blocks=np.sort(result.ledger.committed, order="start"),
        execution=result.execution,
        verdict=result.verdict,
        host=str(result.provenance.get("host", "")),
    )


def _require_same(result: Result, description: ResultDescription, first: Path) -> None:
    if result.fingerprint != description.fingerprint:
        raise FingerprintMismatchError(
            f"{result.path} belongs to another job than {first}: its fingerprint is "
            f"{result.fingerprint}, not {description.fingerprint}."
        )
    for name in _COMMON:
        given, expected = getattr(result, name), getattr(description, name)
        if given != (np.dtype(expected) if name == "dtype" else expected):
            raise ResultError(f"{result.path} has other {name} than {first}: {given}.")
    probes = description.probes
    precision = float(np.finfo(np.result_type(description.dtype, np.float16)).eps)
    tolerance = precision**0.5 if probes is None else probes.tolerance
    if difference := Reference(description.value, probes, tolerance).difference(result.file):
        raise ChangedFunctionError(
            f"{result.path} is of another version of the function, or of the data that it reads, "
            f"than {first}: {difference}. Compute one of them again."
        )


def _require_cover(
    files: list[ShardFile], description: ResultDescription, explanations: list[str]
) -> None:
    stop, problems, before = 0, [], None
    for file in files:
        shard = file.shard
        if shard.start < stop and before is not None:
            raise ResultError(
                f"{before.path} and {file.path} hold the same {description.axis} "
                f"{shard.start}:{min(stop, shard.stop)}; name only one of them."
            )
        if shard.start > stop:
            problems.append(f"{description.axis} {stop}:{shard.start}")
        stop, before = shard.stop, file
    lines = description.axis.lines(description.shape)
    if stop < lines:
        problems.append(f"{description.axis} {stop}:{lines}")
    if problems:
        listed = ", ".join(problems[:_LISTED]) + (", ..." if len(problems) > _LISTED else "")
        raise UnfinishedResultError(
            " ".join([f"{listed} are in no finished shard.", *explanations])
        )


def execution_of(files: Sequence[ShardFile]) -> dict[str, Any]:
    """Return the execution record of the merged result: totals, and a summary of each shard."""
    records = [file.execution for file in files]
    fallbacks = {text: None for record in records for text in record.get("fallbacks", ())}
    peaks = [record.get("peak_memory_bytes", 0) for record in records]
    return {
        "seconds": sum(record.get("seconds", 0.0) for record in records),
        "lines_computed": sum(len(range(f.shard.start, f.shard.stop)) for f in files),
        "lines_resumed": 0,
        "peak_memory_bytes": max(peaks),
        "fallbacks": list(fallbacks),
        "nonfinite": _nonfinite(records),
        # Of the function and its point, and so the same for each shard.
        "differences": records[0].get("differences", []),
        "shards": [_summary(file) for file in files[:_SHARDS_RECORDED]],
        "shard_count": len(files),
    }


def _nonfinite(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    figures = [record.get("nonfinite", {}) for record in records]
    first = [place for one in figures for place in one.get("first", ())]
    return {"count": sum(one.get("count", 0) for one in figures), "first": first[:_LISTED]}


def _summary(file: ShardFile) -> dict[str, Any]:
    kept = ("device", "chunk_size", "seconds", "peak_memory_bytes")
    facts = {name: file.execution[name] for name in kept if name in file.execution}
    return {"start": file.shard.start, "stop": file.shard.stop, "host": file.host, **facts}
