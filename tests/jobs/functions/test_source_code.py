"""Which modules the fingerprint of the user's function covers, and what makes no difference."""

import contextlib
import importlib.machinery
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.execution.execute import identity_of
from jobs.job import Job

Resolve = Callable[..., Job]
TARGET = ("op=jacobian", "function=python", "inputs=random", "inputs.shapes=[[3]]")

# A project with every way of importing; `plain` reaches the module `deep.power`.
PROJECT = {
    "plain": "from helper import f",
    "helper": "import deep.power\ndef f(x): return x ** deep.power.power",
    "deep/__init__": "",
    "deep/power": "power = 2",
}
WAYS = {
    "in a function": "def f(x):\n    import deep.power\n    return x ** deep.power.power",
    "from a package": "def f(x):\n    from deep import power\n    return x ** power.power",
    "relative": "from .sub import f",
    "by a text": "import importlib\npower = importlib.import_module('deep.power').power\n"
    "def f(x): return x ** power",
    "by a text in a function": "import importlib\ndef f(x):\n"
    "    return x ** importlib.import_module('deep.power').power",
    "by a computed text": "import importlib\n"
    "modules = {n: importlib.import_module('deep.' + n) for n in ['power']}\n"
    "module = modules['power']\ndef f(x): return x ** module.power",
    "with an alternative": "try:\n    from missing import power\n"
    "except ImportError:\n    from deep.power import power\ndef f(x): return x ** power",
    "a star": "from deep.power import *\ndef f(x): return x ** power",
}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def fresh(resolved: Resolve, directory: Path, *options: str) -> Job:
    """Resolve a job as a new process would, which has imported nothing of the directory."""
    for name, module in list(sys.modules.items()):
        if str(directory) in str(vars(module).get("__path__", vars(module).get("__file__"))):
            del sys.modules[name]
    shutil.rmtree(directory / "__pycache__", ignore_errors=True)
    return resolved(*TARGET, *options)


@pytest.mark.parametrize("way", WAYS)
def test_a_change_in_an_imported_module_is_another_job(
    way: str, directory: Path, resolved: Resolve
) -> None:
    package = "pack" if way == "relative" else "."
    write(directory, PROJECT | {f"{package}/main": WAYS[way]})
    if way == "relative":
        write(directory, {"pack/__init__": "", "pack/sub": PROJECT["helper"]})
    target = f"function.target={'pack.main' if way == 'relative' else 'main'}:f"
    before = fresh(resolved, directory, target)
    assert "deep.power" in before.source.modules
    assert fresh(resolved, directory, target).fingerprint == before.fingerprint
    write(directory, {"deep/power": "power = 3"})
    assert fresh(resolved, directory, target).fingerprint != before.fingerprint


def test_a_module_that_a_call_imports_by_a_computed_name_is_noted(
    directory: Path, resolved: Resolve
) -> None:
    text = "import importlib\ndef f(x):\n    return importlib.import_module('pa' + 'rt').g(x)"
    write(directory, {"own": text, "part": "def g(x): return x"})
    job = fresh(resolved, directory, "function.target=own:f")
    (note,) = (each for each in job.notes if "another job" in each)
    assert "a change of modules that are imported by computed names (own.py, line 3)" in note
    assert "imported by computed names (own.py, line 3)" in identity_of(job)


@pytest.mark.parametrize("changed", ["plain", "helper", "deep/__init__", "deep/power"])
def test_every_module_on_the_way_counts(changed: str, directory: Path, resolved: Resolve) -> None:
    write(directory, PROJECT)
    before = fresh(resolved, directory, "function.target=plain:f")
    assert before.source.modules == ("deep", "deep.power", "helper", "plain")
    write(directory, {changed: PROJECT[changed] + "\nmore = 1"})
    assert fresh(resolved, directory, "function.target=plain:f").fingerprint != before.fingerprint


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\n\n\ndef f(x): return x ** 2",
        'def f(x):\n    "Document it."\n    return x**2',
        '"""Document the module."""\ndef f(x):\n    return (x ** 2)  # squared',
        "def f(x): return x ** 0x2",
    ],
)
def test_what_computes_the_same_is_the_same_job(
    same: str, directory: Path, resolved: Resolve
) -> None:
    write(directory, {"own": "def f(x): return x ** 2"})
    before = fresh(resolved, directory, "function.target=own:f")
    write(directory, {"own": same})
    assert fresh(resolved, directory, "function.target=own:f").fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x ** 2", "x ** 2.0"),
        ("x ** 2", "x * 2"),
        ("x - (1 - x)", "x - 1 - x"),
        ("x[None, 0]", "x[0, None]"),
        ("dict(a=x)['a']", "dict(b=x)['b']"),
        ("(lambda a, *, b=None, c: a)(x, c=1)", "(lambda a, *, b, c=None: a)(x, b=1)"),
        ("{'a': x, **{}}['a']", "{**{}, 'a': x}['a']"),
        ("x * len('a')", "x * len(b'a')"),
        ("x * True", "x * 1"),
    ],
)
def test_other_syntax_is_another_job(
    one: str, other: str, directory: Path, resolved: Resolve
) -> None:
    prints = set()
    for text in (one, other):
        write(directory, {"own": f"def f(x): return {text}"})
        prints.add(fresh(resolved, directory, "function.target=own:f").fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize("form", ["plain:f", "./plain.py:f"])
def test_the_directory_of_a_project_makes_no_difference(
    form: str, directory: Path, resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = set()
    before = [*sys.path]
    for name in ("here", "there/deeper"):
        write(directory / name, PROJECT)
        monkeypatch.chdir(directory / name)
        sys.path[:] = before
        target = form if form == "plain:f" else form.replace("./", f"{directory / name}/")
        prints.add(fresh(resolved, directory, f"function.target={target}").fingerprint)
    assert len(prints) == 1


def test_a_file_is_named_as_the_user_likes(directory: Path, resolved: Resolve) -> None:
    write(directory, PROJECT)
    forms = ("plain.py:f", "./plain.py:f", f"{directory}/plain.py:f")
    assert len({fresh(resolved, directory, f"function.target={t}").fingerprint for t in forms}) == 1


def test_the_order_of_arguments_makes_no_difference(directory: Path, resolved: Resolve) -> None:
    write(directory, {"own": "def f(x, a, b): return a * x ** b"})
    forms = ("{a: 1, b: 2}", "{b: 2, a: 1}", "{a: 2, b: 1}")
    one, same, other = (
        fresh(resolved, directory, "function.target=own:f", *_keywords(form)).fingerprint
        for form in forms
    )
    assert one == same != other


def _keywords(form: str) -> list[str]:
    pairs = (each.split(": ") for each in form.strip("{}").split(", "))
    return [f"function.keywords.{key}={value}" for key, value in pairs]


def test_the_content_of_a_file_that_an_argument_names_counts(
    directory: Path, resolved: Resolve
) -> None:
    write(directory, {"own": "def f(x, table): return x * len(open(table).read())"})
    (directory / "elsewhere").mkdir()
    prints = []
    for place, content in (("table", "12"), ("elsewhere/table", "12"), ("table", "123")):
        (directory / place).write_text(content)
        options = ("function.target=own:f", f"function.keywords.table={place}")
        prints.append(fresh(resolved, directory, *options).fingerprint)
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("kind", ["argument", "part of a module", "decorator", "loss"])
def test_the_parts_of_a_function_count(kind: str, directory: Path, resolved: Resolve) -> None:
    options = {
        "argument": ("function.target=own:f", "function.keywords.g._target_=part.make"),
        "part of a module": ("function.target=own:net",),
        "decorator": ("function.target=own:decorated",),
        "loss": (
            *("function.target=own:f", "function.keywords.g=3", "loss=python"),
            *("loss.target=part:loss", "loss.label=y", "inputs.shapes=[[3],[3]]"),
        ),
    }[kind]
    write(
        directory,
        {
            "own": "import torch\nimport sys\n"
            "def f(x, g): return x.sum()\n"
            "import importlib; p = importlib.import_module('pa' + 'rt')\n"
            "net = torch.nn.Sequential(p.Part())\ndecorated = p.decorate(f)\ndel p",
            "part": "import torch\ndef make(): return make\ndef loss(y, label): return y\n"
            "class Part(torch.nn.Module):\n    def forward(self, x): return x\n"
            "def decorate(f): return lambda x: f(x, 1)",
        },
    )
    before = fresh(resolved, directory, *options)
    assert "part" in before.source.modules
    with (directory / "part.py").open("a") as file:
        file.write("more = 1\n")
    assert fresh(resolved, directory, *options).fingerprint != before.fingerprint


def test_installed_packages_are_named_and_not_followed(directory: Path, resolved: Resolve) -> None:
    write(
        directory,
        {
            "own": "import torch, numpy, json, bought, copied, jobs.units\ndef f(x): return x",
            "site-packages/bought": "",
            "target/copied": "",
        },
    )
    (directory / "target/copied-1.0.dist-info").mkdir()
    sys.path += [str(directory / "site-packages"), str(directory / "target")]
    source = fresh(resolved, directory, "function.target=own:f").source
    assert source.modules == ("own",)
    assert source.packages == ("bought", "copied", "numpy", "torch")


def test_a_compiled_module_counts_by_its_bytes(directory: Path, resolved: Resolve) -> None:
    import _json

    if not getattr(_json, "__file__", None):
        pytest.skip("this Python has no compiled module in a file of its own")
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    compiled = directory / f"_json{suffix}"
    write(directory, {"own": "def f(x):\n    import fast\n    return x"})
    prints = set()
    for content in (b"one", b"two"):
        compiled.with_name(f"fast{suffix}").write_bytes(content)
        prints.add(fresh(resolved, directory, "function.target=own:f").fingerprint)
    assert len(prints) == 2


def test_a_process_keeps_the_code_that_it_has_imported(directory: Path, resolved: Resolve) -> None:
    write(directory, PROJECT)
    before = fresh(resolved, directory, "function.target=plain:f").fingerprint
    write(directory, {"deep/power": "power = 3"})
    # As the next job of a sweep, which computes with the modules in memory.
    assert resolved(*TARGET, "function.target=plain:f").fingerprint == before


def test_the_hash_does_not_depend_on_the_version_of_python(directory: Path) -> None:
    """The parts of the tree are those of every Python: no empty fields, no positions."""
    from jobs.functions.module_digest import module_digest

    write(directory, {"own": "def f(x: int, /, *y) -> None:\n    return f'{x!r:>{3}}' u'b'"})
    spec = importlib.util.spec_from_file_location("own", directory / "own.py")
    assert spec is not None
    found = module_digest("own", spec)
    assert found is not None
    file = Path(str(sys.modules[module_digest.__module__].__file__))
    program = (
        f"import importlib.util as u, sys; s = u.spec_from_file_location('m', {str(file)!r});"
        "m = u.module_from_spec(s); sys.modules['m'] = m; s.loader.exec_module(m);"
        "print(m.module_digest('own', u.spec_from_file_location('own', 'own.py')).sha256)"
    )
    hashes = set()
    for version in (11, 12, 13, 14):
        with contextlib.suppress(OSError):
            command = [f"python3.{version}", "-c", program]
            hashes |= {subprocess.run(command, capture_output=True, text=True).stdout.strip()}
    # An interpreter may be there by name alone.
    assert hashes <= {found.sha256, ""}
