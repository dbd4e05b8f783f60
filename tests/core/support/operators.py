"""Functions that pass through operators with rules, and what cannot be captured."""

import torch
from torch.nn import functional

from tests.core.support.cases import draw

BATCHED = ("vectorize", "forward-mode")


# Cases that cannot be recorded: tangents of a product's branches and of a scan.
REFUSED = {
    ("hessian", "one-element tuple in", "forward-mode"),
    ("hvp", "one-element tuple in", "forward-mode"),
    ("jacobian", "cumulative", "forward-mode"),
}


# Each function of 12 numbers: the stacks of one-hot vectors are diagonal.
def _filtered(x):
    states = [x[0]]
    for each in x[1:]:
        states.append(each + (states[-1] * x[3]).tanh())
    return torch.stack(states) * x[2:5].sum()


OF_A_VECTOR = {
    "scaled": lambda x: x.sin() * x[0] + 3 * x.exp() - x.roll(3),
    "samples": lambda x: (x[:, None] * draw(4)).tanh().sum(1),
    "network": lambda x: ((x[:, None] @ draw(1, 5)).sin() @ draw(5, 3)).tanh() @ draw(3),
    "networks": lambda x: ((x[:, None, None] * draw(12, 2, 4)).sin() @ draw(12, 4, 3)).sum((1, 2)),
    "samples of weights": lambda x: ((draw(7, 4) @ x.reshape(4, 3)).tanh() @ draw(3)).sigmoid(),
    "outer products": lambda x: torch.outer(draw(7), x).T @ draw(7, 2) * x[:, None],
    "turned": lambda x: (draw(3, 12) * x).T.sin().reshape(2, 6, 3) * draw(6, 3),
    "twice": lambda x: torch.cat([x**2, x.cos()]).reshape(2, 12).sum(0) * x,
    "through all": lambda x: x.softmax(0) * x.log_softmax(0) + (x**2).mean(),
    "pieces": lambda x: functional.pad(x[2:9].sin(), (1, 4))[:, None].expand(12, 3) * x[:, None],
    "bands": lambda x: torch.linalg.solve(_banded(x), draw(12)),
    "diagonals": lambda x: torch.outer(x.sin(), draw(12)).diagonal(-1) * x[:11].diag(1).sum(0)[1:],
    "distances": lambda x: ((x[:, None] - x) ** 2).exp().sum(1),
    "step by step": _filtered,
    "largest": lambda x: x.topk(5).values.sin() * x.sort(descending=True).values[3:8],
}

WEIGHT = draw(5, 4, seed=1) - 0.7

OTHER = draw(4, 4, seed=2) + 2 * torch.eye(4, dtype=torch.float64)

INDEX = torch.tensor([3, 0, 0, 2, 5])


# Each function uses operators that have rules; x has shape (6, 4).
OPERATORS = {
    "linear": lambda x: functional.linear(x, WEIGHT, WEIGHT[:, 0]).tanh(),
    "linear of a vector": lambda x: functional.linear(x[1], WEIGHT).sigmoid(),
    "matrix times": lambda x: draw(3, 6) @ x.sin(),
    "matrix vector": lambda x: x.exp() @ WEIGHT[0],
    "batched matrices": lambda x: x.reshape(2, 3, 4).sin() @ draw(2, 4, 3),
    "matrices of it": lambda x: (x.T @ x.cos()) @ x.T,
    "softmax": lambda x: x.softmax(0) * x.log_softmax(1),
    "layer norm": lambda x: functional.layer_norm(x, (4,), WEIGHT[0], WEIGHT[1]),
    "layer norm, plain": lambda x: functional.layer_norm(x * x, (6, 4)),
    "activations": lambda x: (
        functional.gelu(x) + functional.silu(x) * functional.relu(x - 0.6) + functional.elu(x)
    ),
    "more activations": lambda x: functional.softplus(x) * functional.leaky_relu(x - 0.7),
    "gather": lambda x: (x[INDEX] * x[INDEX.flip(0)]).sum(1),
    "gather of elements": lambda x: x[INDEX, INDEX % 4] ** 2,
    "negative indices": lambda x: x[:, torch.tensor([-1, 1])] ** 2,
    "index_select": lambda x: x.sin().index_select(1, INDEX % 4),
    "index_add": lambda x: torch.zeros_like(x[:3]).index_add(0, INDEX[:4] % 3, x[:4] ** 2),
    "gather and scatter": lambda x: x.cos().gather(0, INDEX[:, None]).repeat(1, 2),
    "distances": lambda x: (-((x[:, None] - x) ** 2) * x.sin()).sum(-1).exp().sum(0),
    "short lines": lambda x: (-3 * (x[:, None, :2] * x[2:, :2]).sin()).sum(1) - x[:, :2].cumsum(0),
    "mask": lambda x: torch.where(x > 0.6, x**2, x.sin()).masked_fill(x > 1, 0.5),
    "boolean mask": lambda x: x[x > 0.5].sin(),
    "shifts": lambda x: x.roll(2, 0) * x.roll(-1, 1) + x.flip(0) * x.roll((1, 1), (0, 1)),
    "slices": lambda x: x[1:5] * x[:4, :] + x[2:, 1:2] ** 2,
    "strided slices": lambda x: x[::2] * x[1::2].exp(),
    "selects": lambda x: torch.stack([x[0] * x[5], x[2].sin()], 1),
    "concatenation": lambda x: torch.cat([x[:2] ** 2, torch.ones(1, 4), x.sin()]) * 2,
    "heads": lambda x: (
        torch.stack([x.sin(), x**2, torch.ones_like(x)]).permute(1, 2, 0).reshape(6, 12)
        @ draw(12, 3)
    ),
    "heads, taken twice": lambda x: _taken_twice(torch.cat([x.sin()[:, None], x[:, None]], 1)),
    "unbind": lambda x: sum(part * (i + 1) for i, part in enumerate(x.sin().unbind(1))),
    "split": lambda x: torch.cat([part.sin() * 2 for part in x.split(4)]),
    "reductions": lambda x: x.sin().mean(0) * x.prod(1).sum() + x.cos().sum(),
    "views": lambda x: (x.reshape(4, 6).T ** 2).reshape(2, 3, 4).permute(2, 0, 1).flatten(1),
    "broadcasting": lambda x: x[:, :1].sin() * x[:1] + x.sum(1, keepdim=True),
    "outer": lambda x: torch.outer(x[:, 0].sin(), x[0]),
    "subtraction": lambda x: 3 - x.sin() - torch.rsub(x, x.exp()) / x,
    "division": lambda x: x.sin() / (1 + x[:, :1] ** 2),
    "triangles": lambda x: (x[:4].tril() @ x[:4].triu(1)).sin(),
    "diagonals": lambda x: (x[:, :, None] * x.exp()[:, None]).diagonal(1, -1, 1).sin(),
    "diagonals as matrices": lambda x: x.sin().diag_embed(-1, 2, 0) * x[:5, :1, None].exp(),
    "parts of products": lambda x: (x[:, :1] @ x[:1].sin()).mul(3).reshape(-1)[[7, 7, 2, 19]],
    "exponential": lambda x: torch.linalg.matrix_exp(x[:4] * 3).sin(),
    "exponentials": lambda x: torch.linalg.matrix_exp(x[None, 1:5] - draw(2, 4, 4)) @ x.T,
    "shifts of two dimensions": lambda x: x.sin().roll((1, -2), (0, 1)) * x.roll((3, 1), (1, 1)),
    "rows by number": lambda x: (
        torch.stack([x[i].sin() * x[5 - i] for i in range(6)], 1) * x.T.exp()
    ),
    "pieces": lambda x: torch.cat([p.exp() for p in x.sin().split([1, 2, 3])]) * x[:, :1],
    "triangular solve": lambda x: torch.linalg.solve_triangular(OTHER.triu(), x.T, upper=True),
    "cholesky": lambda x: torch.linalg.cholesky(x.T @ x + OTHER @ OTHER.T),
    "cholesky solve": lambda x: torch.cholesky_solve(
        x.T, torch.linalg.cholesky(OTHER @ OTHER.T + x[:4].diag().diag())
    ),
    "solve": lambda x: torch.linalg.solve(OTHER + x[:4], x.T),
    "determinant": lambda x: torch.logdet(x.T @ x + OTHER @ OTHER.T),
    "convolution": lambda x: functional.conv1d(x[None], draw(3, 6, 2) - 0.5).sin(),
    "convolutions": lambda x: _convolutions(x),
    "convolutions with gaps": lambda x: _convolutions_with_gaps(x),
    "kernels": lambda x: functional.conv2d(
        draw(2, 2, 5, 4), x.reshape(2, 2, 2, 3), padding=1
    ).sin(),
    "kernels with gaps": lambda x: _kernels_with_gaps(x),
    "averages": lambda x: (
        functional.avg_pool2d(x[None].sin(), 2) * functional.avg_pool2d(x[None], (4, 2))
    ),
    "averages, overlapping": lambda x: functional.avg_pool2d(x[None], 2, 1, 1).sin(),
    "resizing": lambda x: functional.interpolate(x[None, None].sin(), scale_factor=(2, 3)).cos(),
    "resizing unevenly": lambda x: functional.interpolate(x[None, None], (7, 10)).sin(),
    "pooling": lambda x: functional.max_pool2d(x[None], 2),
    "norms": lambda x: x.norm(dim=1) * x.norm(),
    "cumulative": lambda x: x.cumsum(0) * x.cumprod(1),
    "interpolation": lambda x: functional.interpolate(
        x.sin().reshape(1, 2, 3, 4), size=(5, 3), mode="bilinear"
    ),
    "cubic interpolation": lambda x: functional.interpolate(
        x.sin().reshape(2, 1, 3, 4), scale_factor=(1.4, 2), mode="bicubic", align_corners=True
    ),
    "interpolation of lines": lambda x: functional.interpolate(
        x.sin().reshape(2, 3, 4), scale_factor=1.6, mode="linear"
    ),
    "windows of lines": lambda x: (x.sin().unfold(0, 3, 2) * x[:2, :, None]).cumsum(-1),
    "windows of columns": lambda x: x.sin().unfold(1, 2, 1).prod(-1) * x[:, 1:],
    "take": lambda x: torch.take(x.exp(), INDEX * 3 - 7) * torch.take(x, INDEX[:1]),
    "antialiasing": lambda x: functional.interpolate(
        x.exp().reshape(1, 1, 4, 6), scale_factor=0.5, mode="bilinear", antialias=True
    ),
    "sorting": lambda x: x.sort(0).values ** 2,
    "in place": lambda x: x.sin().mul_(x).add_(x.exp()),
    "into a buffer": lambda x: _into_a_buffer(x),
    "views in place": lambda x: _gates_in_place(x),
    "every other row in place": lambda x: _every_other_row_in_place(x),
    "steps into a buffer": lambda x: _trajectory(x),
    "complex inside": lambda x: torch.fft.irfft(
        1j * torch.fft.rfft(x, dim=0) * torch.fft.rfft(x**2, dim=0).conj(), n=6, dim=0
    ),
    "forces": lambda x: _forces(x),
    "tangents inside, in place": lambda x: _tangents_in_place(x),
    "shifts in order": lambda x: x.roll(5) * x.roll(-1),
    "two dtypes": lambda x: (x.float() ** 2).double() + x,
    "fourier": lambda x: torch.fft.rfft(x, dim=0).abs(),
    "einsum": lambda x: torch.einsum("ij,kj,kl->il", x, WEIGHT, draw(5, 3)) ** 2,
}


def _convolutions(x):
    images = torch.stack([x, x.cos()])[:, None]
    hidden = functional.conv2d(images, draw(3, 1, 3, 2), draw(3), padding=1).tanh()
    return functional.conv2d(hidden, draw(2, 3, 2, 3), padding=(0, 2), dilation=(2, 1)).sigmoid()


def _convolutions_with_gaps(x):
    hidden = functional.conv2d(x[None, None], draw(4, 1, 3, 3), stride=2, padding=1).tanh()
    grouped = functional.conv2d(hidden, draw(4, 2, 2, 2), groups=2, padding=1)
    return functional.conv_transpose2d(grouped.sin(), draw(4, 1, 2, 3), stride=(2, 1))


def _kernels_with_gaps(x):
    kernel, more = x[:3].reshape(3, 1, 2, 2), x[3:].reshape(2, 3, 2, 1)
    hidden = functional.conv2d(draw(2, 1, 7, 6), kernel, x[0, :3], stride=(2, 1), dilation=(1, 2))
    return functional.conv2d(hidden.tanh(), more, padding=(1, 0), stride=(1, 2))


def _taken_twice(joined):
    turned = joined.permute(2, 0, 1)
    return turned.reshape(4, 12).exp() @ joined.permute(0, 2, 1).reshape(12, 4)


def _gates_in_place(x):
    both = x.sin().repeat(1, 2)
    first, second = both[:, :4], both[:, 4:]
    first.mul_(2).sub_(1)
    second.neg_().add_(first)
    return both * x.exp().repeat(1, 2)


def _every_other_row_in_place(x):
    both = x.sin()
    both[::2].mul_(x[1::2])
    both[1::4] = 0
    buffer = torch.zeros(7, 4, dtype=x.dtype)
    buffer[1::3] = x[:2].exp()
    return torch.cat([both * x, buffer])


def _trajectory(x):
    states = x.new_empty(5, 4)
    state = x[0]
    for step in range(5):
        state = state + 0.1 * torch.sin(state) * x[step + 1]
        states[step].copy_(state)
    states[1:3] *= 2
    states[:, 1] = 0
    return states.cos()


def _forces(x):
    with torch.enable_grad():
        positions = x if x.requires_grad else x.clone().requires_grad_()
        energy = (positions.sin() * positions.roll(1, 0)).sum()
        (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
    return gradient * positions


def _tangents_in_place(x):
    pushed = torch.func.jvp(lambda y: torch.sin(y) * y[0], (x,), (torch.ones_like(x),))[1]
    both = torch.cat([pushed * x, x])
    both[:3].mul_(2)
    return both


def _banded(x):
    k = x.exp()
    return torch.diag(2 * k + k.roll(1)) - torch.diag(k[1:], 1) - torch.diag(k[:-2].sin(), -2)


def _into_a_buffer(x):
    buffer = torch.zeros(6, 4, dtype=x.dtype)
    for row in range(6):
        buffer[row] = x[row] ** (row + 1)
    return buffer.sin()
