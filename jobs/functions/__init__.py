"""Load the user's function, module, weights and loss as a function of the point."""
