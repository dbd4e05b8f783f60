"""Files and constants as named arrays, read no sooner and no further than needed."""
