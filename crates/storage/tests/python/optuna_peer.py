"""Python Optuna, as the other end of a study: `optuna_peer.py COMMAND URL STUDY`. Prints one JSON object.

create   makes a study with trials in every state and with everything that is hard to write down
load     reads a study, asks for the best trial and the importances, builds every figure
work     is a worker: takes one enqueued trial and finishes it
stale    has Optuna look for trials whose workers have died; the numbers of those that it failed
delete   deletes the study
"""

import json
import sys
import warnings

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)

DISTRIBUTIONS = {
    "d_model": IntDistribution(0, 1024),
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "optimizer": CategoricalDistribution(["adam", "lion", "größe"]),
}


def params(i):
    return {"d_model": 64 * i, "learning_rate": 1e-3 / (i + 1), "optimizer": ["adam", "lion", "größe"][i % 3]}


def create(url, name):
    study = optuna.create_study(storage=url, study_name=name, direction="minimize")
    study.set_user_attr("größe", {"幅": [1, 2.5, None]})
    for i in range(6):
        study.add_trial(
            optuna.create_trial(
                params=params(i),
                distributions=DISTRIBUTIONS,
                value=2.0 - 0.1 * i,
                intermediate_values={1: float("nan"), 2: float("inf"), 3: float("-inf"), 4: 2.0 - 0.1 * i},
                user_attrs={"größe": "幅", "nan": float("nan"), "list": [1, float("inf")]},
            )
        )
    study.add_trial(optuna.create_trial(params=params(6), distributions=DISTRIBUTIONS, value=float("inf")))
    study.add_trial(
        optuna.create_trial(
            state=TrialState.PRUNED,
            params=params(7),
            distributions=DISTRIBUTIONS,
            value=3.0,
            intermediate_values={1: 3.0},
        )
    )
    study.add_trial(optuna.create_trial(state=TrialState.FAIL, params=params(8), distributions=DISTRIBUTIONS))
    running = study.ask()
    running.suggest_int("d_model", 0, 1024)
    running.report(1.0, 1)
    for i in (10, 11):
        study.enqueue_trial(params(i), user_attrs={"from": "Python"})
    study.enqueue_trial({"alien": 1})
    return {"trials": len(study.trials)}


def load(url, name):
    study = optuna.load_study(storage=url, study_name=name)
    trials = [
        {
            "number": t.number,
            "state": t.state.name,
            "values": t.values,
            "params": t.params,
            "distributions": {key: type(d).__name__ for key, d in t.distributions.items()},
            "intermediate_values": {str(step): x for step, x in t.intermediate_values.items()},
            "user_attrs": t.user_attrs,
            "system_attrs": t.system_attrs,
            "start": t.datetime_start and t.datetime_start.timestamp(),
            "seconds": None if t.duration is None else t.duration.total_seconds(),
        }
        for t in study.trials
    ]
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
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
    return {
        "optuna": optuna.__version__,
        "trials": trials,
        "best": study.best_trial.number,
        "metric_names": study.metric_names,
        "user_attrs": study.user_attrs,
        "importances": importances,
        "figures": sum(len(figure.to_json()) > 100 for figure in figures),
    }


def work(url, name):
    study = optuna.load_study(storage=url, study_name=name)

    def objective(trial):
        d_model = trial.suggest_int("d_model", 0, 1024)
        trial.report(7.0, 1)
        trial.set_user_attr("worker", "Python")
        return d_model / 1000

    study.optimize(objective, n_trials=1)
    last = max((t for t in study.trials if t.datetime_complete), key=lambda t: t.datetime_complete)
    return {"number": last.number, "params": last.params, "value": last.value}


def stale(url, name):
    storage = optuna.storages.RDBStorage(url, heartbeat_interval=60, grace_period=120)
    study = optuna.load_study(storage=storage, study_name=name)
    before = {t.number for t in study.trials if t.state == TrialState.FAIL}
    optuna.storages.fail_stale_trials(study)
    return {"failed": [t.number for t in study.trials if t.state == TrialState.FAIL and t.number not in before]}


def delete(url, name):
    optuna.delete_study(storage=url, study_name=name)
    return {}


if __name__ == "__main__":
    command, url, name = sys.argv[1:]
    print(json.dumps(globals()[command](url, name)))
