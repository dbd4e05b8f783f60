"""The empirical neural tangent kernel of a network on handwritten digits, out of core.

The kernel of samples a and b is J(a) J(b)ᵀ, where J is the Jacobian of the outputs with respect to
all parameters (A. Jacot, F. Gabriel, C. Hongler, Neural Tangent Kernel, NeurIPS 2018). The Jacobian
stays on the disk; the product reads it in bands of columns. The example compares the result with
the kernel that `torch.func` computes from per-sample Jacobians.

    python examples/tangent_kernel.py

Needs scikit-learn for the digits: ``pip install 'autodiff-jobs[examples]'``.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

import jobs
from outputs import Result

SAMPLES = 60
COLUMNS_AT_ONCE = 1000


def network(width: int = 48) -> nn.Module:
    """Return a network from the 64 pixels of a digit to 10 classes."""
    return nn.Sequential(
        nn.Linear(64, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10)
    )


def kernel(result: Result) -> np.ndarray:
    """Return J Jᵀ of shape (rows, rows), computed from bands of columns."""
    rows, columns = result.shape
    total = np.zeros((rows, rows))
    for start in range(0, columns, COLUMNS_AT_ONCE):
        band = result[:, start : start + COLUMNS_AT_ONCE]
        total += band @ band.T
    return total


def reference(module: nn.Module, data: Tensor) -> np.ndarray:
    """Return the same kernel from per-sample Jacobians in memory."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}

    def outputs(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(module, parameters, (sample,))

    jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(parameters, data)
    flat = torch.cat([each.flatten(2) for each in jacobians.values()], dim=2).flatten(0, 1)
    return (flat @ flat.T).numpy()


def main() -> None:
    """Run the job, multiply, and compare."""
    pixels, _ = load_digits(return_X_y=True)
    data = np.asarray(pixels)[:SAMPLES] / 16
    torch.manual_seed(1)
    module = network().eval()
    with jobs.compute(
        "jacobian", module, data, wrt="params", strategy="vectorize", progress="quiet"
    ) as result:
        assert isinstance(result, Result)
        print(result)
        own = kernel(result)
    expected = reference(module.double(), torch.from_numpy(data))
    eigenvalues = np.linalg.eigvalsh(own)
    print(f"eigenvalues from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}")
    print(f"largest difference: {np.abs(own - expected).max() / np.abs(expected).max():.1e}")


if __name__ == "__main__":
    main()
