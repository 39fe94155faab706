"""What the Python peers share: the model's sizes, the data that `run` prepared, and the conversation with `run`.

`--check` prints one JSON object about correctness and ends. Otherwise the peer takes its first step, says
`started`, and then answers each line on standard input, a number of seconds, with the times of the training steps
that it made in them. The Rust peers speak the same (rust/src/lib.rs).
"""

import argparse
import json
import os
import pathlib
import sys
import time

D_MODEL, N_HEADS, N_LAYERS, VOCABULARY, MAX_LEN = 256, 8, 4, 27, 128
WINDOWS, T = 64, 32
NORM_EPSILON = 1e-6
CHECK_STEPS = 20


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with the text, windows and weights")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--setting", default="", help="which of the peer's settings")
    parser.add_argument("--check", action="store_true", help="show that the whole model trains, and end")
    return parser.parse_args()


def keep_to(threads):
    """Keeps the process on so many processors: before a library counts them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Data:
    def __init__(self, folder):
        import numpy as np

        self.text = np.fromfile(folder / "text.txt", np.uint8).astype(np.int64)
        self.text = np.where(self.text == ord(" "), 26, self.text - ord("a"))
        self.starts = np.fromfile(folder / "starts.u32", "<u4").astype(np.int64).reshape(-1, WINDOWS)
        self.offsets = np.arange(T + 1)

        raw = (folder / "weights.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        self.weights = {}
        for name, entry in json.loads(raw[8 : 8 + length]).items():
            first, last = entry["data_offsets"]
            data = np.frombuffer(raw[8 + length + first : 8 + length + last], np.float32)
            self.weights[name] = data.reshape(entry["shape"])

    def batch(self, number):
        """The inputs [64, 32] of step `number`, and the characters one further."""
        starts = self.starts[number % len(self.starts)]
        rows = self.text[starts[:, None] + self.offsets]
        return rows[:, :-1], rows[:, 1:]


def say(**fields):
    print(json.dumps(fields), flush=True)


def serve(peer, data, check):
    """`peer` has `step(batch) -> loss`, and for the check `parameters()`, `gradients(batch)` and `versions`."""
    if check:
        return say(**checked(peer, data))
    number = 0

    def step():
        nonlocal number
        start = time.perf_counter()
        loss = peer.step(data.batch(number))
        number += 1
        return 1e3 * (time.perf_counter() - start), loss

    say(event="started", loss=step()[1])
    for line in sys.stdin:
        step()  # The caches are another program's by now.
        start, times = time.perf_counter(), []
        while len(times) < 2 or time.perf_counter() - start < float(line):
            milliseconds, loss = step()
            times.append(milliseconds)
        say(event="turn", ms=times, loss=loss)


def checked(peer, data):
    """What shows that the peer trains the whole model."""
    import numpy as np

    before = peer.parameters()
    gradients = peer.gradients(data.batch(0))
    losses = [peer.step(data.batch(number)) for number in range(CHECK_STEPS)]
    after = peer.parameters()
    return dict(
        versions=peer.versions,
        parameters=sum(x.size for x in before.values()),
        without_gradient=[name for name in before if name not in gradients or not gradients[name].any()],
        gradient_norm=float(np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in gradients.values()))),
        changed=int(sum((before[name] != after[name]).sum() for name in before)),
        losses=losses,
    )
