#!/usr/bin/env bash
# Trains on GKE through xpk (pip install xpk), with an image that was built from launch/Dockerfile and pushed.
#
#   bash launch/gke.sh --cluster=C --workload=a --tpu_type=v5litepod-16 --num_slices=2 --image=REGISTRY/medjax:tpu \
#       --config=configs/phantom.py --config.data.dir=gs://BUCKET/data --workdir=gs://BUCKET/runs/a
#
# Options, all others and what follows -- go to python -m medjax.bin.train unchanged:
#   --cluster=NAME, --workload=NAME, --image=NAME   (required)
#   --tpu_type=TYPE      such as v5litepod-16, with --num_slices=1; or
#   --device_type=TYPE   of GPUs, such as h100-80gb-8, with --num_nodes=1
#   --project=ID, --zone=ZONE                       [what gcloud is set to]
#   --max_restarts=100   of the whole workload, after exit statuses 74, 75, 76 and death by a signal
#   --grace=120          seconds that a pod has for saving, once it is told to end
#   --cache_dir=DIR      gs://... or a path in the pods where what is compiled is kept [/cache, lost with the pod]
#   --xpk=OPTION         one more option of xpk workload create, such as --xpk=--spot; may be repeated
#   --dry_run            print the command, and do nothing
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
source "$(dirname "$0")/common.sh"

option=(
  [cluster]="" [workload]="" [image]="${MEDJAX_IMAGE:-}" [tpu_type]="" [num_slices]=1 [device_type]="" [num_nodes]=1
  [project]="" [zone]="" [max_restarts]=100 [grace]=120 [cache_dir]="" [xpk]="[]" [dry_run]=false
)
parse "$@"
need cluster workload image
whole num_slices num_nodes max_restarts grace
[ -n "${option[tpu_type]}${option[device_type]}" ] || fail "pass --tpu_type=... or --device_type=..."
[ -z "${option[tpu_type]}" ] || [ -z "${option[device_type]}" ] || fail "pass one of --tpu_type and --device_type"

train="exec python -m medjax.bin.train"
if [ ${#flags[@]} -gt 0 ]; then train+=" $(quote "${flags[@]}")"; fi
if [ -n "${option[device_type]}" ]; then  # JAX finds the others on TPUs only; the pods' environment knows them
  # shellcheck disable=SC2016
  train+=' --coordinator=$JAX_COORDINATOR_ADDRESS:$JAX_COORDINATOR_PORT'
  # shellcheck disable=SC2016
  train+=' --process_count=$NNODES --process_index=$NODE_RANK'
fi
# xpk writes the command into YAML twice, once between double quotes, and Kubernetes replaces $( ) and $$ in it.
if [[ "$(quote ${flags[@]+"${flags[@]}"})" == *[\"\\\$\`]* || "$train" == *$'\n'* ]]; then
  train="exec bash <(base64 -d <<<$(base64 <<<"$train" | tr -d '\n'))"
fi

command=(xpk workload create "--cluster=${option[cluster]}" "--workload=${option[workload]}")
if [ -n "${option[tpu_type]}" ]; then
  command+=("--tpu-type=${option[tpu_type]}" "--num-slices=${option[num_slices]}")
else
  command+=("--device-type=${option[device_type]}" "--num-nodes=${option[num_nodes]}")
fi
for name in project zone; do
  [ -z "${option[$name]}" ] || command+=("--$name=${option[$name]}")
done
command+=(
  "--docker-image=${option[image]}" "--max-restarts=${option[max_restarts]}" "--restart-on-exit-codes=74,75,76"
  "--termination-grace-period-seconds=${option[grace]}"
)
[ -z "${option[cache_dir]}" ] || command+=("--env=JAX_COMPILATION_CACHE_DIR=${option[cache_dir]}")
repeated xpk
command+=(${values[@]+"${values[@]}"} "--command=$train")
run "${command[@]}"
