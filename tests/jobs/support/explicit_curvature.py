"""A small network, and its curvature matrices by explicit Jacobians and Hessians."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def curvature(op: str, net: Network, x: Tensor, label: Tensor) -> Tensor:
    """Return the matrix of the cross entropy by explicit Jacobians and Hessians."""
    names, values = zip(*((n, p.detach()) for n, p in net.named_parameters()), strict=True)

    def outputs(*values: Tensor) -> Tensor:
        return functional_call(net, dict(zip(names, values, strict=True)), (x,))

    def losses(*values: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs(*values), label, reduction="none")

    def flat(function: Callable[..., Tensor]) -> Tensor:
        parts = jacrev(function, argnums=tuple(range(len(values))))(*values)
        sizes = [value.numel() for value in values]
        return torch.cat([p.reshape(-1, n) for p, n in zip(parts, sizes, strict=True)], dim=1)

    if op == "fisher":
        return flat(losses).T @ flat(losses) / len(x)
    if op == "hessian":
        shapes = [value.shape for value in values]

        def of_all(entries: Tensor) -> Tensor:
            parts = entries.split([shape.numel() for shape in shapes])
            return losses(*(p.reshape(s) for p, s in zip(parts, shapes, strict=True))).mean()

        return hessian(of_all)(torch.cat([value.reshape(-1) for value in values]))
    z = outputs(*values)
    of_loss = hessian(lambda z: nn.functional.cross_entropy(z, label))(z)
    return flat(outputs).T @ of_loss.reshape(z.numel(), -1) @ flat(outputs)
