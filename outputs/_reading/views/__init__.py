"""Present results as objects of other libraries: torch, xarray, dask, SciPy."""
