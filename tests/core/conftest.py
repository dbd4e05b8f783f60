import warnings

import torch


def pytest_configure() -> None:
    # torch loads its decompositions for forward mode at the first use, and they warn about
    # torch.jit.script; the suite makes errors of warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        point = torch.ones(2, 2)
        torch.func.jvp(torch.nn.functional.silu, (point,), (point,))
        torch.autograd.functional.jacobian(
            torch.nn.functional.logsigmoid, point, strategy="forward-mode", vectorize=True
        )
