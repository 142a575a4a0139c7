#!/usr/bin/env bash
# What there is to measure on a GPU, in at most 12 minutes on an H100: tests, training step and encoder beside CaPOYO
# and POYO, the demo, and the picture decoder.
#
#   bash benchmarks/gpu.sh [--device cuda] [--quick] [--peak-tflops 989] [--out gpu_results]
#
# All of it lies in OUT/summary.md: the device, how each section ended, and the tables. --quick: the smallest sizes, to
# try the script out, also with --device cpu (ten minutes of one core). PYTHON names the interpreter, which has the
# package with its extra `demo` and pytest; default: that of .venv, which `make test` sets up. POYO is measured with it;
# CaPOYO where .venv-upstream01 exists (make compat).
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
whole() { case "$1" in /*) echo "$1" ;; *) echo "$here/$1" ;; esac }
device=cuda quick= peak=() out=$PWD/gpu_results
while [ $# -gt 0 ]; do
  case "$1" in
    --device) device=$2; shift 2 ;;
    --quick) quick=1; shift ;;
    --peak-tflops) peak=(--peak-tflops "$2"); shift 2 ;;
    --out) out=$(whole "$2"); shift 2 ;;
    *) echo "benchmarks/gpu.sh [--device cuda] [--quick] [--peak-tflops 989] [--out gpu_results]" >&2; exit 2 ;;
  esac
done
python=.venv/bin/python
[ -z "${PYTHON:-}" ] || python=$(whole "$(command -v "$PYTHON" || (cd "$here" && command -v "$PYTHON") || echo "$PYTHON")")
needs='"hypothesis", "neurobridge_tb", "pytest", "timm", "torch_brain"'  # found, not imported: some torchvisions fail alone
if ! "$python" -c "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, [$needs])))"; then
  echo "Expected a Python with neurobridge-tb, its extra 'demo', pytest and hypothesis; found $python without them." >&2
  echo "Run 'make test', or: pip install -c constraints.txt '.[demo]' pytest hypothesis, and PYTHON=... $0" >&2
  exit 2
fi
mkdir -p "$out"
began=$SECONDS failed=

"$python" - "$device" > "$out/summary.md" <<'PYTHON'
import sys

import torch

if sys.argv[1].startswith("cuda") and not torch.cuda.is_available():
    sys.exit(f"Expected a GPU for --device {sys.argv[1]}; torch {torch.__version__} finds none. Try --device cpu --quick.")
name = torch.cuda.get_device_name() if sys.argv[1].startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
print(f"{name}; torch {torch.__version__}\n\n| section | seconds | result |\n| --- | --- | --- |")
PYTHON

note() { echo "| $1 | $2 | $3 |" | tee -a "$out/summary.md"; }

section() {  # NAME SECONDS COMMAND...: its output goes to OUT/NAME.txt, and it may take so long
  local name=$1 limit=$2 code=0 start=$SECONDS result=done
  shift 2
  timeout "$limit" "$@" > "$out/$name.txt" 2>&1 || code=$?
  if [ $code -eq 124 ]; then
    result="cut after $limit s"
    [ -z "$quick" ] || failed=1
  elif [ $code -ne 0 ]; then
    result="failed ($code), see $name.txt" failed=1
  fi
  note "$name" $((SECONDS - start)) "$result"
}

section tests $([ -n "$quick" ] && echo 1200 || echo 120) \
  env NEUROBRIDGE_DEVICE="$device" "$python" -m pytest -q -m gpu tests/engine/test_gpu.py
sizes=(-n 96 -n 384 -n 1024 -t 6 -t 30 --precision fp32 --precision bf16) forms=(eager compiled) limit=60
[ -n "$quick" ] && sizes=(-n 10 -t 2 --repeats 1 --precision fp32) forms=(eager) limit=600  # to compile takes minutes
for interpreter in "$python" .venv-upstream01/bin/python; do
  if ! line=$("$interpreter" -c 'from neurobridge_tb._upstream import UPSTREAM_LINE as x; print(x)' 2> /dev/null); then
    note "CaPOYO" 0 "left out: no .venv-upstream01, which 'make compat' sets up"
    continue
  fi
  for script in encoder train_step; do
    for form in "${forms[@]}"; do
      options=(--device "$device" "${sizes[@]}")
      [ $script = train_step ] && options+=("${peak[@]}")
      [ $form = compiled ] && options+=(--compiled)
      [ "$script $form" = "encoder compiled" ] && continue  # a part of what is compiled as a whole
      section "$script.$line.$form" $limit "$interpreter" "benchmarks/$script.py" "${options[@]}" \
        --out "$out/$script.$line.$form.md"
    done
  done
done
if [ -n "$quick" ]; then
  section demo 1800 "$python" -m neurobridge_tb.cli demo "$out/demo" --tiny
  section decoder 1200 "$python" examples/train_procedural_decoder.py --out "$out/decoder" --device "$device" \
    --steps 2 --autoencoder-steps 2 --batch-size 4 --autoencoder-batch 4 --fitted-to 600 --components 50 --animals 1
else
  section demo 240 "$python" -m neurobridge_tb.cli demo "$out/demo"
  rest=$((700 - (SECONDS - began)))
  section decoder $((rest > 60 ? rest : 60)) "$python" examples/train_procedural_decoder.py --out "$out/decoder" \
    --device "$device" --dtype bfloat16 --workers 8
fi
for table in "$out"/encoder.*.md "$out"/train_step.*.md; do
  [ ! -e "$table" ] || { echo; cat "$table"; } >> "$out/summary.md"
done
echo "Results lie in $out/summary.md"
[ -z "$failed" ]
