"""Rules that lower recorded operators to steps of a program, one file a family of operators."""
