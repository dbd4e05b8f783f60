"""Results as objects of other libraries: torch, xarray, dask, scipy."""
