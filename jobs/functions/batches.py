"""The data of a loss as an iterable of batches, in the same order each time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from jobs.configuration.schema import BatchedLoss, LossConfig, PythonFunction
from jobs.errors import ConfigurationError, JobError
from jobs.functions.calling import argument_names, named_like_arguments
from jobs.functions.importing import import_target
from jobs.functions.loading import LoadedFunction
from jobs.functions.losses import label_of
from jobs.functions.tracebacks import error_with_frames
from jobs.machine.accelerator import seed_generators
from jobs.sources.live import held_arrays
from jobs.sources.source_array import SourceArray
from jobs.sources.tensor_digest import update_with_tensor

# How many batches are taken of what has no length, before it counts as endless.
_LARGEST_COUNT = 100_000
_VALID = "valid is an iterable of batches, such as a DataLoader, or a callable that returns one"

Batch = dict[str, SourceArray]


class Batches:
    """Batches of named arrays, which are the same ones at each iteration.

    Attributes:
        names: The names of the arrays of a batch.
        samples: The number of samples of all batches; None where the arrays of a batch differ in
            their leading dimensions.
        digest: The SHA-256 of all batches in their order.
        count: The number of batches.
        notes: What the user should know of them, as sentences.
    """

    def __init__(
        self, option: str, begin: Callable[[], Iterable[Any]], function: LoadedFunction, seed: int
    ) -> None:
        """Iterate once, to count and hash the batches and to check them.

        Args:
            option: The option and its value, for messages.
            begin: Returns an iterable of all batches.
            function: The function, whose arguments name the parts of batches without names.
            seed: The seed of torch's generators while batches are made.

        Raises:
            JobError: There are none, no end of them, or they differ in structure.
        """
        self._option, self._begin, self._function, self._seed = option, begin, function, seed
        self._digests: list[str] = []
        self.notes: list[str] = []
        self.names: tuple[str, ...] = ()
        lengths: list[int | None] = []
        for batch in self._read():
            number = len(self._digests)
            self.names = self.names or tuple(batch)
            if set(batch) != set(self.names):
                raise ConfigurationError(
                    f"{option}: batch {number} holds {', '.join(batch)}, and those before hold "
                    f"{', '.join(self.names)}; valid are batches of the same structure"
                )
            for name, array in batch.items():
                array.require_numbers(torch.complex128, name)
            self._digests.append(_digest(batch))
            lengths.append(_length(batch))
        if not self._digests:
            raise ConfigurationError(f"{option}: there is no batch; {_VALID}")
        known = [length for length in lengths if length is not None]
        self.count = len(self._digests)
        self.samples = sum(known) if len(known) == self.count else None
        self.digest = hashlib.sha256("".join(self._digests).encode()).hexdigest()
        self._require_same(0, next(self._read(), None))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches.

        Raises:
            JobError: They are others than at the first time.
        """
        number = 0
        for number, batch in enumerate(self._read(), 1):
            self._require_same(number - 1, batch)
            yield batch
        if number < self.count:
            self._require_same(number, None)

    def rest_of(self, function: LoadedFunction) -> LoadedFunction:
        """Return a function as a source sees it that gives all arguments but these."""

        def rest(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for name in names if name not in self.names)

        signature = function.signature
        if signature is not None:
            signature = replace(
                signature,
                positional=rest(signature.positional),
                keyword_only=rest(signature.keyword_only),
                required=rest(signature.required),
            )
        arguments = None if function.arguments is None else rest(function.arguments)
        return replace(function, arguments=arguments, signature=signature)

    def require_all(self, rest: LoadedFunction) -> None:
        """Check that the batches give all arguments, if nothing else does.

        Args:
            rest: What `rest_of` has returned.

        Raises:
            ConfigurationError: The function needs others.
        """
        if rest.arguments:
            raise ConfigurationError(
                f"{self._option}: the batches hold {', '.join(self.names)}, and "
                f"{', '.join(rest.arguments)} is needed as well, from the batches, or from inputs= "
                "where it is the same for all of them; batches are tuples in the order of the "
                "arguments with the labels at the end, or dictionaries by name"
            )

    def _require_same(self, number: int, batch: Batch | None) -> None:
        known = self._digests[number] if number < self.count else ""
        if (batch is None) or _digest(batch) != known:
            raise JobError(
                f"{self._option}: batch {number} "
                + ("is missing when" if batch is None else "is another one when")
                + " the batches are read again, and each block of a result needs all of them; "
                "valid is a fixed order without random changes, such as shuffle=False"
            )

    def _read(self) -> Iterator[Batch]:
        """Yield the batches with torch's generator in the same states each time."""
        state, number, limit = None, 0, _LARGEST_COUNT
        iterator: Iterator[Any] | None = None
        while True:
            outside = torch.get_rng_state()
            seed_generators(self._seed) if state is None else torch.set_rng_state(state)
            # The user's code may raise anything.
            try:
                if iterator is None:
                    iterable = self._begin()
                    limit = _length_of(iterable) or limit
                    iterator = iter(iterable)
                given = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                raise JobError(
                    f"{self._option}: reading batch {number} failed with {error_with_frames(error)}"
                ) from error
            finally:
                state = torch.get_rng_state()
                torch.set_rng_state(outside)
            if number >= limit:
                raise ConfigurationError(
                    f"{self._option}: there are more than {limit:,} batches, "
                    + ("its length" if limit != _LARGEST_COUNT else "and no length (__len__)")
                    + f", so that it may have no end; {_VALID}"
                )
            yield self._named(number, given)
            number += 1

    def _named(self, number: int, given: Any) -> Batch:
        option = f"{self._option}, batch {number}"
        held = held_arrays(option, given)
        if not isinstance(held, dict):
            parts = held if isinstance(held, tuple) else (held,)
            held = dict(zip(self._names_by_position(option, len(parts)), parts, strict=True))
        return {name: SourceArray(each, option) for name, each in held.items()}

    def _names_by_position(self, option: str, count: int) -> tuple[str, ...]:
        """Return the names of the last arguments of the function; the label is the last of all."""
        needed = self._function.arguments
        if needed is None:
            return argument_names(None, count, self._function.signature)
        if count > len(needed):
            raise ConfigurationError(
                f"{option} holds {count} arrays; {self._function.name} needs "
                f"{', '.join(needed) or 'none'}; batches with others are dictionaries by name"
            )
        return needed[len(needed) - count :]


def load_batches(
    config: PythonFunction, loss: LossConfig, function: LoadedFunction, seed: int
) -> Batches:
    """Load what the option `function.data` names.

    Args:
        config: The option `function`; its `data` is not None.
        loss: The option `loss`: its `batch_size` cuts a dataset of samples into batches.
        function: The function.
        seed: The seed of torch's generators while batches are made.

    Raises:
        JobError: It does not exist, or is no iterable of batches that can be read repeatedly.
    """
    option = f"function.data={config.data}"
    assert isinstance(loss, BatchedLoss)
    named = config.held_data
    if named is None:
        named = import_target("function.data", str(config.data))
    begin = _beginning(option, named)
    first = begin()
    size = loss.batch_size
    is_dataset = isinstance(first, Dataset) or (size is not None and hasattr(first, "__getitem__"))
    if size is not None and not is_dataset:
        raise ConfigurationError(
            f"{option} loss.batch_size={size}: this makes batches itself; loss.batch_size= is for "
            "a dataset of samples"
        )
    if is_dataset:
        if size is None:
            raise ConfigurationError(
                f"{option}: this is a dataset of samples; loss.batch_size= says how many make a "
                "batch"
            )
        loader = first = DataLoader(first, batch_size=size)
        begin = lambda: loader  # noqa: E731
    batches = Batches(option, begin, function, seed)
    batches.notes = _notes(option, first, batches, seed)
    return batches


def _beginning(option: str, named: Any) -> Callable[[], Any]:
    """Return a function that returns the iterable, and anew where it can be read only once."""
    is_iterable = hasattr(named, "__iter__") or hasattr(named, "__getitem__")
    if callable(named) and not is_iterable:

        def begin() -> Any:
            try:
                return named()
            # The user's code may raise anything.
            except Exception as error:
                raise JobError(
                    f"{option}: calling it failed with {error_with_frames(error)}"
                ) from (error)

        made = begin()
        if hasattr(made, "__iter__") or hasattr(made, "__getitem__"):
            return begin if _is_iterator(made) else lambda: made
        raise ConfigurationError(f"{option}: it returns a {type(made).__name__}; {_VALID}")
    if not is_iterable:
        raise ConfigurationError(f"{option}: this is of type {type(named).__name__}; {_VALID}")
    if _is_iterator(named):
        raise ConfigurationError(
            f"{option}: this {type(named).__name__} can be read only once, and each block of a "
            f"result needs all batches; {_VALID}"
        )
    return lambda: named


def _is_iterator(made: Any) -> bool:
    return hasattr(made, "__next__")


def _length_of(iterable: Any) -> int | None:
    """Return the length that an iterable states; None if it states none."""
    # An object of the user may raise anything; that of torch raises TypeError.
    try:
        return len(iterable)
    except Exception:
        return None


def _length(batch: Batch) -> int | None:
    lengths = {array.shape[:1] for array in batch.values()}
    return next(iter(lengths))[0] if len(lengths) == 1 and lengths != {()} else None


def _notes(option: str, iterable: Any, batches: Batches, seed: int) -> list[str]:
    if not isinstance(iterable, DataLoader):
        return []
    notes = []
    if isinstance(iterable.sampler, RandomSampler):
        notes.append(f"{option} shuffles; its order is the one of seed={seed} at every pass")
    total = _length_of(iterable.sampler)
    if iterable.drop_last and total is not None and batches.samples not in (None, total):
        notes.append(f"{option} has drop_last=True: {batches.samples} of {total} samples are used")
    return notes


def _digest(batch: Mapping[str, SourceArray]) -> str:
    digest = hashlib.sha256()
    for name, array in batch.items():
        digest.update(f"{name} {array.shape} {array.dtype_name}".encode())
        for piece in array.pieces():
            update_with_tensor(digest, piece)
    return digest.hexdigest()


def fed_with(
    batches: Batches,
    arguments: Mapping[str, SourceArray],
    function: LoadedFunction,
    loss: LossConfig,
) -> list[str]:
    """Return the names of all arguments, of the inputs and of the batches, in order.

    Raises:
        ConfigurationError: One has two values, none, or is not taken; or there are no labels.
    """
    for name in arguments:
        if name in batches.names:
            raise ConfigurationError(
                f"function.data: the batches hold {name}, and inputs= as well; only one is valid"
            )
    label = label_of(loss)
    given = dict.fromkeys((*arguments, *batches.names))
    if label is not None and label not in given:
        raise ConfigurationError(
            f"function.data: the batches hold {', '.join(batches.names)}; loss={loss.kind} needs "
            f"the labels under the name loss.label={label}, or as the last of a tuple"
        )
    named = named_like_arguments("function.data", given, function.arguments, function.signature)
    return [name for name in named if name != label]
