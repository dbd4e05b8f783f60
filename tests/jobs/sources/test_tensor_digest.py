"""Hashes of tensors tell values, not how they lie in memory."""

import hashlib

import pytest
import torch

from jobs.sources import tensor_digest
from jobs.sources.tensor_digest import update_with_tensor


def digest(tensor: torch.Tensor) -> str:
    found = hashlib.sha256()
    update_with_tensor(found, tensor)
    return found.hexdigest()


@pytest.fixture(params=[2**26, 64], ids=["at once", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_digest, "BYTES_AT_ONCE", request.param)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.bfloat16, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (5, 3), (3, 40), (40, 3, 2), (1, 100)])
def test_equal_values_have_equal_hashes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = (torch.arange(max(1, torch.Size(shape).numel())) % 7)[: torch.Size(shape).numel()]
    plain = values.reshape(shape).to(dtype)
    turned = plain.T.contiguous().T if plain.dim() == 2 else plain.clone()
    spaced = torch.stack([plain, plain], -1)[..., 0]
    assert digest(plain) == digest(turned) == digest(spaced)
    if dtype.is_complex:
        assert digest(plain) == digest(plain.conj().clone().conj())


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("place", [0, 17, 99])
def test_each_entry_counts(place: int) -> None:
    plain = torch.zeros(20, 5)
    other = plain.clone()
    other.view(-1)[place] = 1
    assert digest(plain) != digest(other)


def test_a_small_tensor_has_the_hash_of_its_bytes() -> None:
    values = torch.arange(5.0)
    assert digest(values) == hashlib.sha256(values.numpy().tobytes()).hexdigest()
