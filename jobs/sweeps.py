"""The old module of the sweep callback, for configurations that name it; removed in 0.3."""

from jobs.reporting.sweeps import SweepCallback

__all__ = ["SweepCallback"]
