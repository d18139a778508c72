#!/usr/bin/env bash
# Installs medjax into .venv and runs its tests.
#   bash launch/test.sh            all but the slow tests; further arguments go to pytest
#   bash launch/test.sh --slow     the slow tests
#   bash launch/test.sh --compat   fast tests of what rests on JAX and Grain, on a newer Python with the newest of them,
#                                  where there is one
# Tests on real data need MEDJAX_TEST_DATA, the folder that holds it, and skip without.
set -euo pipefail
# One process a core, but few: each has eight virtual devices. The tests of a file share what they compile.
workers=(-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/environment.sh"
cd "$root"

# The newest interpreter above the default's version that runs, among what is on the PATH and in pyenv.
newer_python() {
  local candidate
  for candidate in python3.13 python3.12 "${HOME:-}"/.pyenv/versions/3.13.*/bin/python "${HOME:-}"/.pyenv/versions/3.12.*/bin/python; do
    "$candidate" -c 'import sys, venv; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' 2>/dev/null || continue
    echo "$candidate"
    return
  done
}

case "${1:-}" in
  --slow)
    shift
    make_environment .venv test,parity "${PYTHON:-python3}"
    exec .venv/bin/python -m pytest -m slow "${workers[@]}" "$@"
    ;;
  --compat)
    shift
    python="$(newer_python)"
    if [ -z "$python" ]; then
      echo "no Python 3.12 or 3.13 on this machine: nothing to check"
      exit 0
    fi
    make_environment .venv-compat test "$python"
    .venv-compat/bin/python -c 'import jax, sys; print("Python", sys.version.split()[0], "with jax", jax.__version__)'
    # Of each part what leans most on them; one objective of each kind.
    chosen=(checkpoints data/sampling sharding methods/test_{contrastive,terms}.py models/test_{blocks,text}.py)
    chosen+=(losses/test_{engine,info_nce,gram,symile}.py)
    chosen+=(training/test_{accumulate,freezing,optimizer,precision,resume,step,warm_start}.py)
    exec .venv-compat/bin/python -m pytest -m "not slow and not end_to_end" "${workers[@]}" "$@" "${chosen[@]/#/tests/}"
    ;;
esac
make_environment .venv test,parity "${PYTHON:-python3}"
exec .venv/bin/python -m pytest -m "not slow" "${workers[@]}" "$@"
