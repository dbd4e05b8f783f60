"""Passes over the data of a result, in parallel or in sequence."""
