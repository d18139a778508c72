#!/usr/bin/env bash
# Trains on a slice of TPU VMs, all its workers as one run, and makes the slice if there is none.
# Runs as long as the training does: start it in tmux, on a machine that stays up.
#
#   bash launch/tpu_vm.sh --name=a --zone=ZONE --accelerator_type=v5litepod-16 --runtime_version=v2-alpha-tpuv5-lite \
#       --queue=--spot --setup \
#       --config=configs/phantom.py --config.data.dir=gs://BUCKET/data --workdir=gs://BUCKET/runs/a
#
# Options, all others and what follows -- go to python -m medjax.bin.train unchanged:
#   --name=NAME              of the slice (required) [TPU_NAME]
#   --zone=ZONE, --project=ID                       [what gcloud is set to]
#   --accelerator_type=TYPE, --runtime_version=V    ask for the slice as a queued resource, and again
#                            whenever it is taken away; without them the slice must be there
#   --queue=OPTION           one more option of that request, such as --queue=--spot; may be repeated
#   --wait_hours=168         wait this long for it each time, looking every --poll_s=60 seconds
#   --setup                  copy this folder to the workers and install it, at the start and on every new slice
#   --python_version=3.12    what --setup installs
#   --dir=medjax             where it is on the workers, seen from the home folder
#   --cache_dir=DIR          gs://... or a path on the workers where what is compiled is kept [.cache in --dir]
#   --ssh=OPTION             one more option of gcloud ... ssh and scp, such as --ssh=--internal-ip; may be repeated
#   --max_restarts=100, --restart_delay=10, --dry_run: as in launch/several_processes.sh
#
# SIGTERM and SIGINT tell the workers to save and end; the slice stays. If this machine dies, the workers train on until
# they are preempted or done; the same command, given again, lets them save and takes over.
# shellcheck source-path=SCRIPTDIR disable=SC2329
set -euo pipefail
source "$(dirname "$0")/common.sh"

option=(
  [name]="${TPU_NAME:-}" [zone]="" [project]="" [accelerator_type]="" [runtime_version]="" [queue]="[]"
  [wait_hours]=168 [poll_s]=60
  [setup]=false [python_version]=3.12 [dir]=medjax [cache_dir]="" [ssh]="[]" [max_restarts]=100 [restart_delay]=10
  [dry_run]=false
)
parse "$@"
need name
whole wait_hours poll_s max_restarts restart_delay
if [ -n "${option[accelerator_type]}" ]; then need runtime_version; fi
name="${option[name]}"
place=()
for key in zone project; do
  [ -z "${option[$key]}" ] || place+=("--$key=${option[$key]}")
done
repeated ssh
ssh_options=(${values[@]+"${values[@]}"})
queue=(gcloud compute tpus queued-resources)
tpu_vm=(gcloud compute tpus tpu-vm)

# on_workers COMMAND: one line of shell, on all workers at once.
on_workers() {
  run "${tpu_vm[@]}" ssh "$name" ${place[@]+"${place[@]}"} ${ssh_options[@]+"${ssh_options[@]}"} --worker=all \
    "--command=$1"
}

in_dir="cd $(quote "${option[dir]}")"
launcher="bash launch/several_processes.sh 1 --pid_file=.run/pids"
remote="$in_dir && PYTHON=.venv/bin/python $launcher --max_restarts=0 --log=.run/log"
# shellcheck disable=SC2016
cache_dir='"$PWD/.cache"'
[ -z "${option[cache_dir]}" ] || cache_dir="$(quote "${option[cache_dir]}")"
remote+=" --cache_dir=$cache_dir"
remote+=" -- --coordinator=auto $(quote ${flags[@]+"${flags[@]}"})"

request() {
  repeated queue
  run "${queue[@]}" create "$name" "--node-id=$name" ${place[@]+"${place[@]}"} \
    "--accelerator-type=${option[accelerator_type]}" "--runtime-version=${option[runtime_version]}" \
    ${values[@]+"${values[@]}"}
}

setup() {
  local archive="medjax-$name.tgz" dir install
  dir="$(quote "${option[dir]}")"
  install="PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv"
  install+=" && python3 -m uv venv --quiet --clear --python ${option[python_version]} .venv"
  install+=" && python3 -m uv pip install --quiet --python .venv/bin/python -c launch/constraints.txt"
  install+=" -e '.[tpu,readers]'"
  run tar -czf "${TMPDIR:-/tmp}/$archive" -C "$root" LICENSE README.md configs launch medjax pyproject.toml setup.py
  run "${tpu_vm[@]}" scp "${TMPDIR:-/tmp}/$archive" "$name:$archive" ${place[@]+"${place[@]}"} \
    ${ssh_options[@]+"${ssh_options[@]}"} --worker=all
  on_workers "mkdir -p $dir && tar -xzf $archive -C $dir && $in_dir && $install"
}

# state FIELD KIND...: of the slice, or of the request for it.
state() { "${@:2}" describe "$name" ${place[@]+"${place[@]}"} "--format=value($1)" 2>/dev/null || echo NONE; }

# Leaves the slice there and set up, or ends the script.
fresh=1
slice() {
  local is deadline=$((SECONDS + option[wait_hours] * 3600))
  while [ -n "${option[accelerator_type]}" ]; do
    is="$(state state.state "${queue[@]}")"
    [ "$is" != ACTIVE ] || break
    fresh=1
    case "$is" in
      NONE) request || fail "the slice cannot be asked for; gcloud's message is above" ;;
      # What was taken away, or has failed, stays in the way of another request of the same name.
      SUSPENDED | FAILED) "${queue[@]}" delete "$name" ${place[@]+"${place[@]}"} --force --quiet || true ;;
    esac
    [ "$SECONDS" -lt "$deadline" ] || fail "no slice within --wait_hours=${option[wait_hours]}: $name is $is"
    say "waiting for the slice $name, whose request is $is"
    nap "${option[poll_s]}"
    [ -z "$stopping" ] || exit 75
  done
  if [ "${option[setup]}" = true ] && [ -n "$fresh" ]; then setup; fi
  fresh=
}

# Trains until the first end, on all workers; the status is what the workers said, since gcloud knows that of one.
train_once() {
  local output status=127 code ended failed="" signalled=1
  set +em
  output="$(mktemp)"
  trap 'signalled=1; on_workers "$in_dir && $launcher --stop"' TERM
  on_workers "$remote" > >(tee "$output") 2>&1 &
  while [ -n "$signalled" ]; do
    signalled=
    wait "$!"
    code=$?
    [ "$code" -eq 127 ] || status=$code
  done
  sleep 1  # tee writes what is left
  mapfile -t ended < <(grep -aoE "ended with status [0-9]+" "$output" | grep -oE "[0-9]+$")
  rm -f "$output"
  for code in ${ended[@]+"${ended[@]}"}; do
    if [ "$code" -ne 0 ] && ! restartable "$code"; then exit "$code"; fi
    [ "$code" -eq 0 ] || failed="$code"
  done
  [ -z "$failed" ] || exit "$failed"
  [ "$status" -ne 0 ] || exit 0
  # No worker said why: the connection broke, or the slice is gone.
  if [ "$status" -eq 255 ]; then exit 76; fi
  if [ -n "${option[accelerator_type]}" ] && [ "$(state state "${tpu_vm[@]}")" != READY ]; then exit 76; fi
  exit "$status"
}

attempt() {
  slice
  start train_once
}

if [ "${option[dry_run]}" = true ]; then
  if [ -n "${option[accelerator_type]}" ]; then request; fi
  if [ "${option[setup]}" = true ]; then setup; fi
  on_workers "$remote"
  exit 0
fi
keep_going attempt
