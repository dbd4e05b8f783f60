"""Memory of results is reused if, and only if, it is no longer referenced."""

from __future__ import annotations

import gc
import mmap
import platform
import resource
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autodiff_core import blocks
from autodiff_core._tensors.reused_memory import (
    MOST_KEPT,
    SMALLEST,
    ReusedMemory,
    keep_freed_memory,
)

CPU = torch.device("cpu")
SHAPE = (1024, 1024)


def empty(memory: ReusedMemory, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return memory.empty(shape, torch.float32, CPU)


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_memory_without_references_is_reused():
    memory = ReusedMemory()
    first = empty(memory)
    before = place(first)
    del first
    assert place(empty(memory)) == before
    assert place(empty(memory, (1000, 1024))) == before


@pytest.mark.parametrize(
    "hold",
    [
        lambda tensor: tensor,
        lambda tensor: tensor[3:5, 7],
        lambda tensor: tensor.view(-1).detach(),
        lambda tensor: tensor.numpy()[1:2],
        lambda tensor: memoryview(tensor[0].numpy()),
    ],
    ids=["tensor", "part", "view", "array", "buffer"],
)
def test_memory_with_references_is_not_reused(hold: Callable[[Tensor], Any]):
    memory = ReusedMemory()
    first = empty(memory)
    before, held = place(first), hold(first)
    del first
    gc.collect()
    others = [empty(memory) for _ in range(MOST_KEPT + 2)]
    assert before not in map(place, others)
    assert len(set(map(place, others))) == len(others)
    del held
    assert place(empty(memory)) == before


def test_larger_pieces_replace_smaller_ones():
    memory = ReusedMemory()
    del_me = [empty(memory) for _ in range(3)]
    assert len(memory._kept) == 3
    del_me.clear()
    large = empty(memory, (2048, 1024))
    assert [len(piece) for piece in memory._kept] == [large.nbytes]


def test_smaller_chunks_use_less_memory():
    memory = ReusedMemory()
    del_me = [empty(memory, (8192, 1024)) for _ in range(3)]
    del_me.clear()
    small = empty(memory)
    assert [len(piece) for piece in memory._kept] == [small.nbytes]


def test_only_a_few_pieces_are_kept():
    memory = ReusedMemory()
    many = [empty(memory) for _ in range(2 * MOST_KEPT)]
    assert len(memory._kept) == MOST_KEPT
    assert len(set(map(place, many))) == len(many)


def test_small_tensors_are_allocated_by_torch():
    memory = ReusedMemory()
    assert empty(memory, (SMALLEST // 4 - 1,)).shape == (SMALLEST // 4 - 1,)
    assert empty(memory, (0, 7)).shape == (0, 7)
    assert memory._kept == []


def test_without_memory_torch_raises_its_own_error(monkeypatch: pytest.MonkeyPatch):
    def none_left(*given: Any, **options: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", none_left)
    assert empty(ReusedMemory()).shape == SHAPE


def test_blocks_that_are_kept_do_not_change():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(300, 400, generator=generator, dtype=torch.float64)
    offsets = torch.randn(300, generator=generator, dtype=torch.float64)
    x = torch.randn(400, generator=generator, dtype=torch.float64)

    def layer(weights: Tensor, offsets: Tensor) -> Tensor:
        return torch.tanh(weights @ x + offsets)

    streams = [
        blocks(
            layer,
            (weights, offsets),
            operation="jacobian",
            strategy="vectorize",
            engine=engine,
            chunk_size=30,
        )
        for engine in ("captured", "plain")
    ]
    # 29 MB each: all kept at once, and once more after they are freed.
    for _ in range(2):
        given, expected = ([block.values for block in stream] for stream in streams)
        assert len(set(map(place, given))) == len(given) == 10
        for values, plain in zip(given, expected, strict=True):
            torch.testing.assert_close(values, plain)
        del given
    assert streams[0].engine == "captured"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator learns")
def test_freed_memory_is_not_returned_to_the_system():
    keep_freed_memory()
    torch.ones(2**20).add(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**20).add(1)
    # Two tensors of 4 MiB have two thousand pages.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2000
