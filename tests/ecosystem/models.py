"""Functions made with public libraries, as a user's file has them; each imports its own library."""

# pyright: reportMissingImports=false

import copy

import torch
from torch import nn

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def bert():
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**SMALL, intermediate_size=32, max_position_embeddings=16))


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    return GPT2LMHeadModel(config)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SMALL, intermediate_size=32, max_position_embeddings=16)
    return LlamaForCausalLM(config)


def vision_transformer():
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return VisionTransformer(**sizes, num_classes=3)


def gaussian_process(inputs, targets):
    import gpytorch

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(inputs, targets, gpytorch.likelihoods.GaussianLikelihood())
            self.mean = gpytorch.means.ConstantMean()
            self.kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    return Model()


def predator_and_prey(y):
    from torchdiffeq import odeint

    def rate(t, y):
        return torch.stack([y[0] - y[0] * y[1], y[0] * y[1] - y[1]])

    times = torch.linspace(0, 1, 3, dtype=y.dtype)
    return odeint(rate, y, times, method="rk4", options={"step_size": 0.05})[-1]


class LogDensity(nn.Module):
    def __init__(self):
        import zuko

        super().__init__()
        self.flow = zuko.flows.MAF(3, 0, transforms=2, hidden_features=(8,))

    def forward(self, x):
        return self.flow().log_prob(x)


def harmonics(x):
    from e3nn import o3

    return o3.spherical_harmonics([1, 2], x, normalize=True)


def graph_convolution():
    from torch_geometric.nn import GCNConv

    return GCNConv(3, 2)


def blurred(image):
    import kornia

    return kornia.filters.gaussian_blur2d(image, (3, 3), (1.0, 1.0))


def tight_binding(numbers):
    import dxtb

    options = {"verbosity": 0, "scf_mode": "full"}
    calculator = dxtb.Calculator(numbers, dxtb.GFN1_XTB, dtype=torch.float64, opts=options)

    def energy(positions):
        # Otherwise it keeps what it has computed at other positions.
        calculator.reset()
        return calculator.get_energy(positions)

    return energy


def crystal():
    from chgnet.model import CHGNet
    from pymatgen.core import Lattice, Structure

    model = CHGNet.load(verbose=False, use_device="cpu").double()
    # It counts atoms in single precision.
    model.composition_model.float()
    structure = Structure(Lattice.cubic(4.2), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    graph = model.graph_converter(structure)
    graph.lattice = graph.lattice.detach().double()
    graph.neighbor_image = graph.neighbor_image.double()

    def energy(positions):
        moved = copy.copy(graph)
        moved.atom_frac_coord = positions @ torch.linalg.inv(graph.lattice)
        return model([moved])["e"].sum()

    return energy


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def forward(self, x):
        return self.layers(x)
