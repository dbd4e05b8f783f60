"""Composing the configuration, and the messages about options that are not valid."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.configuration.checks import check_config, to_yaml
from jobs.configuration.composition import MEMBER_KEYS
from jobs.configuration.hydra_errors import explain
from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError, JobError
from jobs.job import Job
from jobs.paths import config_directory
from jobs.problems import BUILDERS

Compose = Callable[..., DictConfig]
CONF = config_directory()
# Members of the group cluster choose a launcher, and are no options of a job.
MEMBERS = [
    (path.parent.name, path.stem)
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name != "cluster"
]
# The options that a group's member needs besides its name.
NEEDED = {
    ("function", "python"): ["function.target=m:f"],
    ("loss", "python"): ["loss.target=m:f"],
    ("points", "files"): ["inputs=numpy", "inputs.path=x/*.npy"],
    **{
        (group, source): [f"{group}.path=x"]
        for group in ("inputs", "vectors")
        for source in ("numpy", "safetensors", "torch", "table", "result")
    },
    ("inputs", "atoms"): ["inputs.path=x.xyz"],
    ("inputs", "hdf5"): ["inputs.path=x.h5", "inputs.datasets=[/x]"],
    ("vectors", "hdf5"): ["vectors.path=x.h5", "vectors.datasets=[/x]"],
}


def refusal(compose_config: Compose, *overrides: str) -> str:
    """Return the message about options that do not compose or are not valid."""
    try:
        check_config(compose_config(*overrides))
    except JobError as error:
        return str(error)
    # An error of Hydra, in the terms of the command line.
    except Exception as error:
        return explain(error)
    pytest.fail(f"{overrides} are not refused")


# Directories


@pytest.mark.parametrize("option", ["run", "sweep"])
def test_hydra_writes_under_runs(option: str, compose_config: Compose) -> None:
    composed = compose_config("runs=elsewhere", hydra=True)
    assert Path(composed.hydra[option].dir).parts[0] == "elsewhere"
    assert Path(compose_config(hydra=True).hydra[option].dir).parts[0] == "runs"


def test_hydra_neither_changes_the_directory_nor_writes_files_of_its_own(
    compose_config: Compose,
) -> None:
    hydra = compose_config(hydra=True).hydra
    assert hydra.job.chdir is False
    assert hydra.output_subdir is None


def test_the_checkout_ignores_runs_and_nothing_named_outputs() -> None:
    ignored = (Path(__file__).parents[3] / ".gitignore").read_text().split()
    assert "/runs/" in ignored
    assert not {"outputs", "outputs/", "runs", "runs/"} & set(ignored)


# Groups and types


@pytest.mark.parametrize(("group", "name"), MEMBERS)
def test_every_member_of_a_group_composes(group: str, name: str, compose_config: Compose) -> None:
    needed = NEEDED.get((group, name), [])
    if group == "loss" and name != "none":
        needed = [*needed, "function=python", "function.target=m:f"]
    if name == "named":
        needed = [f"{group}.tensors.x=x.npy"]
    config = check_config(compose_config(f"{group}={name}", *needed))
    member = getattr(config, group)
    key = MEMBER_KEYS[group]
    # This one is a mode with another default.
    expected = "probe" if (group, name) == ("verify", "require") else name
    assert expected == getattr(member, key)
    # No field but those of the JobConfig itself stays without a type of its own.
    assert type(member).__name__ not in ("dict", "DictConfig")


def test_the_functions_are_the_built_in_problems_and_the_users_own() -> None:
    names = {name for group, name in MEMBERS if group == "function"}
    assert names == {*BUILDERS, "python"}


def test_the_yaml_of_a_job_composes_to_the_same_job(compose_config: Compose) -> None:
    config = check_config(compose_config("function=mlp", "inputs=random", "inputs.shapes=[[256]]"))
    again = OmegaConf.to_container(OmegaConf.create(to_yaml(config)))
    assert again == OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(config, JobConfig)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        # An unknown choice: the option, the value, what is valid, what is near.
        (["op=hesian"], ["op=hesian", "jacobian, hessian, ggn", "did you mean hessian?"]),
        (["op="], ["op=:", "jacobian"]),
        (["op=null"], ["op=null", "a value is needed"]),
        (["~op"], ["op: a value is needed"]),
        (["~devices"], ["devices: a value is needed"]),
        (["strategy=forwardmode"], ["strategy=forwardmode", "did you mean forward-mode?"]),
        (["dtype=float63"], ["dtype=float63", "bfloat16", "did you mean float"]),
        (["dtype=int32"], ["dtype=int32", "complex128"]),
        (["output.compression=lzf"], ["output.compression=lzf", "none, gzip"]),
        (["compile=sometimes"], ["compile=sometimes", "auto, never, always"]),
        (["verify=yes"], ["verify", "probe"]),
        # An unknown member of a group.
        (["function=rosenbrok"], ["function=rosenbrok", "brusselator", "did you mean rosenbrock?"]),
        (["inputs=nmpy"], ["inputs=nmpy", "hdf5", "did you mean numpy?"]),
        (["function="], ["function=:", "rosenbrock"]),
        (["~function"], ["function", "a value is needed"]),
        # An unknown key, at every depth and however it is written.
        (["functon=mlp"], ["functon", "strategy", "did you mean function?"]),
        (["+stratgy=x"], ["stratgy", "did you mean strategy?"]),
        (["function.m=3"], ["function.m", "function.samples", "did you mean function.n?"]),
        (["+function.sample=3"], ["function.sample", "did you mean function.samples?"]),
        (["inputs.path=x.npy"], ["inputs.path", "inputs.source"]),
        (["function.target=m:f"], ["function.target", "function.n"]),
        (["output.compresion=gzip"], ["output.compresion", "did you mean output.compression?"]),
        # A wrong type.
        (["function.n=abc"], ["function.n=abc", "an integer"]),
        (["function.n=1.5"], ["function.n=1.5", "an integer"]),
        (["function.n=null"], ["function.n=null", "a value is needed"]),
        (["function.n=[1,2]"], ["function.n"]),
        (["seed=x"], ["seed=x", "an integer"]),
        (["inputs=random", "inputs.scale=x"], ["inputs.scale=x", "a number"]),
        (["inputs=random", "inputs.shapes=3"], ["inputs.shapes", "a list"]),
        (["inputs=random", "inputs.shapes=[[2,x]]"], ["inputs.shapes", "x", "an integer"]),
        (["overwrite=maybe"], ["overwrite=maybe", "true and false"]),
        (["chunk_size=1.5"], ["chunk_size=1.5", "auto"]),
        (["chunk_size=true"], ["chunk_size=True", "auto"]),
        # A value out of range.
        (["chunk_size=0"], ["chunk_size=0", "auto and integers from 1 on"]),
        (["chunk_size=lots"], ["chunk_size=lots", "auto and integers from 1 on"]),
        (["seed=-1"], ["seed=-1", "0 to 2^63 - 1"]),
        (["runs="], ["runs=", "directory"]),
        (["runs=${nowhere}"], ["nowhere"]),
        # A missing value.
        (["function=python"], ["function.target", "a value is needed"]),
        (["inputs=numpy"], ["inputs.path", "a value is needed"]),
        (["inputs=hdf5", "inputs.path=x"], ["inputs.datasets", "a value is needed"]),
        # Two options that do not fit.
        (["op=vjp", "strategy=forward-mode"], ["op=vjp strategy=forward-mode", "op=jvp"]),
        (["op=vhp", "strategy=forward-mode"], ["op=vhp strategy=forward-mode", "op=hvp"]),
        # An argument that is no option.
        (["foo"], ["foo", "option=value"]),
        (["inputs=numpy", "inputs.path=a=b"], ["a=b", "quotes"]),
        (["op=jacobian,hessian"], ["op=jacobian,hessian", "--multirun"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_named_with_what_would_be_valid(
    overrides: list[str], parts: list[str], compose_config: Compose
) -> None:
    text = refusal(compose_config, *overrides)
    for part in parts:
        assert part in text
    assert "\n" not in text
    # No internal names appear in the message.
    assert not re.search(r"Config|Optional|struct\b|\?\?\?|object_type", text)


# Values that are valid, but have no meaning for the function


@pytest.mark.parametrize("operation", ["hessian", "vhp", "hvp"])
@pytest.mark.parametrize("problem", ["mlp", "brusselator", "transformer_block", "rotation_chain"])
def test_a_second_derivative_needs_a_scalar(
    operation: str, problem: str, resolved: Callable[..., Job]
) -> None:
    overrides = (f"op={operation}", "strategy=vectorize", f"function={problem}")
    with pytest.raises(ConfigurationError, match=r"has no meaning.*scalar.*op=jacobian.*rosen"):
        resolved(*overrides)


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["function=mlp", "function.n=0"], r"function.n=0.*at least 1"),
        (["function=rosenbrock", "function.n=1"], r"function.n=1\b.*at least 2"),
        (["function=mlp", "function.seed=-1"], r"function.seed=-1"),
        (["function=transformer_block", "function.heads=3"], r"function.heads|function.width"),
        (["function=mlp", "devices=cuda:99"], r"devices=cuda:99: there is no such device.*cpu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_size_that_does_not_exist(
    overrides: list[str], pattern: str, resolved: Callable[..., Job]
) -> None:
    with pytest.raises(ConfigurationError, match=pattern):
        resolved("op=jacobian", *overrides)


def test_explaining_needs_no_key() -> None:
    assert explain(OmegaConfBaseException("first\nsecond")) == "first"
