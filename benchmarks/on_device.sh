#!/usr/bin/env bash
# Everything that only a machine with a GPU can show, in ten minutes at most, into one JSON file.
#
#   benchmarks/on_device.sh cuda figures.json     on the first device of the kind
#   benchmarks/on_device.sh cpu figures.json      a trial: tests are collected only, sizes are small
#   benchmarks/on_device.sh --wheels              what to install beside torch, one requirement a line
#
# PYTHON names the interpreter (.venv/bin/python, else python3); it has torch, built for the device.
# Without a network, bring the wheels along:
#   pip download --only-binary=:all: -d wheels $(benchmarks/on_device.sh --wheels)
# antlr4-python3-runtime is offered as source only: `pip wheel` makes the wheel of it.
set -uo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --wheels ]; then
    wanted='hydra-core|omegaconf|h5py|numpy|isal|rich|pytest|hypothesis|safetensors|scipy|numba'
    grep -E "^($wanted)==" constraints.txt
    # What these need.
    printf '%s\n' 'antlr4-python3-runtime==4.9.*' pyyaml packaging markdown-it-py mdurl pygments \
        iniconfig pluggy sortedcontainers llvmlite
    exit
fi
if [ $# -ne 2 ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
fi
kind="$1"
out="$2"
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
parts="$(mktemp -d)"
trap 'rm -rf "$parts"' EXIT
export AUTODIFF_JOBS_ACCELERATOR="$kind" OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}"
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH

device="$kind:0" only=(--collect-only) sizes=() speed=(--seconds 1 --screen 0.2)
workloads=("MLP input" pairwise rotations transformer)
if [ "$kind" = cpu ]; then
    device=cpu sizes=(--small) workloads=(Brusselator)
    speed=(--seconds 0.05 --screen 0.01 --chunk-sizes 16 --repeats 1 --no-writing --threads 1)
else
    only=()
fi

# Run a step within a number of seconds, and keep its exit code and what it prints. A step that hangs is
# killed, and what is left of the ten minutes limits the later ones.
latest=$((SECONDS + 570))
step() {
    local name="$1" limit="$2" left=$((latest - SECONDS))
    shift 2
    echo "== $name"
    timeout -k 5 "$((limit < left ? limit : left > 1 ? left : 1))" "$@" >"$parts/$name.log" 2>&1
    echo "$?" >"$parts/$name.code"
    tail -n 3 "$parts/$name.log"
}

# Plugins of other packages are not needed; a wide line has the reason of a failure.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 COLUMNS=250
pytest=("$python" -m pytest -q -p no:cacheprovider "${only[@]}")
step cuda_tests 110 "${pytest[@]}" -m cuda tests/core/engines tests/jobs/problems tests/jobs/machine
step device_tests 200 "${pytest[@]}" tests/accelerator/on_device
step jobs 110 "$python" benchmarks/device_jobs.py --device "$device" "${sizes[@]}" \
    --json "$parts/jobs.json"
step speed 200 "$python" benchmarks/speed.py --device "$device" --only "${workloads[@]}" \
    --no-whole "${speed[@]}" --json "$parts/speed.json"

"$python" - "$parts" "$out" "$device" <<'EOF'
import json, platform, sys
from pathlib import Path

parts, out = Path(sys.argv[1]), Path(sys.argv[2])
steps = {}
for code in sorted(parts.glob("*.code")):
    lines = code.with_suffix(".log").read_text(errors="replace").splitlines()
    steps[code.stem] = {"code": int(code.read_text()), "end": lines[-150:]}
    figures = code.with_suffix(".json")
    try:  # a step that was killed may leave a part of its file, or none
        steps[code.stem]["figures"] = json.loads(figures.read_text())
    except (OSError, ValueError) as error:
        if figures.exists():
            steps[code.stem]["error"] = f"{figures.name}: {error}"
machine = {"host": platform.node(), "kernel": platform.release(), "python": sys.version}
try:  # a device or torch that is broken leaves the figures
    import torch

    from jobs.machine.accelerator import device_name

    machine |= {"torch": torch.__version__, "device": device_name(torch.device(sys.argv[3]))}
except Exception as error:
    machine["error"] = f"{type(error).__name__}: {error}"
out.write_text(json.dumps({"machine": machine, "steps": steps}, indent=2))
failed = [name for name, step in steps.items() if step["code"]]
print(f"{out}: {', '.join(failed) or 'no step'} failed")
sys.exit(bool(failed))
EOF
