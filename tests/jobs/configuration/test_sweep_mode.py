"""The options are composed for `hydra.mode` only where one can be set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra

SMALL = ("op=jacobian", "function=rosenbrock", "function.n=3", "progress=quiet")


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Count how often Hydra composes the options."""
    found: list[Any] = []
    compose = Hydra.compose_config

    def counted(*args: Any, **options: Any) -> Any:
        found.append(options)
        return compose(*args, **options)

    monkeypatch.setattr(Hydra, "compose_config", counted)
    return found


@pytest.mark.parametrize("sweep", [(), ("--multirun",)])
def test_the_options_of_a_command_are_composed_once(
    command_line: Callable[..., Any], compositions: list[Any], sweep: tuple[str, ...]
) -> None:
    before = Hydra.get_mode
    assert command_line(*SMALL, *sweep).code == 0
    assert len(compositions) == 1
    assert Hydra.get_mode is before


def test_a_mode_among_the_arguments_makes_a_sweep(
    command_line: Callable[..., Any], directory: Path
) -> None:
    assert command_line(*SMALL, "seed=1,2", "hydra.mode=MULTIRUN").code == 0
    assert len(list(directory.glob("runs/*/result.h5"))) == 2


def test_a_mode_in_a_file_of_the_user_makes_a_sweep(
    command_line: Callable[..., Any], directory: Path
) -> None:
    (directory / "mine/experiment").mkdir(parents=True)
    (directory / "mine/experiment/both.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2\n"
    )
    assert command_line("--config-dir=mine", "+experiment=both", *SMALL).code == 0
    assert len(list(directory.glob("runs/*/result.h5"))) == 2
