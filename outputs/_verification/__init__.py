"""Verify result files, and compare results with one another."""
