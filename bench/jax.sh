#!/usr/bin/env bash
# A training step here and in JAX/Flax/Optax, in turns in one run: d_model 256, 8 heads, 4 layers, 64 windows of 32 characters.
#
#   bench/jax.sh TEXT [ROUNDS]
#
# TEXT: a file of the 27 characters a-z and space. Prints one line a round: milliseconds per step here (with the fraction of the multiply-add
# peak) and in JAX (median of its steps after compilation), on all processors. Uses the virtual environment of scripts/test.
set -euo pipefail
cd "$(dirname "$0")/.."
text=${1:?usage: bench/jax.sh TEXT [ROUNDS]}
rounds=${2:-5}
python=.venv/bin/python
[ -x $python ] || { echo "run scripts/test first: it makes .venv" >&2; exit 2; }
cargo build --release --quiet
for round in $(seq "$rounds"); do
    ours=$(cargo run --release --quiet -- bench --seconds 8 --json 2>/dev/null |
        python3 -c 'import json, sys; b = json.load(sys.stdin); print("%.1f ms (%.1f %% of peak)" % (b["ms_per_step"], 100 * b["peak_fraction"]))')
    jax=$($python reference/jax_reference.py train "$text" --steps 25 --validation-windows 64 |
        python3 -c 'import json, sys; print("%.1f ms" % json.loads(sys.stdin.readlines()[-1])["ms_per_step"])')
    echo "round $round: diapason $ours, JAX $jax"
done
