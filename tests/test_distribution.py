"""What people install: wheel, source distribution, containers and the conda package."""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WHEEL = f"autodiff_jobs-{PROJECT['version']}-py3-none-any.whl"
INSTRUCTIONS = {"ARG", "FROM", "COPY", "RUN", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"}
SECTIONS = {
    *("arguments", "help", "files", "post", "environment", "runscript", "test", "labels"),
}
# Distributions whose conda packages have other names.
CONDA_NAMES = {"torch": "pytorch", "isal": "python-isal"}
FROM_OUTSIDE = pytest.mark.skipif(
    os.environ.get("AUTODIFF_JOBS_JOURNEYS") != "1",
    reason="installs into a fresh environment; make journeys runs it",
)


def requirement(text: str) -> tuple[str, str]:
    """Return the name of a requirement and its bounds, sorted."""
    match = re.fullmatch(r"([\w.-]+)\s*([^;]*?)\s*(?:;.*)?", text)
    assert match, text
    return match[1], ",".join(sorted(match[2].replace(" ", "").split(",")))


DEPENDENCIES = dict(map(requirement, PROJECT["dependencies"]))


def docker_instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "containers/Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    found = [line.partition(" ") for line in lines if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def apptainer_sections() -> dict[str, list[str]]:
    _, *parts = re.split(r"^%(\w+)\n", apptainer_text(), flags=re.MULTILINE)
    names, bodies = parts[::2], parts[1::2]
    assert len(names) == len(set(names))
    return {name: body.rstrip().splitlines() for name, body in zip(names, bodies, strict=True)}


def apptainer_text() -> str:
    return (ROOT / "containers/apptainer.def").read_text()


def arguments(place: str) -> dict[str, str]:
    """Return the build arguments of a container, with their defaults."""
    if place == "Dockerfile":
        pairs = [rest for name, rest in docker_instructions() if name == "ARG"]
    else:
        pairs = [line.strip() for line in apptainer_sections()["arguments"]]
    return dict(pair.split("=", 1) for pair in pairs)


def filled(place: str, text: str) -> str:
    for name, value in arguments(place).items():
        text = text.replace(f"${{{name}}}", value).replace(f"{{{{ {name} }}}}", value)
    assert "{" not in text, text
    return text


@pytest.mark.parametrize("place", ["Dockerfile", "apptainer.def"])
def test_the_arguments_of_a_container_agree_with_the_project(place: str) -> None:
    given = arguments(place)
    assert {*given} == {"BASE", "VERSION", "TORCH_INDEX", "EXTRAS"}
    assert given["VERSION"] == PROJECT["version"]
    assert {*given["EXTRAS"].split(",")} <= {*PROJECT["optional-dependencies"]}
    assert given["TORCH_INDEX"].endswith("/cpu")
    text = (ROOT / "containers" / place).read_text()
    (bounds,) = {*re.findall(r'"torch([<>][^"]*)"', text)}
    assert requirement(f"torch{bounds}")[1] == DEPENDENCIES["torch"]
    # Every argument is used.
    for name in given:
        assert len(re.findall(rf"\$\{{{name}\}}|\{{\{{ {name} \}}\}}", text)) >= 1, name


def test_the_dockerfile() -> None:
    instructions = docker_instructions()
    assert {name for name, _ in instructions} <= INSTRUCTIONS
    assert [name for name, _ in instructions][:2] == ["ARG", "FROM"]
    for name, rest in instructions:
        rest = filled("Dockerfile", rest) if name != "ARG" else rest
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
        elif name == "COPY":
            # The file is not in the repository: `make dist` makes it.
            assert shlex.split(rest)[0] == f"dist/{WHEEL}"
        elif name in ("ENTRYPOINT", "CMD"):
            assert isinstance(yaml.safe_load(rest), list)
    context = (ROOT / "containers/Dockerfile.dockerignore").read_text().split()
    assert context == ["*", "!dist/*.whl"]
    scripts = dict(instructions)
    assert yaml.safe_load(scripts["ENTRYPOINT"]) == list(PROJECT["scripts"])


def test_the_definition_of_apptainer() -> None:
    sections = apptainer_sections()
    assert {*sections} == SECTIONS
    header = dict(line.split(": ") for line in apptainer_text().partition("\n\n")[0].splitlines())
    assert header == {"Bootstrap": "docker", "From": "{{ BASE }}"}
    (line,) = sections["files"]
    source, target = filled("apptainer.def", line).split()
    assert source == f"dist/{WHEEL}"
    for name in ("post", "environment", "runscript", "test"):
        script = filled("apptainer.def", "\n".join(sections[name]))
        subprocess.run(["sh", "-n", "-c", script], check=True)
        assert target in script or name != "post"
    assert sections["runscript"] == ['    exec autodiff-jobs "$@"']


def test_the_conda_recipe_agrees_with_the_project() -> None:
    recipe = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
    assert {*recipe} == {
        *("schema_version", "context", "package", "source", "build", "requirements"),
        *("tests", "about"),
    }
    assert recipe["context"]["version"] == PROJECT["version"]
    assert recipe["package"]["name"] == PROJECT["name"]
    assert (ROOT / "conda" / recipe["source"]["path"] / "pyproject.toml").is_file()
    assert (ROOT / recipe["about"]["license_file"]).is_file()
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    (script,) = PROJECT["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(script)]
    run = dict(map(requirement, recipe["requirements"]["run"]))
    assert run.pop("python") == PROJECT["requires-python"]
    assert run == {CONDA_NAMES.get(name, name): bounds for name, bounds in DEPENDENCIES.items()}
    host = dict(map(requirement, recipe["requirements"]["host"]))
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert all(host[name] == bounds for name, bounds in map(requirement, system["requires"]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and the source distribution, as `make dist` does."""
    pytest.importorskip("hatchling", reason="hatchling builds them; the extra `test` has it")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def from_source(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from the source distribution by pip, where no checkout is."""
    folder = tmp_path_factory.mktemp("from-source")
    (source,) = built.glob("*.tar.gz")
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(folder), str(source))
    return folder


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_their_names_and_contents(built: Path) -> None:
    assert {path.name for path in built.iterdir()} == {
        WHEEL,
        f"autodiff_jobs-{PROJECT['version']}.tar.gz",
    }
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    tracked = {"autodiff_jobs.py", "conf/config.yaml", "containers/Dockerfile", "conda/recipe.yaml"}
    assert {*tracked, "README.md", "LICENSE", "pyproject.toml", "Makefile"} <= names


@pytest.fixture(scope="module", params=["wheel", "source distribution"])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install one of them into a fresh environment, which borrows only what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    made = request.getfixturevalue("built" if request.param == "wheel" else "from_source")
    (wheel,) = made.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (site,) = folder.glob("lib/python*/site-packages")
    # torch is not downloaded again. Directories of a .pth file come last, and their own .pth files,
    # one of which leads to the checkout, do not count.
    specs = map(find_spec, BORROWED)
    places = {Path(spec.origin).parents[1] for spec in specs if spec and spec.origin}
    (site / "borrowed.pth").write_text("".join(f"{place}\n" for place in sorted(places - {ROOT})))
    return folder


BORROWED = ("torch", "hydra", "omegaconf", "h5py", "numpy", "rich", "safetensors", "isal", "yaml")


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Any:
    """Return a function that runs a command of the environment in a directory of a user."""

    def line(*words: str) -> str:
        done = subprocess.run(
            [str(environment / "bin" / words[0]), *words[1:]],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return line


SPRINGS = "import helper\ndef energy(x):\n    return helper.cube(x).sum()\n"
USER = ("op=hessian", "function=python", "function.target=./springs.py:energy")
WHERE = (
    "import autodiff_core, autodiff_jobs, jobs.paths, outputs; "
    "print(autodiff_core.__file__, autodiff_jobs.__file__, jobs.__file__, outputs.__file__); "
    "print(jobs.paths.config_directory())"
)


@FROM_OUTSIDE
@pytest.mark.slow
@pytest.mark.xdist_group("distribution")
def test_it_works_where_it_is_installed(run: Any, environment: Path, tmp_path: Path) -> None:
    for place in run("python", "-c", WHERE).split():
        assert Path(place).is_relative_to(environment), place
    assert run("autodiff-jobs", "--version").split()[1] == PROJECT["version"]
    for doctor in (("python", "-m", "jobs.doctor"), ("autodiff-jobs", "doctor")):
        assert "passed in" in run(*doctor)
    path = run("python", "-m", "jobs.run", "op=hessian", "function=rosenbrock", "function.n=20")
    assert Path(path.splitlines()[-1]).is_relative_to(tmp_path)
    assert "verified" in run("python", "-m", "outputs.verify", path.splitlines()[-1])


@FROM_OUTSIDE
@pytest.mark.slow
@pytest.mark.xdist_group("distribution")
def test_the_script_works_beside_packages_of_its_names(run: Any, tmp_path: Path) -> None:
    for name in ("jobs", "outputs", "conf", "autodiff_core"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong one')\n")
    (tmp_path / "springs.py").write_text(SPRINGS)
    (tmp_path / "helper.py").write_text("def cube(x):\n    return x**3\n")
    run("python", "-c", "import numpy; numpy.save('x.npy', numpy.arange(1.0, 6.0))")
    options = (*USER, "inputs=numpy", "inputs.path=x.npy", "progress=quiet")
    for number, devices in enumerate(("cpu", "cpu:2")):
        path = run("autodiff-jobs", *options, f"devices={devices}", f"runs=runs{number}").strip()
        assert "verified: " in run("autodiff-jobs", "show", path)
    assert "1 finished" in run("autodiff-jobs", "status", "--once", "runs1")
