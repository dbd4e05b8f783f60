"""The identity of an object that a program holds: a hash of all that its values depend on.

The hash covers the code of functions (bytecode and constants), their defaults, closures and the
global names that they read, classes of the user's project, and data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.errors import ConfigurationError
from jobs.functions.live.search import Search, combined

_MOST_COVERED = 200


@dataclass(frozen=True)
class Identity:
    """The identity of an object.

    Attributes:
        sha256: The hash.
        covers: What it covers, one line each; what it does not cover at the end.
        modules: The names of the modules that it met, installed ones included.
    """

    sha256: str
    covers: tuple[str, ...]
    modules: tuple[str, ...]


def identity_of(held: Any, option: str, *, name: str | None = None, flags: bool = True) -> Identity:
    """Return the identity of a function or module.

    Args:
        held: The object. The parameters and buffers of a torch.nn.Module itself are left to the
            fingerprint, which covers them as the job computes with them.
        option: What the object is, for messages.
        name: The name that stands for what cannot be hashed; None refuses that.
        flags: Whether the training flags of the module count.

    Raises:
        ConfigurationError: Something cannot be hashed, and there is no name.
    """
    search = Search(option, held, name, flags)
    try:
        digest = search.whole(held, option)
    except RecursionError as error:
        raise ConfigurationError(
            f"{option}: what it holds is nested too deeply; name=... gives it an identity"
        ) from error
    covers = list(search.covers)
    more = len(covers) - _MOST_COVERED
    listed = [*covers[:_MOST_COVERED], *([f"and {more} more"] if more > 0 else [])]
    missed = [f"not covered: {each}" for each in search.missed]
    text = combined("identity", digest, (name or "").encode())
    return Identity(text.hex(), (*listed, *missed), tuple(sorted(search.modules)))
