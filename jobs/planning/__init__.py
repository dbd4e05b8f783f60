"""Choose strategy, axis, engine and chunk size, and predict time and memory."""
