"""Options, their checks, and their registration with Hydra."""
