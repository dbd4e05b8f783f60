import warnings

import torch


def pytest_configure() -> None:
    # torch loads its decompositions for forward mode at the first use, which warns about
    # torch.jit.script; the test-suite turns warnings into errors.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        point = torch.ones(2, 2)
        torch.func.jvp(torch.nn.functional.silu, (point,), (point,))
        torch.autograd.functional.jacobian(
            torch.nn.functional.logsigmoid, point, strategy="forward-mode", vectorize=True
        )
