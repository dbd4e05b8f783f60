"""Readers of finished and unfinished results."""
