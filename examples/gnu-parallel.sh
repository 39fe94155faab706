#!/bin/sh
# As many workers as asked for, started by GNU parallel: examples/gnu-parallel.sh WORKERS FOLDER [what `tune` takes].
#
# Every one of them is the same `tune`: whoever comes first begins the study, the others join it. A worker has one
# thread, so that they do not get into each other's way; for large models fewer workers with more threads are as fast.
#
# Several machines: a study on a PostgreSQL server and a folder that all of them see, then
#
#   parallel -N0 --sshlogin host1,host2,host3 --jobs 8 \
#       diapason tune --storage postgresql://me@db/studies --study mine --out /shared/mine --threads 1 ::: $(seq 24)
set -eu
diapason=${DIAPASON:-diapason}
workers=${1:-4}
folder=${2:-studies/gnu-parallel}
[ $# -lt 2 ] || shift
[ $# -eq 0 ] || shift

# --halt: if one fails the others go on, and the script fails at its end. --tag says who speaks.
seq "$workers" | parallel -q -N0 --jobs "$workers" --line-buffer --tag --halt never \
    "$diapason" tune --out "$folder" --threads 1 "$@"
