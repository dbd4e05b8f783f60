"""The stack of convolutions checked against that of torch.nn."""

import torch

from tests.jobs.support.problem_cases import assert_close, build, captured, inputs


def test_convolution_stack_is_that_of_torch_nn():
    problem = build("convolution_stack")
    constants = captured(problem)
    first = torch.nn.Conv2d(1, 3, 3, padding=1).double()
    second = torch.nn.Conv2d(3, 1, 3, padding=1, bias=False).double()
    first.weight.data = constants["weights"]
    first.bias = torch.nn.Parameter(constants["bias"])
    second.weight.data = constants["combined"]
    (image,) = inputs(problem)
    expected = second(first(image[None, None]).tanh())[0, 0]
    assert_close(problem.function(image), expected.detach())
