"""Detect which entries of a derivative can differ from zero."""
