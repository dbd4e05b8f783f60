"""The batch job runner: ``python -m jobs.run op=hessian strategy=forward-mode``."""

from jobs.name_clashes import require_own_packages

require_own_packages()
