"""Which lines of a module the tests reach: its functions note each line that they come to."""

import ast
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class _Noting(ast.NodeTransformer):
    """Puts a note before each statement of each function."""

    def __init__(self) -> None:
        self.lines: set[int] = set()
        self._depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if self._depth and isinstance(statements, list):
                setattr(node, name, list(self._noted(statements)))
        return node

    def _noted(self, statements: list[ast.stmt]) -> Iterator[ast.stmt]:
        for each in statements:
            is_docstring = isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
            if not is_docstring:
                self.lines.add(each.lineno)
                yield ast.copy_location(ast.parse(f"_reached.add({each.lineno})").body[0], each)
            yield each


class Lines:
    """The lines of the functions of a module, and those that have been reached since.

    Attributes:
        all: The line numbers of all statements in functions.
        reached: Those that were run.
    """

    def __init__(self, module: types.ModuleType) -> None:
        """Let the functions of a module note what they run, wherever they are already in use."""
        assert module.__file__ is not None
        self._source = Path(module.__file__).read_text()
        noting = _Noting()
        tree = ast.fix_missing_locations(noting.visit(ast.parse(self._source)))
        self.all, self.reached = frozenset(noting.lines), set[int]()
        vars(module)["_reached"] = self.reached
        codes = {each.co_qualname: each for each in _codes(compile(tree, module.__file__, "exec"))}
        for function in _functions(module):
            function.__code__ = codes[function.__qualname__]

    def missed(self, reached: set[int]) -> list[str]:
        """Return the lines that are not among those reached, each with its function."""
        lines, tree = self._source.splitlines(), ast.parse(self._source)
        spans = [
            (node.lineno, node.end_lineno or node.lineno, node.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        ]
        return [
            f"{next(name for a, b, name in spans if a <= each <= b)}: {lines[each - 1].strip()}"
            for each in sorted(self.all - reached)
        ]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield each
            yield from _codes(each)


def _functions(module: types.ModuleType) -> Iterator[Any]:
    spaces = [
        vars(module),
        *(vars(each) for each in vars(module).values() if _is_own(each, module)),
    ]
    for space in spaces:
        for each in list(space.values()):
            function = inspect.unwrap(each) if callable(each) else None
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                yield function


def _is_own(each: Any, module: types.ModuleType) -> bool:
    return inspect.isclass(each) and each.__module__ == module.__name__
