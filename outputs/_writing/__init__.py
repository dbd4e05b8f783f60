"""Write result files: the writer, its thread and its lock."""
