"""The version of this program."""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Return the installed version; ``not installed`` in a checkout that pip did not install."""
    try:
        return version("autodiff-jobs")
    except PackageNotFoundError:
        return "not installed"
