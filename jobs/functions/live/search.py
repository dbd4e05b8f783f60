"""Walk through an object and all that its values depend on, and hash it.

The hash contains no addresses and nothing that depends on the order of a hash table, so that
another process computes the same. Objects of installed packages count by their names.
"""

from __future__ import annotations

import builtins
import ctypes
import functools
import hashlib
import weakref
from collections.abc import Iterable, Mapping
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module, Parameter

from jobs.errors import ConfigurationError
from jobs.functions.live.code import constants_of, names_in_text, references_of, resolved
from jobs.functions.live.contents import (
    class_entries,
    class_facts,
    is_importable,
    module_facts,
    operator_facts,
    partial_facts,
    reduction_of,
)
from jobs.functions.live.namespaces import MAIN, Namespaces
from jobs.sources.plain_tensors import unlike_plain
from jobs.sources.tensor_digest import update_with_tensor

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that is made while Python runs
_UFUNCS = ("numpy", "scipy.special")
# What functools.singledispatch remembers of the types that it has met.
_CACHES = ("dispatch_cache", "cache_token", "_clear_cache")


class Search:
    """A walk through an object and all that it refers to."""

    def __init__(self, option: str, held: Any, name: str | None, flags: bool) -> None:
        self.covers: dict[str, None] = {}
        self.missed: list[str] = []
        self._option = option
        self._name = name
        self._flags = flags
        root = getattr(held, "_orig_mod", held) if isinstance(held, Module) else held
        # By identity: tensors that the fingerprint covers by these names.
        self._state = (
            {id(t): key for key, t in root.state_dict(keep_vars=True).items()}
            if isinstance(root, Module)
            else {}
        )
        self._known: dict[int, bytes] = {}
        self._open: dict[int, int] = {}
        # Addresses are not used again while the objects live.
        self._kept: list[Any] = []
        self._namespaces = Namespaces()

    @property
    def modules(self) -> set[str]:
        """The names of the modules that were met, installed ones included."""
        return self._namespaces.met

    def whole(self, value: Any, place: str) -> bytes:
        """Return the hash of an object, and of all that its code can read of modules.

        Args:
            value: The object.
            place: What it is, for messages.
        """
        parts, read = [self.digest(value, place)], set()
        # What is read may have code that reads more.
        while new := {k: v for k, v in self._namespaces.readable().items() if k not in read}:
            for (module, name), found in new.items():
                text = f"attribute {module}.{name}"
                self._cover_value(text, found)
                parts.append(combined("read", text.encode(), self.digest(found, text)))
            read.update(new)
        return combined("whole", *parts) if read else parts[0]

    def digest(self, value: Any, place: str) -> bytes:
        """Return the hash of an object.

        Args:
            value: The object.
            place: Where it was found, for messages.
        """
        if value is None or value is Ellipsis or value is NotImplemented:
            return combined("constant", repr(value).encode())
        kind = type(value)
        if kind in (bool, int, float, complex, str, bytes, range):
            text = value.encode(errors="surrogatepass") if kind is str else repr(value).encode()
            return combined(kind.__name__, text)
        address = id(value)
        if address in self._known:
            return self._known[address]
        if address in self._open:
            return combined("again", str(self._open[address]).encode())
        self._open[address] = len(self._open)
        self._kept.append(value)
        try:
            found = self._compound(value, place)
        finally:
            del self._open[address]
        self._known[address] = found
        return found

    def _compound(self, value: Any, place: str) -> bytes:
        if isinstance(value, Tensor):
            return self._tensor(value, place)
        if type(value) is np.ndarray and not value.dtype.hasobject:
            return self._array(value)
        if isinstance(value, FunctionType):
            return self._function(value, place)
        if isinstance(value, type):
            return self._class(value, place)
        if isinstance(value, ModuleType):
            return self._module(value, place)
        if isinstance(value, Module):
            return self._torch_module(value, place)
        if isinstance(value, CodeType):
            return self._code(value, place)
        return self._container(value, place)

    def _container(self, value: Any, place: str) -> bytes:
        kind = type(value)
        if kind in (list, tuple):
            return self._several(kind.__name__, value, place)
        if kind in (dict, MappingProxyType):
            return self._mapping("dict", value, place)
        if kind in (set, frozenset):
            return combined("set", *sorted(self.digest(each, place) for each in value))
        if kind is MethodType:
            return self._several("method", (value.__self__, value.__func__), place)
        if kind is BuiltinFunctionType:
            return self._builtin(value, place)
        if kind in (staticmethod, classmethod):
            return self._several(kind.__name__, (value.__func__,), place)
        if kind is property:
            return self._several("property", (value.fget, value.fset), place)
        if kind is functools.cached_property:
            return self._several("cached property", (value.func, value.attrname), place)
        if isinstance(value, weakref.ref):
            return self._several("reference", (value(),), place)
        if kind.__module__ == "functools" and hasattr(value, "__wrapped__"):
            return self._several(kind.__name__, (value.__wrapped__,), place)
        try:
            facts = operator_facts(value)
        except LookupError as error:
            return self._refused(f"{place}, {error.args[0]}")
        if facts is not None:
            return self._several("operator", facts, place)
        return self._instance(value, place)

    def _several(self, tag: str, values: Iterable[Any], place: str) -> bytes:
        parts = [self.digest(each, f"{place}[{index}]") for index, each in enumerate(values)]
        return combined(tag, *parts)

    def _mapping(self, tag: str, values: Mapping[Any, Any], place: str) -> bytes:
        parts: list[bytes] = []
        for key, each in values.items():
            parts += [self.digest(key, place), self.digest(each, f"{place}[{key!r:.40}]")]
        return combined(tag, *parts)

    def _tensor(self, tensor: Tensor, place: str) -> bytes:
        if id(tensor) in self._state:
            return combined("state", self._state[id(tensor)].encode())
        if reason := unlike_plain(tensor):
            return self._refused(f"{place} ({reason})")
        digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        update_with_tensor(digest, tensor)
        self._cover(f"{place} ({_form(tensor)})")
        parts = [digest.digest(), str(tensor.requires_grad).encode()]
        if type(tensor) not in (Tensor, Parameter) or vars(tensor):
            parts += [self.digest(type(tensor), place), self.digest(vars(tensor), place)]
        return combined("tensor", *parts)

    def _array(self, array: np.ndarray) -> bytes:
        plain = np.ascontiguousarray(array).reshape(-1)
        data = plain.view(np.uint8).data if array.size else b""
        header = f"{array.shape} {array.dtype.descr}".encode()
        return combined("array", header, hashlib.sha256(data).digest())

    def _function(self, function: FunctionType, place: str) -> bytes:
        compiled = getattr(function, "_torchdynamo_orig_callable", None)
        if compiled is not None:
            return self._several("compiled", (compiled,), place)
        module = str(function.__globals__.get("__name__", ""))
        is_followed = self._namespaces.meets(module)
        if not is_followed and is_importable(function, module, function.__qualname__):
            return combined("imported", module.encode(), function.__qualname__.encode())
        name = f"{module}:{function.__qualname__}"
        self._cover(f"function {name}")
        names = function.__code__.co_freevars
        caches = _CACHES if module == "functools" else ()
        attributes = {k: v for k, v in vars(function).items() if k not in caches}
        parts = [
            self._code(function.__code__, name),
            self._several("defaults", function.__defaults__ or (), f"a default of {name}"),
            self._mapping("defaults", function.__kwdefaults__ or {}, f"a default of {name}"),
            self._mapping("attributes", attributes, f"an attribute of {name}"),
            *(
                self._cell(cell, f"closure variable {variable} of {name}")
                for variable, cell in zip(names, function.__closure__ or (), strict=True)
                if variable not in caches
            ),
        ]
        if is_followed:
            parts += self._globals(function)
        return combined("function", *parts)

    def _cell(self, cell: Any, place: str) -> bytes:
        try:
            content = cell.cell_contents
        except ValueError:  # a name that is not yet bound
            return combined("empty")
        self._cover_value(place, content)
        return self.digest(content, place)

    def _globals(self, function: FunctionType) -> Iterable[bytes]:
        self._namespaces.take_imports(function)
        paths = references_of(function.__code__)
        words = names_in_text(function.__code__)
        paths += [(name,) for name in sorted(words.intersection(function.__globals__))]
        for path in paths:
            used, value, is_there = resolved(
                function, path, lambda m: self._namespaces.meets(m.__name__)
            )
            if not is_there:
                kind = "builtin" if hasattr(builtins, used) else "missing"
                yield combined(kind, used.encode())
                continue
            if isinstance(value, ModuleType):
                beyond = path[used.count(".") + 1 :]
                value = self._namespaces.users_part(value, beyond)
                used = ".".join(path) if not isinstance(value, ModuleType) else used
            place = f"global {function.__globals__.get('__name__', '')}:{used}"
            self._cover_value(place, value)
            yield combined("global", used.encode(), self.digest(value, place))

    def _code(self, code: CodeType, place: str) -> bytes:
        self._namespaces.take_code(code)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        constants = self._several("constants", constants_of(code), f"a constant of {place}")
        handlers = getattr(code, "co_exceptiontable", b"")
        return combined("code", code.co_code, handlers, repr((names, counts)).encode(), constants)

    def _class(self, found: type, place: str) -> bytes:
        module, name = str(found.__module__), found.__qualname__
        is_followed = self._namespaces.meets(module)
        is_imported = not found.__flags__ & _HEAP_TYPE or (
            not is_followed and is_importable(found, module, name)
        )
        bases = found.__bases__
        if is_imported:
            heap = [each for each in found.__mro__ if each.__flags__ & _HEAP_TYPE]
            bases, entries = (), {}
            for each in heap:
                for key, entry in self._namespaces.replaced(each).items():
                    entries[f"{each.__qualname__}.{key}"] = entry
            if not entries:
                return combined("imported", module.encode(), name.encode())
        else:
            entries = class_entries(found)
        self._cover(f"class {module}:{name}")
        return combined(
            "class",
            name.encode(),
            self._several("bases", bases, place),
            *(self.digest(each, place) for each in class_facts(found)),
            *(
                combined("entry", k.encode(), self.digest(v, f"{module}:{name}.{k}"))
                for k, v in entries.items()
            ),
        )

    def _module(self, module: ModuleType, place: str) -> bytes:
        name = module.__name__
        is_made = getattr(module, "__spec__", None) is None and name not in MAIN
        if self._namespaces.meets(name) and is_made:
            # Made while the program runs: no source covers it.
            content = {k: v for k, v in sorted(vars(module).items()) if not k.startswith("__")}
            return self._mapping("module", content, place)
        self._namespaces.hold(module)
        return combined("module", name.encode())

    def _torch_module(self, module: Module, place: str) -> bytes:
        kind = type(module)
        if isinstance(module, torch.jit.ScriptModule):
            return self._refused(f"{place}, a module of torch.jit")
        compiled = getattr(module, "_orig_mod", None)
        if isinstance(compiled, Module):
            return self.digest(compiled, place)
        self._cover(f"module {kind.__module__}:{kind.__qualname__}")
        own, hooks = module_facts(module)
        return combined(
            "torch module",
            self.digest(kind, place),
            str(module.training if self._flags else "").encode(),
            self._mapping("parameters", module._parameters, f"{place}.parameters"),
            self._mapping("buffers", module._buffers, f"{place}.buffers"),
            self._mapping("modules", module._modules, place),
            self._mapping("attributes", own, place),
            self._several("hooks", hooks, f"a hook of {place}"),
        )

    def _builtin(self, function: BuiltinFunctionType, place: str) -> bytes:
        owner = function.__self__
        if owner is None or isinstance(owner, ModuleType | type) or str(owner) == "torch._C":
            # The file of a compiled module of the project is a part of its source.
            self._namespaces.meets(str(function.__module__ or ""))
            name = f"{function.__module__}:{function.__qualname__}"
            return combined("built in", name.encode())
        return combined("method", function.__name__.encode(), self.digest(owner, place))

    def _instance(self, value: Any, place: str) -> bytes:
        """Hash any other object by what pickle would keep of it."""
        kind = type(value)
        if kind is functools.partial:
            return self._several("partial", partial_facts(value), place)
        if isinstance(value, np.ufunc):
            name = value.__name__
            home = next((each for each in _UFUNCS if is_importable(value, each, name)), None)
            if home is not None:
                return combined("imported", home.encode(), name.encode())
        # Pickle would keep the address of the library, and nothing of its content.
        if isinstance(value, ctypes.CDLL):
            return self._refused(f"{place}, a library of ctypes")
        is_of_user = bool(kind.__flags__ & _HEAP_TYPE) and self._namespaces.is_users(
            kind.__module__
        )
        try:
            reduced = reduction_of(value, is_of_user=is_of_user)
        # The object may answer with any error; most say "cannot pickle".
        except Exception:
            return self._refused(f"{place}, of type {kind.__module__}.{kind.__qualname__}")
        if isinstance(reduced, str):
            self._namespaces.meets(str(getattr(value, "__module__", "")))
            return combined("named", reduced.encode())
        make, arguments, state, items, pairs = reduced
        return combined(
            "object",
            self.digest(kind, place),
            self.digest(make, place),
            self._several("arguments", arguments, place),
            self.digest(state, place),
            self._several("items", items, place),
            self._mapping("pairs", pairs, place),
        )

    def _cover(self, text: str) -> None:
        self.covers[text] = None

    def _cover_value(self, place: str, value: Any) -> None:
        if not isinstance(value, FunctionType | type | ModuleType | Tensor | BuiltinFunctionType):
            self._cover(f"{place} ({type(value).__name__})")

    def _refused(self, what: str) -> bytes:
        """Return what stands for an object that cannot be hashed.

        Raises:
            ConfigurationError: No name stands for it.
        """
        if self._name is None:
            raise ConfigurationError(
                f"{self._option}: its values may depend on {what}, which cannot be hashed, so an "
                "earlier run could not be told from another; name='...' gives the job an identity "
                "that you choose"
            )
        self.missed.append(what)
        return combined("not covered")


def combined(tag: str, *parts: bytes) -> bytes:
    """Return the hash of a tag and of parts, whose boundaries count."""
    digest = hashlib.sha256(tag.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
