"""The options of the built-in problems."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from jobs.configuration.schema import FunctionConfig


@dataclass
class Rosenbrock(FunctionConfig):
    """The chained Rosenbrock function."""

    n: int = MISSING


@dataclass
class Mlp(FunctionConfig):
    """A multilayer perceptron, differentiated by its input."""

    n: int = MISSING
    seed: int = MISSING


@dataclass
class MlpParameters(FunctionConfig):
    """A multilayer perceptron, differentiated by its parameters."""

    n: int = MISSING
    samples: int = MISSING
    seed: int = MISSING


@dataclass
class PairwiseEnergy(FunctionConfig):
    """The energy of points that interact in pairs."""

    n: int = MISSING
    seed: int = MISSING


@dataclass
class GpResidual(FunctionConfig):
    """The residuals of a sparse Gaussian process."""

    n: int = MISSING
    inducing: int = MISSING
    seed: int = MISSING


@dataclass
class Brusselator(FunctionConfig):
    """The right-hand side of a reaction-diffusion equation."""

    n: int = MISSING


@dataclass
class TransformerBlock(FunctionConfig):
    """A transformer encoder block, differentiated by its tokens."""

    n: int = MISSING
    width: int = MISSING
    heads: int = MISSING
    seed: int = MISSING


@dataclass
class RotationChain(FunctionConfig):
    """Points moved by a chain of hinge rotations."""

    n: int = MISSING


@dataclass
class NeighbourEnergy(FunctionConfig):
    """The energy of a crystal between nearest neighbours."""

    n: int = MISSING
    seed: int = MISSING


@dataclass
class ConvolutionStack(FunctionConfig):
    """Two convolutions over an image, differentiated by it."""

    n: int = MISSING
    channels: int = MISSING
    seed: int = MISSING


@dataclass
class Burgers(FunctionConfig):
    """The residual of an implicit step of Burgers' equation."""

    n: int = MISSING


@dataclass
class Arrow(FunctionConfig):
    """A function whose derivatives have the shape of an arrow."""

    n: int = MISSING


@dataclass
class FiniteElements(FunctionConfig):
    """The forces in a sheet of finite elements."""

    n: int = MISSING
    seed: int = MISSING
