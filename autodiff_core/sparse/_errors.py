"""Errors of sparse derivatives."""

from __future__ import annotations


class DetectionError(RuntimeError):
    """The pattern cannot be detected: the function cannot be traced, or has too many entries."""


class PatternError(ValueError):
    """A pattern or colouring does not fit the function, the operation or each other."""
