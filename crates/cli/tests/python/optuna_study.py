"""Python Optuna on a study of the program: `optuna_study.py COMMAND URL STUDY`. Prints JSON objects, one a line.

read      everything that Optuna says of a study, with its data frame, importances and figures
enqueue   makes a study and enqueues trials into it: good ones, one that nobody can know, one that is impossible
feed      enqueues a trial, and another one when the first has begun; waits until both are complete
"""

import json
import sys
import time
import warnings

import optuna
from optuna.trial import TrialState

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def read(url, name):
    study = optuna.load_study(storage=url, study_name=name)
    trials = [
        {
            "number": t.number,
            "state": t.state.name,
            "value": t.value,
            "params": t.params,
            "distributions": {key: repr(d) for key, d in t.distributions.items()},
            "steps": sorted(t.intermediate_values),
            "lowest": min(t.intermediate_values.values(), default=None),
            "user_attrs": t.user_attrs,
            "config": t.system_attrs.get("diapason:config"),
            "seconds": t.duration and t.duration.total_seconds(),
            "age": t.datetime_complete and abs(time.time() - t.datetime_complete.timestamp()),
        }
        for t in study.trials
    ]
    frame = study.trials_dataframe(attrs=("number", "value", "state", "duration", "params", "user_attrs"))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    visual = optuna.visualization
    figures = [
        visual.plot_optimization_history(study),
        visual.plot_intermediate_values(study),
        visual.plot_param_importances(study, evaluator=evaluator),
        visual.plot_parallel_coordinate(study),
        visual.plot_slice(study),
        visual.plot_contour(study),
        visual.plot_rank(study),
        visual.plot_edf(study),
        visual.plot_timeline(study),
    ]
    yield {
        "trials": trials,
        "best": study.best_trial.number,
        "best_params": study.best_params,
        "best_value": study.best_value,
        "rows": len(frame),
        "columns": list(frame.columns),
        "importances": optuna.importance.get_param_importances(study, evaluator=evaluator),
        "figures": sum(len(figure.to_json()) > 100 for figure in figures),
    }


def enqueue(url, name):
    study = optuna.create_study(storage=url, study_name=name, direction="minimize")
    for params in (
        {"learning_rate": 3e-3},
        {"learning_rate": 1e-2, "n_layers": 2, "seed": 5},
        {"learning_rate": 1e-2, "alien": 1},
        {"d_model": 30, "n_heads": 4},
        {"learning_rate": 3e-3},
    ):
        study.enqueue_trial(params)
    study.enqueue_trial({"d_model": 32.0}, user_attrs={"seed": 7, "note": "größe"})
    yield {"trials": len(study.trials)}


def feed(url, name):
    study = optuna.load_study(storage=url, study_name=name)
    first = len(study.trials)
    study.enqueue_trial({"learning_rate": 5e-3, "seed": 11})
    yield {}

    def wait_for(number, states):
        while study.trials[number].state not in states:
            time.sleep(0.02)

    wait_for(first, (TrialState.RUNNING, TrialState.COMPLETE))
    running = study.trials[first].state == TrialState.RUNNING
    study.enqueue_trial({"learning_rate": 6e-3, "seed": 12})
    wait_for(first, (TrialState.COMPLETE,))
    wait_for(first + 1, (TrialState.COMPLETE,))
    yield {"running": running, "values": [study.trials[first + i].value for i in (0, 1)]}


if __name__ == "__main__":
    command, url, name = sys.argv[1:]
    for answer in globals()[command](url, name):
        print(json.dumps(answer), flush=True)
