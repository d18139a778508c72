#!/usr/bin/env bash
# Collects all that an installation of medjax needs into a folder, for machines that cannot reach the internet. Run it
# on one that can; the folder is for one kind of machine and one version of Python, which need not be those of this one.
#
#   bash launch/wheelhouse.sh --output=wheelhouse --extras=cuda,readers --python_version=3.12
#   ... copy it ...
#   bash wheelhouse/install.sh --venv=medjax-venv
#
# Options:
#   --output=wheelhouse      the folder, which must not be there
#   --extras=readers         of setup.py, such as cuda or tpu, transformers, torch
#   --python_version=3.12    of the machines that it is for
#   --machine=x86_64         their processors: x86_64 or aarch64
#   --glibc=2.28             their glibc (ldd --version), or an older one: 2.17, 2.28, 2.31 or newer
#   --python=python3         the interpreter here, which needs pip [PYTHON]
#   --dry_run                print the commands, one a line, and do nothing
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
source "$(dirname "$0")/common.sh"

option=(
  [output]=wheelhouse [extras]=readers [python_version]=3.12 [machine]=x86_64 [glibc]=2.28 [python]="${PYTHON:-python3}"
  [dry_run]=false
)
parse "$@"
[ ${#flags[@]} -eq 0 ] || fail "unknown argument ${flags[0]}; --help lists all options"
[[ "${option[python_version]}" =~ ^3\.[0-9]+$ ]] || fail "--python_version must be such as 3.12"
[[ "${option[machine]}" =~ ^(x86_64|aarch64)$ ]] || fail "--machine=${option[machine]}: valid are x86_64, aarch64"
[[ "${option[glibc]}" =~ ^2\.[0-9]+$ ]] || fail "--glibc=${option[glibc]}: pass one such as 2.28"
output="${option[output]}"
[ ! -e "$output" ] || fail "--output=$output is there already; remove it, or choose another"

# The tags of the wheels that run there: those for this glibc and for older ones, under both names.
platforms=()
for ((minor = ${option[glibc]#2.}; minor >= 5; minor--)); do
  platforms+=("--platform=manylinux_2_${minor}_${option[machine]}")
done
platforms+=("--platform=manylinux2014_${option[machine]}")
tools="$(mktemp -d)"
trap 'rm -rf "$tools"' EXIT
[ "${option[dry_run]}" = false ] || { rm -r "$tools" && tools=TOOLS; }
python="$tools/bin/python"
wheel="medjax-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/medjax/__init__.py")-py3-none-any.whl"
run "${option[python]}" -m venv "$tools"
run "$python" -m pip install --quiet uv
run mkdir -p "$output/wheels" "$tools/source"
# Built from a copy: setuptools leaves what it built beside the source, and takes it for source the next time.
run cp -r "$root/LICENSE" "$root/README.md" "$root/medjax" "$root/pyproject.toml" "$root/setup.py" "$tools/source"
run "$python" -m pip wheel --quiet --no-deps "--wheel-dir=$output/wheels" "$tools/source"
run cp -r "$root/configs" "$root/launch" "$root/launch/install.sh" "$output"
run cp "$output/wheels/$wheel" "$tools"
asked="medjax[${option[extras]}] @ file://$tools/$wheel"
run "$python" -c 'import sys; open(sys.argv[1], "w").write(sys.argv[2])' "$tools/asked.txt" "$asked"
# uv resolves for another machine and Python than this one; pip would ask its own which packages are needed there.
run "$python" -m uv pip compile --quiet --generate-hashes --no-annotate --no-header --only-binary=:all: \
  "--python-version=${option[python_version]}" "--python-platform=${option[machine]}-manylinux_2_${option[glibc]#2.}" \
  "--constraint=$root/launch/constraints.txt" --no-emit-package=medjax "--output-file=$output/requirements.txt" \
  "$tools/asked.txt"
run "$python" -m pip download --quiet --no-deps --require-hashes "--requirement=$output/requirements.txt" \
  "--dest=$output/wheels" --only-binary=:all: "--python-version=${option[python_version]}" --implementation=cp \
  "${platforms[@]}"
if [ "${option[dry_run]}" = true ]; then exit 0; fi
echo "${option[python_version]} ${option[machine]}" >"$output/target"
(cd "$output" && find . -type f ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum) >"$tools/sums"
mv "$tools/sums" "$output/SHA256SUMS"
size="$(find "$output/wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$output" | cut -f1)"
say "$size: copy $output, and there run bash $output/install.sh"
