"""Answers from a stored matrix, out of core: spectra, traces, determinants, solutions, products."""
