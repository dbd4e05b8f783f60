"""Register the option groups with Hydra."""

from __future__ import annotations

import functools
import os
import uuid

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from jobs.configuration.problem_options import (
    Arrow,
    Brusselator,
    Burgers,
    ConvolutionStack,
    FiniteElements,
    GpResidual,
    Mlp,
    MlpParameters,
    NeighbourEnergy,
    PairwiseEnergy,
    Rosenbrock,
    RotationChain,
    TransformerBlock,
)
from jobs.configuration.schema import (
    SOURCES,
    AtomsSource,
    BatchedLoss,
    JobConfig,
    LossConfig,
    PointsConfig,
    PythonFunction,
    PythonLoss,
    RandomInputs,
    RandomVectors,
    SourceConfig,
    StructureConfig,
    TargetLoss,
    VerifyConfig,
    WrtConfig,
)

GROUPS = {
    "function": {
        "rosenbrock": Rosenbrock,
        "mlp": Mlp,
        "mlp_parameters": MlpParameters,
        "pairwise_energy": PairwiseEnergy,
        "gp_residual": GpResidual,
        "brusselator": Brusselator,
        "transformer_block": TransformerBlock,
        "rotation_chain": RotationChain,
        "neighbour_energy": NeighbourEnergy,
        "convolution_stack": ConvolutionStack,
        "burgers": Burgers,
        "arrow": Arrow,
        "finite_elements": FiniteElements,
        "python": PythonFunction,
    },
    "wrt": {"inputs": WrtConfig, "params": WrtConfig},
    "inputs": {
        "default": SourceConfig,
        "random": RandomInputs,
        "atoms": AtomsSource,
        **SOURCES,
    },
    "points": dict.fromkeys(("single", "leading", "files", "offsets"), PointsConfig),
    "structure": dict.fromkeys(("full", "diagonal", "blocks"), StructureConfig),
    "loss": {
        "none": LossConfig,
        "own": BatchedLoss,
        "mse": TargetLoss,
        "cross_entropy": TargetLoss,
        "python": PythonLoss,
    },
    "vectors": {"random": RandomVectors, **SOURCES},
    "verify": dict.fromkeys(("probe", "require", "sample", "off"), VerifyConfig),
}


@functools.cache
def register() -> None:
    """Register the schemas with Hydra once, under the names that the YAML files refer to.

    Also register ``${sweep_id:}``, which distinguishes sweeps that start in the same second, and
    ``${home_expanded:}``, which replaces ``~`` in paths.
    """
    # Computed once per configuration, which the launchers pass on to all jobs.
    OmegaConf.register_new_resolver(
        "sweep_id", lambda: uuid.uuid4().hex[:8], use_cache=True, replace=True
    )
    OmegaConf.register_new_resolver("home_expanded", os.path.expanduser, replace=True)
    store = ConfigStore.instance()
    store.store(name="job_schema", node=JobConfig)
    for group, schemas in GROUPS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=_open_mappings(schema))


def _open_mappings(schema: type) -> DictConfig:
    """Return a schema whose mappings accept any key without Hydra's plus sign."""
    node = OmegaConf.structured(schema)
    for key in node:
        # Accessing a missing value would raise.
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            OmegaConf.set_struct(node[key], False)
    return node
