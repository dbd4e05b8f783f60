"""Blocks of before are compared with what the function gives now when a result is resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outputs import ChangedFunctionError, Probes, Reference, ResultWriter, Shard, part_path

SHAPE = (12, 20)


def probes(matrix: np.ndarray, tolerance: float, pairing: Any = "bilinear") -> Probes:
    random = np.random.default_rng(1)
    right, left = (random.standard_normal(length) for length in (matrix.shape[1], len(matrix)))
    wide = matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
    if pairing != "bilinear":
        right = right + 1j * random.standard_normal(len(right))
        return Probes(right, (wide.conj() @ right).real, None, None, tolerance, pairing)
    return Probes(right, wide @ right, left, left @ wide, tolerance)


def begun(path: Path, matrix: np.ndarray, blocks: list[tuple[int, int]], described: Any) -> None:
    with ResultWriter.create(path, described) as writer:
        for start, stop in blocks:
            lines = slice(start, stop)
            writer.write(start, stop, matrix[lines] if writer.axis == "rows" else matrix[:, lines])


@pytest.mark.parametrize("wrong", [1.5, 1 + 1e-5, np.nan])
@pytest.mark.parametrize("tile", [None, (5, 4)])
@pytest.mark.parametrize(
    ("axis", "dtype", "kind"),
    [
        ("rows", "float64", "whole"),
        ("rows", "complex128", "whole"),
        ("rows", "complex128", "products"),
        ("columns", "float64", "whole"),
        ("columns", "complex128", "whole"),
        ("columns", "float64", "shard"),
        ("rows", "float64", "shard"),
        ("rows", "float64", "points"),
    ],
)
def test_a_block_of_another_function_is_found(
    axis, dtype, kind, tile, wrong, tmp_path, describe, entries, monkeypatch
):
    # Pieces of one or two rows.
    monkeypatch.setattr("outputs._scanning.parallel._PIECE_BYTES", 320)
    tile = None if kind == "points" else tile
    shape = (36, 20) if kind == "points" else SHAPE
    matrix = entries(shape, dtype)
    changes: dict[str, Any] = {"axis": axis, "dtype": dtype, "tile": tile}
    changes |= {"shard": {"shard": Shard(1, 3, 4, 10)}, "points": {"points": 3}}.get(kind, {})
    pairing = "real inner product" if kind == "products" else "bilinear"
    now = probes(matrix, 1e-8, pairing)
    reference = Reference({"y": np.asarray(2.5)}, now, 1e-8)
    blocks = [(4, 6), (7, 8), (8, 10)]
    described = describe(SHAPE, **changes)

    same = tmp_path / "same.h5"
    begun(same, matrix, blocks, described)
    with ResultWriter.resume(same, described.fingerprint, reference=reference) as writer:
        assert writer.damaged == []

    other = tmp_path / "other.h5"
    mixed = matrix.copy()
    mixed[(7, 3) if axis == "rows" else (3, 7)] *= wrong
    begun(other, mixed, blocks, described)
    before = part_path(other).read_bytes()
    with pytest.raises(ChangedFunctionError, match=f"^{axis} 7 to 8 do not multiply") as error:
        ResultWriter.resume(other, described.fingerprint, reference=reference)
    assert error.value.lines == 5
    assert part_path(other).read_bytes() == before


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.5 + 1e-12, None),
        (2.6, "the value y is 2.6 and was 2.5"),
        (np.nan, "is finite elsewhere"),
        (np.ones(2), r"has the shape \(2,\) and had \(\)"),
    ],
)
def test_the_value_is_compared_where_there_are_no_products(value, message, tmp_path, describe):
    described = describe()
    begun(tmp_path / "r.h5", np.ones(SHAPE), [(0, 2)], described)
    reference = Reference({"y": np.asarray(value)}, None, 1e-8)

    def resume() -> None:
        ResultWriter.resume(tmp_path / "r.h5", described.fingerprint, reference=reference).close()

    if message is None:
        resume()
        return
    with pytest.raises(ChangedFunctionError, match=message):
        resume()


def test_stored_products_are_compared_also_without_blocks(tmp_path, describe, entries):
    matrix = entries(SHAPE, "float64")
    described = describe(probes=probes(matrix, 1e-8))
    begun(tmp_path / "r.h5", matrix, [], described)
    now = probes(matrix * 1.001, 1e-8)
    reference = Reference({"y": np.asarray(2.5)}, now, 1e-8)
    with pytest.raises(ChangedFunctionError, match="12 of 12 entries of its product") as error:
        ResultWriter.resume(tmp_path / "r.h5", described.fingerprint, reference=reference)
    assert error.value.lines == 0


def test_rounding_of_lines_that_cancel_is_no_other_function(tmp_path, describe):
    """Errors are relative to the norm of a line, which its product may be far below."""
    random = np.random.default_rng(2)
    matrix = random.standard_normal(SHAPE) * 1e6
    right = random.standard_normal(SHAPE[1])
    # Every line is orthogonal to the vector: products are of the size of rounding.
    matrix -= np.outer(matrix @ right, right) / (right @ right)
    described = describe()
    begun(tmp_path / "r.h5", matrix, [(0, 12)], described)
    now = Probes(right, matrix @ right * 1.5 + 1e-9, None, None, 1e-8)
    reference = Reference({"y": np.asarray(2.5)}, now, 1e-8)
    ResultWriter.resume(tmp_path / "r.h5", described.fingerprint, reference=reference).close()
