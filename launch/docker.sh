#!/usr/bin/env bash
# Trains in a Docker container on this host, or on each of several.
#
#   bash launch/docker.sh --image=medjax:cuda --platform=cuda --build --mount=/data:/data:ro --mount=/runs:/runs \
#       --config=configs/phantom.py --config.data.dir=/data/phantom --workdir=/runs/a
#
# Options, all others and what follows -- go to python -m medjax.bin.train unchanged:
#   --image=NAME             the image (required) [MEDJAX_IMAGE]
#   --platform=cpu           cpu, cuda or tpu: what the image is built for, and which devices the container sees
#   --build                  build the image first, from launch/Dockerfile
#   --python_version=3.12    of the image that is built
#   --mount=HOST:PATH[:ro]   a folder of the host, as the container sees it; may be repeated
#   --cache_dir=DIR          folder of the host where what is compiled is kept [~/.cache/medjax/jax]
#   --docker=OPTION          one more option of docker run, such as --docker=--cpus=8; may be repeated
#   --max_restarts=100, --restart_delay=10, --dry_run: as in launch/several_processes.sh
# shellcheck source-path=SCRIPTDIR disable=SC2329
set -euo pipefail
source "$(dirname "$0")/common.sh"

option=(
  [image]="${MEDJAX_IMAGE:-}" [platform]=cpu [build]=false [python_version]=3.12 [mount]="[]" [docker]="[]"
  [cache_dir]="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/medjax/jax" [max_restarts]=100 [restart_delay]=10 [dry_run]=false
)
parse "$@"
need image
whole max_restarts restart_delay

case "${option[platform]}" in
  cpu) devices=() ;;
  cuda) devices=(--gpus=all) ;;
  tpu) devices=(--privileged) ;;
  *) fail "--platform=${option[platform]}: valid are cpu, cuda, tpu" ;;
esac
build=(
  docker build "--file=$root/launch/Dockerfile" "--build-arg=PLATFORM=${option[platform]}"
  "--build-arg=PYTHON=${option[python_version]}" "--tag=${option[image]}" "$root"
)
# --init: a process with the id 1 gets no signal that it has no handler for, and so none before JAX has started.
# The network of the host, and its shared memory, are what NCCL and several processes of one run talk over.
# What the run writes belongs to who started it, and not to root.
command=(
  docker run --rm --init --network=host --ipc=host "--user=$(id -u):$(id -g)" ${devices[@]+"${devices[@]}"}
  "--volume=${option[cache_dir]}:/cache" --env=JAX_COMPILATION_CACHE_DIR=/cache --env=HOME=/tmp
)
repeated mount
for mount in ${values[@]+"${values[@]}"}; do
  [[ "$mount" == /*:/* ]] || fail "--mount=$mount: pass two absolute paths, HOST:CONTAINER, and :ro to forbid writing"
  command+=("--volume=$mount")
done
repeated docker
command+=(${values[@]+"${values[@]}"} "${option[image]}" ${flags[@]+"${flags[@]}"})

attempt() { start "${command[@]}"; }

if [ "${option[build]}" = true ]; then run "${build[@]}"; fi
if [ "${option[dry_run]}" = true ]; then quote "${command[@]}" && exit 0; fi
mkdir -p "${option[cache_dir]}"  # Docker would make it for root
keep_going attempt
