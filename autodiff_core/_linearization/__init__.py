"""Linearize a function at a point, in reverse and forward mode."""
