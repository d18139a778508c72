# Sourced by the scripts beside it: makes a virtual environment and installs medjax into it.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# make_environment DIR EXTRAS PYTHON: installs with uv, which takes seconds, and with pip where uv cannot be had.
make_environment() {
  local dir="$1" extras="$2" python="$3"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "error: medjax needs Python 3.11 or newer, and $python is not; set PYTHON=/path/to/python3.11" >&2
    return 2
  }
  # Half an environment, left by a build that was interrupted, has no pip.
  "$dir/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$dir"
  local links=() place
  for place in ${PIP_FIND_LINKS:-}; do links+=(--find-links "$place"); done
  local what=(-c "$root/launch/constraints.txt" -e "${root}[$extras]")
  if "$dir/bin/python" -m pip install --quiet uv; then
    local uv=("$dir/bin/python" -m uv pip install --quiet --python "$dir/bin/python")
    # The CPU wheel of PyTorch is a tenth of the CUDA one: a local one, else that of its own index, else whatever there is.
    if [ ${#links[@]} -gt 0 ]; then
      "${uv[@]}" "${links[@]}" --override "$root/launch/overrides.txt" "${what[@]}" && return
    fi
    "${uv[@]}" --torch-backend cpu "${what[@]}" && return
    echo "the CPU wheels of PyTorch cannot be reached; taking what PyPI has" >&2
    "${uv[@]}" "${what[@]}" && return
  fi
  # pip cannot leave out torchvision; without what asks for it, the tests that compare with timm and open_clip skip.
  what=(-c "$root/launch/constraints.txt" -e "${root}[${extras/,parity/}]")
  "$dir/bin/python" -m pip install --quiet ${links[@]+"${links[@]}"} "${what[@]}"
}
