"""Flat forms of steps are noted for the chunks that reach them, and give the same products."""

import pytest
import torch
from torch import Tensor

from autodiff_core import blocks
from autodiff_core._programs.flat import Flat, Form, Tracer, count_to_note
from autodiff_core._programs.program import Program
from autodiff_core._programs.recording import record
from autodiff_core._programs.rules.lowering import lower
from autodiff_core._programs.stacks import dense_stack, one_hot
from autodiff_core._tensors.matrix_product import MANY_TERMS, has_fast_product
from tests.core.support.cases import assert_same, draw
from tests.core.support.operators import BATCHED, OPERATORS

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
            program.apply([one_hot(start, stop, like)], COUNT, tracer=Tracer())
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
    program.apply([one_hot(last - COUNT, last, like)], COUNT, tracer=Tracer())
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
    program.apply([one_hot(0, 3, point)], 3, tracer=Tracer())
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


def test_all_one_hot_vectors_of_what_is_cut_up_are_written_out() -> None:
    def linear_map(vector: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, y, z = vector[0].split(2)
        return (torch.cat([5 * x + 2 * y, y * 3, z.flip(0)]),)

    basis = torch.eye(6, dtype=torch.float64)
    program = lower(record(linear_map, (basis[0],)))
    expected = torch.stack([linear_map((each,))[0] for each in basis])
    for start, stop in ((0, 2), (2, 5), (0, 6)):
        (images,) = program.apply([one_hot(start, stop, basis[0])], stop - start, tracer=Tracer())
        assert_same(images, expected[start:stop])
        noted = [number for number, form in program._flats.items() if form]
        # Of fewer vectors, parts can be known to be zero.
        is_cut = any(program.steps[number].kind == "cut" for number in noted)
        assert is_cut == (stop - start == 6)


def test_a_step_that_takes_one_tensor_twice_has_no_flat_form() -> None:
    data = draw(3, 2)
    tracer = Tracer()
    result, flat = tracer.traced(lambda: dense_stack(data * data), [data, data])
    assert_same(result.data, data**2, 0)
    assert flat is None


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("name", OPERATORS)
def test_forms_for_any_count_give_the_numbers_of_the_steps(
    name: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are used depends on time, on which no bit of a number may depend."""
    inner = OPERATORS[name]

    def hessian(is_flat: bool) -> Tensor:
        monkeypatch.setattr(Program, "gains_when_flat", is_flat)
        with torch.random.fork_rng():
            return blocks(
                lambda x: (inner(x) ** 2).sum(),
                draw(6, 4),
                operation="hessian",
                strategy=strategy,
                engine="captured",
                chunk_size=7,
            ).matrix()

    monkeypatch.setattr(Program, "is_short", lambda program, count: True)
    torch.testing.assert_close(hessian(True), hessian(False), rtol=0, atol=0, equal_nan=True)


def noted(program: Program, count: int, like: Tensor) -> list[Tensor]:
    """Return images by the forms that were noted for vectors of another count."""
    vectors = draw(3, *like.shape, seed=4)
    program.apply([dense_stack(vectors)], 3, tracer=Tracer(for_any_count=True))
    vectors = draw(count, *like.shape, seed=5)
    program.derive(count)
    given = program.apply([dense_stack(vectors)], count)
    program.keep_derived()
    for image, other in zip(given, program.apply([dense_stack(vectors)], count), strict=True):
        assert torch.equal(image, other)
    program.forget_flat_forms()
    expected = program.apply([dense_stack(vectors)], count)
    for image, other in zip(given, expected, strict=True):
        assert torch.equal(image, other)
    return list(given)


def test_sizes_that_depend_on_the_count_are_those_of_another_one() -> None:
    kernel = draw(2, 2, 3, seed=2)

    def steps(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # The kernel has as many positions as vectors are traced, and so has its stride.
        columns = torch.conv1d(parts[0], kernel, stride=3)
        return (columns.reshape(2, 2, -1).transpose(0, 1).reshape(4, -1).cumsum(0).flip(0),)

    like = draw(2, 2, 32)
    program = lower(record(steps, (like,)))
    (images,) = noted(program, 4, like)
    vectors = draw(4, 2, 2, 32, seed=5)
    assert_same(images, torch.stack([steps((each,))[0] for each in vectors]), 1e-12)
    assert "general" in {step.kind for step in program.steps.values()}


def test_a_step_that_computes_otherwise_for_many_vectors_is_not_flat_for_them() -> None:
    matrix = draw(64, 64, dtype=torch.float32)
    like = draw(64, 64, dtype=torch.float32)
    program = lower(record(lambda parts: (parts[0] @ matrix,), (like,)))
    vectors = draw(3, 64, 64, dtype=torch.float32)
    program.apply([dense_stack(vectors)], 3, tracer=Tracer(for_any_count=True))
    (form,) = program._forms.values()
    fewest = MANY_TERMS // 64**3
    assert form.thresholds == ([(3 * 64**3, MANY_TERMS)] if has_fast_product(like) else [])
    assert form.at(fewest - 1) is not None
    assert (form.at(fewest) is None) == has_fast_product(like)


def test_a_count_to_note_divides_no_size() -> None:
    assert count_to_note([(4, 8), (), (0, 2)]) == 3
    assert count_to_note([(12, 8), (1, 2)]) == 5
    assert count_to_note([(12,), (10,), (14,)]) is None


def test_forms_that_are_wrong_for_a_count_are_found_and_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def wrong(form: Form, count: int) -> Flat:
        asked.append(count)
        return Flat(strides_at(form, count), lambda *data: -data[0], form.like)

    def strides_at(form: Form, count: int) -> tuple[tuple[int, ...], ...]:
        found = at(form, count)
        return () if found is None else found.strides

    at = Form.at
    monkeypatch.setattr(Form, "at", wrong)
    monkeypatch.setattr(Program, "is_short", lambda program, count: count == 1)
    given = blocks(
        states, draw(COUNT), operation="jacobian", strategy="vectorize", engine="captured"
    )
    assert_same(given.matrix(), torch.func.jacrev(states)(draw(COUNT)).flatten(0, 1), 1e-12)
    assert given.engine == "captured"
    assert asked
