import h5py
import numpy as np
import pytest
import torch

from outputs import (
    ResultError,
    ResultNotFoundError,
    ResultWriter,
    TensorSpec,
    UnfinishedResultError,
    open_result,
)


def one(x):
    return torch.outer(x, x)[:, :2]


def pair(x):
    return x.sin(), x.sum() * 2


def mixed(x, w):
    return (x * w.float()).sum(0)


def mixed_pair(x, w):
    return x.double().exp() * w, (x * x).sum()


X, W = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
BOTH = (X, W)


def specs(prefix, tensors):
    return tuple(
        TensorSpec(f"{prefix}/{i}", tuple(t.shape), str(t.dtype).removeprefix("torch."))
        for i, t in enumerate(tensors)
    )


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def write(path, describe, operation, expected, rows, columns, rows_are_tuple, columns_are_tuple):
    """Write the derivative that torch returned, flattened into one float64 matrix."""
    grid = expected if rows_are_tuple else (expected,)
    grid = [row if columns_are_tuple else (row,) for row in grid]
    matrix = np.block(
        [
            [
                entry.double().numpy().reshape(row.size, column.size)
                for entry, column in zip(entries, columns, strict=True)
            ]
            for entries, row in zip(grid, rows, strict=True)
        ]
    )
    description = describe(
        matrix.shape,
        operation=operation,
        rows=rows,
        columns=columns,
        rows_are_tuple=rows_are_tuple,
        columns_are_tuple=columns_are_tuple,
    )
    with ResultWriter.create(path, description) as writer:
        writer.write(0, matrix.shape[0], matrix)
        writer.finish({})


def assert_same(given, expected):
    assert type(given) is type(expected)
    if isinstance(expected, tuple):
        assert len(given) == len(expected)
        for g, e in zip(given, expected, strict=True):
            assert_same(g, e)
    else:
        torch.testing.assert_close(given, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("func", "inputs"),
    [
        (one, X[0]),
        (one, (X[0],)),
        (pair, X),
        (pair, (X,)),
        (mixed, BOTH),
        (mixed_pair, BOTH),
        (lambda x: (x.sum(),), X),
    ],
)
def test_jacobians_nest_as_torch_nests_them(describe, tmp_path, func, inputs):
    expected = torch.autograd.functional.jacobian(func, inputs)
    outputs = func(*as_tuple(inputs))
    rows, columns = specs("y", as_tuple(outputs)), specs("x", as_tuple(inputs))
    tuples = isinstance(outputs, tuple), isinstance(inputs, tuple)
    write(tmp_path / "r.h5", describe, "jacobian", expected, rows, columns, *tuples)
    with open_result(tmp_path / "r.h5") as result:
        assert_same(result.as_torch(), expected)


@pytest.mark.parametrize("inputs", [X, (X,), BOTH])
def test_hessians_nest_as_torch_nests_them(describe, tmp_path, inputs):
    def loss(x, w=W):
        return ((x.double() * w).sin() ** 2).sum()

    expected = torch.autograd.functional.hessian(loss, inputs)
    tensors, is_tuple = specs("x", as_tuple(inputs)), isinstance(inputs, tuple)
    write(tmp_path / "r.h5", describe, "hessian", expected, tensors, tensors, is_tuple, is_tuple)
    with open_result(tmp_path / "r.h5") as result:
        assert_same(result.as_torch(), expected)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("inputs", [X, BOTH])
def test_products_have_natural_shapes(describe, tmp_path, inputs, count):
    columns = specs("x", as_tuple(inputs))
    elements = sum(column.size for column in columns)
    matrix = np.arange(count * elements, dtype="float64").reshape(count, elements)
    description = describe(
        matrix.shape,
        operation="vjp",
        rows=(TensorSpec("vectors", (count,), "int64"),),
        columns=columns,
        columns_are_tuple=isinstance(inputs, tuple),
    )
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        writer.write(0, count, matrix)
        writer.finish({})
    with open_result(tmp_path / "r.h5") as result:
        products = as_tuple(result.as_torch())
        assert isinstance(result.as_torch(), tuple) == isinstance(inputs, tuple)
        assert result.block("vectors", "x/0").shape == (count, 1, 3)
    leading = () if count == 1 else (count,)
    for product, tensor in zip(products, as_tuple(inputs), strict=True):
        assert product.shape == (*leading, *tensor.shape)
        assert product.dtype == tensor.dtype
    assert products[0].reshape(-1)[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("stored", "row", "column", "expected"),
    [
        ("float32", "bfloat16", "bfloat16", torch.bfloat16),
        ("complex64", "float32", "float32", torch.float32),
        ("complex64", "complex64", "float32", torch.complex64),
        ("complex128", "float64", "complex128", torch.complex128),
    ],
)
def test_tensors_have_their_own_dtype(describe, tmp_path, stored, row, column, expected):
    description = describe(
        (2, 3),
        dtype=stored,
        rows=(TensorSpec("y", (2,), row),),
        columns=(TensorSpec("x", (3,), column),),
    )
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        writer.write(0, 2, np.ones((2, 3), stored))
        writer.finish({})
    with open_result(tmp_path / "r.h5") as result:
        tensor = result.as_torch()
    assert tensor.dtype == expected
    assert torch.equal(tensor, torch.ones(2, 3, dtype=expected))


def test_missing_unfinished_and_foreign_files(describe, tmp_path):
    with pytest.raises(ResultNotFoundError, match="no file"):
        open_result(tmp_path / "r.h5")
    with pytest.raises(ResultError, match="no file"):
        open_result(tmp_path)
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        writer.write(0, 5, np.ones((5, 20)))
        with pytest.raises(UnfinishedResultError, match=r"5 of 12 rows are committed in .*\.part"):
            open_result(tmp_path / "r.h5")
    with pytest.raises(UnfinishedResultError, match="5 of 12"):
        open_result(writer.part)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["jacobian"] = np.ones((2, 2))
    with pytest.raises(ResultError, match="not a result"):
        open_result(tmp_path / "foreign.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ResultError, match="not an HDF5 file"):
        open_result(tmp_path / "text.h5")


def test_unknown_names_and_closed_files(describe, tmp_path):
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish({})
    with open_result(tmp_path / "r.h5") as result, pytest.raises(ResultError, match="there are: x"):
        result.block("y", "z")
    for read in (lambda: result[0, 0], lambda: result.points, lambda: result.execution):
        with pytest.raises(ResultError, match="closed"):
            read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operation": "rows"}, "operation"),
        ({"axis": "diagonal"}, "axis"),
        ({"compression": "lzf"}, "compression"),
        ({"dtype": "bfloat16"}, "convert it to a numpy dtype"),
        ({"tile": (0, 4)}, "tile"),
        ({"rows": (TensorSpec("a", (6,), "int64"),) * 2}, "share the name 'a'"),
    ],
)
def test_descriptions_that_contradict_themselves(describe, change, message):
    with pytest.raises(ResultError, match=message):
        describe(**change)


@pytest.mark.parametrize("dtype", ["flot64", "save", "nn", ""])
def test_a_table_with_an_unknown_dtype_is_refused_as_torch(describe, tmp_path, dtype):
    columns = (TensorSpec("x", (20,), dtype),)
    with ResultWriter.create(tmp_path / "r.h5", describe(columns=columns)) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish({})
    with open_result(tmp_path / "r.h5") as result, pytest.raises(ResultError, match=r"r\.h5"):
        result.as_torch()
