import os
import subprocess
import sys
from pathlib import Path

import outputs

ROOT = Path(__file__).parents[2]

REPORT_IMPORTS = """
import sys
import outputs
heavy = {"torch", "rich", "hydra", "omegaconf", "jobs", "autodiff_core"}
heavy |= {"scipy", "xarray", "dask", "matplotlib", "zarr", "h5netcdf"}
print(outputs.__file__)
print(sorted(heavy & set(sys.modules)))
"""


def test_import_is_light_and_finds_this_package_beside_a_foreign_folder(tmp_path):
    (tmp_path / "outputs" / "2026-01-01").mkdir(parents=True)
    answer = subprocess.run(
        [sys.executable, "-c", REPORT_IMPORTS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["", str(ROOT), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=True,
    )
    place, heavy = answer.stdout.splitlines()
    assert Path(place) == ROOT / "outputs" / "__init__.py"
    assert heavy == "[]"


def test_the_package_under_test_is_this_one():
    assert Path(outputs.__file__) == ROOT / "outputs" / "__init__.py"


def test_every_public_name_exists():
    assert all(hasattr(outputs, name) for name in outputs.__all__)
