"""A function of which each row of the Jacobian takes time, as a program has it."""

# It needs torch, time and SECONDS.
SLOW = """
class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        time.sleep(SECONDS)
        (x,) = ctx.saved_tensors
        return 2 * x * g
"""
