"""Functions that a program passes as objects: their identity, and their way to other processes."""
