#!/usr/bin/env bash
# Submits a training to SLURM that saves before its time is up, goes back into the queue, and goes on from there.
# Call it from the folder that holds configs/.
#
#   bash launch/slurm.sh --nodes=2 --gpus_per_node=8 --time=24:00:00 --sbatch=--partition=gpu \
#       --config=configs/phantom.py --config.data.dir=DATA --workdir=RUN
#
# Options, all others and what follows -- go to python -m medjax.bin.train unchanged:
#   --nodes=1            how many
#   --gpus_per_node=8    of each; 0 trains on CPU
#   --tasks_per=gpu      gpu: one process a GPU; node: one process with all GPUs of a node
#   --cpus_per_task=N    cores of a process, for reading data [what SLURM gives]
#   --time=24:00:00      the longest that one stay may last; not the whole run
#   --grace=120          seconds before that at which the run is told to save; more for large models and slow disks
#   --max_restarts=100   go back into the queue this often, after exit statuses 74, 75, 76 and death by a signal
#   --job_name=medjax
#   --sbatch=OPTION      one more option of sbatch, such as --sbatch=--account=me; may be repeated
#   --setup=COMMAND      run on the first node before training, such as --setup='module load cuda'; may be repeated
#   --container=FILE     an Apptainer image, see launch/medjax.def; --bind=PATH, may be repeated, shows it a folder
#   --cache_dir=DIR      what is compiled is kept here [JAX_COMPILATION_CACHE_DIR, or ~/.cache/medjax/jax]
#   --python=python3     the interpreter on the nodes [PYTHON]
#   --dry_run            print the batch script, and do nothing
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
source "$(dirname "$0")/common.sh"

option=(
  [nodes]=1 [gpus_per_node]=8 [tasks_per]=gpu [cpus_per_task]="" [time]=24:00:00 [grace]=120 [max_restarts]=100
  [job_name]=medjax [sbatch]="[]" [setup]="[]" [container]="" [bind]="[]" [python]="${PYTHON:-python3}" [dry_run]=false
  [cache_dir]="${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/medjax/jax}"
)
parse "$@"
whole nodes gpus_per_node grace max_restarts
gpus="${option[gpus_per_node]}"
case "${option[tasks_per]}" in
  gpu) tasks="$((gpus > 0 ? gpus : 1))" ;;
  node) tasks=1 ;;
  *) fail "--tasks_per=${option[tasks_per]}: valid are gpu, node" ;;
esac

train=("${option[python]}" -m medjax.bin.train ${flags[@]+"${flags[@]}"})
if [ -n "${option[container]}" ]; then
  container=(apptainer exec --pwd "$PWD" --bind "$PWD" --bind "${option[cache_dir]}")
  [ "$gpus" -eq 0 ] || container+=(--nv)
  repeated bind
  for folder in ${values[@]+"${values[@]}"}; do container+=(--bind "$folder"); done
  train=("${container[@]}" "${option[container]}" "${train[@]}")
fi

batch_script() {
  local value values
  cat <<END
#!/usr/bin/env bash
#SBATCH --job-name=${option[job_name]}
#SBATCH --nodes=${option[nodes]}
#SBATCH --ntasks-per-node=$tasks
#SBATCH --time=${option[time]}
#SBATCH --signal=B:USR1@${option[grace]}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
END
  [ "$gpus" -eq 0 ] || echo "#SBATCH --gpus-per-node=$gpus"
  [ -z "${option[cpus_per_task]}" ] || echo "#SBATCH --cpus-per-task=${option[cpus_per_task]}"
  repeated sbatch
  for value in ${values[@]+"${values[@]}"}; do echo "#SBATCH $value"; done
  cat <<END
cd $(quote "$PWD") || exit 2
export JAX_COMPILATION_CACHE_DIR=$(quote "${option[cache_dir]}")
train=($(quote "${train[@]}"))
max_restarts=${option[max_restarts]}
END
  # JAX takes of each task the GPU of its local index, and with one task a node would leave the others idle.
  if [ "${option[tasks_per]}" = node ] && [ "$gpus" -gt 0 ] && [ "${option[nodes]}" -gt 1 ]; then
    echo "export JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((gpus - 1)))"
  fi
  repeated setup
  for value in ${values[@]+"${values[@]}"}; do echo "$value || exit 1"; done
  cat <<'END'
mkdir -p "$JAX_COMPILATION_CACHE_DIR"
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY  # processes of a run would talk to each other through them
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-}"  # which srun does not take over from sbatch
[ -n "$SRUN_CPUS_PER_TASK" ] || unset SRUN_CPUS_PER_TASK

# A task. srun reports the highest status of all: bad input must not hide behind the tasks that were killed after it.
# One that may be repeated waits for the others, which are about to end as well and would be killed.
# shellcheck disable=SC2016
task='trap : TERM; "$@"; status=$?
case $status in
  0) ;;
  2) status=254 ;;
  74 | 75 | 76) sleep 10 ;;
  *) [ $status -gt 128 ] && [ $status -le 192 ] || status=253 ;;
esac
exit $status'

# srun itself would answer SIGTERM with SIGKILL to its tasks; scancel delivers it, to all steps but not to this script.
# shellcheck disable=SC2329
leave() {
  signalled=1
  scancel --signal=TERM "$SLURM_JOB_ID"
}
trap leave USR1 TERM

srun --kill-on-bad-exit=1 bash -c "$task" task "${train[@]}" &
step=$!
status=127
signalled=1
while [ -n "$signalled" ]; do  # a signal that is trapped ends the wait, not the step
  signalled=
  wait "$step"
  code=$?
  [ $code -eq 127 ] || status=$code
done

case $status in
  254) echo "bad input: see the error above" >&2; exit 2 ;;
  253) exit 1 ;;
  74 | 75 | 76) ;;
  *) { [ "$status" -gt 128 ] && [ "$status" -le 192 ]; } || exit "$status" ;;
esac
if [ "${SLURM_RESTART_COUNT:-0}" -ge "$max_restarts" ]; then
  echo "status $status after ${SLURM_RESTART_COUNT:-0} returns to the queue, as many as --max_restarts allows" >&2
  exit "$status"
fi
# A job that its owner cancelled is no longer running, and is not to come back.
if [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
  echo "status $status: back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
END
}

if [ "${option[dry_run]}" = true ]; then
  batch_script
else
  batch_script | sbatch
fi
