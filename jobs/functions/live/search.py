"""Walk through an object and all that its values depend on, and hash it.

The hash contains no addresses and nothing that depends on the order of a hash table, so that
another process computes the same. Objects of installed packages count by their names.
"""

from __future__ import annotations

import builtins
import ctypes
import functools
import hashlib
import sys
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
from torch.nn import Module

from jobs.errors import ConfigurationError
from jobs.functions.live.code import constants_of, imports_of, references_of, resolved
from jobs.functions.source_code import is_of_project
from jobs.sources.plain_tensors import unlike_plain
from jobs.sources.tensor_digest import update_with_tensor

_MAIN = ("__main__", "__mp_main__")
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that is made while Python runs
# What a class holds beside what its instances do. torch numbers the classes of its own functions.
_OF_CLASSES = {
    *("__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__annotations__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
    *("__static_attributes__", "__orig_bases__", "__parameters__", "__abstractmethods__"),
    *("_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__match_args__"),
    "__slotnames__",  # what pickle remembers of a class
    *("_backward_cls", "_autograd_function_id"),
}
_UFUNCS = ("numpy", "scipy.special")
_DESCRIPTORS = ("member_descriptor", "getset_descriptor")
_OF_MODULES = {*vars(Module()), "_compiled_call_impl"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Search:
    """A walk through an object and all that it refers to."""

    def __init__(self, option: str, held: Any, name: str | None, flags: bool) -> None:
        self.covers: dict[str, None] = {}
        self.missed: list[str] = []
        self.modules: set[str] = set()
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
        self._of_project: dict[str, bool] = {}

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
        if isinstance(value, np.ndarray) and value.dtype.kind != "O":
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
            return self._several("property", (value.fget,), place)
        if isinstance(value, weakref.ref):
            return self._several("reference", (value(),), place)
        if kind.__module__ == "functools" and hasattr(value, "__wrapped__"):
            return self._several(kind.__name__, (value.__wrapped__,), place)
        if kind.__module__ == "torch._ops":
            return combined("operator", str(value).encode())
        if kind.__name__ == "CustomOpDef":
            parts = ("_init_fn", "_backward_fn", "_setup_context_fn", "_backends_fns")
            return self._several("operator", [getattr(value, p, None) for p in parts], place)
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
        return combined("tensor", digest.digest(), str(tensor.requires_grad).encode())

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
        is_followed = self._meets(module)
        if not is_followed and _is_importable(function, module, function.__qualname__):
            return combined("imported", module.encode(), function.__qualname__.encode())
        name = f"{module}:{function.__qualname__}"
        self._cover(f"function {name}")
        names = function.__code__.co_freevars
        parts = [
            self._code(function.__code__, name),
            self._several("defaults", function.__defaults__ or (), f"a default of {name}"),
            self._mapping("defaults", function.__kwdefaults__ or {}, f"a default of {name}"),
            self._mapping("attributes", vars(function), f"an attribute of {name}"),
            *(
                self._cell(cell, f"closure variable {variable} of {name}")
                for variable, cell in zip(names, function.__closure__ or (), strict=True)
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
        for name in imports_of(function.__code__):
            self._meets(name)
        for path in references_of(function.__code__):
            used, value, is_there = resolved(function, path, lambda m: self._meets(m.__name__))
            if not is_there:
                kind = "builtin" if hasattr(builtins, used) else "missing"
                yield combined(kind, used.encode())
                continue
            place = f"global {function.__globals__.get('__name__', '')}:{used}"
            self._cover_value(place, value)
            yield combined("global", used.encode(), self.digest(value, place))

    def _code(self, code: CodeType, place: str) -> bytes:
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        constants = self._several("constants", constants_of(code), f"a constant of {place}")
        handlers = getattr(code, "co_exceptiontable", b"")
        return combined("code", code.co_code, handlers, repr((names, counts)).encode(), constants)

    def _class(self, found: type, place: str) -> bytes:
        module, name = str(found.__module__), found.__qualname__
        is_followed = self._meets(module)
        if not found.__flags__ & _HEAP_TYPE or (
            not is_followed and _is_importable(found, module, name)
        ):
            return combined("imported", module.encode(), name.encode())
        self._cover(f"class {module}:{name}")
        content = {k: v for k, v in sorted(vars(found).items()) if k not in _OF_CLASSES}
        return combined(
            "class",
            name.encode(),
            self._several("bases", found.__bases__, place),
            *(
                combined("entry", k.encode(), self.digest(v, f"{module}:{name}.{k}"))
                for k, v in content.items()
                if type(v).__name__ not in _DESCRIPTORS
            ),
        )

    def _module(self, module: ModuleType, place: str) -> bytes:
        name = module.__name__
        is_made = getattr(module, "__spec__", None) is None and name not in _MAIN
        if self._meets(name) and is_made:
            # Made while the program runs: no source covers it.
            content = {k: v for k, v in sorted(vars(module).items()) if not k.startswith("__")}
            return self._mapping("module", content, place)
        return combined("module", name.encode())

    def _torch_module(self, module: Module, place: str) -> bytes:
        kind = type(module)
        if isinstance(module, torch.jit.ScriptModule):
            return self._refused(f"{place}, a module of torch.jit")
        compiled = getattr(module, "_orig_mod", None)
        if isinstance(compiled, Module):
            return self.digest(compiled, place)
        self._cover(f"module {kind.__module__}:{kind.__qualname__}")
        own = {k: v for k, v in sorted(vars(module).items()) if k not in _OF_MODULES}
        hooks = [list(vars(module).get(name, {}).values()) for name in _HOOKS]
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
            self._meets(str(function.__module__ or ""))
            name = f"{function.__module__}:{function.__qualname__}"
            return combined("built in", name.encode())
        return combined("method", function.__name__.encode(), self.digest(owner, place))

    def _instance(self, value: Any, place: str) -> bytes:
        """Hash any other object by what pickle would keep of it."""
        kind = type(value)
        if kind is functools.partial:
            return self._several("partial", (value.func, value.args, value.keywords), place)
        if isinstance(value, np.ufunc):
            name = value.__name__
            home = next((each for each in _UFUNCS if _is_importable(value, each, name)), None)
            if home is not None:
                return combined("imported", home.encode(), name.encode())
        # Pickle would keep the address of the library, and nothing of its content.
        if isinstance(value, ctypes.CDLL):
            return self._refused(f"{place}, a library of ctypes")
        try:
            reduced = value.__reduce_ex__(4)
        # The object may answer with any error; most say "cannot pickle".
        except Exception:
            return self._refused(f"{place}, of type {kind.__module__}.{kind.__qualname__}")
        if isinstance(reduced, str):
            self._meets(str(getattr(value, "__module__", "")))
            return combined("named", reduced.encode())
        make, arguments, state, items, pairs, *_ = (*reduced, None, None, None)
        return combined(
            "object",
            self.digest(kind, place),
            self.digest(make, place),
            self._several("arguments", arguments, place),
            self.digest(state, place),
            self._several("items", list(items or ()), place),
            self._mapping("pairs", dict(pairs or ()), place),
        )

    def _meets(self, module: str) -> bool:
        """Note a module; return whether its functions and data are the user's."""
        if module in _MAIN or not module:
            return True
        if module not in self._of_project:
            self.modules.add(module)
            self._of_project[module] = is_of_project(module)
        return self._of_project[module]

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


def _is_importable(found: Any, module: str, name: str) -> bool:
    """Return whether a name in an imported module leads to the object."""
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value is found


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
