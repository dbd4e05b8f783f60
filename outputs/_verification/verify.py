"""Whether a file is whole and holds what was computed, found out without the function."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from outputs._errors import ResultError
from outputs._format import reading as layout
from outputs._format.description import Probes
from outputs._reading.result import Result
from outputs._reading.sparse_result import SparseResult, is_sparse_result
from outputs._scanning.parallel import Piece, Source, each, pieces
from outputs._storage.crc import combine, crc32
from outputs._storage.files import parsed, translated
from outputs._storage.regions import within

# A slab stays in a cache while its checksum, products and squares are taken.
_SLAB_BYTES = 2 * 2**20
# The squares of smaller entries vanish; what is below it counts as this much.
_SMALLEST_NORM = 1e-150
_OPENING_SECONDS = 120
_LISTED = 3
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from outputs._verification.verify import answer; answer(sys.argv[2])"
)


@dataclass(frozen=True)
class Verification:
    """What was found about one file.

    Attributes:
        path: The file.
        problems: One sentence each; none for a sound file.
        operation: That of the result, "" where it could not be read.
        shape: (rows, columns) of the matrix, or (points, rows, columns).
        dtype: Its stored dtype.
        complete: Whether committed blocks cover the whole axis.
        blocks: Number of committed blocks.
        corrupt: Ranges of the blocks whose data do not have their checksum.
        nonfinite: Entries that are NaN or infinite, in committed blocks.
        right_error: The largest error of a row's product with the right probe, relative to
            |row| |vector|; None where there is no such probe or the result is incomplete.
        left_error: The same of the columns and the left probe.
        tolerance: The largest honest error; None without probes.
        lines_checked: Rows and columns whose products were compared. Those with entries that are
            not finite, or beyond 1e150, cannot be.
        asymmetry: For a Hessian M with equal probes v the largest entry of |M v - v M| relative
            to |row| |v|: a figure, not a problem.
        bytes_read: Of the matrix.
        seconds: How long it took.
    """

    path: str
    problems: tuple[str, ...]
    operation: str = ""
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    complete: bool = False
    blocks: int = 0
    corrupt: tuple[tuple[int, int], ...] = ()
    nonfinite: int | None = None
    right_error: float | None = None
    left_error: float | None = None
    tolerance: float | None = None
    lines_checked: int = 0
    asymmetry: float | None = None
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_result(path: str | os.PathLike[str]) -> Verification:
    """Checks structure, ledger, checksums and probe products, in one pass over the file.

    Never raises for what is wrong with the file: that stands in ``problems``. A file whose HDF5
    metadata are damaged can end the process inside HDF5; ``verify_apart`` is safe from that.

    Args:
        path: A result, finished or unfinished.
    """
    return _verify(Path(path).absolute(), lambda: None)


def _verify(path: Path, opened: Callable[[], object]) -> Verification:
    started = time.monotonic()
    facts: dict[str, Any]
    try:
        if is_sparse_result(path):
            return replace(verify_sparse(path, opened), seconds=time.monotonic() - started)
        with Result(path) as result:
            facts = _header(result)
            opened()
            facts |= _data(result, facts["problems"])
    except ResultError as error:
        facts = {"problems": (str(error),)}
    except (OSError, MemoryError) as error:
        facts = {"problems": (f"{path} cannot be read: {error or 'out of memory'}.",)}
    return Verification(str(path), **facts, seconds=time.monotonic() - started)


def verify_sparse(path: Path, opened: Callable[[], object]) -> Verification:
    """The same of a sparse result: structure, checksums, and products with both probes."""
    with SparseResult(path) as result:
        with parsed(path):
            _ = result.configuration, result.provenance, result.execution, result.colours
        opened()
        problems = [
            f"{name} {start}:{stop} do not have their checksum"
            for name, start, stop in result.damaged_pieces()
        ]
        indptr, indices = result.pattern
        if not _are_rows(indptr, indices, result.shape):
            problems.append("indptr and indices are not those of compressed rows")
        facts: dict[str, Any] = {"nonfinite": 0}
        probes = result.probes
        if not problems:
            total = _zeros(probes, *result.shape, result.dtype)
            for start, rows in result.ranges():
                facts["nonfinite"] += int(np.count_nonzero(~np.isfinite(rows.data)))
                if probes is not None:
                    _add_rows(total, probes, start, rows)
            if probes is not None:
                facts |= _products(probes, total, problems)
        return Verification(
            str(path),
            tuple(problems),
            operation=result.operation,
            shape=result.shape,
            dtype=result.dtype.name,
            complete=True,
            blocks=1,
            tolerance=None if probes is None else probes.tolerance,
            bytes_read=result.stored_bytes,
            **facts,
        )


def _are_rows(indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether the columns of each row ascend and exist."""
    if indptr[0] != 0 or indptr[-1] != len(indices) or bool((np.diff(indptr) < 0).any()):
        return False
    if len(indices) == 0:
        return True
    ascends = np.diff(indices.astype(np.int64)) > 0
    firsts = indptr[1:-1]
    firsts = firsts[(firsts > 0) & (firsts < len(indices))]
    ascends[firsts - 1] = True
    return bool(ascends.all()) and int(indices.min()) >= 0 and int(indices.max()) < shape[1]


def _add_rows(total: _Sums, probes: Probes, start: int, rows: Any) -> None:
    """Add what some rows of a sparse matrix contribute to the products and norms."""
    wide = rows.astype(np.complex128 if rows.dtype.kind == "c" else np.float64)
    squares = abs(wide).power(2)
    here = slice(start, start + rows.shape[0])
    with np.errstate(all="ignore"):
        if total.right is not None and total.rows is not None and probes.right is not None:
            total.right[here] += wide @ _wide(probes.right)
            total.rows[here] += squares.sum(axis=1)
        if total.left is not None and total.columns is not None and probes.left is not None:
            total.left += wide.T @ _wide(probes.left)[here]
            total.columns += squares.sum(axis=0)


def verify_apart(path: str | os.PathLike[str]) -> Verification:
    """The same in a process of its own, whose crash is reported as a problem of the file."""
    path, started = Path(path).absolute(), time.monotonic()
    search = json.dumps([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, search, str(path)], capture_output=True, text=True
    )
    if done.returncode == 0:
        facts = json.loads(done.stdout)
        for name in ("problems", "shape", "corrupt"):
            facts[name] = _tuples(facts[name])
        return Verification(**facts)
    if done.returncode == -signal.SIGALRM:
        reason = f"its structure could not be read within {_OPENING_SECONDS} s"
    elif done.returncode < 0:
        reason = f"HDF5 crashed on it ({signal.Signals(-done.returncode).name})"
    else:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    problem = f"{path} is damaged: {reason}."
    return Verification(str(path), (problem,), seconds=time.monotonic() - started)


def answer(path: str) -> None:
    """What the process of ``verify_apart`` does: prints a verification as JSON.

    The system ends it when HDF5 does not come back from the structure.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_OPENING_SECONDS)
    print(json.dumps(asdict(_verify(Path(path), lambda: signal.alarm(0)))))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _header(result: Result) -> dict[str, Any]:
    """Everything beside the matrix is read, or at least found sound."""
    problems = []
    with parsed(result.path):
        _ = result.configuration, result.provenance, result.execution
        for name in (layout.Names.POINT, layout.Names.VALUE, layout.Names.VECTORS):
            group = layout.group_of(result._file, name)
            for key in map(str, group):
                layout.dataset(group, key)
    if result._ledger.impossible:
        problems.append(f"{len(result._ledger.impossible)} entries of the ledger are impossible")
    if not result.complete:
        problems.append(f"unfinished: {result.progress}")
    return {
        "problems": tuple(problems),
        "operation": result.operation,
        "shape": result.shape,
        "dtype": result.dtype.name,
        "complete": result.complete,
        "blocks": result.blocks,
    }


@dataclass
class _Sums:
    """What a piece, or the whole matrix, adds up to.

    ``right`` and ``left`` hold products with the probes, ``rows`` and ``columns`` the squared
    norms of the lines.
    """

    right: np.ndarray | None = None
    left: np.ndarray | None = None
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    nonfinite: int = 0
    checksums: list[tuple[int, int, int]] = field(default_factory=list)


def _data(result: Result, problems: Iterable[str]) -> dict[str, Any]:
    """One pass over the committed blocks: checksums, products, norms, entries not finite."""
    probes = result.probes
    used = probes if result.complete else None
    entries = np.sort(result._ledger.committed, order="start")
    blocks = list(zip(entries["start"].tolist(), entries["stop"].tolist(), strict=True))
    total = _zeros(used, *result.matrix_shape, result.dtype)
    found = [0] * len(blocks)
    with translated(result.path), Source(result._matrix, result.path) as source:
        work = _Work(used, result.dtype)
        todo = pieces(result._matrix, layout.axis_of(result._file), blocks)
        for piece, sums in each(source, work, todo):
            _add(total, sums, piece)
            for block, checksum, size in sums.checksums:
                found[block] = combine(found[block], checksum, size)
        bytes_read = source.bytes_read
    expected = entries["checksum"].tolist()
    corrupt = tuple(b for b, f, e in zip(blocks, found, expected, strict=True) if f != e)
    facts: dict[str, Any] = {
        "corrupt": corrupt,
        "nonfinite": total.nonfinite,
        "bytes_read": bytes_read,
    }
    problems = list(problems)
    if corrupt:
        problems.append(
            f"{len(corrupt)} of {len(blocks)} blocks of {result.axis} do not have their checksum: "
            f"{_listed(f'{start}:{stop}' for start, stop in corrupt)}"
        )
    if used is not None:
        facts |= _products(used, total, problems)
        facts["asymmetry"] = _asymmetry(result, used, total)
    facts["tolerance"] = None if probes is None else probes.tolerance
    return facts | {"problems": tuple(problems)}


def _zeros(probes: Probes | None, rows: int, columns: int, dtype: np.dtype) -> _Sums:
    if probes is None:
        return _Sums()
    sums = _Sums()
    if probes.right is not None:
        sums.right, sums.rows = np.zeros(rows, _kind(probes, dtype, probes.right)), np.zeros(rows)
    if probes.left is not None:
        sums.left = np.zeros(columns, _kind(probes, dtype, probes.left))
        sums.columns = np.zeros(columns)
    return sums


def _kind(probes: Probes, dtype: np.dtype, vector: np.ndarray) -> type:
    is_complex = probes.pairing == "bilinear" and "c" in (dtype.kind, vector.dtype.kind)
    return np.complex128 if is_complex else np.float64


class _Work:
    """What is done with each piece, by any thread."""

    def __init__(self, probes: Probes | None, dtype: np.dtype) -> None:
        self._probes, self._dtype = probes, dtype
        self._right = _wide(probes.right) if probes and probes.right is not None else None
        self._left = _wide(probes.left) if probes and probes.left is not None else None
        self._real = probes is not None and probes.pairing == "real inner product"

    def __call__(self, piece: Piece, values: np.ndarray) -> _Sums:
        rows, columns = piece.region
        sums = _zeros(self._probes, len(values), values.shape[1], self._dtype)
        with np.errstate(all="ignore"):
            for block, region in piece.parts:
                part = values[within(region[0], rows), within(region[1], columns)]
                sums.checksums.append((block, self._part(sums, piece, region, part), part.nbytes))
        return sums

    def _part(self, sums: _Sums, piece: Piece, region: Any, part: np.ndarray) -> int:
        checksum = 0
        height = max(1, _SLAB_BYTES // max(1, part.shape[1] * part.itemsize))
        for top in range(0, len(part), height):
            slab = np.ascontiguousarray(part[top : top + height])
            checksum = crc32(slab.reshape(-1).view(np.uint8).data, checksum)
            start = region[0].start + top
            self._slab(sums, piece, (slice(start, start + len(slab)), region[1]), _wide(slab))
        return checksum

    def _slab(self, sums: _Sums, piece: Piece, region: Any, slab: np.ndarray) -> None:
        real = slab.view(np.float64)
        here = tuple(within(one, origin) for one, origin in zip(region, piece.region, strict=True))
        if self._right is not None and sums.right is not None and sums.rows is not None:
            matrix = slab.conj() if self._real else slab
            product = np.einsum("ij,j->i", matrix, self._right[region[1]])
            sums.right[here[0]] += product.real if self._real else product
            sums.rows[here[0]] += np.einsum("ij,ij->i", real, real)
        if self._left is not None and sums.left is not None and sums.columns is not None:
            vector = self._left[region[0]]
            product = np.einsum("i,ij->j", vector.conj() if self._real else vector, slab)
            sums.left[here[1]] += product.real if self._real else product
            squares = np.einsum("ij,ij->j", real, real)
            if slab.dtype.kind == "c":
                squares = squares.reshape(-1, 2).sum(1)
            sums.columns[here[1]] += squares
        # A sum is finite only if its terms are; they are counted one by one only if it is not.
        if not math.isfinite(float(real.sum())):
            sums.nonfinite += int(slab.size - np.count_nonzero(np.isfinite(slab)))


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64, copy=False)


def _add(total: _Sums, sums: _Sums, piece: Piece) -> None:
    rows, columns = piece.region
    total.nonfinite += sums.nonfinite
    with np.errstate(all="ignore"):
        for name, squares, where in (("right", "rows", rows), ("left", "columns", columns)):
            whole, part = getattr(total, name), getattr(sums, name)
            if whole is None or part is None:
                continue
            whole[where] += part
            getattr(total, squares)[where] += getattr(sums, squares)


def _products(probes: Probes, total: _Sums, problems: list[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"lines_checked": 0}
    sides = (
        ("right", "rows", total.right, total.rows, probes.right, probes.right_product),
        ("left", "columns", total.left, total.columns, probes.left, probes.left_product),
    )
    for side, lines, given, squares, vector, expected in sides:
        if given is None or squares is None or vector is None or expected is None:
            continue
        with np.errstate(all="ignore"):
            errors = np.abs(given - expected)
            errors = _relative(errors, squares, vector, expected, probes.floor)
        checked = np.isfinite(errors) & np.isfinite(squares)
        facts["lines_checked"] += int(np.count_nonzero(checked))
        errors = np.where(checked, errors, 0)
        facts[f"{side}_error"] = float(errors.max(initial=0))
        if (wrong := np.flatnonzero(errors > probes.tolerance)).size:
            problems.append(
                f"{wrong.size} of {errors.size} {lines} do not multiply with the {side} probe as "
                f"they should: {_listed(map(str, wrong.tolist()))} "
                f"(error {errors.max():.2g}, allowed {probes.tolerance:.2g})"
            )
    return facts


def _asymmetry(result: Result, probes: Probes, total: _Sums) -> float | None:
    if result.operation != "hessian" or total.right is None or total.left is None:
        return None
    if probes.right is None or probes.left is None or total.rows is None:
        return None
    if not np.array_equal(probes.right, probes.left):
        return None
    with np.errstate(all="ignore"):
        difference = np.abs(total.right - total.left)
        errors = _relative(difference, total.rows, probes.right, total.right, probes.floor)
    return float(errors[np.isfinite(errors)].max(initial=0))


def _relative(
    errors: np.ndarray,
    squares: np.ndarray,
    vector: np.ndarray,
    product: np.ndarray,
    floor: float,
) -> np.ndarray:
    """Errors relative to |line| |vector|, and to the typical product where a line cancels."""
    size = np.abs(product)
    finite = size[np.isfinite(size)]
    typical = math.sqrt(float(np.mean(finite**2))) if finite.size else 0.0
    typical += floor
    scale = np.maximum(np.sqrt(squares), _SMALLEST_NORM) * np.linalg.norm(vector)
    return np.where(
        errors > 0, errors / (scale + np.where(size < np.inf, size, 0) + typical), errors
    )


def _listed(texts: Any) -> str:
    texts = list(texts)
    return ", ".join(texts[:_LISTED]) + (", ..." if len(texts) > _LISTED else "")
