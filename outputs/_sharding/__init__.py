"""Find the shards of a matrix and merge them."""
