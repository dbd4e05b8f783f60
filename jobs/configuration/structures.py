"""Check the options of diagonals and of diagonal blocks."""

from __future__ import annotations

from typing import Any

from jobs.configuration.fitting import require_all_fit
from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError
from jobs.operations import OPERATIONS


def check_structure(config: JobConfig) -> None:
    """Check that all other options fit a diagonal or diagonal blocks; make the groups lists.

    Raises:
        ConfigurationError: One does not, or the groups are not patterns.
    """
    structure = config.structure
    if structure.groups is not None and structure.kind != "blocks":
        raise ConfigurationError(
            f"structure.groups={structure.groups} structure={structure.kind}: groups of tensors "
            "are for structure=blocks"
        )
    if structure.kind == "diagonal":
        _check_diagonal(config)
    elif structure.kind == "blocks":
        structure.groups = _patterns(structure.groups)
        _check_blocks(config)


def _check_diagonal(config: JobConfig) -> None:
    conflicts = {
        **_conflicts(config),
        f"verify={config.verify.mode}": config.verify.mode == "probe",
    }
    require_all_fit(
        "structure=diagonal",
        conflicts,
        "a diagonal is that of a whole matrix by op=hessian, ggn or fisher, at one point, without "
        "rows, columns, shard and output.tile, in real dtypes and with verify=probe, because its "
        "entries can be checked as parts of their rows only",
    )


def _check_blocks(config: JobConfig) -> None:
    conflicts = {
        **_conflicts(config),
        f"sparsity={config.sparsity}": config.sparsity == "none",
        f"verify={config.verify.mode}": config.verify.mode != "sample",
        f"compile={config.compile}": config.compile != "always",
        f"output.compression={config.output.compression}": config.output.compression == "none",
    }
    require_all_fit(
        "structure=blocks",
        conflicts,
        "diagonal blocks are those of a whole matrix by op=hessian, ggn or fisher, at one point, "
        "without sparsity, rows, columns, shard, output.tile, output.compression and "
        "compile=always, in real dtypes and with verify=probe or off",
    )


def _conflicts(config: JobConfig) -> dict[str, bool]:
    operation = OPERATIONS[config.op]
    return {
        f"op={config.op}": config.op == "hessian" or operation.is_curvature,
        f"points={config.points.by}": not config.points.are_many,
        f"rows={config.rows}": config.rows is None,
        f"columns={config.columns}": config.columns is None,
        f"shard={config.shard}": config.shard is None,
        f"dtype={config.dtype}": not config.dtype.startswith("complex"),
        f"output.tile={config.output.tile}": config.output.tile is None,
    }


def _patterns(groups: Any) -> list[list[str]] | None:
    """Return groups as lists of patterns; None without groups.

    Raises:
        ConfigurationError: They are neither patterns nor lists of them.
    """
    if groups is None:
        return None
    items = groups if isinstance(groups, list) else [groups]
    lists = [item if isinstance(item, list) else [item] for item in items]
    patterns = [pattern for item in lists for pattern in item]
    if not all(lists) or not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise ConfigurationError(
            f"structure.groups={groups}: valid is a list of groups, each a pattern of names such "
            "as encoder.*.weight or a list of patterns: [encoder.*,[head.*,scale]]"
        )
    return lists
