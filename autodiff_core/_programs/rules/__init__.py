"""Lower recorded operators to steps of a program, by rules: one file a family of operators."""
