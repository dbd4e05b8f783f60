"""The user's module `own`, with functions and points, and how tests name them."""

FUNCTIONS = """
import functools
import torch

def square(x): return x**2
def scalar(x): return (x**3).sum()
def both(x, y): return x.sum() * y, y.sum() * x
def several(x): return [x**2, x.sum()]
def named(x): return {"z/b": x**3, "a c": x.sum()}
def nested(x): return {"a": (x, x)}
def mixed(x): return {"a": x**2, "b": 3}
def largest(x): return x.reshape(1, -1).max(dim=1)
def powers(exponent): return lambda x: x**exponent
def nothing(x): return ()
def none(x): return None
def number(x): return float(x.detach().sum())
def same_keys(x): return {1: x, "1": x}
def any_number(*xs): return sum(x.sum() for x in xs).reshape(1)
def with_default(x, power=2): return x**power
def needs_keyword(x, *, power): return x**power
def raising(x): raise ValueError("no good\\nsecond line")
def leaving(x): raise SystemExit(3)
def no_rows(x): return x[:0]
def integers(x): return (x > 0).long()
def turned(x): return x * (1 + 2j)
def absolute(x): return x.abs() ** 2
def divided(x): return x / 0

class Callable:
    def __call__(self, x): return x**2
    def method(self, x): return x**3

instance = Callable()
partial = functools.partial(with_default, power=3)
unnamed = lambda x: x**2
module = torch.nn.Linear(3, 2)
not_callable = 3

point = torch.arange(3.0) + 1
zero_dim = torch.tensor(2.0)
empty = torch.zeros(0)
whole = torch.arange(3)
unfinished = torch.tensor([1.0, float("nan"), 3.0])
complex_point = torch.ones(3, dtype=torch.complex128) * (1 + 1j)
list_of_floats = [1.0, 2.0]
def points(): return {"y": torch.ones(2) * 2, "x": torch.ones(3)}
def failing_point(): raise RuntimeError("no point")
"""


def of(name: str, point: str | None = "point") -> list[str]:
    given = [f"function.point=own:{point}"] if point else []
    return ["op=jacobian", "function=python", f"function.target=own:{name}", *given]
