"""Which changes of a live function make another job, in this process and in others."""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jobs.errors import ConfigurationError
from jobs.functions.live.identity import identity_of
from tests.jobs.calls.identities import identity, made

# Sources; § stands for 2, or for 3, which computes something else.
CHANGES = {
    "constant": "def f(x): return § * x",
    "default": "def f(x, k=§): return k * x",
    "keyword default": "def f(x, *, k=§): return k * x",
    "nested function": "def f(x):\n def g(y): return y * §\n return g(x)",
    "comprehension": "def f(x): return sum('§' < c for c in 'xyz') * x",
    "string as the first constant of a lambda": "f = lambda x: ['§', x]",
    "set": "def f(x): return x if 2 in {1, §} else 0",
    "global": "K = §\ndef f(x): return K * x",
    "global of a global function": "K = §\ndef g(x): return K * x\ndef f(x): return g(x)",
    "global of a nested function": "K = §\ndef f(x):\n def g(): return K\n return g() * x",
    "dictionary": "K = {'a': §}\ndef f(x): return K['a'] * x",
    "tensor": "K = torch.ones(2) * §\ndef f(x): return K * x",
    "shape of a tensor": "K = torch.ones(6).reshape(§, -1)\ndef f(x): return K * x",
    "closure": "def g(k):\n def f(x): return k * x\n return f\nf = g(§)",
    "method": "class A:\n def __call__(self, x): return § * x\nf = A()",
    "attribute of an instance": "class A:\n def __call__(self, x): return x\nf = A()\nf.k = §",
    "slot": "class A:\n __slots__ = ('k',)\n def __call__(self, x): return x\nf = A()\nf.k = §",
    "attribute of a class": "class A:\n k = §\n def __call__(self, x): return x\nf = A()",
    "base": "class B:\n k = §\nclass A(B):\n def __call__(self, x): return x\nf = A()",
    "property": "class A:\n k = property(lambda s: §)\n def __call__(s, x): return s.k\nf = A()",
    "partial": "import functools\nf = functools.partial(lambda k, x: k * x, §)",
    "cached": "import functools as t\n@t.cache\ndef k(): return §\ndef f(x): return k() * x",
    "own derivative": "class A(torch.autograd.Function):\n @staticmethod\n"
    " def backward(c, g): return § * g\ndef f(x): return A.apply(x)",
    "wrapped by torch": "f = torch.func.grad(lambda x: § * x)",
    "global by a text": "K = §\ndef f(x): return globals()['K'] * x",
    "global in an expression": "K = §\ndef f(x): return eval('2 * K') * x",
    "global of its own globals": "K = §\ndef f(x): return f.__globals__['K'] * x",
    "setter": "class A:\n k = property(lambda s: 1, lambda s, v: §)\n"
    " def __call__(s, x): s.k = x\nf = A()",
    "cached property": "import functools\nclass A:\n"
    " k = functools.cached_property(lambda s: §)\n def __call__(s, x): return s.k\nf = A()",
    "metaclass": "class M(type):\n def __getattr__(c, n): return §\nclass A(metaclass=M): pass\n"
    "def f(x): return A.k * x",
    "metadata of a field": "import dataclasses as d\n@d.dataclass\nclass A:\n"
    " k: int = d.field(default=0, metadata={'k': §})\n"
    " def __call__(s, x): return d.fields(s)[0].metadata['k'] * x\nf = A()",
    "attribute of a partial application": "import functools\n"
    "f = functools.partial(lambda x: f.k * x)\nf.k = §",
    "object that pickle keeps by name": "class A:\n def __reduce__(s): return 'f'\n"
    " def __call__(s, x): return s.k * x\nf = A()\nf.k = §",
    "dispatched": "import functools\n@functools.singledispatch\ndef g(x): return x\n"
    "@g.register\ndef _(x: torch.Tensor): return § * x\ndef f(x): return g(x)",
}
# Pairs that compute different things.
OTHERS = {
    "sign of zero": ("def f(x): return x + 0.0", "def f(x): return x + -0.0"),
    "type of a constant": ("def f(x): return x * 1", "def f(x): return x * 1.0"),
    "operation": ("def f(x): return x + 1", "def f(x): return x - 1"),
    "name of an attribute": ("def f(x): return x.sin()", "def f(x): return x.cos()"),
    "handler of exceptions": (
        "def f(x):\n try: return x[9]\n except IndexError: return x",
        "def f(x):\n try: return x[9]\n except ValueError: return x",
    ),
    "builtin by a name": (
        "g = torch.sin\ndef f(x): return g(x)",
        "g = torch.cos\ndef f(x): return g(x)",
    ),
    **{kind: (text.replace("§", "2"), text.replace("§", "3")) for kind, text in CHANGES.items()},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_changes_the_values_changes_the_identity(kind: str) -> None:
    one, other = OTHERS[kind]
    assert identity(made(one)) == identity(made(one))
    assert identity(made(one)) != identity(made(other))


# Pairs that compute the same.
SAME = {
    "comments and lines": (
        "def f(x): return 2 * x",
        "\n\n# twice\ndef f(x):\n    return 2 * x  # so",
    ),
    "docstring": ('def f(x):\n "Twice."\n return 2 * x', 'def f(x):\n "Two times."\n return 2 * x'),
    "docstring of a nested function": (
        'def f(x):\n def g():\n  "A."\n  return 2\n return g() * x',
        'def f(x):\n def g():\n  "B."\n  return 2\n return g() * x',
    ),
    "docstring of a class": (
        'class A:\n "A."\n def __call__(self, x): return x\nf = A()',
        'class A:\n "B."\n def __call__(self, x): return x\nf = A()',
    ),
    "a global that it does not read": ("K = 2\ndef f(x): return x", "K = 3\ndef f(x): return x"),
    "another function of the same module": (
        "def g(x): return 2\ndef f(x): return x",
        "def g(x): return 3\ndef f(x): return x",
    ),
    "an attribute with the name of a global": (
        "sin = 2\ndef f(x): return x.sin()",
        "sin = 3\ndef f(x): return x.sin()",
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_changes_no_value_does_not_change_the_identity(kind: str) -> None:
    one, other = SAME[kind]
    assert identity(made(one)) == identity(made(other))


DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(DATA, DATA)
def test_data_in_a_closure_counts_by_value(one: Any, other: Any) -> None:
    def function_with(data: Any) -> Callable[[Any], Any]:
        return lambda x: (data, x)

    # repr distinguishes the sign of zero, NaN and 1 from True, as the identity must.
    is_same = repr(_sorted(one)) == repr(_sorted(other))
    assert (identity(function_with(one)) == identity(function_with(other))) is is_same
    assert identity(function_with(one)) == identity(function_with(one))


def _sorted(data: Any) -> Any:
    if isinstance(data, frozenset):
        return ("set", sorted(map(repr, data)))
    if isinstance(data, list | tuple):
        return type(data)(map(_sorted, data))
    if isinstance(data, dict):
        return ("dict", [(k, _sorted(v)) for k, v in data.items()])
    return data


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Settings:
    scale: float
    names: tuple[str, ...] = ("a",)


def records(held: list[int]) -> np.ndarray:
    return np.array([(1, held)], dtype=[("a", int), ("b", object)])


def tensor_with(**attributes: Any) -> torch.Tensor:
    tensor = torch.ones(2)
    vars(tensor).update(attributes)
    return tensor


class Doubling(torch.Tensor):
    """A tensor whose operations are others."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        result: Any = super().__torch_function__(func, types, args, kwargs or {})
        return 2 * result.as_subclass(torch.Tensor) if func is torch.Tensor.sin else result


VALUES = {
    "array": (np.arange(3), np.arange(3) + 1),
    "dtype of an array": (np.zeros(2, np.float32), np.zeros(2, np.float64)),
    "array of objects": (np.array([1, "a"], object), np.array([1, "b"], object)),
    "record of objects": (records([2]), records([3])),
    "masked array": (np.ma.masked_less(np.ones(2), 2), np.ma.masked_less(np.ones(2), 1)),
    "class of an array": (np.ones(2).view(np.recarray), np.ones(2)),
    "attribute of a tensor": (tensor_with(k=1), tensor_with(k=2)),
    "class of a tensor": (torch.ones(2).as_subclass(Doubling), torch.ones(2)),
    "number of numpy": (np.float64(1), np.float64(2)),
    "enumeration": (Colour.RED, Colour.BLUE),
    "dataclass": (Settings(1.0), Settings(2.0)),
    "default of a dataclass": (Settings(1.0), Settings(1.0, ("b",))),
    "path": (Path("a"), Path("b")),
    "torch dtype": (torch.float32, torch.float64),
    "transposed": (torch.arange(4.0).reshape(2, 2), torch.arange(4.0).reshape(2, 2).T),
    "bfloat16": (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
    "complex": (torch.tensor(1j), torch.tensor(1j).conj()),
    "function of a library": (math.sin, math.cos),
    "class": (int, float),
    "module": (math, np),
    "generator of numpy": (np.random.default_rng(0), np.random.default_rng(1)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_many_types(kind: str) -> None:
    one, other = (identity(functools.partial(print, value)) for value in VALUES[kind])
    assert one != other
    assert identity(functools.partial(print, VALUES[kind][0])) == one


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))


CHANGES_OF_MODULES: dict[str, Callable[[Any], Any]] = {
    "mode": lambda module: module.eval(),
    "mode of a part": lambda module: module[1].eval(),
    "attribute": lambda module: setattr(module[2], "p", 0.25),
    "forward of an instance": lambda module: setattr(module[0], "forward", torch.sin),
    "hook": lambda module: module[0].register_forward_hook(lambda m, x, y: 2 * y),
    "hook with keywords": lambda module: module[0].register_forward_pre_hook(
        lambda m, x, k=None: None, with_kwargs=True
    ),
    "another part": lambda module: module.append(nn.Tanh()),
    "buffer that is not kept": lambda module: module.register_buffer("b", torch.ones(1), False),
}


@pytest.mark.parametrize("kind", CHANGES_OF_MODULES)
def test_what_belongs_to_a_module(kind: str) -> None:
    module = network()
    assert identity(module) == identity(network())
    CHANGES_OF_MODULES[kind](module)
    assert identity(module) != identity(network())


def test_weights_of_a_module_within_a_function() -> None:
    module, other = network(), network()

    def function_of(module: nn.Module) -> Callable[[Any], Any]:
        return lambda x: module(x)

    assert identity(function_of(module)) == identity(function_of(other))
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-3
    assert identity(function_of(module)) != identity(function_of(other))


def test_another_weight_is_another_job(compute: Any) -> None:
    module = network().eval()
    x = torch.randn(3, 2)
    first = compute("jacobian", module, x).path
    assert compute("jacobian", module, x).path == first
    with torch.no_grad():
        next(module.parameters())[0, 0] += 1e-3
    assert compute("jacobian", module, x).path != first


REFUSED = {
    "handle": lambda: open(__file__),  # noqa: SIM115
    "generator": lambda: (x for x in "ab"),
    "lock": lambda: __import__("threading").Lock(),
    "sparse tensor": lambda: torch.eye(2).to_sparse(),
    "script": lambda: torch.jit.script(nn.Linear(1, 1)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_hashed_is_refused_by_its_name(kind: str) -> None:
    offender = REFUSED[kind]()
    held = {"inner": [1, offender]}

    def function(x: Any) -> Any:
        return x, held

    with pytest.raises(ConfigurationError, match=r"closure variable held.*'inner'.*\[1\]"):
        identity_of(function, "function")
    named = identity_of(function, "function", name="mine")
    assert any(each.startswith("not covered: closure variable held") for each in named.covers)
    assert named.sha256 != identity_of(function, "function", name="yours").sha256
    if kind == "handle":
        offender.close()


def test_cycles_end() -> None:
    first: list[Any] = [1]
    first.append(first)
    second: list[Any] = [1]
    second.append([1, second])
    assert identity(functools.partial(print, first)) == identity(functools.partial(print, first))
    functions = made("def g(x): return f(x)\ndef f(x): return g(x) if x else 0")
    assert identity(functions) == identity(
        made("def g(x): return f(x)\ndef f(x): return g(x) if x else 0")
    )
    assert identity(functools.partial(print, second))


def test_the_record_says_what_went_into_it() -> None:
    def function(x: Any) -> Any:
        return scale * x + OFFSET

    scale = 2.0
    names = {"OFFSET": torch.ones(3), "__name__": "__main__", "scale": scale}
    function = FunctionType(function.__code__, names, "function", None, function.__closure__)
    covers = identity_of(function, "function").covers
    assert any("closure variable scale" in each for each in covers)
    assert "global __main__:OFFSET (float32 (3,))" in covers


OFFSET = None

PROGRAM = """
import sys
sys.path.append({root!r})
import torch
from torch import nn
from jobs.functions.live.identity import identity_of
from tests.jobs.calls.identities import identity, made

SCALES = {{"b": 1.5, "a": {{3, "x", 2.5, None}}}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.names = {{"one", "two", "three"}}

    def forward(self, x):
        return self.inner(x) * SCALES["b"]


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return 2 * x

    @staticmethod
    def backward(ctx, g): return 2 * g


def function(x, names=frozenset(["u", "v", "w"])):
    return Twice.apply(x) * len(names) if "q" not in {{"r", "s", "t"}} else SCALES


torch.manual_seed(0)
net = Net()
for held in (function, net, lambda x: net(x), net.forward):
    print(identity_of(held, "function").sha256)
"""


def test_another_process_finds_the_same_identity(
    run_program: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = PROGRAM.format(root=str(Path(__file__).parents[3]))
    # Another file, other addresses, another order of sets.
    other = run_program(code, PYTHONHASHSEED="1")
    capsys.readouterr()
    exec(compile(code, "<cell>", "exec"), {"__name__": "__main__"})
    found = capsys.readouterr().out.split()
    assert found == other.split()
    assert len(set(found)) == 4
