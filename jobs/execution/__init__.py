"""Run one job, dense or sparse, from its plan to its file."""
