"""The batch job runner: ``python -m jobs.run op=hessian strategy=forward-mode``."""
