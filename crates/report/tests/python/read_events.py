"""Prints what TensorBoard reads from the runs below a folder, as JSON: {run: {tag: [[step, value, wall time], ...]}}."""

import json
import math
import sys

from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0})
multiplexer.AddRunsFromDirectory(sys.argv[1])
multiplexer.Reload()


def number(x):
    return x if math.isfinite(x) else str(x)


found = {}
for run, tags in multiplexer.Runs().items():
    found[run] = {}
    # Scalars become tensors when they are read.
    for tag in tags["tensors"]:
        found[run][tag] = [
            [event.step, number(float(event.tensor_proto.float_val[0])), event.wall_time]
            for event in multiplexer.Tensors(run, tag)
        ]
print(json.dumps(found))
