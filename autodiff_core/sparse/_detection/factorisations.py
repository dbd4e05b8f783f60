"""Detection rules for factorisations and solvers: dense in each matrix of a batch."""

from __future__ import annotations

from typing import Any

from autodiff_core.sparse._detection.dependence import Traced
from autodiff_core.sparse._detection.index_sets import Layer, Layers
from autodiff_core.sparse._detection.reductions import reduce_dims
from autodiff_core.sparse._detection.registry import Call, rule, shape_of


@rule(
    "_linalg_det", "_linalg_eigh", "_linalg_eigvals", "_linalg_slogdet", "_linalg_svd",
    "cholesky", "cholesky_inverse", "geqrf", "linalg_cholesky_ex", "linalg_eig",
    "linalg_eigvals", "linalg_householder_product", "linalg_inv_ex", "linalg_ldl_factor_ex",
    "linalg_lstsq", "linalg_lu", "linalg_lu_factor_ex", "linalg_matrix_exp", "linalg_pinv",
    "linalg_qr", "logdet", "lu_unpack",
)  # fmt: skip
def _factorisation(call: Call) -> Any:
    """Return results that depend on all of one matrix each."""
    batch = len(call.arguments[0].shape) - 2
    parts = []
    for operand in call.arguments:
        if isinstance(operand, Traced):
            parts.append(reduce_dims(operand, range(batch, len(operand.shape)), call.context))
    results = []
    for meta in call.metas:
        shape = shape_of(meta)
        is_exact = meta is None or not (meta.dtype.is_floating_point or meta.dtype.is_complex)
        layers: Layers = ()
        if not is_exact and 0 not in shape:
            wide = [_widened(part, batch, shape) for part in parts]
            layers = call.context.sets.union(wide, shape)
        results.append(Traced(shape, layers))
    return results[0] if call.has_one_result else results


@rule(
    "_linalg_solve_ex", "cholesky_solve", "linalg_ldl_solve", "linalg_lu_solve",
    "linalg_solve_triangular", "lu_solve", "triangular_solve",
)  # fmt: skip
def _solution(call: Call) -> Any:
    """Return a solution, each column of which depends on its right side and the whole matrix."""
    matrix, side = _equation(call)
    shape = shape_of(call.metas[0])
    is_vector = len(shape) == len(matrix.shape) - 1
    if len(side.shape) != len(shape):
        return NotImplemented
    dim = -1 if is_vector or call.operand("left") is False else -2
    parts: list[Layers] = []
    if isinstance(side, Traced):
        parts.append(_kept(reduce_dims(side, [dim], call.context), shape))
    of_matrix: Layers = ()
    if isinstance(matrix, Traced):
        of_matrix = reduce_dims(matrix, [-2, -1], call.context)
        narrow = tuple(Layer(each.map.squeeze(-1), each.table) for each in of_matrix)
        parts.append(_kept(narrow if is_vector else of_matrix, shape))
    results = [Traced(shape, call.context.sets.union(parts, shape))]
    # What else is returned is a factorisation of the matrix.
    for meta in call.metas[1:]:
        is_exact = meta is None or not meta.dtype.is_floating_point
        own = shape_of(meta)
        results.append(Traced(own, () if is_exact else _kept(of_matrix, own)))
    return results[0] if call.has_one_result else results


def _equation(call: Call) -> tuple[Any, Any]:
    """Return the matrix and the right side of an equation."""
    matrix, side = call.arguments[0], call.operand("B")
    if call.name in ("cholesky_solve", "triangular_solve"):
        matrix, side = call.arguments[1], call.arguments[0]
    return matrix, side


def _kept(layers: Layers, shape: tuple[int, ...]) -> Layers:
    return tuple(Layer(layer.map.expand(shape), layer.table) for layer in layers)


def _widened(layers: Layers, batch: int, shape: tuple[int, ...]) -> Layers:
    """Return one element for each batch, expanded to a result of other trailing dimensions."""
    found = []
    for layer in layers:
        view = (*layer.map.shape[:batch], *(1,) * (len(shape) - batch))
        found.append(Layer(layer.map.reshape(view).expand(shape), layer.table))
    return tuple(found)


@rule("_cdist_forward")
def _distances(call: Call) -> Traced:
    """Return distances, each of which depends on one point of either set."""
    first, second = call.arguments[:2]
    parts: list[Layers] = []
    for points, is_first in ((first, True), (second, False)):
        if isinstance(points, Traced):
            for layer in reduce_dims(points, [-1], call.context):
                wide = layer.map if is_first else layer.map.transpose(-1, -2)
                parts.append((Layer(wide.expand(call.shape), layer.table),))
    return Traced(call.shape, call.context.sets.union(parts, call.shape))


@rule("_cdist_backward")
def _distances_backward(call: Call) -> Any:
    """Return the pullback to the first points: all distances of a point, and the second points."""
    cotangent, first, second, _, distances = call.arguments[:5]
    parts: list[Layers] = []
    for operand in (cotangent, distances):
        if isinstance(operand, Traced):
            parts.append(_kept(reduce_dims(operand, [-1], call.context), call.shape))
    if isinstance(first, Traced):
        parts.append(first.layers)
    if isinstance(second, Traced):
        layers = reduce_dims(second, [-2], call.context)
        parts.append(_kept(layers, call.shape))
    return Traced(call.shape, call.context.sets.union(parts, call.shape))
