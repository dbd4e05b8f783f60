"""Check the options of curvature matrices."""

from __future__ import annotations

from jobs.configuration.schema import FISHER_KINDS, JobConfig, PythonLoss
from jobs.errors import ConfigurationError, unknown
from jobs.operations import OPERATIONS

_LOSSES = "loss=mse, loss=cross_entropy and loss=python"


def check_curvature(config: JobConfig) -> None:
    """Check that a curvature matrix has a loss, and that nothing else asks for one.

    Raises:
        ConfigurationError: It has none that fits.
    """
    kind, op, loss = config.fisher.kind, config.op, config.loss.kind
    if kind not in FISHER_KINDS:
        raise unknown("fisher.kind", kind, FISHER_KINDS)
    if op != "fisher" and kind != "empirical":
        raise ConfigurationError(f"op={op} fisher.kind={kind}: the option is for op=fisher")
    if not OPERATIONS[op].is_curvature:
        return
    if loss == "none":
        raise ConfigurationError(
            f"op={op} needs a loss between the outputs of a function and its labels; valid are "
            f"{_LOSSES}" + (" and loss=own" if op == "fisher" else "")
        )
    if loss == "own" and (op == "ggn" or kind == "true"):
        raise ConfigurationError(
            f"op={op} loss=own: the function returns the loss itself, so that there are no outputs "
            f"between; valid are {_LOSSES}, with a function that returns the outputs"
            + ("; fisher.kind=empirical goes with loss=own" if op == "fisher" else "")
        )
    if kind == "true" and isinstance(config.loss, PythonLoss):
        raise ConfigurationError(
            "op=fisher fisher.kind=true loss=python: this needs the probability distribution of "
            "which the loss is the negative logarithm, which is known of mse and cross_entropy "
            "only; valid are these, fisher.kind=empirical, and op=ggn"
        )
    if config.dtype.startswith("complex"):
        raise ConfigurationError(f"op={op} dtype={config.dtype}: valid are real dtypes")
