"""Options of diagonal blocks that do not fit, which one message refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import jobs
from jobs.errors import ConfigurationError

POINT = {name: torch.ones(2, dtype=torch.float64) for name in "abc"}


def energy(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a**3 * b**2 * c).sum()


def compute(runs: Path, op: str = "hessian", **options: Any) -> None:
    jobs.compute(op, energy, POINT, runs=runs, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"op": "jacobian"},
        {"op": "hvp"},
        {"points": "leading"},
        {"sparsity": "auto"},
        {"rows": "0:3"},
        {"columns": "0:3"},
        {"verify": "sample"},
        {"dtype": "complex128"},
        {"compile": "always"},
        {"output": {"tile": [2, 1]}},
        {"output": {"compression": "gzip"}},
        {"shard": "0/2", "strategy": "vectorize"},
    ],
    ids=json.dumps,
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    op = options.pop("op", "hessian")
    with pytest.raises(ConfigurationError, match=r"structure=blocks \S+=.*diagonal blocks are"):
        compute(tmp_path, op, structure="blocks", **options)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", "b"], "c is in no group"),
        (["a", "[ab]", "c"], "a is in the groups a and .ab.; each tensor has one"),
        (["a", "b", "c", "d*"], r"structure.groups=d\*: no tensor .* there are a, b, c"),
        ([], "valid is a list of groups"),
        ([[]], "valid is a list of groups"),
        ([3], "valid is a list of groups"),
        ([["a", ["b"]], "c"], "valid is a list of groups"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compute(tmp_path, structure={"kind": "blocks", "groups": groups})


def test_groups_are_for_blocks(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="groups of tensors are for structure=blocks"):
        compute(tmp_path, structure={"kind": "diagonal", "groups": ["a", "b"]})


def test_complex_points_are_refused(tmp_path: Path) -> None:
    point = {"x": torch.ones(2, dtype=torch.complex128), "y": torch.ones(2, dtype=torch.float64)}
    with pytest.raises(ConfigurationError, match="structure=blocks: x is complex"):
        jobs.compute(
            "hessian",
            lambda x, y: (x.abs() ** 2).sum() * y.sum(),
            point,
            name="complex",
            structure="blocks",
            runs=tmp_path,
        )
