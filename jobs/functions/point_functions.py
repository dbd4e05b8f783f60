"""Functions of the point alone: the user's function with its constants, or a loss of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from jobs.configuration.schema import BatchedLoss, LossConfig, PythonLoss
from jobs.errors import ConfigurationError
from jobs.functions.at_points import PointsFunction
from jobs.functions.batch_sum import BatchSum, Halves, halves_of
from jobs.functions.batches import Batches
from jobs.functions.curvature import Curvature
from jobs.functions.curvature_terms import Output, curvature_term
from jobs.functions.loading import LoadedFunction
from jobs.functions.losses import label_of, load_loss
from jobs.functions.returned_values import chosen_output, flat_outputs, without_batch
from jobs.functions.user_functions import Evaluate, noting_changes
from jobs.sources.source_array import SourceArray


def _brought_to(device: torch.device, evaluate: Evaluate) -> Evaluate:
    """Bring outputs that a function leaves on other devices to that of the point.

    Outputs without numbers, on the device meta, stay for the check of what is returned.
    """

    def moved(leaf: Any) -> Any:
        return leaf.to(device) if isinstance(leaf, Tensor) and not leaf.is_meta else leaf

    def brought(point: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Any:
        outputs = evaluate(point, constants)
        leaves = tree_leaves(outputs)
        is_there = all(leaf.device == device for leaf in leaves if isinstance(leaf, Tensor))
        return outputs if is_there else tree_map(moved, outputs)

    return brought


def with_loss(
    function: LoadedFunction,
    evaluate: Evaluate,
    constants: Mapping[str, SourceArray],
    config: LossConfig,
    dtype: torch.dtype,
    device: torch.device,
    batches: Batches | None = None,
    curvature: tuple[str, Sequence[Tensor]] | None = None,
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return a function of the point alone, and the choices that it depends on.

    Args:
        function: The function; its `output` is chosen of what it returns.
        evaluate: The function of the point and the constants.
        constants: The constants, and the labels of a loss.
        config: The option `loss`.
        dtype: The dtype of the job.
        device: The device of the constants.
        batches: Further constants that the user gives batch by batch; None for none.
        curvature: ``ggn`` or ``fisher`` and the point, for the curvature matrix of the loss; None
            for the loss.

    Raises:
        JobError: An option of the loss is not valid.
    """
    evaluate = _brought_to(device, noting_changes(function, evaluate))
    load = _loader(function, config, dtype, device)
    choices = _choices(function, config)
    if not isinstance(config, BatchedLoss):
        return _output_at(function, evaluate, load(constants, None)), choices
    if function.is_batched:
        evaluate = _of_batches_of_one(evaluate)
    loss_of = _loss_of_a_batch(function, evaluate, config)
    if batches is not None:
        choices["data"] = [batches.count, batches.digest]
        parts = _given_batches(batches, constants, load, config)
    elif config.batch_size is None:
        parts = None
    else:
        samples = _samples(constants, label_of(config))
        parts = _cut_batches(constants, load, config, samples, config.batch_size)
    whole = parts or (lambda: iter([(load(constants, None), 1.0)]))

    def halves(names: Sequence[str]) -> Halves | None:
        # The reductions of the built-in losses are known.
        if config.kind in ("mse", "cross_entropy"):
            return None
        return halves_of(next(whole())[0], names, loss_of, config.reduction)

    if curvature is not None:
        names = _names_of_samples(curvature[0], function, constants, batches, config)
        term = curvature_term(curvature[0], _output_of(function, evaluate, config), config)
        what = (whole, names, loss_of, term, config.reduction, lambda: halves(names))
        return Curvature(*curvature, *what), choices
    if parts is None:
        return loss_of(load(constants, None)), choices
    names = tuple(constants) if batches is None else batches.names
    terms = lambda: ((loss_of(part), weight) for part, weight in parts())  # noqa: E731
    return BatchSum(terms, lambda: halves(names)), choices


def at_points(
    function: LoadedFunction,
    evaluate: Evaluate,
    constants: Mapping[str, SourceArray],
    config: LossConfig,
    dtype: torch.dtype,
    device: torch.device,
    differing: Sequence[str],
    curvature: tuple[str, Sequence[Tensor]] | None = None,
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return a function of one of many points of one size, and the choices that it depends on.

    Args:
        function: The function; its `output` is chosen of what it returns.
        evaluate: The function of one point and its constants.
        constants: The constants, and the labels of a loss.
        config: The option `loss`.
        dtype: The dtype of the job.
        device: The device of the constants.
        differing: The names of the constants that have a leading dimension over points.
        curvature: As for `with_loss`, of the tensors of all points.

    Raises:
        JobError: An option of the loss is not valid.
    """
    evaluate = _brought_to(device, noting_changes(function, evaluate))
    choices = _choices(function, config)
    tensors = _loader(function, config, dtype, device, differing)(constants, None)
    if not isinstance(config, BatchedLoss):
        make = lambda part: _output_at(function, evaluate, part)  # noqa: E731
        return (PointsFunction(make, tensors, differing) if differing else make(tensors)), choices
    if function.is_batched:
        evaluate = _of_batches_of_one(evaluate)
    loss_of = _loss_of_a_batch(function, evaluate, config)
    if curvature is None:
        return PointsFunction(loss_of, tensors, differing), choices
    kind, base = curvature
    first = {
        name: replace(array, values=array.values[0]) if name in differing else array
        for name, array in constants.items()
    }
    names = _names_of_samples(kind, function, first, None, config)
    term = curvature_term(kind, _output_of(function, evaluate, config), config)
    here = {name: each[0] if name in differing else each for name, each in tensors.items()}
    call = PointsFunction(
        loss_of,
        tensors,
        differing,
        kind=kind,
        term_of=lambda part: term(part, names),
        base=base,
        # The other matrix does not take the loss of a point apart.
        halves=lambda: (
            _halves_of_outputs(_output_of(function, evaluate, config), config, here)
            if kind == "fisher"
            else None
        ),
    )
    return call, choices


def _halves_of_outputs(output: Output, config: BatchedLoss, constants: Tensors) -> Halves | None:
    """Return the loss of the outputs at a point, and of their halves, of a loss of the user's.

    Args:
        output: The outputs of the point and the constants, with a leading dimension over samples.
        config: The option `loss`.
        constants: The constants of the point, labels among them.
    """
    loss, label = load_loss(config), label_of(config)
    if not isinstance(config, PythonLoss) or loss is None or label is None:
        return None
    if not constants[label].dim():
        return None

    def loss_of(part: Tensors) -> Callable[..., Any]:
        return lambda *point: loss(output(point, constants)[part["places"]], part[label])

    given = {label: constants[label], "places": torch.arange(len(constants[label]))}
    return halves_of(given, (label, "places"), loss_of, config.reduction)


def _choices(function: LoadedFunction, config: LossConfig) -> dict[str, Any]:
    choices: dict[str, Any] = {} if function.output is None else {"output": function.output}
    choices |= {"batched": True} if function.is_batched else {}
    if isinstance(config, BatchedLoss):
        # Of a live loss its identity counts.
        left_out = ("covers", "modules", "held")
        choices["loss"] = {k: v for k, v in vars(config).items() if k not in left_out}
    return choices


Tensors = Mapping[str, Tensor]
Load = Callable[[Mapping[str, SourceArray], slice | None], dict[str, Tensor]]
Parts = Callable[[], Iterator[tuple[Tensors, float]]]


def _loader(
    function: LoadedFunction,
    config: LossConfig,
    dtype: torch.dtype,
    device: torch.device,
    differing: Sequence[str] = (),
) -> Load:
    """Return what loads constants; with the loss of a batch of one each gets that dimension."""
    real = dtype.to_real() if dtype.is_complex else dtype
    is_of_one = function.is_batched and isinstance(config, BatchedLoss)

    def load(arrays: Mapping[str, SourceArray], rows: slice | None) -> dict[str, Tensor]:
        found = {
            name: array.kept(dtype if array.is_complex else real, device, rows)
            for name, array in arrays.items()
        }
        if not is_of_one:
            return found
        return {n: t.unsqueeze(1 if n in differing else 0) for n, t in found.items()}

    return load


def _of_batches_of_one(evaluate: Evaluate) -> Evaluate:
    """Return a function of a point that goes in as a batch of one; its constants are batches."""
    return lambda point, part: evaluate([tensor.unsqueeze(0) for tensor in point], part)


_NO_SAMPLES = (
    "op=fisher: there are no samples, whose gradients the matrix consists of; it needs constants "
    "that share a leading dimension over samples, by wrt=params or by a wrt.pattern that leaves "
    "inputs as constants"
)


def _names_of_samples(
    kind: str,
    function: LoadedFunction,
    constants: Mapping[str, SourceArray],
    batches: Batches | None,
    config: BatchedLoss,
) -> Sequence[str]:
    """Return the names of the constants with a dimension over samples; none if there are none.

    Raises:
        ConfigurationError: A Fisher matrix consists of the gradients of samples, and has none.
    """
    label, names = label_of(config), ()
    # The point itself is the only sample of a batch of one.
    if function.is_batched:
        return names
    if batches is not None:
        is_over_samples = batches.samples is not None and set(batches.names) - {label}
        names = batches.names if is_over_samples else ()
    else:
        with suppress(ConfigurationError):
            _samples(constants, label)
            names = tuple(constants)
    if kind == "fisher" and not names and label is None:
        raise ConfigurationError(_NO_SAMPLES)
    return names


def _output_of(function: LoadedFunction, evaluate: Evaluate, config: BatchedLoss) -> Output:
    return lambda point, part: _single(function, config, _chosen(function, evaluate, point, part))


def _cut_batches(
    constants: Mapping[str, SourceArray], load: Load, config: BatchedLoss, samples: int, size: int
) -> Parts:
    """Return what yields the data of so many samples at once, with their weights."""

    def cut() -> Iterator[tuple[Tensors, float]]:
        for start in range(0, samples, size):
            stop = min(start + size, samples)
            weight = 1.0 if config.reduction == "sum" else (stop - start) / samples
            yield load(constants, slice(start, stop)), weight

    return cut


def _given_batches(
    batches: Batches,
    constants: Mapping[str, SourceArray],
    load: Load,
    config: BatchedLoss,
) -> Parts:
    """Return what yields the data of batches that the user makes, with their weights.

    Raises:
        ConfigurationError: Their mean needs numbers of samples, which they do not have.
    """
    samples = batches.samples
    if config.reduction == "mean" and not samples:
        raise ConfigurationError(
            "function.data loss.reduction=mean: the arrays of a batch have no common leading "
            "dimension over samples that would weigh it; valid is loss.reduction=sum"
        )
    whole = load(constants, None)

    def given() -> Iterator[tuple[Tensors, float]]:
        for batch in batches:
            weight = 1.0
            if config.reduction == "mean" and samples:
                weight = len(next(iter(batch.values())).values) / samples
            yield {**whole, **load(batch, None)}, weight

    return given


def _loss_of_a_batch(
    function: LoadedFunction, evaluate: Evaluate, config: BatchedLoss
) -> Callable[[Tensors], Callable[..., Any]]:
    """Return what makes the loss of a batch a function of the point."""
    loss, label = load_loss(config), label_of(config)

    def of_batch(part: Tensors) -> Callable[..., Any]:
        def call(*point: Tensor) -> Any:
            output = _chosen(function, evaluate, point, part)
            if loss is None or label is None:
                return flat_outputs(function, output)
            if not isinstance(config, PythonLoss):
                output = _single(function, config, output)
            return loss(output, part[label])

        return call

    return of_batch


def _output_at(
    function: LoadedFunction, evaluate: Evaluate, constants: Mapping[str, Tensor]
) -> Callable[..., Any]:
    """Return the output of a function of the point, which may go in as a batch of one."""

    def of_one(*point: Tensor) -> Any:
        batch = [tensor.unsqueeze(0) for tensor in point]
        named = {name: tensor.unsqueeze(0) for name, tensor in constants.items()}
        outputs = flat_outputs(function, _chosen(function, evaluate, batch, named))
        return without_batch(function, outputs)

    def of_point(*point: Tensor) -> Any:
        return flat_outputs(function, _chosen(function, evaluate, point, constants))

    return of_one if function.is_batched else of_point


def _chosen(
    function: LoadedFunction,
    evaluate: Evaluate,
    point: Sequence[Tensor],
    constants: Mapping[str, Tensor],
) -> Any:
    value = evaluate(point, constants)
    return value if function.output is None else chosen_output(value, function.output)


def _single(function: LoadedFunction, config: LossConfig, output: Any) -> Tensor:
    """Return the only tensor that a function returns, with which a built-in loss compares labels.

    Raises:
        ConfigurationError: It returns several.
    """
    found = flat_outputs(function, output)
    if isinstance(found, Tensor):
        return found
    several = found if isinstance(found, dict) else range(len(found))
    raise ConfigurationError(
        f"loss={config.kind}: {function.name} returns several tensors; choose one of them by "
        f"function.output={', '.join(map(str, several))}"
    )


def _samples(constants: Mapping[str, SourceArray], label: str | None) -> int:
    """Return the length of the leading dimension that all constants share."""
    if not set(constants) - {label}:
        raise ConfigurationError(
            "loss.batch_size: there are no data to split; it needs wrt=params, or a wrt.pattern "
            "that leaves inputs as constants"
        )
    lengths = {name: array.shape[:1] for name, array in constants.items()}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ConfigurationError(
            "loss.batch_size: all data need the same leading dimension over samples; the shapes "
            "are " + ", ".join(f"{name} {array.shape}" for name, array in constants.items())
        )
    ((samples,),) = set(lengths.values())
    if samples == 0:
        raise ConfigurationError("loss.batch_size: the data have no samples")
    return samples
