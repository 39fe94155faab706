"""How often halving makes the choice of the whole study, over many studies that are parts of one.

    python3 subsets.py STUDY_FOLDER EVAL_EVERY STEPS

reads the curves of a study that was trained to its end without a rule, and plays halving on random subsets of its
configurations (8, 12, and all 16), with each seed alone and with both, and on the first part of the curves, which at a
constant learning rate are studies of fewer steps. It is the rule of crates/study/src/rungs.rs once more, in both of
its forms: as it was, and as it is now (`between`: one between the choice and the best stays; `two`: never fewer than
two). Costs are FLOP. The studies are parts of one and overlap: the figures compare ladders, they are no probabilities.
"""

import csv
import pathlib
import random
import sys

TOLERANCE = 0.01


def load(folder):
    """{name: (cost of all steps, {seed: {step: loss}})}"""
    rows = [row for row in csv.DictReader(open(folder / "results.csv")) if row["pass"] == "full"]
    cells = {}
    for trial in sorted((folder / "trials").iterdir()):
        params = dict(part.split("=") for part in trial.name.split(","))
        own = [row for row in rows if all(float(row[key]) == float(value) for key, value in params.items())]
        curves = {}
        for seed in trial.glob("seed-*"):
            curve = csv.DictReader(open(seed / "curve.csv"))
            curves[int(seed.name[5:])] = {int(row["step"]): float(row["validation_loss"]) for row in curve}
        cells[trial.name] = (float(own[0]["flop"]), curves)
    return cells


def decide(table):
    """Places of the choice and of the best in a table of (cost, loss)."""
    best = min(range(len(table)), key=lambda i: table[i][1])
    limit = table[best][1] * (1 + TOLERANCE) + 1e-12
    near = [i for i in range(len(table)) if table[i][1] <= limit]
    return min(near, key=lambda i: table[i]), best


def kept(table, eta, between, two):
    """Places of those that go on."""
    chosen, best = decide(table)
    front = []
    for i in sorted(range(len(table)), key=lambda i: table[i]):
        if not front or table[i][1] < table[front[-1]][1]:
            front.append(i)
    order = [chosen] if chosen == best else [chosen, best]
    if between:
        order += [i for i in front if table[chosen][0] < table[i][0] < table[best][0]][:1]
    most = max(-(-len(table) // eta), len(order), 2 if two else 1)
    by_loss = sorted(range(len(table)), key=lambda i: table[i][1])
    order += [i for i in by_loss[: -(-len(table) // 2)] if i in front] + by_loss
    return sorted(list(dict.fromkeys(order))[:most])


def ladder(steps, eta, first, every):
    rungs = []
    while first * first * eta <= steps * steps:
        rung = max(1, (first + every // 2) // every) * every
        if rung < steps and rung not in rungs:
            rungs.append(rung)
        first *= eta
    return rungs + [steps]


def play(cells, names, seeds, steps, eta, first, every, **form):
    """(same choice, regret of the choice, share of the steps trained)"""

    def mean(name, reading):
        return sum(reading(cells[name][1][seed]) for seed in seeds) / len(seeds)

    def final(name):
        return mean(name, lambda curve: min(loss for step, loss in curve.items() if step <= steps))

    alive, before, trained = list(names), 0, 0
    for rung in ladder(steps, eta, first, every):
        trained, before = trained + len(alive) * (rung - before), rung
        if rung < steps:
            table = [(cells[name][0], mean(name, lambda curve: curve[rung])) for name in alive]
            alive = [alive[i] for i in kept(table, eta, **form)]
    found = alive[decide([(cells[name][0], final(name)) for name in alive])[0]]
    wanted = names[decide([(cells[name][0], final(name)) for name in names])[0]]
    return found == wanted, final(found) / final(wanted) - 1, trained / len(names) / steps


def main():
    folder, every, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    cells = load(folder)
    names = sorted(cells)
    draw = random.Random(1)
    subsets = [sorted(draw.sample(names, k)) for k in (8, 12) for _ in range(60)] + [names]
    print("form,steps,eta,first,same choice,mean regret,steps trained")
    for form, options in [("before", dict(between=False, two=False)), ("now", dict(between=True, two=True))]:
        for length in (steps // 2, steps * 7 // 10, steps):
            for eta in (2, 3, 4):
                for part in (27, 20, 10, 7, 5):
                    played = [
                        play(cells, subset, seeds, length, eta, max(1, length // part), every, **options)
                        for subset in subsets
                        for seeds in ([0], [1], [0, 1])
                    ]
                    same, regret, trained = (sum(column) / len(played) for column in zip(*played))
                    print(f"{form},{length},{eta},1/{part},{same:.3f},{regret:.5f},{trained:.3f}")


main()
