"""The modules that a walk through an object meets, and what the code that it meets reads there."""

from __future__ import annotations

import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any

from jobs.functions.live.code import imports_of, names_of, texts_of
from jobs.functions.live.contents import class_entries
from jobs.functions.source_code import import_of_project, is_of_project

MAIN = ("__main__", "__mp_main__")


class Namespaces:
    """The modules that were met so far.

    Attributes:
        met: The names of all of them, but for the main module.
    """

    def __init__(self) -> None:
        self.met: set[str] = set()
        self._names: set[str] = set()
        self._held: dict[str, ModuleType] = {}
        self._of_user: dict[str, bool] = {}

    def meets(self, module: str) -> bool:
        """Note a module; return whether its functions and data are the user's."""
        if module not in MAIN and module:
            self.met.add(module)
        return self.is_users(module)

    def is_users(self, module: str) -> bool:
        """Return whether the functions and data of a module are the user's."""
        if module in MAIN or not module:
            return True
        if module not in self._of_user:
            self._of_user[module] = is_of_project(module)
        return self._of_user[module]

    def hold(self, module: Any) -> None:
        """Note that code can read the attributes of a module, if it is the user's."""
        if isinstance(module, ModuleType) and self.is_users(module.__name__):
            self._held[module.__name__] = module

    def take_code(self, code: CodeType) -> None:
        """Note the names that code has for attributes, and the modules that it names in texts."""
        self._names |= names_of(code)
        for text in texts_of(code):
            self.hold(sys.modules.get(text))

    def take_imports(self, function: FunctionType) -> None:
        """Note what a function imports while it runs.

        Modules of the user are imported, because what is read of them counts from the first call.
        """
        package = str(function.__globals__.get("__package__") or "")
        for name in imports_of(function.__code__, package):
            if name not in sys.modules:
                import_of_project(name)
            if name in sys.modules or "." not in name:
                self.meets(name)
            self.hold(sys.modules.get(name))

    def readable(self) -> dict[tuple[str, str], Any]:
        """Return the attributes of modules that have a name which occurs in code.

        Code can reach a module in many ways: by a closure, an argument, an import while it runs.
        """
        return {
            (module, name): vars(held)[name]
            for module, held in sorted(self._held.items())
            for name in sorted(self._names.intersection(vars(held)))
        }

    def users_part(self, module: ModuleType, path: tuple[str, ...]) -> Any:
        """Return the user's function or the operator to which a path in a module leads.

        Args:
            module: The module.
            path: The attributes that code reads, one of another.

        Returns:
            The module itself where the path leads to anything else.
        """
        package, value = module.__name__.partition(".")[0], module
        for name in path:
            if not isinstance(value, ModuleType):
                break
            # Other modules may import something when they are asked for what they have not.
            is_operators = value.__name__.startswith("torch.ops")
            value = getattr(value, name, None) if is_operators else vars(value).get(name)
        is_operator = type(value).__module__ == "torch._ops"
        return value if is_operator or self._is_users_own(value, package) else module

    def replaced(self, found: type) -> dict[str, Any]:
        """Return the functions of the user in the places of those of an installed class."""
        package = found.__module__.partition(".")[0]
        return {k: v for k, v in class_entries(found).items() if self._is_users_own(v, package)}

    def _is_users_own(self, entry: Any, package: str) -> bool:
        if not isinstance(entry, FunctionType):
            return False
        module = str(entry.__globals__.get("__name__", ""))
        return module.partition(".")[0] != package and self.is_users(module)
