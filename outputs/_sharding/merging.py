"""Merge shards into a verified copy, which streams and can be resumed after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from outputs._errors import ResultError, ResultExistsError, ResultNotFoundError
from outputs._format.axes import Axis
from outputs._format.description import ResultDescription
from outputs._format.verification_state import (
    Verdict,
    VerificationState,
    differences_summary,
    weakest,
)
from outputs._reading.result import Result, open_result
from outputs._scanning.checksums import block_checksum
from outputs._scanning.parallel import Source
from outputs._scanning.sequential import Advance
from outputs._sharding.shard_files import ShardFile, execution_of, find_shards, read_shards
from outputs._sharding.virtual import create_virtual
from outputs._storage.files import part_path, translated
from outputs._verification.report import Verification
from outputs._verification.verify import verify_result
from outputs._writing.background import BackgroundWriter
from outputs._writing.directories import shared_directory
from outputs._writing.writer import ResultWriter

_BYTES_AT_ONCE = 32 * 2**20


def merge_shards(
    sources: Iterable[Path],
    target: Path,
    *,
    virtual: bool = False,
    advance: Advance = lambda count: None,
) -> bool:
    """Merge the shards of a matrix into one result.

    Every block is checked against its checksum while it is copied, and the whole matrix against
    the probes before it gets its name. At most about 100 MiB of the matrix, or three blocks, are
    in memory.

    Args:
        sources: Files, and directories to search for shards.
        target: Path of the result; an unfinished copy beside it is resumed.
        virtual: Whether the matrix stays in the shards, and the result only refers to them.
        advance: Called with the number of bytes of each part of the matrix that is copied.

    Returns:
        Whether anything was written: False if the result existed already.

    Raises:
        FingerprintMismatchError: If a shard belongs to another job.
        UnfinishedResultError: If lines are missing between the shards.
        ResultExistsError: If ``target`` is something else.
        ResultError: If shards overlap, a file is damaged, or the merged matrix fails its
            verification. The blocks copied so far are kept.
    """
    description, files = read_shards(*find_shards(sources))
    if not target.parent.is_dir():
        raise ResultNotFoundError(f"There is no directory {target.parent}.")
    with shared_directory(target):
        return _merged(description, files, target, virtual=virtual, advance=advance)


def _merged(
    description: ResultDescription,
    files: Sequence[ShardFile],
    target: Path,
    *,
    virtual: bool,
    advance: Advance,
) -> bool:
    if target.exists():
        _require_merged(target, description)
        return False
    if virtual:
        create_virtual(target, description, files, execution_of(files), partial(_verified, files))
        return True
    if part_path(target).exists():
        _require_same_layout(part_path(target), description, files[0].path)
        writer = ResultWriter.resume(target, description.fingerprint)
    else:
        writer = ResultWriter.create(target, description)
    with writer:
        with BackgroundWriter(writer) as background:
            for file in files:
                _copy(file, writer.missing(), background, advance)
        writer.finish(execution_of(files) | {"verification": _verified(files, writer.part)})
    return True


def _require_merged(target: Path, description: ResultDescription) -> None:
    with open_result(target) as found:
        if found.fingerprint != description.fingerprint:
            raise ResultExistsError(f"{target} is the result of another job; name another file.")


def _require_same_layout(part: Path, description: ResultDescription, shard: Path) -> None:
    """Refuse to continue an unfinished file, of an interrupted job, into which no shard fits."""
    with Result(part) as begun:
        if begun.fingerprint != description.fingerprint:
            return  # resuming says so
        for name in ("axis", "matrix_shape", "dtype"):
            there = getattr(begun, name)
            here = getattr(description, "shape" if name == "matrix_shape" else name)
            if str(there) != str(here):
                raise ResultError(
                    f"{part} was begun by a job without shards, and its {name} is {there}; that of "
                    f"{shard} is {here}. Remove {part.name}, or name another file with -o."
                )


def _copy(
    file: ShardFile, missing: Sequence[range], background: BackgroundWriter, advance: Advance
) -> None:
    with (
        Result(file.path) as result,
        translated(file.path),
        Source(result.stored_matrix, file.path) as source,
    ):
        origin = file.shard.start
        for blocks in _groups(file.blocks, result):
            start, stop = int(blocks["start"][0]), int(blocks["stop"][-1])
            gaps = [
                gap for gap in missing if gap.start < stop + origin and start + origin < gap.stop
            ]
            if not gaps:
                continue
            values = source.read(result.axis.bounded_region(result.matrix_shape, start, stop))
            _require_checksums(file, result.axis, blocks, values)
            for gap in gaps:
                first, last = max(gap.start - origin, start), min(gap.stop - origin, stop)
                part = values[result.axis.region(first - start, last - start)]
                background.submit(first + origin, last + origin, part)
                advance(part.nbytes)


def _groups(blocks: np.ndarray, result: Result) -> Iterator[np.ndarray]:
    """Group adjacent blocks to copy at once: small ones together, whole tiles if possible."""
    line = max(1, result.axis.across(result.matrix_shape) * result.dtype.itemsize)
    width = 1 if result.tile is None else result.axis.lines(result.tile)
    first = 0
    for index, block in enumerate(blocks):
        lines = int(block["stop"]) - int(blocks["start"][first])
        is_large = lines * line >= _BYTES_AT_ONCE
        if is_large and (int(block["stop"]) % width == 0 or lines >= 2 * width):
            yield blocks[first : index + 1]
            first = index + 1
    if first < len(blocks):
        yield blocks[first:]


def _require_checksums(file: ShardFile, axis: Axis, blocks: np.ndarray, values: np.ndarray) -> None:
    origin = int(blocks["start"][0])
    for block in blocks:
        start, stop = int(block["start"]), int(block["stop"])
        part = values[axis.region(start - origin, stop - origin)]
        if block_checksum(part) != int(block["checksum"]):
            shift = file.shard.start
            raise ResultError(
                f"{file.path} is damaged: its {axis} {start + shift}:{stop + shift} do not "
                f"have their checksum. Remove it and compute shard {file.shard} again."
            )


def _verified(files: Sequence[ShardFile], path: Path) -> dict[str, Any]:
    """Verify the whole file and return the figures for its execution record.

    The whole is verified no better than any of its shards.

    Raises:
        ResultError: If the verification fails.
    """
    found: Verification = verify_result(path)
    if not found.ok:
        raise ResultError(
            f"The shards do not make up the matrix: {'; '.join(found.problems)}. They are left as "
            f"they are, and so is {path}; remove it before the shards are merged again."
        )
    verdict = replace(found, recorded=weakest(map(_of_shard, files))).verdict
    if verdict.state is VerificationState.VERIFIED:
        beside = differences_summary(execution_of(files)["differences"])
        reason = "; ".join(filter(None, (found.products.reason, beside)))
        verdict = replace(verdict, reason=reason)
    errors = [error for error in (found.right_error, found.left_error) if error is not None]
    if not errors:
        reason = "the shards hold no probes; checksums agree"
        return verdict.record() | {"kind": "none", "reason": reason}
    return verdict.record() | {
        "kind": "probe",
        "lines_checked": found.lines_checked,
        "lines_without_finite_product": found.lines_unchecked,
        "largest_relative_error": max(errors),
        "tolerance": found.tolerance,
        **_smallest_quotient(files),
    }


def _smallest_quotient(files: Sequence[ShardFile]) -> dict[str, float]:
    """Return the Rayleigh quotient that shards of a curvature matrix record; others have none."""
    name = "smallest_rayleigh_quotient"
    records = [file.execution.get("verification", {}) for file in files]
    found = [each[name] for each in records if each.get(name) is not None]
    return {name: min(found)} if found else {}


def _of_shard(file: ShardFile) -> Verdict:
    return replace(file.verdict, reason=f"shard {file.shard}: {file.verdict.reason}")
