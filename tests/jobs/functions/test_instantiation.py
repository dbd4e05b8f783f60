"""Functions by file, with arguments, as Hydra's conventions describe them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.job import Job
from outputs import Result
from tests.jobs.support.own_model import POINT, VALUES, of

Resolve = Callable[..., Job]


@pytest.mark.parametrize(
    ("target", "hessian"),
    [
        (of("energy"), 1.0),
        (of("energy", "function.keywords.stiffness=3"), 3.0),
        (of("energy", "function.keywords.spring={_target_: code/model.py:Spring,stiffness: 4}"), 4),
        (
            ["function=python", "function.target={_target_: code/model.py:energy,_partial_: true}"],
            1,
        ),
        (
            [
                "function=python",
                "function.target={_target_: code/model.py:energy,_partial_: true,stiffness: 5}",
            ],
            5,
        ),
    ],
    ids=["plain", "keyword", "nested target", "target", "target with arguments"],
)
def test_a_function_by_file_with_arguments(
    target: list[str], hessian: float, model: Path, command_line: Any
) -> None:
    ended = command_line("op=hessian", *target, *VALUES)
    assert ended.code == 0, ended.err
    with Result(ended.result) as result:
        np.testing.assert_array_equal(result[...], hessian * np.eye(3))
        assert result.function.startswith("code/model.py:energy")
    assert ended.result.parent.name.startswith("energy-hessian-")


def test_a_factory_returns_the_function(model: Path, command_line: Any) -> None:
    factory = ("function.factory=true", "function.keywords.stiffness=2")
    ended = command_line("op=jacobian", *of("make", *factory), *VALUES)
    assert ended.code == 0, ended.err
    with Result(ended.result) as result:
        np.testing.assert_array_equal(result[...], np.diag([4.0, 8, 12]))


def test_options_in_a_file_of_ones_own(model: Path, command_line: Any) -> None:
    (model / "mine/function").mkdir(parents=True)
    (model / "mine/function/cubic.yaml").write_text(
        "defaults: [python, _self_]\ntarget: code/model.py:make\nfactory: true\n"
        "keywords: {stiffness: 2, power: 3}\n"
    )
    ended = command_line("--config-dir", "mine", "op=jacobian", "function=cubic", *VALUES)
    assert ended.code == 0, ended.err
    with Result(ended.result) as result:
        np.testing.assert_array_equal(result[...], np.diag([6.0, 24, 54]))


def test_arguments_are_part_of_the_job(model: Path, resolved: Resolve) -> None:
    prints = {
        resolved("op=hessian", *of("energy", POINT), *more).fingerprint
        for more in ([], ["function.keywords.stiffness=2"], ["function.keywords.stiffness=3"])
    }
    assert len(prints) == 3
