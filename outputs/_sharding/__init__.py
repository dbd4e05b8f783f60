"""Shards: their files, and how they are merged."""
