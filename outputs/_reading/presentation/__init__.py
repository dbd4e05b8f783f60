"""Draw figures of a result."""
