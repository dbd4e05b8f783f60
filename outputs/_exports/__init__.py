"""Export results to the formats of other programs, one module for each format."""
