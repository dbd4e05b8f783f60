"""What a live function reaches beside its own code: modules, operators and libraries."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from jobs.errors import ConfigurationError
from jobs.functions.live.identity import identity_of
from tests.jobs.calls.identities import identity, made

# Ways to the attribute SCALE of a module of the project, which the program has set to §.
READERS = {
    "global": "def f(x): return m.SCALE * x",
    "function of the module": "def f(x): return m.scaled(x)",
    "another name": "def f(x):\n n = m\n return n.SCALE * x",
    "text": "def f(x): return getattr(m, 'SCALE') * x",
    "closure": "def g(n):\n def f(x): return n.SCALE * x\n return f\nf = g(m)",
    "argument": "def f(x, n=m): return n.SCALE * x",
    "dictionary": "d = {'m': m}\ndef f(x): return d['m'].SCALE * x",
    "import": "def f(x):\n import settings_of_user as n\n return n.SCALE * x",
    "import of a name": "def f(x):\n from settings_of_user import SCALE\n return SCALE * x",
    "import by text": "import importlib as i\n"
    "def f(x): return i.import_module('settings_of_user').SCALE * x",
    "loaded modules": "import sys\ndef f(x): return sys.modules['settings_of_user'].SCALE * x",
}


@pytest.mark.parametrize("way", READERS)
def test_what_the_program_sets_in_a_module_counts(
    way: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = directory / "settings_of_user.py"
    file.write_text("SCALE = 2\ndef scaled(x): return SCALE * x\n")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    function = made(READERS[way], m=module)
    before = identity(function)
    assert identity(function) == before
    vars(module)["SCALE"] = 3
    assert identity(function) != before


def test_what_a_function_imports_while_it_runs_counts_from_the_first_call(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(directory))
    (directory / "imported_later.py").write_text("SCALE = 2\n")
    function = made("def f(x):\n from imported_later import SCALE\n return SCALE * x")
    found = identity_of(function, "function")
    assert "imported_later" in found.modules
    assert function(3) == 6
    assert identity_of(function, "function") == found
    monkeypatch.delitem(sys.modules, "imported_later")


OPERATOR = """
@torch.library.custom_op("tests_identity::§", mutates_args=())
def g(x: torch.Tensor) -> torch.Tensor: return x * §
g.register_autograd(lambda context, gradient: gradient * §)
"""


@pytest.mark.parametrize(
    "way",
    [
        "def f(x): return g(x)",
        "def f(x): return torch.ops.tests_identity.{0}(x)",
        "h = torch.ops.tests_identity.{0}.default\ndef f(x): return h(x)",
    ],
)
def test_an_operator_counts_by_what_its_functions_compute(way: str) -> None:
    def found(name: str, factor: int) -> str:
        text = OPERATOR.replace("::§", f"::{name}").replace("§", str(factor))
        return identity(made(text + way.format(name)))

    name = f"op{abs(hash(way))}"
    assert found(name, 2) == found(name, 2)
    assert found(name, 2) != found(name, 3)


def test_kernels_that_torch_does_not_give_back_are_refused() -> None:
    library = torch.library.Library("tests_kernels", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: 2 * x, "CPU")
    with pytest.raises(ConfigurationError, match=r"operator tests_kernels::twice"):
        identity(made("def f(x): return torch.ops.tests_kernels.twice(x)"))


def test_a_function_in_the_place_of_one_of_a_library_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function = made("def f(x): return nn.functional.relu(x)")
    module = nn.Sequential(nn.ReLU())
    found = [identity(function), identity(module)]
    for factor in (2, 3):
        other = made(f"def f(*given): return {factor} * given[-1]")
        monkeypatch.setattr(nn.functional, "relu", other)
        monkeypatch.setattr(nn.ReLU, "forward", other)
        found += [identity(function), identity(module)]
    assert len({*found}) == 6


DISPATCHED = """
import functools
@functools.singledispatch
def g(x): return x
@g.register
def _(x: torch.Tensor): return 2 * x
def f(x): return g(x)
"""


def test_a_dispatching_function_is_the_same_after_its_first_call() -> None:
    function = made(DISPATCHED)
    before = identity(function)
    assert function(torch.ones(1)) == 2
    assert identity(function) == before
