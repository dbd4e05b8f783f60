"""Functions that resist differentiation, one of each kind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.attention
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.core.support.custom_functions import (
    LinearFunction,
    NumpyBackwardCube,
    OldStyleCube,
    OnceDifferentiableCube,
    PartlyNumpyBackwardCube,
    SetupContextCube,
)
from tests.core.support.outcomes import (
    FLASH,
    LOOPED,
    LOOPED_FORWARD,
    LOOPED_INSIDE,
    NO_DOUBLE_BACKWARD,
    NO_REENTRANT,
    Outcomes,
    neither,
    no_forward,
)

DTYPE = torch.float64


def _in_place(x: Tensor) -> Tensor:
    y = x.sin()
    y.mul_(x)
    y[0] += x[1]
    return y


def _in_place_on_the_argument(x: Tensor) -> Tensor:
    x.mul_(2).add_(1)
    return x.sin()


def _in_place_on_captured(x: Tensor) -> Tensor:
    buffer = torch.zeros(x.shape, dtype=DTYPE)
    buffer.add_(x.sin())
    return buffer * x


def _item(x: Tensor) -> Tensor:
    return x.sin() * round(x.sum().item())


def _branch(x: Tensor) -> Tensor:
    return x.sin() if x.sum() > 0 else x.cos()


def _numpy_round_trip(x: Tensor) -> Tensor:
    scale = torch.from_numpy(np.ceil(3 * x.detach().numpy()))
    return x**2 * scale


def _forces(x: Tensor) -> Tensor:
    x.requires_grad_()
    return -torch.autograd.grad((x.sin() * x.roll(1)).sum(), x, create_graph=True)[0]


def _checkpointed(use_reentrant: bool) -> Callable[[Tensor], Tensor]:
    def body(y: Tensor) -> Tensor:
        return (y.sin() * y).tanh()

    return lambda x: checkpoint(body, x, use_reentrant=use_reentrant, preserve_rng_state=False)


def _batch_norm() -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).to(DTYPE)
    return lambda x: module(x.reshape(-1, 2))


def _attention(x: Tensor) -> Tensor:
    q = x.reshape(1, 1, 3, 2)
    return torch.nn.functional.scaled_dot_product_attention(q, q.sin(), q.cos())


def _mathematical_attention(x: Tensor) -> Tensor:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return _attention(x)


def _multihead() -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(2, 1, batch_first=True).to(DTYPE)
    return lambda x: module(*(x.reshape(1, 3, 2),) * 3, need_weights=False)[0]


def _lstm() -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    module = torch.nn.LSTM(2, 2).to(DTYPE)
    return lambda x: module(x.reshape(3, 1, 2))[0]


def _max_pool(x: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d((x * x).reshape(1, 1, 2, 3), 2, 1)


def _grid_sample(x: Tensor) -> Tensor:
    grid = torch.linspace(-0.8, 0.8, 8, dtype=DTYPE).reshape(1, 2, 2, 2)
    return torch.nn.functional.grid_sample(
        (x**2).reshape(1, 1, 2, 3), grid * x[0].sin(), align_corners=False
    )


def _ctc(x: Tensor) -> Tensor:
    log_probabilities = x.reshape(3, 1, 2).log_softmax(-1)
    lengths = torch.tensor([3]), torch.tensor([1])
    return torch.nn.functional.ctc_loss(log_probabilities, torch.tensor([[1]]), *lengths)


def _embedding_bag(x: Tensor) -> Tensor:
    indices = torch.tensor([[0, 1], [1, 2]])
    return torch.nn.functional.embedding_bag(indices, x.reshape(3, 2), mode="mean") ** 2


def _sparse(layout: str) -> Callable[[Tensor], Tensor]:
    dense = torch.tensor([[1.0, 0, 2, 0, 0, 0], [0, 0, 0, 3, 0, 1]], dtype=DTYPE)
    matrix = dense.to_sparse() if layout == "coo" else _csr(dense)
    return lambda x: torch.sparse.mm(matrix, (x**2).reshape(6, 1))


def _csr(dense: Tensor) -> Tensor:
    rows, columns = dense.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(dense))
    pointers = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return torch.sparse_csr_tensor(pointers, columns, dense[rows, columns], dense.shape)


def _constant_beside_live(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones(2, dtype=DTYPE), x.sin()


def _integer_output(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.argsort(), x.sin()


def _cdist(x: Tensor) -> Tensor:
    anchors = torch.linspace(-1, 2, 10, dtype=DTYPE).reshape(5, 2)
    return torch.cdist(x.reshape(3, 2), anchors)


def _dropout(x: Tensor) -> Tensor:
    return torch.nn.functional.dropout(x, 0.5) * x


def _point() -> Tensor:
    return torch.tensor([0.3, 0.7, 1.1, 0.2, 0.9, 0.5], dtype=DTYPE)


def _expanded() -> Tensor:
    return torch.tensor([0.3], dtype=DTYPE).expand(4)


@dataclass(frozen=True)
class Resisting:
    """A function that resists differentiation, with the expected outcomes.

    Attributes:
        make: Returns a new instance of the function, because some keep state.
        point: Returns the point.
        jacobian: The outcome for the Jacobian, for the strategies that do not simply work.
        hessian: The same for the Hessian of the sum of squares of the output.
    """

    make: Callable[[], Callable[[Tensor], Any]]
    point: Callable[[], Tensor] = _point
    jacobian: Outcomes = field(default_factory=dict)
    hessian: Outcomes = field(default_factory=dict)


FUNCTIONS: dict[str, Resisting] = {
    "in-place": Resisting(lambda: _in_place),
    "in-place on the argument": Resisting(lambda: _in_place_on_the_argument),
    "in-place on a tensor made inside": Resisting(lambda: _in_place_on_captured),
    "item": Resisting(lambda: _item),
    "branch": Resisting(lambda: _branch),
    "old-style Function": Resisting(
        lambda: OldStyleCube.apply,
        jacobian=no_forward("OldStyleCube"),
        hessian=no_forward("OldStyleCube"),
    ),
    "setup_context Function": Resisting(
        lambda: SetupContextCube.apply,
        jacobian=no_forward("SetupContextCube"),
        hessian=no_forward("SetupContextCube"),
    ),
    "numpy backward": Resisting(
        lambda: NumpyBackwardCube.apply,
        jacobian=no_forward("NumpyBackwardCube") | LOOPED,
        hessian=no_forward("NumpyBackwardCube") | NO_DOUBLE_BACKWARD,
    ),
    "partly numpy backward": Resisting(
        lambda: PartlyNumpyBackwardCube.apply,
        jacobian=no_forward("PartlyNumpyBackwardCube"),
        hessian=no_forward("PartlyNumpyBackwardCube") | NO_DOUBLE_BACKWARD,
    ),
    "once differentiable": Resisting(
        lambda: OnceDifferentiableCube.apply,
        jacobian=no_forward("OnceDifferentiableCube"),
        hessian=no_forward("OnceDifferentiableCube") | NO_DOUBLE_BACKWARD,
    ),
    "linear Function": Resisting(
        lambda: LinearFunction.apply,
        jacobian=no_forward("LinearFunction"),
        hessian=no_forward("LinearFunction"),
    ),
    "numpy round trip": Resisting(
        lambda: _numpy_round_trip, jacobian=LOOPED_FORWARD, hessian=LOOPED_FORWARD
    ),
    "forces": Resisting(lambda: _forces, jacobian=LOOPED_FORWARD, hessian=LOOPED_FORWARD),
    "checkpoint": Resisting(lambda: _checkpointed(False), hessian=LOOPED_FORWARD),
    "reentrant checkpoint": Resisting(
        lambda: _checkpointed(True), jacobian=NO_REENTRANT, hessian=NO_REENTRANT
    ),
    "dropout": Resisting(lambda: _dropout),
    "batch norm": Resisting(_batch_norm, jacobian=LOOPED_FORWARD, hessian=LOOPED_FORWARD),
    "attention": Resisting(
        lambda: _attention,
        jacobian=no_forward(FLASH) | LOOPED_INSIDE,
        hessian=neither(FLASH, "SDPBackend.MATH"),
    ),
    "attention in plain mathematics": Resisting(lambda: _mathematical_attention),
    "multihead attention": Resisting(
        _multihead,
        jacobian=no_forward(FLASH) | LOOPED_INSIDE,
        hessian=neither(FLASH, "SDPBackend.MATH"),
    ),
    "lstm": Resisting(_lstm),
    "max_pool2d": Resisting(lambda: _max_pool),
    "grid_sample": Resisting(
        lambda: _grid_sample,
        jacobian=no_forward("grid_sampler_2d"),
        hessian=no_forward("grid_sampler_2d") | LOOPED_INSIDE,
    ),
    "ctc_loss": Resisting(
        lambda: _ctc,
        jacobian=no_forward("_ctc_loss"),
        hessian=neither("_ctc_loss", "_ctc_loss_backward"),
    ),
    "embedding_bag": Resisting(
        lambda: _embedding_bag,
        jacobian=no_forward("_embedding_bag") | LOOPED_INSIDE,
        hessian=neither("_embedding_bag", "_embedding_bag_backward"),
    ),
    "sparse COO": Resisting(
        lambda: _sparse("coo"),
        jacobian=no_forward("_sparse_addmm") | LOOPED,
        hessian=no_forward("_sparse_addmm") | LOOPED,
    ),
    "sparse CSR": Resisting(
        lambda: _sparse("csr"),
        jacobian=no_forward("_sparse_addmm") | LOOPED,
        hessian=no_forward("_sparse_addmm") | LOOPED,
    ),
    "expanded input": Resisting(lambda: torch.sin, _expanded),
    "constant output": Resisting(lambda: _constant_beside_live),
    "integer output": Resisting(lambda: _integer_output),
    # The batched derivative of cdist is wrong in torch 2.13, without an error.
    "cdist": Resisting(
        lambda: _cdist,
        jacobian=no_forward("_cdist_forward") | LOOPED,
        hessian=neither("_cdist_forward", "_cdist_backward"),
    ),
}


def sum_of_squares(func: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """Return a scalar function of the output, for Hessians."""

    def scalar(x: Tensor) -> Tensor:
        outputs = func(x)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        terms = [(part**2).sum() for part in outputs if part.is_floating_point()]
        return torch.stack(terms).sum()

    return scalar
