"""The user's file `code/model.py`, with functions and modules, and how tests name them."""

import sys
from typing import Any

from jobs.job import Job

MODEL = """
import functools
from dataclasses import dataclass

import torch
from torch import nn

import helper

@dataclass
class Spring:
    stiffness: float = 1.0

def energy(x, stiffness=1.0, spring=None):
    return (spring or Spring(stiffness)).stiffness * helper.half(x.square().sum())

def make(stiffness, power=2):
    return lambda x: stiffness * x**power

class Net(nn.Module):
    def __init__(self, inputs=3, width=4, outputs=2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, width), nn.Tanh())
        self.head = nn.Linear(width, outputs)
        self.register_buffer("shift", torch.arange(float(inputs)))

    def forward(self, x):
        return self.head(self.encoder(x + self.shift))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))

class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.linear(x))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5)

    def forward(self, tokens):
        return self.out(self.table(tokens).mean(1))

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(3, 2, 2)

    def forward(self, left, right):
        return self.bilinear(left, right)

def frozen():
    net = Net()
    net.encoder.requires_grad_(False)
    return net

torch.manual_seed(1)
net = Net()
def huber(output, label): return torch.sqrt(1 + (output - label)**2).sum()
def own_loss(theta, x, y): return ((x @ theta - y) ** 2).mean()
point = torch.arange(3.0) + 1
"""
POINT = "function.point=code/model.py:point"
VALUES = ("inputs=constants", "inputs.values.x=[1.0,2,3]")


def of(name: str, *more: str) -> list[str]:
    return ["function=python", f"function.target=code/model.py:{name}", *more]


def user(job: Job) -> Any:
    """Return the user's module, as it was imported from the file."""
    (name,) = (name for name in sys.modules if name.startswith("model_"))
    return sys.modules[name]
