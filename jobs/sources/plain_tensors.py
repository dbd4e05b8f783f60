"""Tensors of files and of the user's code as plain ones: dense numbers in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from jobs.errors import ConfigurationError


def plain(tensor: Tensor, origin: str) -> Tensor:
    """Return a tensor without history, in a dtype that torch computes with.

    Args:
        tensor: The tensor.
        origin: The option, the file and the name in it, for messages.

    Returns:
        The tensor itself, or its exact values in single precision if they were narrower than
        half precision.

    Raises:
        ConfigurationError: The tensor is sparse, quantized or nested, holds no data, or no numbers.
    """
    reason = unlike_plain(tensor)
    if reason:
        raise ConfigurationError(f"{origin}: {reason}")
    tensor = tensor.detach()
    if tensor.dtype == torch.complex32:
        return tensor.to(torch.complex64)
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        return tensor.float()
    return tensor


def unlike_plain(tensor: Tensor) -> str:
    """Return why a tensor is not plain, and what to do; empty if it is."""
    if tensor.is_nested:
        return "this is a nested tensor; valid are tensors of one shape, so pad it"
    if tensor.is_quantized:
        return "this tensor is quantized; valid is what its method dequantize() returns"
    if tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        return f"this tensor is {kind}; valid is what its method to_dense() returns"
    if tensor.is_meta:
        return "this tensor is on the device meta, so it holds no numbers"
    try:
        # torch has dtypes, such as bits8, that it stores but does not compute with.
        torch.zeros(1, device="cpu").to(tensor.dtype)
    except (NotImplementedError, RuntimeError):
        return f"this is of dtype {tensor.dtype}; valid are real and complex numbers"
    return ""
