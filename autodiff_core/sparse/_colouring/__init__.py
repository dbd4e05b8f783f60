"""Colour the columns or rows of a sparsity pattern."""
