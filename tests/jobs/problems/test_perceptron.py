"""The problems of a perceptron, `mlp` and `mlp_parameters`, checked by the chain rule."""

from functools import partial

import numpy as np

from tests.jobs.support.problem_cases import assert_close, build, captured, flat, inputs, loop


def perceptron_in_numpy(x: np.ndarray, parameters: list[np.ndarray]):
    """Return a three-layer perceptron's activations and dy/d(pre-activation) of hidden layers."""
    w1, b1, w2, b2, w3, b3 = parameters
    h1 = np.tanh(w1 @ x + b1)
    h2 = np.tanh(w2 @ h1 + b2)
    back2 = w3 * (1 - h2**2)
    back1 = back2 @ w2 * (1 - h1**2)
    return w3 @ h2 + b3, h1, h2, back1, back2


def test_mlp_jacobian_by_the_chain_rule():
    problem = build("mlp")
    parameters = [p.numpy() for p in captured(problem)["parameters"]]
    assert [w.shape for w in parameters[::2]] == [(8, 4), (8, 8), (4, 8)]
    y, _, _, back1, _ = perceptron_in_numpy(problem.point["x"].numpy(), parameters)
    func, x = flat(problem, problem.function)
    assert_close(func(x), y)
    assert_close(loop(func, x), back1 @ parameters[0])


def test_mlp_parameters_jacobian_and_loss_by_the_chain_rule():
    problem = build("mlp_parameters")
    assert isinstance(problem.scalar, partial)
    data, targets = (problem.scalar.keywords[name].numpy() for name in ("data", "targets"))
    parameters = [p.numpy() for p in inputs(problem)]
    assert list(problem.point) == [
        f"layer{layer}.{kind}" for layer in (1, 2, 3) for kind in ("weight", "bias")
    ]
    values, rows = [], []
    for x in data:
        y, h1, h2, back1, back2 = perceptron_in_numpy(x, parameters)
        values.append(y)
        for k, unit in enumerate(np.eye(len(y))):
            blocks = [np.outer(back1[k], x), back1[k], np.outer(back2[k], h1), back2[k]]
            blocks += [np.outer(unit, h2), unit]
            rows.append(np.concatenate([block.ravel() for block in blocks]))
    func, point = flat(problem, problem.function)
    assert_close(func(point), np.ravel(values))
    assert_close(loop(func, point), np.array(rows))
    assert_close(problem.scalar(*inputs(problem)), np.mean((np.array(values) - targets) ** 2))
