"""Time whole processes, from the start to the file on the disk: a job, and a script by hand.

For each function the fastest way and chunk size of the script are found first, in a process that is
not timed. Then `python -m jobs.run`, verified and with every choice left to it, alternates with the
script, each in a process of its own with one thread. The figures are medians: of the processor time
of a process, and of the clock. Shares of the job are by its own record.

    python benchmarks/processes.py [--only deep ...] [--rounds 3] [--json processes.json]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import long_functions
from commands import environment, timed

from outputs import open_result

HERE = Path(__file__).parent
MODULE = HERE / "long_functions.py"


def main() -> None:
    """Measure each function, and print a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="a chunk at most, in tuning")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    print(
        f"{'function':22} {'by hand':>16} {'s':>6} {'clock':>6} {'job':>26} {'s':>6} {'clock':>6} "
        f"{'ratio':>6} {'clock':>6} {'planned':>7} {'run':>6}"
    )
    for name, operation in long_functions.OPERATIONS.items():
        if given.only and not any(each in name for each in given.only):
            continue
        found.append(one := compared(name, operation, given.rounds, given.seconds))
        print(
            f"{name:22} {one['way']:>16} {one['hand'][0]:6.1f} {one['hand'][1]:6.1f} "
            f"{one['choice']:>26} {one['job'][0]:6.1f} {one['job'][1]:6.1f} "
            f"{one['ratios'][0]:6.2f} {one['ratios'][1]:6.2f} {one['planned']:7.2f} "
            f"{one['run']:6.2f}",
            flush=True,
        )
    for number, clock in enumerate(("processor time", "clock")):
        ratios = [one["ratios"][number] for one in found]
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(
            f"{clock}, by hand / job: geometric mean {mean:.2f}, worst {min(ratios):.2f}, "
            f"best {max(ratios):.2f}"
        )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


def compared(name: str, operation: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Tune the script, then alternate it with the job."""
    hand = [sys.executable, str(HERE / "hand_script.py"), f"long_functions:{name}", operation]
    tuned = subprocess.run(
        [*hand, "tune", str(seconds)], env=environment(), capture_output=True, text=True, check=True
    )
    way, chunk, _ = tuned.stdout.splitlines()[-1].split()
    times: dict[str, list[tuple[float, float]]] = {"hand": [], "job": []}
    record: dict[str, Any] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="autodiff-jobs-processes-") as place:
            times["hand"].append(timed([*hand, way, chunk, f"{place}/hand.h5"], place)[:2])
            options = [
                f"op={operation}",
                "function=python",
                f"function.target={MODULE}:{name}",
                f"function.point={MODULE}:{name}_point",
                "dtype=float32",
                f"runs={place}/runs",
            ]
            *job, printed = timed([sys.executable, "-m", "jobs.run", *options], place)
            times["job"].append((job[0], job[1]))
            with open_result(printed.splitlines()[-1]) as result:
                record = {**result.execution, "strategy": result.strategy}
    medians = {
        who: [statistics.median(each) for each in zip(*of, strict=True)]
        for who, of in times.items()
    }
    return {
        "name": name,
        "way": f"{way} {chunk}",
        "choice": f"{record['strategy']} {record['engine']} {record['chunk_size']}",
        **medians,
        "ratios": [a / b for a, b in zip(medians["hand"], medians["job"], strict=True)],
        "planned": record["plan"]["probing_seconds"],
        "run": record["seconds"],
        "all": times,
    }


if __name__ == "__main__":
    main()
