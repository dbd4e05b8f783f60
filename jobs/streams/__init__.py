"""Streams of blocks: at one point, at many points, and sums over batches."""
