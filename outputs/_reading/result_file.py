"""An open result file: what dense and sparse results have in common."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec
from outputs._format.description import BLOCKS, DIAGONAL, FULL
from outputs._format.digests import content_identity, damaged_records, require_sound_creation
from outputs._format.drawn_vectors import DrawnVectors
from outputs._format.names import Names
from outputs._format.probes import Probes
from outputs._format.reading import (
    read_arrays,
    read_drawn_vectors,
    read_execution,
    read_groups,
    read_probes,
    read_provenance,
    read_selection,
    read_structure,
    read_text,
    require_ours,
    stored_arrays,
)
from outputs._format.tables import read_attribute, read_table
from outputs._format.verification_state import Verdict, VerificationState, recorded_verdict
from outputs._reading.answers import Answers
from outputs._storage.files import open_file, parsed

_HELD = {
    DIAGONAL: "its diagonal only; result.diagonal() and result.trace()",
    BLOCKS: "its diagonal blocks only; result.block_of(name), result.diagonal() and result.trace()",
}


class ResultFile(Answers):
    """A result file, open for reading: its header, and the records beside its matrix.

    Args:
        path: The file.

    Attributes:
        path: The file.
        file: The HDF5 file; internal to this package.
        operation: The operation's name, which is also the name of the matrix in the file.
        strategy: The strategy's name.
        function: Reference of the function.
        fingerprint: Hash of the options that determine the numbers.
        rows: The tensors along the rows.
        columns: The tensors along the columns.
        selection: Which rows and columns of a larger matrix the file holds; None for all.
        structure: Which of their entries: ``full``; ``diagonal``, as a matrix of one column; or
            ``blocks``, one diagonal block for each tensor or group of tensors.
        tensors_of_blocks: How many tensors each diagonal block has; internal to this package.

    Raises:
        ResultNotFoundError: If there is no such file.
        ResultError: If the file is not a result of this format, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = open_file(path, "r")
        try:
            with parsed(path):
                require_ours(self.file, path)
                self._read_header()
        except BaseException:
            self.file.close()
            raise

    def _read_header(self) -> None:
        self.operation = read_attribute(self.file, "operation")
        self.strategy = read_attribute(self.file, "strategy")
        self.function = read_attribute(self.file, "function")
        self.fingerprint = read_attribute(self.file, "fingerprint")
        self.rows = read_table(self.file, Names.ROWS)
        self.columns = read_table(self.file, Names.COLUMNS)
        self.selection = read_selection(self.file)
        self.structure = read_structure(self.file)
        self.tensors_of_blocks = read_groups(self.file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    @property
    def row_numbers(self) -> np.ndarray:
        """The numbers of the rows in the whole matrix (of each point), int64 of shape (rows,)."""
        return self._numbers("rows", self.rows)

    @property
    def column_numbers(self) -> np.ndarray:
        """The numbers of the columns in the whole matrix, int64 of shape (columns,)."""
        return self._numbers("columns", self.columns)

    def _numbers(self, axis: str, tensors: tuple[TensorSpec, ...]) -> np.ndarray:
        if self.selection is not None:
            return getattr(self.selection, axis)
        if self.structure != BLOCKS:
            return np.arange(sum(tensor.size for tensor in tensors))
        # Groups may have changed the order of the tensors, which the point keeps.
        first = 0
        starts: dict[str, int] = {}
        for name, array in self.stored_arrays(Names.POINT).items():
            starts[name] = first
            first += math.prod(array.shape)
        with self._reading():
            return np.concatenate([starts[t.name] + np.arange(t.size) for t in tensors])

    def require_all_entries(self, purpose: str) -> None:
        """Check that the file holds all entries of its rows.

        Args:
            purpose: What needs all entries, as the subject of a sentence.

        Raises:
            ResultError: If it holds only the diagonal, or diagonal blocks.
        """
        if self.structure != FULL:
            raise ResultError(
                f"{purpose} needs the whole matrix, and {self.path} holds "
                f"{_HELD[self.structure]} read it."
            )

    def require_all_lines(self, purpose: str) -> None:
        """Check that the file holds all rows and columns of its matrix.

        Args:
            purpose: What needs all of them, as the subject of a sentence.

        Raises:
            ResultError: If rows or columns were selected, or only the diagonal or its blocks are
                there.
        """
        self.require_all_entries(purpose)
        if self.selection is not None:
            raise ResultError(
                f"{purpose} needs the whole matrix, and {self.path} holds {self.selection}; "
                "result[...] and block() read these, of points of different sizes those of "
                "result.point(i), and row_numbers and column_numbers say which."
            )

    @property
    def points(self) -> dict[str, np.ndarray]:
        """The inputs at which the function was differentiated, by argument name."""
        return self._read_arrays(Names.POINT)

    @property
    def value(self) -> dict[str, np.ndarray]:
        """The function's value at these inputs, by output name."""
        return self._read_arrays(Names.VALUE)

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The vectors of a product, by name; those that are drawn take memory for all of them.

        Raises:
            ResultError: If they do not fit in memory, or the file is damaged.
        """
        drawn = self.drawn_vectors
        return self._read_arrays(Names.VECTORS) if drawn is None else drawn.stacked(0, drawn.count)

    @property
    def drawn_vectors(self) -> DrawnVectors | None:
        """What the vectors of a product are drawn from; None if the file has them."""
        with self._reading():
            return read_drawn_vectors(self.file)

    def vector(self, index: int) -> dict[str, np.ndarray]:
        """Return one vector of a product, stored or drawn, by tensor name.

        Args:
            index: Its number, which is that of its row.

        Raises:
            ResultError: If there is no such vector, or the file is damaged.
        """
        if (drawn := self.drawn_vectors) is not None:
            return drawn.vector(index)
        stored = self.stored_arrays(Names.VECTORS)
        count = min((len(array) for array in stored.values()), default=0)
        if not 0 <= index < count:
            raise ResultError(f"{self.path} has {count} vectors, and none with number {index}.")
        with self._reading():
            return {name: array[index] for name, array in stored.items()}

    @property
    def configuration(self) -> str:
        """The composed configuration of the job, as YAML."""
        with self._reading():
            return read_text(self.file, Names.CONFIGURATION)

    @property
    def provenance(self) -> dict[str, str | int | float | bool]:
        """Versions, device, seeds, commit, host and time of creation."""
        with self._reading():
            return read_provenance(self.file)

    @property
    def execution(self) -> dict[str, Any]:
        """The execution record; empty before the result is finished."""
        with self._reading():
            return read_execution(self.file)

    @property
    def verdict(self) -> Verdict:
        """How far the numbers are verified, as the file records it, with the reason."""
        execution = self.execution
        if not execution:
            return Verdict(VerificationState.NOT_VERIFIED, "the result is unfinished")
        return recorded_verdict(execution, *self._lines_to_check())

    def _lines_to_check(self) -> tuple[int, str]:
        """Return how many lines a check compares, and what they are called."""
        raise NotImplementedError

    def _state(self) -> str:
        """Return the state of verification for ``repr``, which raises nothing."""
        try:
            return self.verdict.state.value
        except ResultError:
            return "damaged" if self.file else "closed"

    @property
    def probes(self) -> Probes | None:
        """Products by which the matrix can be verified; None if the file has none.

        Of a diagonal they are products of the whole matrix, which a resumed job compares.
        """
        with self._reading():
            return read_probes(self.file)

    def damaged_records(self) -> list[str]:
        """Return what beside the entries does not have its checksum, as subjects of a sentence.

        A file of an older version, without these checksums, yields nothing.

        Raises:
            ResultError: If the file is closed, or damaged so that it cannot be read.
        """
        with self._reading():
            return damaged_records(self.file)

    @property
    def is_finished(self) -> bool:
        """Whether its writer has finished the file, whatever its name."""
        with self._reading():
            return bool(read_text(self.file, Names.EXECUTION))

    def require_intact(self) -> None:
        """Check that everything beside the entries has its checksum.

        Raises:
            ResultError: If something does not.
        """
        if found := self.damaged_records():
            raise ResultError(
                f"{self.path} is damaged: {' and '.join(found)} do not have their checksum."
            )

    def content_identity(self) -> str:
        """Return a hash of all that a finished file holds, its entries by their checksums."""
        with self._reading():
            return content_identity(self.file)

    def require_sound_creation(self) -> None:
        """Check that what is final since the file was created has its checksum.

        Raises:
            ResultError: If it does not, with the remedy.
        """
        with self._reading():
            require_sound_creation(self.file)

    def stored_arrays(self, name: str) -> dict[str, h5py.Dataset]:
        """Return the datasets of ``point``, ``value`` or ``vectors``; internal to this package."""
        with self._reading():
            return stored_arrays(self.file, name)

    def _read_arrays(self, name: str) -> dict[str, np.ndarray]:
        with self._reading():
            return read_arrays(self.file, name)

    def _reading(self) -> Any:
        """Return the context in which the file's records are read.

        Raises:
            ResultError: If the file is closed; inside the context, in place of every exception
                that the content of the file provokes.
        """
        self._require_open()
        return parsed(self.path)

    def _require_open(self) -> None:
        if not self.file:
            raise ResultError(f"{self.path} is closed.")
