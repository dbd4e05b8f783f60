"""Engines: ways to apply one linear map to many vectors, and the check that they agree."""
