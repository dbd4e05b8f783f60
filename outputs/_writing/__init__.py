"""Write result files, in the background and under a lock."""
