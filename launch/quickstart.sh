#!/usr/bin/env bash
# The main job on the embedded synthetic data: build, train, evaluate, export, report. Minutes on two CPU cores.
#   bash launch/quickstart.sh [DIR]        PYTHON=python3.11 chooses the interpreter, RECIPE a recipe and its arguments
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/environment.sh"

dir="${1:-quickstart}"
recipe="${RECIPE:-$root/configs/phantom.py}"
mkdir -p "$dir"
dir="$(cd "$dir" && pwd)"

echo "== environment in $dir/venv"
make_environment "$dir/venv" torch "${PYTHON:-python3}"
python="$dir/venv/bin/python"
export JAX_COMPILATION_CACHE_DIR="$dir/jax_cache" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.2

run="$dir/run"
echo "== data: a synthetic phantom"
[ -e "$dir/data/manifest.json" ] || "$python" -m medjax.bin.build_dataset --source=phantom --output="$dir/data"
echo "== training"
"$python" -m medjax.bin.train --config="$recipe" --config.data.dir="$dir/data" --workdir="$run"
echo "== evaluation"
"$python" -m medjax.bin.evaluate_zero_shot --workdir="$run"
"$python" -m medjax.bin.evaluate_retrieval --workdir="$run"
echo "== export"
"$python" -m medjax.bin.export --format=torch --workdir="$run" --overwrite
echo "== report"
"$python" -m medjax.bin.report --workdir="$run" --output="$dir"
