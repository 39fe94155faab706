//! What a training step costs, measured before training begins.
//!
//! Training times are a poor measure of cost: on a shared machine an hour later differs from an hour earlier, and
//! a trial that ran beside another took longer than one that ran alone. So the study times a few steps of every
//! configuration at its start, on the engine and the text that it will train with, in turns, so that a change of
//! the machine's mood meets all of them. Alone on all threads: that is the configuration's cost, kept in the
//! study's database with the machine's name. Beside copies of itself: that tells whether trials should run side by side ([`crate::pace`]).
//!
//! Each turn begins with a step that does not count: caches, threads and memory are still another's. Then follow so many
//! that they take a few milliseconds; one step of a tiny model is over before the machine has settled. Times are medians over
//! the turns, and how far they may be off is kept with them: costs that differ by less are ties in the verdict. All
//! configurations of a study are timed in one go or not at all: times from different days do not compare.

use crate::{Engines, StudyError, value_text};
use diapason_corpus::Corpus;
use diapason_corpus::windows::{Windows, training_windows};
use diapason_engine::{Batch, Engine, Update};
use diapason_model::{ModelConfig, initialise};
use diapason_storage::{Storage, StudyId};
use diapason_training::{Config, updates};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Turns that every configuration gets at least.
pub(crate) const TURNS: usize = 3;

/// Turns where much rests on the times and something else was at work: so many that a median shrugs off a few bad ones.
pub(crate) const MANY_TURNS: usize = 9;

/// Steps of a turn at least, the one that does not count included.
const STEPS_PER_TURN: usize = 2;

/// A turn goes on until its steps have taken so long ...
const TURN: Duration = Duration::from_millis(5);

/// More turns are made until so much of the study's time is spent on them ...
const SHARE: f64 = 0.003;

/// ... or so much of a short study's, up to that many seconds: noise is largest where steps are shortest ...
const SHORT: (f64, f64) = (0.02, 0.2);

/// ... or so much time in all.
const LONGEST: Duration = Duration::from_secs(10);

/// What timing may cost at most, as a fraction of the study's steps: alone, which the cost rests on ...
const WORTH_ALONE: f64 = 0.05;

/// ... and all of it, which decides on how the trials run.
const WORTH_ALL: f64 = 0.01;

/// Keys of a configuration that a step takes equally long for, whatever their value.
const NEUTRAL: [&str; 23] = [
    "zero_init",
    "steps",
    "batch_ramp",
    "train_fraction",
    "learning_rate",
    "adam_learning_rate",
    "ngram_learning_rate",
    "momentum",
    "beta1",
    "beta2",
    "epsilon",
    "weight_decay",
    "schedule",
    "warmup_steps",
    "decay_share",
    "final_learning_rate",
    "averaging_decay",
    "averaging_share",
    "eval_every",
    "validation_characters",
    "patience",
    "min_improvement",
    "checkpoint_seconds",
];

/// Which machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name in the network.
    pub host: String,
    /// Its processor.
    pub processor: String,
}

impl Machine {
    /// This one, as far as the system tells.
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo").lines().find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_string())
        });
        Self {
            host: read("/proc/sys/kernel/hostname").trim().to_string(),
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_string()),
        }
    }
}

/// What the steps of a study's configurations take.
#[derive(Clone, Debug, PartialEq)]
pub struct Timings {
    /// Where they were measured.
    pub machine: Machine,
    /// Threads in all.
    pub threads: usize,
    /// The engine.
    pub engine: String,
    /// When: seconds since 1970, by the machine's clock.
    pub measured: u64,
    /// One entry for each kind of step, by [`Timings::key`]; configurations that differ in the learning rate alone share
    /// one.
    pub configurations: BTreeMap<String, Timing>,
}

/// What a step of one configuration takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Milliseconds, alone on all threads.
    pub ms_per_step: f64,
    /// How many turns that is the median of.
    #[serde(alias = "steps")]
    pub turns: usize,
    /// How far that may be off, as a fraction of it: half the width of an interval that holds the median with about 95 %
    /// confidence; of three turns half their range.
    #[serde(default)]
    pub noise: f64,
    /// Beside copies of itself, with an even share of the threads each.
    pub side_by_side: Vec<SideBySide>,
}

/// What a step takes beside others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideBySide {
    /// Trials at work, this one included.
    pub trials_at_once: usize,
    /// Milliseconds.
    pub ms_per_step: f64,
}

impl Timings {
    /// What is known of a configuration.
    pub fn of(&self, config: &Config) -> Option<&Timing> {
        self.configurations.get(&Self::key(config))
    }

    /// The kind of a configuration's steps: the keys that their time depends on, with their values.
    pub fn key(config: &Config) -> String {
        // A configuration is a table of plain values.
        let table = toml::Table::try_from(config).unwrap_or_default();
        let keys = table.iter().filter(|(key, _)| !NEUTRAL.contains(&key.as_str()));
        keys.map(|(key, value)| format!("{key}={}", value_text(value))).collect::<Vec<_>>().join(",")
    }

    /// Whether each of these configurations was timed in all these ways.
    pub(crate) fn cover<'a>(&self, configs: impl IntoIterator<Item = &'a Config>, ways: &[usize]) -> bool {
        configs.into_iter().all(|config| {
            self.of(config).is_some_and(|timing| {
                ways.iter()
                    .all(|way| *way == 1 || timing.side_by_side.iter().any(|s| s.trials_at_once == *way))
            })
        })
    }

    /// What the database has, the first to be measured first.
    pub(crate) fn read(storage: &mut Storage, study: StudyId) -> Result<Vec<Self>, StudyError> {
        let mut by_machine: BTreeMap<String, Self> = BTreeMap::new();
        for cost in storage.costs(study)? {
            // What another program may have written is nothing to us.
            let Ok(Detail { machine, threads, engine, measured, timing }) =
                serde_json::from_value(cost.detail)
            else {
                continue;
            };
            let timings = by_machine.entry(cost.machine).or_insert_with(|| Self {
                machine,
                threads,
                engine,
                measured,
                configurations: BTreeMap::new(),
            });
            timings.configurations.insert(cost.cell, timing);
        }
        let mut all: Vec<Self> = by_machine.into_values().collect();
        all.sort_by_key(|timings| timings.measured);
        Ok(all)
    }

    /// How far the least certain of them may be off, as a fraction of it.
    pub(crate) fn noise(&self) -> f64 {
        let noise = self.configurations.values().map(|timing| timing.noise);
        noise.filter(|noise| noise.is_finite()).fold(0.0, f64::max)
    }

    /// Writes them to the database, in the place of earlier ones of this machine with as many threads.
    pub(crate) fn write(&self, storage: &mut Storage, study: StudyId) -> Result<(), StudyError> {
        let Self { machine, threads, engine, measured, configurations } = self;
        for (cell, timing) in configurations {
            let detail = Detail {
                machine: machine.clone(),
                threads: *threads,
                engine: engine.clone(),
                measured: *measured,
                timing: timing.clone(),
            };
            storage.set_cost(
                study,
                &diapason_storage::Cost {
                    machine: format!("{}, {}, {threads} threads", machine.host, machine.processor),
                    cell: cell.clone(),
                    seconds_per_step: timing.ms_per_step / 1e3,
                    // A struct of plain values.
                    detail: serde_json::to_value(detail).unwrap_or_default(),
                },
            )?;
        }
        Ok(())
    }
}

/// How a step was timed, in the database.
#[derive(Serialize, Deserialize)]
struct Detail {
    machine: Machine,
    threads: usize,
    engine: String,
    measured: u64,
    timing: Timing,
}

impl Timing {
    /// (trials at work, seconds a step).
    pub(crate) fn points(&self) -> Vec<(usize, f64)> {
        let beside = self.side_by_side.iter().map(|s| (s.trials_at_once, s.ms_per_step / 1e3));
        std::iter::once((1, self.ms_per_step / 1e3)).chain(beside).collect()
    }
}

/// A kind of step that is to be timed.
#[derive(Clone, Debug)]
pub(crate) struct Kind<'a> {
    /// A configuration that has it.
    pub(crate) config: &'a Config,
    pub(crate) model: ModelConfig,
    /// Floating-point operations of a step.
    pub(crate) flop: f64,
    /// Steps that the study has left of this kind.
    pub(crate) steps: f64,
}

/// In which ways (trials at once) the kinds are worth timing, out of `ways`, which begin with 1: none if even the
/// first is not, and the widest before those between.
pub(crate) fn worthwhile(kinds: &[Kind<'_>], ways: &[usize]) -> Vec<usize> {
    let work: f64 = kinds.iter().map(|kind| kind.steps * kind.flop).sum();
    let of_each: f64 = kinds.iter().map(|kind| (TURNS * STEPS_PER_TURN) as f64 * kind.flop).sum();
    let mut chosen = Vec::new();
    // Copies side by side take about as long as the same steps one after the other.
    let mut spent = of_each;
    if spent <= WORTH_ALONE * work && ways.first() == Some(&1) {
        chosen.push(1);
        for &way in ways[1..].iter().rev() {
            if spent + way as f64 * of_each <= WORTH_ALL * work {
                spent += way as f64 * of_each;
                chosen.push(way);
            }
        }
    }
    chosen.sort_unstable();
    chosen
}

/// The engines that timing is done with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Benches {
    /// Whether those of all kinds are there at the same time, which spares making them again at each turn.
    keep: bool,
    /// Bytes that they take at their most.
    pub(crate) bytes: u128,
}

impl Benches {
    /// For `kinds` in these `ways`.
    pub(crate) fn of(kinds: &[Kind<'_>], ways: &[usize], engines: &Engines<'_>) -> Self {
        let most = ways.last().copied().unwrap_or(1) as u128;
        let each = || kinds.iter().map(|kind| most * (engines.memory)(&kind.model, kind.config));
        let all = each().sum();
        let keep = engines.available.is_none_or(|available| all <= available / 2);
        Self { keep, bytes: if keep { all } else { each().max().unwrap_or(0) } }
    }

    /// Whether there is memory for `most` engines of each kind, one kind after the other.
    pub(crate) fn fit(kinds: &[Kind<'_>], most: usize, engines: &Engines<'_>) -> bool {
        kinds.iter().all(|kind| {
            let needed = most as u128 * (engines.memory)(&kind.model, kind.config);
            engines.available.is_none_or(|there| needed <= there)
        })
    }
}

/// Times `kinds` in these `ways`, which begin with 1, on `threads` threads in all, in at least `turns` turns. `tell(done, of)` is told of each
/// turn. None if `stop` became true, or there is no memory for an engine.
pub(crate) fn measure(
    corpus: &Corpus,
    kinds: &[Kind<'_>],
    ways: &[usize],
    threads: usize,
    turns: usize,
    engines: &Engines<'_>,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(usize, usize),
) -> Option<Timings> {
    let keep = Benches::of(kinds, ways, engines).keep;
    let mut benches: Vec<Vec<Box<dyn Engine>>> = kinds.iter().map(|_| Vec::new()).collect();
    let mut seconds: Vec<Vec<Vec<f64>>> = kinds.iter().map(|_| vec![Vec::new(); ways.len()]).collect();
    let mut id = String::new();
    let started = Instant::now();
    let least = turns * kinds.len() * ways.len();
    for round in 0.. {
        for (k, kind) in kinds.iter().enumerate() {
            for (w, &way) in ways.iter().enumerate() {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let done = (round * kinds.len() + k) * ways.len() + w;
                if round < turns {
                    tell(done, least);
                }
                let bench = &mut benches[k];
                fill(bench, kind, way, engines)?;
                id = bench[0].id().to_string();
                // All turns that there are at least may take the part of the study that is worth it.
                let shares = (turns * ways.iter().sum::<usize>()) as f64;
                let most = 1 + ((WORTH_ALONE * kind.steps / shares) as usize).max(STEPS_PER_TURN - 1);
                seconds[k][w].push(turn(corpus, kind, &mut bench[..way], threads, round, most));
            }
            if !keep {
                benches[k].clear();
            }
        }
        let study: f64 = kinds.iter().zip(&seconds).map(|(kind, s)| kind.steps * median(&s[0])).sum();
        let enough = (SHARE * study).max((SHORT.0 * study).min(SHORT.1));
        let enough = LONGEST.min(Duration::try_from_secs_f64(enough).unwrap_or(LONGEST));
        if round + 1 >= turns && started.elapsed() >= enough {
            break;
        }
    }
    let configurations = kinds
        .iter()
        .zip(&seconds)
        .map(|(kind, seconds)| {
            let timing = Timing {
                ms_per_step: 1e3 * median(&seconds[0]),
                turns: seconds[0].len(),
                noise: noise(&seconds[0]),
                side_by_side: ways
                    .iter()
                    .zip(seconds)
                    .skip(1)
                    .map(|(&way, seconds)| SideBySide {
                        trials_at_once: way,
                        ms_per_step: 1e3 * median(seconds),
                    })
                    .collect(),
            };
            (Timings::key(kind.config), timing)
        })
        .collect();
    let measured = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Some(Timings { machine: Machine::this(), threads, engine: id, measured, configurations })
}

/// Makes engines until there are `wanted`, all with the same weights.
fn fill(
    bench: &mut Vec<Box<dyn Engine>>,
    kind: &Kind<'_>,
    wanted: usize,
    engines: &Engines<'_>,
) -> Option<()> {
    if bench.len() < wanted {
        let parameters = initialise(&kind.model, 0);
        while bench.len() < wanted {
            let mut engine = (engines.make)(kind.model, kind.config, 1).ok()?;
            engine.with_state(&mut |state| {
                state.parameters.copy_from_slice(&parameters);
                state.first_moment.fill(0.0);
                state.second_moment.fill(0.0);
            });
            bench.push(engine);
        }
    }
    Some(())
}

/// One turn of engines side by side that share the threads, of at most so many steps; the seconds of a step of one of
/// them.
fn turn(
    corpus: &Corpus,
    kind: &Kind<'_>,
    bench: &mut [Box<dyn Engine>],
    threads: usize,
    round: usize,
    most: usize,
) -> f64 {
    let copies = bench.len();
    let together = Barrier::new(copies);
    let times: Vec<f64> = std::thread::scope(|scope| {
        let copies: Vec<_> = bench
            .iter_mut()
            .enumerate()
            .map(|(copy, engine)| {
                let together = &together;
                scope.spawn(move || {
                    engine.set_threads(share(threads, copies, copy));
                    let mut windows = Windows::default();
                    together.wait();
                    let mut one = |i: usize| {
                        let number = (most * round + i) as u64;
                        step(corpus, kind.config, engine.as_mut(), number, &mut windows)
                    };
                    one(0);
                    let (mut steps, mut seconds) = (0, 0.0);
                    while steps == 0 || (steps + 1 < most && seconds < TURN.as_secs_f64()) {
                        steps += 1;
                        seconds += one(steps);
                    }
                    seconds / steps as f64
                })
            })
            .collect();
        copies
            .into_iter()
            .map(|copy| copy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    // Shares may be uneven; what counts is the steps a second of all together.
    copies as f64 / times.iter().map(|seconds| 1.0 / seconds).sum::<f64>()
}

/// What a step of training is, windows included; its seconds.
fn step(
    corpus: &Corpus,
    config: &Config,
    engine: &mut dyn Engine,
    number: u64,
    windows: &mut Windows,
) -> f64 {
    // The weights stay what they are: nothing can diverge.
    let update = Update {
        learning_rate: 0.0,
        adam_learning_rate: 0.0,
        ngram_learning_rate: 0.0,
        ..updates::update(config, number + 1, 0.5, 1)
    };
    let started = Instant::now();
    training_windows(corpus.train(), 0, number, config.batch_size, config.sequence_length, windows);
    let batch = Batch {
        inputs: &windows.inputs,
        targets: &windows.targets,
        sequence_length: windows.sequence_length,
    };
    engine.step(batch, &update);
    started.elapsed().as_secs_f64()
}

/// The threads of the `index`th of `parts` that share `threads`: as even as can be, never none.
pub(crate) fn share(threads: usize, parts: usize, index: usize) -> usize {
    let parts = parts.max(1);
    (threads / parts + usize::from(index < threads % parts)).max(1)
}

/// The middle one; of an even number, the mean of the two.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { f64::NAN } else { (values[(n - 1) / 2] + values[n / 2]) / 2.0 }
}

/// How far the median of `values` may be off, as a fraction of it: half the width of the interval between the order
/// statistics at n/2 -+ 0.98 sqrt(n), the normal approximation of the sign test's; all of them where there are few.
fn noise(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let outside = (n as f64 / 2.0 - 0.98 * (n as f64).sqrt()).max(0.0) as usize;
    match (sorted.get(outside), sorted.get(n.saturating_sub(1 + outside))) {
        (Some(low), Some(high)) => (high - low) / 2.0 / median(values),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(config: &Config, steps: f64) -> Kind<'_> {
        Kind { config, model: config.model(27).unwrap(), flop: 1e9, steps }
    }

    #[test]
    fn neutral_keys_are_keys() {
        for key in NEUTRAL {
            assert!(Config::keys().iter().any(|known| known.name == key), "{key}");
        }
    }

    #[test]
    fn what_does_not_change_a_step_shares_its_time() {
        let (a, b) = (Config::default(), Config { learning_rate: 1.0, steps: 7, ..Config::default() });
        assert_eq!(
            Timings::key(&a),
            "d_model=256,n_heads=8,n_layers=4,mlp_ratio=4,max_len=128,tie_embeddings=false,norm=layer_norm,\
             positions=learned,activation=gelu,mlp_bias=true,qk_norm=false,logit_softcap=0,embedding_norm=false,\
             ngram_table=0,ngram_rows=32768,value_residual=false,embedding_residual=false,dropout=0,loss_positions=all,\
             batch_size=64,sequence_length=32,optimizer=adam,gradient_clip=0,adaptive_clip=0,weight_averaging=none,\
             precision=auto"
        );
        assert_ne!(Timings::key(&a), Timings::key(&Config { batch_size: 1, ..a.clone() }));
        let timing = Timing { ms_per_step: 5.0, turns: 3, noise: 0.0, side_by_side: Vec::new() };
        let timings = Timings {
            machine: Machine::this(),
            threads: 2,
            engine: String::new(),
            measured: 0,
            configurations: BTreeMap::from([(Timings::key(&a), timing)]),
        };
        assert_eq!(timings.of(&b).map(|t| t.ms_per_step), Some(5.0));
        assert!(timings.cover([&a, &b], &[1]) && !timings.cover([&a], &[1, 2]));
    }

    #[test]
    fn timing_has_to_be_worth_it() {
        let config = Config::default();
        let ways = |steps| worthwhile(&[kind(&config, steps), kind(&config, steps)], &[1, 2, 4]);
        assert_eq!(ways(20_000.0), [1, 2, 4]);
        // 6 steps alone and 24 for four at once are a hundredth of 3,000; those for two are not.
        assert_eq!(ways(3_001.0), [1, 4]);
        assert_eq!(ways(1_801.0), [1, 2]);
        assert_eq!(ways(200.0), [1]);
        assert!(ways(60.0).is_empty());
        assert_eq!(worthwhile(&[], &[1]), [1]);
    }

    #[test]
    fn shares_are_even_and_never_none() {
        let shares = |threads, parts| (0..parts).map(|i| share(threads, parts, i)).collect::<Vec<_>>();
        assert_eq!(shares(2, 1), [2]);
        assert_eq!(shares(2, 2), [1, 1]);
        assert_eq!(shares(5, 3), [2, 2, 1]);
        assert_eq!(shares(1, 3), [1, 1, 1]);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_noise_of_a_median_shrinks_with_the_turns() {
        assert_eq!(noise(&[1.0, 0.75, 1.25]), 0.25);
        assert_eq!(noise(&[2.0]), 0.0);
        assert!(noise(&[]).is_nan());
        // 100 values, evenly from 0.8 to 1.2: the 41st and the 60th are 0.0768 apart.
        let many: Vec<f64> = (0..100).map(|i| 0.8 + 0.4 * f64::from(i) / 99.0).collect();
        assert!((noise(&many) - 0.0384).abs() < 1e-3, "{}", noise(&many));
        // An outlier is none of its business.
        let with_an_outlier: Vec<f64> = many.iter().map(|&x| if x == 1.2 { 90.0 } else { x }).collect();
        assert_eq!(noise(&with_an_outlier), noise(&many));
    }
}
