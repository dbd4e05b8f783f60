"""What the names of the strategies mean to a job."""

from __future__ import annotations

# The strategy that computes line by line what another computes in batches.
LOOPS = {"vectorize": "reverse-loop", "forward-mode": "forward-loop"}
# Strategies that push tangents forward and give columns; the others pull back and give rows.
FORWARD = ("forward-mode", "forward-loop")
