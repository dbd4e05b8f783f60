"""The job as a call from Python: `jobs.compute`, `jobs.plan`, `jobs.submit`, `jobs.find`."""
