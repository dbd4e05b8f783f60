"""`python -m outputs.analyse`: files of answers, refusals, and what an interruption leaves."""

from __future__ import annotations

import os
import pickle
import re
import shutil

import h5py
import numpy as np
import pytest

from outputs import ResultWriter, open_result
from outputs._analysis.budget import Budget, parse_size
from outputs._analysis.matrices import DenseMatrix
from outputs.analyse import main as analyse
from outputs.verify import main as verify

SIZE = 300


@pytest.fixture
def result(describe, tmp_path):
    """Return a function that stores a matrix and returns its path."""

    def store(matrix, execution=None, name="r.h5", **changes):
        fields = {"operation": "hessian", "dtype": str(matrix.dtype), **changes}
        path = tmp_path / name
        with ResultWriter.create(path, describe(matrix.shape, **fields)) as writer:
            writer.write(0, len(matrix), matrix)
            writer.finish(execution or {"seconds": 1.0})
        return path

    return store


@pytest.fixture
def definite():
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((SIZE, SIZE)))[0]
    matrix = basis * np.linspace(1, 4, SIZE) @ basis.T
    return (matrix + matrix.T) / 2


@pytest.fixture
def scant(monkeypatch):
    """Give every analysis memory for so many vectors."""
    monkeypatch.setattr(Budget, "of_process", lambda limit: Budget(200 * SIZE * 8))


def answers(path):
    with h5py.File(path) as file:
        return {
            name: {key: np.asarray(group[key]) for key in group}  # pyright: ignore
            | dict(group.attrs.items())
            for name, group in file.items()
        }


def test_answers_are_printed_drawn_and_kept(result, definite, tmp_path, capsys, monkeypatch):
    path = result(definite)
    np.save(tmp_path / "b.npy", np.arange(SIZE))
    asked = ["--eigenvalues", "all", "--singular-values", "3", "--trace", "--log-determinant"]
    asked += ["--condition", "--gram", "rows", "--gram", "columns", "--spectral-density"]
    asked += ["--solve", str(tmp_path / "b.npy"), "--memory", "4GiB"]
    assert analyse([str(path), *asked]) == 0
    printed = capsys.readouterr().out
    assert "not verified: the file records no verification" in printed
    target = tmp_path / "r.analysis.h5"
    assert printed.endswith(f"{target}\n")
    found = answers(target)
    np.testing.assert_allclose(found["eigenvalues"]["values"], np.linalg.eigvalsh(definite))
    np.testing.assert_allclose(found["gram_rows"]["values"], definite @ definite.T, atol=1e-12)
    np.testing.assert_allclose(definite @ found["solution"]["values"], np.arange(SIZE), atol=1e-9)
    with h5py.File(target) as file:
        assert file.attrs["verification"] == b"not verified"
        assert file.attrs["fingerprint"] == b"0123456789abcdef"
    assert {each.name for each in tmp_path.iterdir()} == {
        *("r.h5", "b.npy", "r.analysis.h5", "r.analysis.png")
    }
    # What is there is not computed again; without a question all of it is shown.
    monkeypatch.setattr(DenseMatrix, "read", None)
    assert analyse([str(path), *asked]) == 0
    assert analyse([str(path)]) == 0
    assert "spectral density" in capsys.readouterr().out
    assert verify([str(tmp_path)]) == 4
    assert "analysis" not in capsys.readouterr().out


def test_the_state_of_verification_is_said(result, definite, capsys):
    record = {"verification": {"state": "contradicted", "state_reason": "it differs"}}
    path = result(definite, record)
    assert analyse([str(path), "--trace"]) == 0
    assert "contradicted: it differs" in capsys.readouterr().out
    with h5py.File(path.with_suffix(".analysis.h5")) as file:
        assert file.attrs["verification"] == b"contradicted"
        assert file.attrs["verification_reason"] == b"it differs"


def test_an_interrupted_iteration_continues(result, definite, tmp_path, scant, monkeypatch):
    path, one, other = result(definite), tmp_path / "one.h5", tmp_path / "other.h5"
    passes = 0
    product = DenseMatrix.product

    def interrupted(self, right):
        nonlocal passes
        if passes == stop:
            raise KeyboardInterrupt
        passes += 1
        return product(self, right)

    monkeypatch.setattr(DenseMatrix, "product", interrupted)
    question = [str(path), "--probes", "16", "--log-determinant", "--eigenvalues", "3"]
    stop = -1
    assert analyse([*question, "-o", str(one)]) == 0
    needed, passes, stop = passes, 0, 12
    assert analyse([*question, "-o", str(other)]) == 130
    products = tmp_path / "other.h5.products"
    assert products.exists()
    assert not other.exists()
    # A kill while a product is written leaves a part of it.
    os.truncate(products, products.stat().st_size - 100)
    stop = -1
    assert analyse([*question, "-o", str(other)]) == 0
    # The product that was cut off is computed again, and so are the two that test the symmetry.
    assert passes == needed + 2
    assert not products.exists()
    assert one.read_bytes() == other.read_bytes()


def test_products_of_another_matrix_are_not_used(result, definite, tmp_path, scant, monkeypatch):
    path, product, passes = result(definite), DenseMatrix.product, 0

    def interrupted(self, right):
        nonlocal passes
        passes += 1
        if passes == 9:
            raise KeyboardInterrupt
        return product(self, right)

    monkeypatch.setattr(DenseMatrix, "product", interrupted)
    assert analyse([str(path), "--eigenvalues", "2"]) == 130
    path.unlink()
    result(2 * definite)
    assert analyse([str(path), "--eigenvalues", "2"]) == 0
    found = answers(tmp_path / "r.analysis.h5")["eigenvalues"]["values"]
    np.testing.assert_allclose(found, 2 * np.linalg.eigvalsh(definite)[[0, 1, -2, -1]], rtol=1e-9)


def test_answers_of_a_changed_file_are_replaced(result, definite, tmp_path, capsys):
    path = result(definite)
    assert analyse([str(path), "--trace", "--condition"]) == 0
    path.unlink()
    result(definite + np.eye(SIZE))
    assert analyse([str(path), "--trace"]) == 0
    assert "is replaced" in capsys.readouterr().err
    found = answers(tmp_path / "r.analysis.h5")
    assert set(found) == {"trace"}
    assert found["trace"]["values"] == pytest.approx(np.trace(definite) + SIZE)


def nan(matrix):
    matrix[3, 4] = np.nan
    return matrix


def singular(matrix):
    matrix[:, 0] = matrix[:, 1]
    return matrix


REFUSALS = {
    "not symmetric": (lambda m: np.triu(m), ["--eigenvalues"], r"not symmetric: .* 0\.\d+|e-01"),
    "not square": (lambda m: m[:9], ["--trace"], "9 x 300.*--singular-values"),
    "not finite": (nan, ["--trace"], r"1 entries that are NaN or infinite.*\(3, 4\)"),
    "singular": (singular, ["--solve", "b.npy"], "singular to working precision"),
    "no determinant": (singular, ["--log-determinant"], "singular to working precision"),
    "no memory": (None, ["--trace", "--memory", "1MiB"], "too small: .* [MG]iB alone"),
    "no size": (None, ["--trace", "--memory", "lots"], "--memory=lots is no size"),
    "zero": (None, ["--eigenvalues", "0"], "--eigenvalues=0: a number from 1 on"),
    "short b": (None, ["--solve", "short.npy"], r"shape \(7,\).*\(300,\)"),
    "complex b": (None, ["--solve", "complex.npy"], "complex128"),
    "text b": (None, ["--solve", "text.npy"], "U1"),
    "b with NaN": (None, ["--solve", "nan.npy"], "1 entries that are not finite"),
    "no b": (None, ["--solve", "none.npy"], "There is no file none.npy"),
    "pickled b": (None, ["--solve", "pickle.npy"], "holds no array"),
    "nothing": (None, [], "There is no analysis of"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_refused_in_one_message(result, definite, tmp_path, capsys, monkeypatch, case):
    change, asked, message = REFUSALS[case]
    monkeypatch.chdir(tmp_path)
    b = {
        "b": np.ones(SIZE),
        "short": np.ones(7),
        "complex": np.ones(SIZE, complex),
        "text": np.full(SIZE, "a"),
        "nan": np.where(np.arange(SIZE) == 3, np.nan, 1),
    }
    for name, values in b.items():
        np.save(f"{name}.npy", values)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1]))
    path = result(definite if change is None else change(definite))
    before = set(tmp_path.iterdir())
    assert analyse([str(path), *asked]) == 1
    printed = capsys.readouterr()
    assert re.search(message, printed.err), printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert set(tmp_path.iterdir()) == before


def test_memory_that_is_too_small_says_what_is_enough(result, definite, capsys, monkeypatch):
    path = result(definite)
    taken = 10 * 2**20
    monkeypatch.setattr(Budget, "of_process", lambda limit: Budget(30 * SIZE * 8, taken))
    assert analyse([str(path), "--eigenvalues", "all"]) == 1
    printed = capsys.readouterr().err
    assert re.search(r"All eigenvalues needs 703.1 KiB .* leaves 70.31 KiB", printed), printed
    found = re.search(r"--memory=(\d+)MiB is enough", printed)
    assert found is not None
    enough = parse_size(f"{found[1]}MiB")
    monkeypatch.setattr(Budget, "of_process", lambda limit: Budget(enough - taken, taken))
    assert analyse([str(path), "--eigenvalues", "all"]) == 0


def test_files_that_cannot_be_trusted_are_refused(result, definite, tmp_path, capsys):
    path = result(definite)
    target = tmp_path / "r.analysis.h5"
    shutil.copy(path, target)
    assert analyse([str(path), "--trace"]) == 1
    assert "no analysis" in capsys.readouterr().err
    target.unlink()
    assert analyse([str(path), "--trace"]) == 0
    with h5py.File(target, "r+") as file:
        file["trace/values"][...] = 7.0  # pyright: ignore
    assert analyse([str(path), "--condition"]) == 1
    assert "trace does not have its checksum" in capsys.readouterr().err
    with h5py.File(target, "r+") as file:
        del file["trace"]
        file["trace"] = h5py.ExternalLink(str(path), "/point")
    assert analyse([str(path), "--condition"]) == 1
    assert "link to another place" in capsys.readouterr().err
    target.unlink()
    with open_result(path) as opened:
        offset = opened.dataset().id.get_offset()
    with open(path, "r+b") as raw:
        raw.seek(offset + 800)
        raw.write(b"\0\1")
    assert analyse([str(path), "--trace"]) == 1
    assert "do not have their checksum" in capsys.readouterr().err
    path.rename(f"{path}.part")
    assert analyse([str(path), "--trace"]) == 1
    assert "unfinished" in capsys.readouterr().err
