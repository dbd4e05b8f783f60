"""Read finished and unfinished results."""
