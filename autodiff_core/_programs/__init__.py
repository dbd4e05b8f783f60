"""Record a linear map as a program, simplify it, and apply it to stacks of vectors."""
