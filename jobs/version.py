"""The version of this program."""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The installed version; ``not installed`` in a checkout that pip does not know."""
    try:
        return version("autodiff-jobs")
    except PackageNotFoundError:
        return "not installed"
