#!/usr/bin/env bash
# Installs medjax from a folder that launch/wheelhouse.sh made, without the internet.
#
#   bash wheelhouse/install.sh --venv=medjax-venv
#
# Options:
#   --venv=medjax-venv    the virtual environment that is made
#   --python=python3.12   the interpreter [the version that the folder is for]
#   --no_venv             install into the interpreter itself, as in a container
#   --dry_run             check the folder, print the commands, one a line, and do nothing
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
[ -f "$here/target" ] || { echo "error: run the install.sh in a folder that launch/wheelhouse.sh made" >&2; exit 2; }
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/launch/common.sh"
read -r version machine <"$here/target"

option=([venv]=medjax-venv [python]="python$version" [no_venv]=false [dry_run]=false)
parse "$@"
[ ${#flags[@]} -eq 0 ] || fail "unknown argument ${flags[0]}; --help lists all options"
python="${option[python]}"
is="$("$python" -c 'import platform; print(".".join(platform.python_version_tuple()[:2]), platform.machine())')" \
  || fail "$python does not run; pass --python=/path/to/python$version"
[ "$is" = "$version $machine" ] || fail "this folder is for Python $version on $machine, and $python is $is"
(cd "$here" && sha256sum --quiet --check SHA256SUMS) || fail "$here is damaged or incomplete: copy it again"

if [ "${option[no_venv]}" = false ]; then
  run "$python" -m venv "${option[venv]}"
  python="${option[venv]}/bin/python"
fi
install=("$python" -m pip install --quiet --no-index "--find-links=$here/wheels")
run "${install[@]}" --require-hashes "--requirement=$here/requirements.txt"
run "${install[@]}" --no-deps medjax
