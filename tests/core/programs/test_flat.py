"""Flat forms of steps are noted for the chunks that reach them, and give the same products."""

import torch
from torch import Tensor

from autodiff_core._programs.flat import Tracer
from autodiff_core._programs.program import Program
from autodiff_core._programs.recording import record
from autodiff_core._programs.rules.lowering import lower
from autodiff_core._programs.stacks import dense_stack, one_hot
from tests.core.support.cases import assert_same, draw

COUNT = 4
STEPS = 20


def states(x: Tensor) -> Tensor:
    """Return all states of a chain: the rows of the first ones depend on few of its steps."""
    found = []
    for _ in range(STEPS):
        x = torch.tanh(x.flip(0)) * x + 0.5 * x
        found.append(x)
    return torch.stack(found)


def recorded() -> tuple[Program, Tensor]:
    point = draw(COUNT)
    pull = torch.func.vjp(states, point)[1]
    example = draw(STEPS, COUNT, seed=1)
    jacobian = torch.func.jacrev(states)(point).reshape(STEPS * COUNT, COUNT)
    return lower(record(lambda parts: pull(parts[0]), (example,))), jacobian


def test_flat_forms_of_later_chunks_are_added() -> None:
    program, jacobian = recorded()
    like = draw(STEPS, COUNT)
    noted = []
    for start in range(0, STEPS * COUNT, COUNT):
        stop = start + COUNT
        if program.lacks_flat_forms(COUNT):
            with Tracer() as tracer:
                program.apply([one_hot(start, stop, like)], COUNT, tracer=tracer)
            noted.append(start)
        image = program.apply([one_hot(start, stop, like)], COUNT)[0]
        assert_same(image, jacobian[start:stop], 1e-12)
    # The first chunk reaches one step of the chain; the later ones are not all noted anew.
    assert noted[0] == 0
    assert 1 < len(noted) < STEPS / 2


def test_a_smaller_last_chunk_leaves_flat_forms_alone() -> None:
    program, jacobian = recorded()
    like = draw(STEPS, COUNT)
    last = STEPS * COUNT
    with Tracer() as tracer:
        program.apply([one_hot(last - COUNT, last, like)], COUNT, tracer=tracer)
    assert not program.lacks_flat_forms(COUNT - 1)
    image = program.apply([one_hot(last - COUNT + 1, last, like)], COUNT - 1)[0]
    assert_same(image, jacobian[last - COUNT + 1 :], 1e-12)
    assert program.flat_count == COUNT
    assert not program.lacks_flat_forms(COUNT)


def test_one_hot_vectors_are_written_out_for_an_operator_under_vmap_and_for_a_dense_term() -> None:
    point = draw(6)

    def function(x: Tensor) -> Tensor:
        return 2 * x.logcumsumexp(0) + 3 * x

    def push(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.func.jvp(function, (point,), (parts[0],))[1],)

    program = lower(record(push, (draw(6, seed=1),)))
    expected = torch.func.jacrev(function)(point).T
    with Tracer() as tracer:
        program.apply([one_hot(0, 3, point)], 3, tracer=tracer)
    for start in (0, 2, 3):
        image = program.apply([one_hot(start, start + 3, point)], 3)[0]
        assert_same(image, expected[start : start + 3], 1e-12)
    # The first step multiplies one-hot vectors, which stay what they are.
    assert [step.kind for step in program.steps.values()] == [
        "combine",
        "general",
        "pick",
        "combine",
    ]
    noted = [number for number, form in program._flats.items() if form]
    assert [program.steps[number].kind for number in noted] == ["general", "combine"]


def test_a_step_that_takes_one_tensor_twice_has_no_flat_form() -> None:
    data = draw(3, 2)
    with Tracer() as tracer:
        result, flat = tracer.traced(lambda: dense_stack(data * data), [data, data])
    assert_same(result.data, data**2, 0)
    assert flat is None
