#!/usr/bin/env bash
# Everything that wants a GPU, in some minutes: what runs, what has the same bits, and how fast it is.
#
#   benchmarks/gpu/run.sh [--device cuda] [--output runs/gpu] [--packs build/gpu_packs] [--small] [PART...]
#
# Parts are environment bits kernels scoring merge options search ray tests vllm; all by default, in this order, and
# compile, which is slow. Each has a time limit of its own, eight minutes in all and two for vLLM where it is installed,
# and what fails does not keep the next from running. The tables come last; logs are in the output folder. Each has a
# number of CPU threads of its own, too, so that several calls with parts of their own can share a machine.
# Packages that the machine lacks come from the archives that pack.py wrote, if there are any. --small with --device cpu
# is a rehearsal; PATIENCE=5 makes the limits five times as long on a busy machine. PYTHON is the interpreter, python3
# by default.
set -u
device=cuda output=runs/gpu packs=build/gpu_packs small="" parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    --packs) packs=$2; shift 2 ;;
    --small) small=1; shift ;;
    *) parts+=("$1"); shift ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(environment bits kernels scoring merge options search ray tests vllm)
cd "$(dirname "$0")/../.." || exit
mkdir -p "$output"
output=$(realpath "$output")
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

archives=("$packs"/pack-*.tar.xz)
if [ -e "${archives[0]}" ]; then
  site=$(mktemp -d)
  unpack='import sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
    archive.extractall(sys.argv[2])'
  trap 'rm -rf "$site"' EXIT
  unpacking=()
  for archive in "${archives[@]}"; do "$python" -c "$unpack" "$archive" "$site" & unpacking+=($!); done
  for process in "${unpacking[@]}"; do wait "$process" || exit; done
  export PYTHONPATH=$PYTHONPATH:$site
fi
cores=$(nproc) workers=()
"$python" -c "import xdist" 2>/dev/null && workers=(-n $((cores < 8 ? cores : 8)))

part() { # NAME SECONDS THREADS COMMAND...
  local name=$1 limit=$(($2 * ${PATIENCE:-1})) threads=$3 started=$SECONDS code
  shift 3
  OMP_NUM_THREADS=$threads timeout --kill-after=5 "$limit" "$@" >"$output/$name.txt" 2>"$output/$name.err"
  code=$?
  echo "$name: exit code $code, $((SECONDS - started)) s" | tee -a "$output/parts.txt"
}

run_part() {
  local script=benchmarks/gpu
  case $1 in
    environment) part environment 15 2 "$python" $script/environment.py --device "$device" ${small:+--small} ;;
    bits) part bits 80 4 "$python" $script/same_bits.py --device "$device" ;;
    kernels) part kernels 25 2 "$python" $script/kernels.py --device "$device" ;;
    tests) part tests 45 1 "$python" -m pytest -W default -p no:cacheprovider -p no:benchmark "${workers[@]}" \
      tests/merge_core/kernels/test_fused.py tests/merge_core/execute/test_device_sources.py ;;
    vllm)
      if "$python" -c "import vllm" 2>/dev/null; then
        part vllm 120 4 "$python" $script/vllm_check.py --device "$device" ${small:+--small}
      else
        part vllm 5 1 echo "vllm is not installed"
      fi ;;
    scoring) part scoring 90 4 "$python" $script/scoring_rates.py --device "$device" ${small:+--small} ;;
    compile) part compile 100 4 "$python" $script/scoring_rates.py --device "$device" ${small:+--small} --parts compile ;;
    merge) part merge 45 4 "$python" $script/merge_rates.py --device "$device" ${small:+--megabytes 40 --rounds 2} ;;
    options) part options 60 4 "$python" $script/options.py --device "$device" ${small:+--items 4} ;;
    search) part search 70 4 "$python" $script/search.py --device "$device" --output "$output/search" \
      --items 100 ${small:+--evaluations 14 --items 4 --threads 2} ;;
    ray) part ray 50 2 "$python" $script/search.py --device "$device" --output "$output/ray" \
      --workers 2 --dtypes bfloat16 --alone --evaluations 12 --items 100 --threads 2 ${small:+--items 4 --threads 1} ;;
    *) echo "there is no part $1" ;;
  esac
}

: >"$output/parts.txt"
for name in "${parts[@]}"; do run_part "$name"; done
for name in "${parts[@]}"; do
  echo
  echo "== $(grep "^$name:" "$output/parts.txt")"
  if [ "$name" = tests ]; then tail -n 12 "$output/$name.txt"; else cat "$output/$name.txt"; fi
  if ! grep -q "^$name: exit code 0," "$output/parts.txt"; then tail -n 8 "$output/$name.err" | cut -c1-300; fi
done
