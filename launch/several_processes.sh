#!/usr/bin/env bash
# Trains with several processes on this host, each with its own devices, as several hosts would.
#   bash launch/several_processes.sh N --config=configs/phantom.py --config.data.dir=DATA --workdir=RUN
# On SLURM (srun, one task a GPU) and on TPU VMs run python -m medjax.bin.train itself: the processes find each other.
set -euo pipefail

count="${1:?how many processes}"
shift
python="${PYTHON:-python3}"
port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')"
export NPROC="${NPROC:-16}"  # on CPU, XLA's collectives wait for ever with fewer threads than this

pids=()
# A process that is left alone waits for the others for ever, and SIGTERM means preemption to JAX.
trap 'kill -KILL "${pids[@]}" 2>/dev/null || true' EXIT
for ((i = 0; i < count; i++)); do
  "$python" -m medjax.bin.train "$@" --coordinator="localhost:$port" --process_count="$count" --process_index="$i" &
  pids+=($!)
done
for ((i = 0; i < count; i++)); do
  wait -n || exit 1
done
