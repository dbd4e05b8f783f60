"""Give a complete file the name of a result, after looking at what the disk has."""

from __future__ import annotations

from pathlib import Path

from outputs._errors import ResultError
from outputs._format.digests import damaged_records
from outputs._format.ledger import Ledger
from outputs._format.reading import axis_of, ledger_of, matrix_of, read_shard
from outputs._storage.files import open_file, parsed, publish, put_in_place
from outputs._writing.lock import Claim


def missing_on_disk(claim: Claim) -> list[range]:
    """Return the missing lines of a sealed file, counted in the whole matrix.

    Args:
        claim: The claim to the file, which is closed.

    Raises:
        ResultError: If the file is no longer the claimed one, or a checksum beside those of the
            blocks does not fit.
    """
    claim.require_place()
    with open_file(claim.path, "r") as file, parsed(claim.path):
        if damaged := damaged_records(file):
            raise ResultError(
                f"{claim.path} is damaged: {' and '.join(damaged)} do not have their checksum. "
                "Remove the file; the same command then computes it anew."
            )
        shape = matrix_of(file).shape
        if 0 in shape:
            return []
        lines = axis_of(file).lines(shape)
        shard = read_shard(file)
        first = shard.start if shard else 0
        missing = Ledger(ledger_of(file, lines), lines).missing()
        return [range(gap.start + first, gap.stop + first) for gap in missing]


def give_name(claim: Claim, source: Path, target: Path, *, is_replacing: bool) -> None:
    """Rename a sealed file to its final name.

    Args:
        claim: The claim to the unfinished file.
        source: The unfinished file, or a copy of it.
        target: The final name.
        is_replacing: Whether the file takes the place of a finished result.

    Raises:
        ResultExistsError: If ``target`` exists and is not to be replaced.
        ResultError: If the file is no longer the claimed one.
    """
    claim.require_place()
    if is_replacing:
        put_in_place(source, target)
    else:
        publish(source, target)
    # The path may have been given to another file between the check and the renaming.
    if source == claim.path and not claim.owns(target):
        target.unlink(missing_ok=True)
        raise ResultError(f"{source} was replaced while it was renamed; {target} is removed.")
