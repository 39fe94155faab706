#!/bin/sh
# Two processes on one study, as from two shells of one machine:
#
#   first shell:     diapason tune --corpus my.txt --normalize --out studies/mine --threads 1
#   second shell:    diapason worker --storage studies/mine --threads 1
#
# This script does both: examples/two-shells.sh FOLDER [what `tune` takes].
# Stop either at any time, kill it, start it again: the other goes on, and no trial is trained twice.
set -eu
diapason=${DIAPASON:-diapason}
folder=${1:-studies/two-shells}
[ $# -eq 0 ] || shift

"$diapason" tune --out "$folder" --threads 1 "$@" &
first=$!

# A worker joins a study that is there; `tune` makes it within a moment.
until "$diapason" study show "$folder" >/dev/null 2>&1; do
    kill -0 "$first" 2>/dev/null || break
    sleep 0.2
done
"$diapason" worker --storage "$folder" --threads 1

wait "$first"
