"""The versions of the packages that a function imports."""

from importlib import metadata

from jobs.records.attempts import this_attempt


def test_a_package_has_the_version_of_the_distribution_that_brings_it() -> None:
    expected = metadata.packages_distributions()
    versions = this_attempt([*expected, "of_no_distribution"])["versions"]
    assert "of_no_distribution" not in versions
    for package, distributions in expected.items():
        if package not in ("torch", "numpy"):
            assert versions[package] in map(metadata.version, distributions), package
    # These names differ from those of their distributions.
    assert versions["yaml"] == metadata.version("pyyaml")
    assert versions["hydra"] == metadata.version("hydra-core")
