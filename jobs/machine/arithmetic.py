"""The settings of torch in a process that change the numbers which functions compute."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Self

import torch

# With how many digits these compute in float32, unless a program says otherwise.
_PRECISIONS = {
    "cuda.matmul": "ieee",
    "cudnn.conv": "tf32",
    "cudnn.rnn": "tf32",
    "mkldnn.conv": "ieee",
    "mkldnn.matmul": "ieee",
    "mkldnn.rnn": "ieee",
}


@dataclass(frozen=True)
class Arithmetic:
    """How torch computes where a function does not say it.

    Attributes:
        dtype: The default dtype.
        precisions: ``ieee``, ``tf32`` or ``bf16`` by backend and kind of operator. It is torch's
            `fp32_precision`, which `torch.set_float32_matmul_precision` sets as well.
    """

    dtype: torch.dtype
    precisions: dict[str, str]

    @classmethod
    def of_this_process(cls) -> Self:
        """Return the settings as they are."""
        given = {name: attrgetter(name)(torch.backends).fp32_precision for name in _PRECISIONS}
        precisions = {name: "ieee" if each == "none" else each for name, each in given.items()}
        return cls(torch.get_default_dtype(), precisions)

    def restore(self) -> None:
        """Make these the settings of this process."""
        torch.set_default_dtype(self.dtype)
        here = Arithmetic.of_this_process().precisions
        for name, precision in self.precisions.items():
            if precision != here[name]:
                attrgetter(name)(torch.backends).fp32_precision = precision

    @property
    def changes(self) -> dict[str, str]:
        """The settings that are not torch's defaults, by name."""
        of_dtype = {"default dtype": str(self.dtype)} if self.dtype != torch.float32 else {}
        return of_dtype | {
            f"precision of {name}": precision
            for name, precision in self.precisions.items()
            if precision != _PRECISIONS[name]
        }
