"""`jobs.doctor --clean` removes what killed processes left, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import doctor
from jobs.execution.execute import execute
from jobs.execution.run_lock import computing_in
from jobs.job import Job
from jobs.reporting.tables import write_csv
from jobs.reporting.terminal import Display
from outputs import ResultWriter, open_result

SMALL = ("op=hessian", "strategy=vectorize", "function=rosenbrock", "function.n=12")


@pytest.fixture
def runs(resolved: Callable[..., Job], quiet: Display) -> tuple[Path, Path]:
    """A finished and an unfinished run, each with leftovers; return their directories."""
    finished, unfinished = (
        resolved(*SMALL, f"seed={seed}", "runs=runs").paths for seed in range(2)
    )
    execute(resolved(*SMALL, "seed=0", "runs=runs"), quiet)
    with open_result(finished.result) as result:
        description = result.description()
    unfinished.directory.mkdir(parents=True)
    ResultWriter.create(unfinished.result, description).close()
    (finished.directory / "result.h5.part").write_bytes(b"")
    (finished.directory / "products-by-rows").mkdir()
    (finished.directory / "products-by-rows" / "result.h5").write_bytes(b"")
    for directory in (finished.directory, unfinished.directory):
        (directory / "status.json.00000123.new").write_text("")
        (directory / "result.h5.part.0123abcd.new").write_text("")
        (directory / "colouring.npz").write_text("")
    (unfinished.directory / "products-by-rows").mkdir()
    return finished.directory, unfinished.directory


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_only_orphans_are_removed(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    finished, unfinished = runs
    doctor.main(["--clean", "runs"])
    assert names(finished) == {"result.h5", "status.json"}
    assert names(unfinished) == {"result.h5.part", "colouring.npz", "products-by-rows"}
    assert "7 removed below" in capsys.readouterr().out
    doctor.main(["--clean", "runs"])
    assert "0 removed below" in capsys.readouterr().out


def test_what_a_process_holds_stays(runs: tuple[Path, Path]) -> None:
    finished, unfinished = runs
    with computing_in(finished), computing_in(unfinished):
        (finished / "result.h5.part.0123abcd.new").write_text("")
        (unfinished / "result.h5.part.0123abcd.new").write_text("")
        before = names(finished), names(unfinished)
        doctor.main(["--clean", "runs"])
        assert (names(finished), names(unfinished)) == before


def test_a_directory_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        doctor.main(["--clean", "/nowhere"])
    assert "--clean /nowhere: there is no such directory" in capsys.readouterr().err


def test_a_csv_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "figures.csv"
    path.write_text("before")
    with pytest.raises(AttributeError):
        write_csv(path, [object()])  # pyright: ignore[reportArgumentType]
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_csv(path, [])
    assert path.read_text().startswith("job,state,")
