"""The pattern of a sparse job, its compressed products and their assembly."""
