//! What can be typed: commands, flags and their help.
//!
//! Nothing here computes. A command turns its arguments into a checked specification first, and only then
//! calls the crates below; after that point nothing is optional or checked twice. The doc comments in this
//! file are the program's help, so they are written for someone who has never seen the program.

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use diapason_study::{Range, Rule, RuleError, Sampler, SearchError};
use diapason_training::{Budget, Config, PrecisionChoice, RECIPES};
use std::path::PathBuf;

/// Finds the right character-level Transformer for a text, on the machine you have.
///
/// `diapason tune` trains a grid of candidate models on a text, reads each of them early and in full, prints
/// one table of times and losses, and says which configuration to keep and why. Runs that are stopped go on
/// where they were, with the same results to the bit.
#[derive(Debug, Parser)]
#[command(
    name = "diapason",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "\
Start here:
  diapason tune                               four small models on the built-in text, three minutes
  diapason tune --corpus my.txt --normalize   d_model 256, n_heads 8,16, n_layers 4,8 on your text
  diapason help tune                          what a command does, with examples

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
129, 130 and 143 interrupted (`tune` and `train` print the command that resumes)."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One variant per command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Tune(Box<Tune>),
    Worker(Worker),
    Train(Train),
    Eval(Eval),
    Generate(Generate),
    #[command(subcommand)]
    Corpus(Corpus),
    Decide(Decide),
    Replay(Replay),
    Config(ShowConfig),
    Bench(Bench),
    #[command(subcommand)]
    Study(Study),
}

/// Which text, and how it is read. The same flags wherever a command reads one.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Text")]
pub(crate) struct Text {
    /// `text8`, `builtin:english[:CHARACTERS[:SEED]]`, or the path of a text or .npy file
    ///
    /// `text8` is the well-known 100 MB of cleaned Wikipedia; it is downloaded once (31 MB).
    /// `builtin:english` is generated on the spot from a grammar with a known entropy rate: no network, no
    /// file, 10 million characters unless a number is given, as in `builtin:english:2000000`.
    #[arg(long, value_name = "CORPUS")]
    pub(crate) corpus: Option<String>,

    /// A second file that is the test split; --corpus then gives train (8/9) and validation (1/9)
    #[arg(long, value_name = "FILE", value_parser = path_of_text)]
    pub(crate) test_corpus: Option<PathBuf>,

    /// Which characters a text may have: text8 (a-z and space), auto (those that occur), bytes [default: text8]
    #[arg(long, value_name = "NAME")]
    pub(crate) alphabet: Option<diapason_corpus::AlphabetKind>,

    /// Reduce the text to the text8 alphabet first: lower case, digits spelled out, the rest single spaces
    #[arg(long)]
    pub(crate) normalize: bool,

    /// Size of the training split in characters [default: 80 per cent]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) train_chars: Option<usize>,

    /// Size of the validation split in characters [default: 10 per cent]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) validation_chars: Option<usize>,

    /// Size of the test split in characters [default: the rest]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) test_chars: Option<usize>,
}

/// Train a grid of configurations, compare them, choose one.
///
/// Every combination of the grid's values is trained once per seed. Each run is read twice: early, after a
/// fifth of its steps, and in full. The table shows both; the verdict is the cheapest configuration whose
/// loss is within the tolerance of the best one.
///
/// With nothing else, `tune` is a first look: four small models on the built-in text, about three minutes on
/// two cores. With a corpus or a configuration of your own, training defaults are those of the published
/// notebook (batches of 64 x 32 characters, Adam at 1e-3, 20,000 steps) and the grid is its grid: d_model
/// 256, n_heads 8 and 16, n_layers 4 and 8.
///
/// Everything is kept in the folder --out. The same command continues what is there: finished trials are not
/// run again, an interrupted one goes on from its checkpoint.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    after_long_help = "\
Examples:
  diapason tune
      Four small models on the built-in text.
  diapason tune --corpus text8
      The grid of the notebook on text8.
  diapason tune --corpus text8 --as-seed
      The same, with the notebook's own protocol: its stopping rule, its validation batches.
  diapason tune --corpus my.txt --normalize --grid d_model=128,256 --grid n_layers=2,4 --steps 5000
      Your own grid; the last key varies fastest.
  diapason tune --corpus my.txt --normalize --grid d_model=64,128,256 --budget 10min
      Which of them is the best for ten minutes of training: each has as many steps as fit.
  diapason tune --corpus my.txt --grid d_model=64,128 --grid n_layers=1,2,4,8 --rule halving
      The same choice for less training: what falls behind is stopped at a few steps on the way.
  diapason tune --corpus my.txt --range learning_rate=1e-4..1e-2:log --sampler tpe --samples 30
      Thirty learning rates, drawn where losses are low.
  diapason tune --corpus my.txt --recipe fast --budget 60s --ablate qk_norm=false --ablate ngram_table=0,3
      What two parts of a recipe are worth: the recipe, and three variants of it.
  diapason tune --corpus my.txt --grid d_model=64,128 --until-decided
      More seeds of what the verdict needs them of, until it is decided.
  diapason tune --corpus builtin:english --seeds 3 --set batch_size=32 --out my-study --json
      Three seeds per configuration; one JSON object on stdout.

The keys of --grid and --set, with defaults: `diapason config`."
)]
pub(crate) struct Tune {
    #[command(flatten)]
    pub(crate) text: Text,

    /// Run the notebook's protocol as it was
    ///
    /// Evaluation after 1, 1001, 2001, ... updates and the last, each time on a fresh random batch of 1024
    /// windows; early is where its rule stops (the fifth evaluation that improves by more than 1e-3); the
    /// full result is the last loss. Cells that the rule would have lost are marked.
    #[arg(long, help_heading = "Search")]
    pub(crate) as_seed: bool,

    /// Values to try for one key; give --grid once per key. Replaces the default grid
    #[arg(long, value_name = "KEY=V,V...", help_heading = "Search")]
    pub(crate) grid: Vec<String>,

    /// Change one key at a time: the base as it is, and each of these values alone; once per key
    ///
    /// `--recipe fast --ablate qk_norm=false --ablate ngram_table=0,3,8` trains five configurations, not eight, and the table
    /// says what each change makes of the loss. With --grid this is done to every configuration of the grid.
    #[arg(
        long,
        value_name = "KEY=V,V...",
        conflicts_with_all = ["range", "sampler", "samples", "enqueued"],
        help_heading = "Search"
    )]
    pub(crate) ablate: Vec<String>,

    /// Draw one key from a range instead: learning_rate=1e-4..1e-2:log or d_model=64..256:step=32; once per key
    ///
    /// With ranges, --samples configurations are drawn instead of all combinations; keys of --grid are drawn too, each from
    /// its values. `:log` draws orders of magnitude evenly, `:step=S` only LOW, LOW + S, ... Numbers are rounded to four
    /// digits or so. What makes no model (n_heads does not divide d_model), or has been drawn before, is drawn again.
    #[arg(long, value_name = "KEY=LOW..HIGH", value_parser = range, help_heading = "Search")]
    pub(crate) range: Vec<Range>,

    /// What draws them: random or tpe [default: random]
    ///
    /// tpe draws where losses were low: after 10 random samples it goes in rounds of 4, each in the light of all before it.
    /// tpe:startup=10,round=4 are its options, seed=N one of both. The same is drawn for any number of workers.
    #[arg(long, value_name = "SAMPLER", value_parser = sampler, help_heading = "Search")]
    pub(crate) sampler: Option<Sampler>,

    /// How many configurations to draw [default: 16]
    #[arg(long, value_name = "N", value_parser = |text: &str| between(text, 1, 100_000), help_heading = "Search")]
    pub(crate) samples: Option<u64>,
    /// A preset of keys; those given by --set win over it. `diapason config --recipe NAME` prints it
    #[arg(long, value_name = "NAME", value_parser = recipes(), help_heading = "Search")]
    pub(crate) recipe: Option<String>,

    /// Set one key for every configuration; `diapason config` lists the keys
    #[arg(long, value_name = "KEY=V", help_heading = "Search")]
    pub(crate) set: Vec<String>,

    /// Training steps of a full run: short for --set steps=N
    #[arg(long, value_name = "N", value_parser = whole::<u64>, help_heading = "Search")]
    pub(crate) steps: Option<u64>,

    /// Train each configuration for the same budget instead of the same steps: 60s, 10min, 2h, 2e9chars, 1e15flop
    ///
    /// Each then has steps of its own, as many as the budget pays for; schedules, evaluations and the early read-out go by
    /// them. Characters are those trained on, FLOP those of the model by the usual count. For a budget of time, steps of every
    /// configuration are timed before the study begins, alone on all threads, and each gets as many as fit.
    /// Evaluations are not counted, and trials side by side take longer. study.toml keeps the times, so that whoever goes on
    /// with the study has the same steps; what was not timed then cannot be added, and tpe, which draws later, takes chars or flop.
    #[arg(
        long,
        value_name = "BUDGET",
        value_parser = |text: &str| text.parse::<Budget>(),
        conflicts_with_all = ["as_seed", "enqueued"],
        help_heading = "Search"
    )]
    pub(crate) budget: Option<Budget>,

    /// How many seeds to train each configuration with [default: 1]
    #[arg(long, value_name = "N", value_parser = |text: &str| between(text, 1, 100_000), help_heading = "Search")]
    pub(crate) seeds: Option<u64>,

    /// Go on until the verdict is decided: train more seeds of exactly those configurations that it needs them of
    ///
    /// When all trials are done, the verdict says what is missing, as "2 more seeds of A and B". These are trained, and so
    /// on, until it is decided, or --max-seeds is reached, or more seeds would not help: then the last line says why.
    #[arg(long, help_heading = "Search")]
    pub(crate) until_decided: bool,

    /// With --until-decided: the most seeds of one configuration, not fewer than --seeds [default: 8]
    #[arg(
        long,
        value_name = "N",
        value_parser = |text: &str| between(text, 2, 100_000),
        requires = "until_decided",
        help_heading = "Search"
    )]
    pub(crate) max_seeds: Option<u64>,

    /// How much worse than the best loss is still as good, as a fraction or per cent: 0.01 or 1% [default: 1%]
    #[arg(long, value_name = "T", value_parser = tolerance, help_heading = "Search")]
    pub(crate) tolerance: Option<f64>,

    /// What "cheapest" means
    ///
    /// Costs within their own noise of the cheapest acceptable one are ties, which the lower loss decides: for seconds
    /// 10 %, or what they scattered by when they were measured, if that is more; nothing for the other two.
    #[arg(long, value_enum, value_name = "COST", default_value_t = Cost::Seconds, help_heading = "Search")]
    pub(crate) cost: Cost,

    /// Stop trials that fall behind: halving:eta=2, hyperband:eta=3, median, patience:N [default: none]
    ///
    /// With halving, all configurations are trained up to a tenth of their steps and compared there; about one in eta
    /// goes on to eta times the steps, from its checkpoint, until a few are trained to the end. What goes on is what the
    /// verdict could still choose: the cheapest within the tolerance, the best, one between, then the front of cost and
    /// loss, then the lowest losses; two at least. Hyperband does so in several brackets that begin to compare at
    /// different steps. Both are reproducible with any number of workers. halving:asynchronous does not wait for all, and is not reproducible; first=N is the
    /// first step of comparison. median:startup=5,warmup=0.2 ends a trial at an evaluation where it is worse than half
    /// of the complete trials were there, once 5 are complete and a fifth of its steps is done; it is not reproducible when
    /// several trials run at once. patience:N ends a trial after N evaluations without improvement: short for --set
    /// patience=N. `diapason replay` says what a rule would have done to a study that is finished.
    #[arg(long, value_name = "RULE", value_parser = rule, help_heading = "Search")]
    pub(crate) rule: Option<Rule>,

    /// Where the early read-out lies, as a fraction of the steps; 0: no early read-out
    #[arg(
        long,
        value_name = "F",
        default_value_t = 0.2,
        value_parser = fraction,
        conflicts_with = "as_seed",
        help_heading = "Search"
    )]
    pub(crate) early: f64,

    /// No grid: train the trials that other programs enqueue, as Python's `study.enqueue_trial` does
    ///
    /// With --storage and --study this works on a study that Python's Optuna made. Their parameters are keys of the
    /// configuration, and `seed`; --set and --steps say the rest.
    #[arg(long, conflicts_with_all = ["grid", "seeds", "range", "sampler", "samples"], help_heading = "Search")]
    pub(crate) enqueued: bool,

    #[command(flatten)]
    pub(crate) place: Place,

    #[command(flatten)]
    pub(crate) working: Working,

    /// The study's folder [default: studies/NAME, by corpus and protocol]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,

    /// End with one JSON object on stdout instead of the table
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Work on a study that `tune` has begun, beside other workers.
///
/// Any number of workers, on any number of machines, share a study through its database. Each trial is claimed by one of
/// them. A worker that is killed leaves its trial to the others, who go on from its last checkpoint if they see the same
/// folder, else from step 0. Results are the same to the last bit as those of one worker alone.
///
/// The study knows its text and its settings: a worker needs the address only. It ends when the study is finished.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  diapason worker --storage studies/quick/study.db
      A second worker on this machine, for a study that `diapason tune` has begun.
  diapason worker --storage postgresql://me@db.example.org/studies --study text8 --out /shared/text8
      A worker on any machine. The password comes from PGPASSWORD or ~/.pgpass.

docs/studies.md has examples for Slurm, Kubernetes and GNU parallel.")]
pub(crate) struct Worker {
    #[command(flatten)]
    pub(crate) place: Place,

    /// The study's text, where it lies elsewhere on this machine [default: as `tune` was told]
    #[arg(long, value_name = "CORPUS", help_heading = "Text")]
    pub(crate) corpus: Option<String>,

    #[command(flatten)]
    pub(crate) working: Working,

    /// Leave when no trial is to be had; else wait for those that others have, in case one of them dies
    #[arg(long, help_heading = "Machine")]
    pub(crate) no_wait: bool,

    /// The folder of the checkpoints; share it, and trials are taken over where they were left [default: that of the
    /// database file, or studies/NAME]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
}

/// Where a study's database is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Study")]
pub(crate) struct Place {
    /// The database: a file, a study's folder, sqlite:///FILE or postgresql://USER@HOST/DATABASE
    ///
    /// Or DIAPASON_STORAGE. A password belongs into PGPASSWORD or ~/.pgpass; what is left out of the URL comes from PGHOST,
    /// PGPORT, PGUSER, PGDATABASE, PGSSLMODE and their kin. [default: study.db in the study's folder]
    #[arg(long, value_name = "URL")]
    pub(crate) storage: Option<String>,

    /// The study's name in the database [default: the only one of a file; on a server, the name that `tune` gives]
    #[arg(long, value_name = "NAME")]
    pub(crate) study: Option<String>,
}

/// How a process works on a study.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Machine")]
pub(crate) struct Working {
    #[command(flatten)]
    pub(crate) machine: Machine,

    /// Trials at once, each on its share of the threads [default: whatever ends the study soonest]
    ///
    /// Results do not depend on it. Before training, a few steps of each configuration are timed alone on all
    /// threads and side by side, and the trials run in the way that ends sooner. When fewer are left, each gets
    /// more threads.
    #[arg(long, value_name = "N", value_parser = |text: &str| between(text, 1, 1024))]
    pub(crate) parallel: Option<u64>,

    /// Go on with a run that another version or instruction set began; it is then marked
    #[arg(long)]
    pub(crate) allow_other_engine: bool,

    /// Seconds of silence after which this worker's trials are given to another
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = |text: &str| between(text, 2, 86_400))]
    pub(crate) lease: u64,

    /// Write curves for TensorBoard below this folder, one folder for each trial
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) tensorboard: Option<PathBuf>,
}

/// What a configuration costs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Cost {
    /// Training time: that of a step, measured alone and in turns at the start on one machine, times the steps; where
    /// timing is not worth its time, the training time as it went by
    Seconds,
    /// Floating-point operations, the same on every machine
    Flop,
    /// Size of the model
    Parameters,
}

/// Train one configuration.
///
/// Writes a checkpoint about once a minute and when interrupted; `best.safetensors` keeps the weights of the
/// best evaluation, `curve.csv` the losses. Resuming gives the same bits as running through.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    after_long_help = "\
Examples:
  diapason train --corpus text8 --out runs/first
      The default model (d_model 256, 8 heads, 4 layers) for 20,000 steps.
  diapason train --corpus text8 --out runs/first --resume
      Go on after an interruption.
  diapason train --corpus my.txt --normalize --set d_model=128 --set n_layers=2 --steps 2000 --seed 7
      A smaller model on your own text.
  diapason train --corpus text8 --set schedule=linear --budget 60min
      As good a model as an hour allows: the learning rate falls to zero as the hour ends.
  diapason train --corpus my.txt --normalize --init runs/first/best.safetensors --out runs/second
      Start from weights that were trained elsewhere.

The keys of --set, with defaults: `diapason config`."
)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) text: Text,

    /// A preset of keys; those given by --set win over it. `diapason config --recipe NAME` prints it
    #[arg(long, value_name = "NAME", value_parser = recipes(), help_heading = "Training")]
    pub(crate) recipe: Option<String>,

    /// Set one key of the configuration; `diapason config` lists the keys
    #[arg(long, value_name = "KEY=V", help_heading = "Training")]
    pub(crate) set: Vec<String>,

    /// Training steps: short for --set steps=N
    #[arg(long, value_name = "N", value_parser = whole::<u64>, help_heading = "Training")]
    pub(crate) steps: Option<u64>,

    /// End with a budget instead of after --steps: 60min, 90s, 2h, 2e9chars, 1e15flop
    ///
    /// Characters are those trained on, FLOP those of the model by the usual count; both choose the number of steps, and the run is
    /// the same each time. Time includes evaluations; schedules follow it, so that the run ends on the minute. Such a run
    /// can be resumed, but no run is like another.
    #[arg(long, value_name = "BUDGET", value_parser = |text: &str| text.parse::<Budget>(), help_heading = "Training")]
    pub(crate) budget: Option<Budget>,

    /// Seed of the initial weights and of the training windows
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>, help_heading = "Training")]
    pub(crate) seed: u64,

    /// Start from the weights of this safetensors file instead of random ones
    ///
    /// Or of a run, by its folder: those of its best evaluation. Of a run that averages its weights it is their average, as
    /// `eval` has it, also from checkpoint.safetensors.
    #[arg(long, value_name = "WEIGHTS", help_heading = "Training")]
    pub(crate) init: Option<PathBuf>,

    /// Go on from the checkpoint in --out
    ///
    /// Where there is none, the run starts at step 0, with a warning: the same command can begin a run and go on with it.
    #[arg(long, help_heading = "Training")]
    pub(crate) resume: bool,

    #[command(flatten)]
    pub(crate) machine: Machine,

    /// Go on with a run that another version or instruction set began; it is then marked
    #[arg(long, help_heading = "Machine")]
    pub(crate) allow_other_engine: bool,

    /// Write curves for TensorBoard into this folder
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) tensorboard: Option<PathBuf>,

    /// The run's folder [default: runs/NAME, by corpus and configuration]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,

    /// End with one JSON object on stdout instead of a line of text
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Score a checkpoint on a whole split.
///
/// The split is cut into non-overlapping windows of the model's sequence_length, the remainder being one
/// short window, so that every character but the first is predicted exactly once. With --stride the windows
/// overlap and each scores only its last STRIDE characters: every character then has a long context.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    after_long_help = "\
Examples:
  diapason eval runs/first/best.safetensors
      Validation split of the text it was trained on.
  diapason eval runs/first/best.safetensors --split test --json
      Test split, as one JSON object.
  diapason eval runs/first/best.safetensors --stride 8
      Each character with at least 24 characters of context (at sequence_length 32).
  diapason eval runs/first/best.safetensors --corpus other.txt --normalize
      Another text than the one it was trained on."
)]
pub(crate) struct Eval {
    /// A checkpoint: best.safetensors or checkpoint.safetensors, or the folder of a run
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) checkpoint: PathBuf,

    #[command(flatten)]
    pub(crate) text: Text,

    /// Which split to score
    #[arg(long, value_enum, value_name = "SPLIT", default_value_t = Split::Validation)]
    pub(crate) split: Split,

    /// Number format of the matrix products: f32, half or auto [default: that of the run]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub(crate) precision: Option<PrecisionChoice>,

    /// Score only the last N characters of each window, and move on by N
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) stride: Option<usize>,

    #[command(flatten)]
    pub(crate) machine: Machine,

    /// One JSON object on stdout
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// The splits that a checkpoint can be scored on.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Split {
    /// The split that decides between configurations
    Validation,
    /// The split that nothing has seen
    Test,
}

/// Write text with a trained model.
///
/// The text, prompt included, goes to stdout as it is made. The same seed gives the same text. With --texts, several
/// texts go on from the prompt, each as it would be alone, in far less time than one after the other.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    after_long_help = "\
Examples:
  diapason generate runs/first/best.safetensors --prompt 'the history of '
  diapason generate runs/first/best.safetensors --length 1000 --temperature 0.7 --seed 3
  diapason generate runs/first/best.safetensors --prompt 'in the ' --texts 8
      Eight texts, with the seeds 0 to 7, each below a line with its seed.
  diapason generate runs/first/best.safetensors --texts 100 --json
      One JSON object; its array `texts` has objects with `seed` and `text`.
  diapason generate runs/first/best.safetensors --temperature 0
      Always the likeliest character."
)]
pub(crate) struct Generate {
    /// A checkpoint: best.safetensors or checkpoint.safetensors, or the folder of a run
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) checkpoint: PathBuf,

    /// What the text begins with; its characters must be in the model's alphabet [default: nothing]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,

    /// How many characters to add
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = whole::<usize>)]
    pub(crate) length: usize,

    /// Randomness: 1 samples from the model as it is, less is safer, 0 takes the likeliest character
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = number)]
    pub(crate) temperature: f64,

    /// Choose among the K likeliest characters only
    #[arg(long, value_name = "K", value_parser = whole::<usize>)]
    pub(crate) top_k: Option<usize>,

    /// Seed of the choices
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,

    /// How many texts to write, with the seeds SEED, SEED + 1, ...
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = |text: &str| between(text, 1, 1_000_000))]
    pub(crate) texts: u64,

    #[command(flatten)]
    pub(crate) machine: Machine,

    /// One JSON object on stdout
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Fetch, inspect and convert texts.
#[derive(Clone, Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum Corpus {
    /// Download a named corpus; prints where it lies
    ///
    /// Goes on where a broken download stopped, and checks the digest.
    #[command(after_long_help = "Example:\n  diapason corpus fetch text8")]
    Fetch {
        /// The corpus: text8
        #[arg(value_name = "NAME", default_value = "text8")]
        name: String,
    },

    /// Turn a text into an array of symbols: a .npy file of uint8 that numpy.load reads
    ///
    /// In the text8 alphabet, a to z are 0 to 25 and space is 26.
    #[command(after_long_help = "\
Examples:
  diapason corpus encode text8_train.txt train_text_int.npy
  diapason corpus encode book.txt book.npy --normalize")]
    Encode {
        /// The text
        #[arg(value_name = "TEXT")]
        input: PathBuf,
        /// The array to write
        #[arg(value_name = "ARRAY.npy")]
        output: PathBuf,
        /// Which characters the text may have: text8, auto, bytes
        #[arg(long, value_name = "NAME", default_value = "text8")]
        alphabet: diapason_corpus::AlphabetKind,
        /// Apply text8's rules first
        #[arg(long)]
        normalize: bool,
    },

    /// Turn an array of symbols back into text
    #[command(after_long_help = "\
Examples:
  diapason corpus decode train_text_int.npy | head -c 100
  diapason corpus decode train_text_int.npy text8_train.txt")]
    Decode {
        /// The array, uint8
        #[arg(value_name = "ARRAY.npy")]
        input: PathBuf,
        /// The text to write [default: stdout]
        #[arg(value_name = "TEXT")]
        output: Option<PathBuf>,
        /// Alphabet that the array was made with: text8 or bytes
        #[arg(long, value_name = "NAME", default_value = "text8")]
        alphabet: diapason_corpus::AlphabetKind,
    },

    /// Reduce any UTF-8 text to the 27 characters of text8
    ///
    /// Lower case, digits spelled out, everything else to single spaces. Reads and writes in a stream, so
    /// the text may be larger than memory.
    #[command(after_long_help = "\
Examples:
  diapason corpus normalize book.txt book27.txt
  cat *.txt | diapason corpus normalize - > all27.txt")]
    Normalize {
        /// The text; - is stdin
        #[arg(value_name = "TEXT")]
        input: PathBuf,
        /// The text to write [default: stdout]
        #[arg(value_name = "OUTPUT")]
        output: Option<PathBuf>,
    },

    /// Say what a corpus is: alphabet, splits, digest, entropy rate where it is known
    #[command(after_long_help = "\
Examples:
  diapason corpus info builtin:english
  diapason corpus info my.txt --alphabet auto --json")]
    Info {
        /// The corpus, as --corpus takes it
        #[arg(value_name = "CORPUS", conflicts_with = "corpus")]
        name: Option<String>,
        #[command(flatten)]
        text: Text,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
}

/// Apply the decision rule to a table of results.
///
/// The table is a CSV file with the columns `seconds` and `loss`; all other columns are parameters. Or it is the
/// results.csv of a study, or the study's folder, which stands for it. The rule: the cheapest configuration whose loss is within the tolerance of the best. A table
/// has no intervals, so losses are taken as they are; `tune` says how certain a choice is. The last line printed is the
/// choice.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    after_long_help = "\
Example:
  $ cat table.csv
  d_model,n_heads,n_layers,seconds,loss
  256,8,4,331.1,1.3307
  256,8,8,652.1,1.3208
  $ diapason decide table.csv
  ...
  chosen: d_model=256 n_heads=8 n_layers=4
  $ diapason decide studies/quick --pass early --tolerance 2%"
)]
pub(crate) struct Decide {
    /// The table, CSV with a header line; or the folder of a study
    #[arg(value_name = "TABLE.csv")]
    pub(crate) table: PathBuf,

    /// How much worse than the best loss is still as good, as a fraction or per cent: 0.01 or 1%
    #[arg(long, value_name = "T", value_parser = tolerance, default_value = "0.01")]
    pub(crate) tolerance: f64,

    /// What "cheapest" means: the column of the table that has the cost
    #[arg(long, value_enum, value_name = "COST", default_value_t = Cost::Seconds)]
    pub(crate) cost: Cost,

    /// Which reading of a study's results to decide on [default: full, if any run has come so far]
    #[arg(long, value_enum, value_name = "PASS")]
    pub(crate) pass: Option<Pass>,
}

/// The readings of a study's runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Pass {
    /// At the early step
    Early,
    /// At the end
    Full,
}

/// Say what a stopping rule would have done to a study that is finished.
///
/// The study's curves are played through once more under each rule: what it would have chosen, how much loss that choice
/// costs, how much training would have been saved. Nothing is trained and nothing is written. Rules decide here as they do
/// in `tune --rule`; one that depends on timing is played as with one worker.
///
/// For each rule: the configuration that it would have chosen; its loss, as far as the rule trains it; by how much its loss in
/// the whole study is above that of the study's own choice (`regret`) and above the lowest (`to best`); how many trials the
/// rule ends before their end; the steps it trains; how much of the steps, and of the cost, it saves.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Rules:
  halving:eta=2[,first=STEP][,asynchronous]   successive halving
  hyperband:eta=3[,first=STEP]                the same in brackets
  median:startup=5,warmup=0.2                 ends what is worse than half of those before it
  patience:N                                  ends after N evaluations without improvement
  as-seed                                     the notebook's early stopping
  none                                        all to the end

Examples:
  diapason replay quick --rule halving --rule as-seed
  diapason replay text8 --storage postgresql://anna@db.example.org/studies --rule median --json")]
pub(crate) struct Replay {
    /// Name of the study, or its folder; may be left out where --storage has one study
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) database: Database,

    /// A stopping rule; give --rule once for each
    #[arg(long, value_name = "RULE", value_parser = rule, required = true)]
    pub(crate) rule: Vec<Rule>,

    /// One JSON object on stdout, with every decision at rungs
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// List the keys of the configuration: name, default, meaning; or the values that a recipe has.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  diapason config
  diapason config learning_rate
  diapason config --recipe fast
  diapason config --json")]
pub(crate) struct ShowConfig {
    /// Only this key
    #[arg(value_name = "KEY")]
    pub(crate) key: Option<String>,

    /// The values of this preset in place of the defaults
    #[arg(long, value_name = "NAME", value_parser = recipes())]
    pub(crate) recipe: Option<String>,

    /// One JSON object on stdout
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Time the engine beside this machine's limits.
///
/// What is compared (a step and the peak of fused multiply-adds on registers, scoring and training, generation and
/// reading the weights, trials at once and alone) is measured in turns in the same run, so that both see the same clock and the same
/// neighbours. Figures are medians over the turns.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    after_long_help = "\
Examples:
  diapason bench
  diapason bench --set d_model=512 --set batch_size=128 --threads 1 --json
  diapason bench --set precision=half
      A training step in half precision, beside one in f32.
  diapason bench evaluation --set n_layers=8
  diapason bench generation
  diapason bench trials --threads 2
  diapason bench sweep
      Some 130 shapes, about four minutes.
  diapason bench sweep --set d_model=256 --set batch_size=64
      Those shapes of the table that have these sizes."
)]
pub(crate) struct Bench {
    /// What to time
    #[arg(value_enum, value_name = "WHAT", default_value_t = What::Step)]
    pub(crate) what: What,

    /// A preset of keys; those given by --set win over it. `diapason config --recipe NAME` prints it
    #[arg(long, value_name = "NAME", value_parser = recipes())]
    pub(crate) recipe: Option<String>,

    /// Set one key of the configuration; `diapason config` lists the keys
    #[arg(long, value_name = "KEY=V")]
    pub(crate) set: Vec<String>,

    /// How long to measure, seconds; for the sweep, each shape [default: 10; sweep: 1]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,

    #[command(flatten)]
    pub(crate) machine: Machine,

    /// One JSON object on stdout
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// What `bench` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// A training step, against the arithmetic peak
    Step,
    /// Scoring a text, against training on it
    Evaluation,
    /// Writing one text and many at once, against reading the weights and the arithmetic peak
    Generation,
    /// As many trials at once as --threads says, one thread each, against each alone
    Trials,
    /// A training step in a table of shapes, each against the arithmetic peak
    Sweep,
}

/// Look at studies: list, show, export, delete.
///
/// A study is an Optuna study in a database. Without --storage and DIAPASON_STORAGE that is studies/NAME/study.db, as
/// `tune` makes it; studies that Python made are shown just as well. docs/studies.md has more.
#[derive(Clone, Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum Study {
    List(ListStudies),
    Show(ShowStudy),
    Export(ExportStudy),
    Delete(DeleteStudy),
}

/// Which database to look into.
#[derive(Args, Clone, Debug)]
pub(crate) struct Database {
    /// The database: a file, a study's folder, sqlite:///FILE or postgresql://USER@HOST/DATABASE
    ///
    /// A password belongs into PGPASSWORD or ~/.pgpass. [default: DIAPASON_STORAGE, else the study's folder]
    #[arg(long, value_name = "URL")]
    pub(crate) storage: Option<String>,
}

/// List studies: trials in each state, best value, when it was begun.
///
/// Those of --storage or DIAPASON_STORAGE, else of every studies/*/study.db.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  diapason study list
  diapason study list --storage postgresql://anna@db.example.org/studies --json")]
pub(crate) struct ListStudies {
    #[command(flatten)]
    pub(crate) database: Database,

    /// One JSON object on stdout
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Show a page of the trials of a study, or all of one trial.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  diapason study show quick
  diapason study show quick --state running
  diapason study show quick --from 100 --limit 100 --json
  diapason study show quick --trial 7
      Parameters, attributes, who works on it, and its curve.")]
pub(crate) struct ShowStudy {
    /// Name of the study, or its folder; may be left out where --storage has one study
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) database: Database,

    /// The lowest number of a trial to show
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = trial_number)]
    pub(crate) from: i64,

    /// How many trials to show, at most 100
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = |text: &str| between(text, 1, 100))]
    pub(crate) limit: u64,

    /// Only trials in this state
    #[arg(long, value_enum, value_name = "STATE")]
    pub(crate) state: Option<State>,

    /// All of this one trial
    #[arg(long, value_name = "N", value_parser = trial_number, conflicts_with_all = ["from", "limit", "state"])]
    pub(crate) trial: Option<i64>,

    /// One JSON object on stdout
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// The states of a trial.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum State {
    /// Not begun
    Waiting,
    /// Begun and not finished
    Running,
    /// Finished with a value
    Complete,
    /// Ended by a comparison
    Pruned,
    /// Ended without a result
    Fail,
}

/// Write all trials of a study as CSV or JSON.
///
/// CSV has the columns that Optuna's `trials_dataframe` has: number, state, value, datetime_start,
/// datetime_complete, params_*, user_attrs_*; every trial is one line. What is no number is written so that terminals
/// and spreadsheets do not obey it: control characters as \u{1b}, and with an apostrophe before = + - @. JSON has
/// everything, unchanged, with the curves; NaN and infinities are texts there.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  diapason study export quick --out quick.csv
  diapason study export quick --format jsonl | jq .values")]
pub(crate) struct ExportStudy {
    /// Name of the study, or its folder; may be left out where --storage has one study
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) database: Database,

    /// How to write it
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Csv, help_heading = "Output")]
    pub(crate) format: Format,

    /// The file to write [default: stdout]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
}

/// What `study export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table
    Csv,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
}

/// Delete a study from its database.
///
/// Asks first, if there is a terminal to ask. A study that somebody is working on is not deleted. The files in the
/// study's folder stay, unless --files.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  diapason study delete quick
  diapason study delete quick --files --yes
      What the program wrote into the study's folder too; your own files in it stay.")]
pub(crate) struct DeleteStudy {
    /// Name of the study, or its folder
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) database: Database,

    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,

    /// Delete the files in the study's folder too: checkpoints, reports, study.toml
    #[arg(long)]
    pub(crate) files: bool,

    /// Delete it although somebody is working on it
    #[arg(long)]
    pub(crate) force: bool,
}

/// What of the machine to use.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Machine")]
pub(crate) struct Machine {
    /// Number of threads; results do not depend on it [default: the cores that this process may use]
    #[arg(long, value_name = "N", value_parser = |text: &str| between(text, 1, 1024))]
    threads: Option<u64>,
}

impl From<Cost> for diapason_study::Cost {
    fn from(cost: Cost) -> Self {
        match cost {
            Cost::Seconds => Self::Seconds,
            Cost::Flop => Self::Flop,
            Cost::Parameters => Self::Parameters,
        }
    }
}

impl Machine {
    /// The number of threads to use.
    pub(crate) fn threads(self) -> usize {
        match self.threads {
            // At most 1024: the parser has checked.
            Some(n) => n as usize,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Reads a whole number, as `--set` does: `2000` or `20_000`.
fn whole<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let plain = text.trim();
    let digits = plain.replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || plain.starts_with('_') {
        return Err("must be a whole number, 0 or more, as in 2000 or 20_000".to_string());
    }
    digits.parse().ok().and_then(|n: u64| n.try_into().ok()).ok_or_else(|| "is too large".to_string())
}

/// Reads a whole number from `low` to `high`.
fn between(text: &str, low: u64, high: u64) -> Result<u64, String> {
    match whole(text) {
        Ok(n) if (low..=high).contains(&n) => Ok(n),
        _ => Err(format!("must be a whole number from {low} to {high}")),
    }
}

/// Reads the number of a trial, which databases keep in 31 bits.
fn trial_number(text: &str) -> Result<i64, String> {
    whole::<i32>(text).map(i64::from)
}

/// Reads any number.
fn number(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| "must be a number, as in 0.8".to_string())
}

/// Reads `0.01` or `1%`.
fn tolerance(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 && value * scale < 1.0 => Ok(value * scale),
        Ok(_) => Err("must lie between 0 and 1 (0 and 100%)".to_string()),
        Err(_) => Err("is not a number; write 0.01 or 1%".to_string()),
    }
}

/// Reads a stopping rule.
fn rule(text: &str) -> Result<Rule, String> {
    text.parse().map_err(|error: RuleError| format!("{error}; {}", error.hint()))
}

/// Reads what draws samples.
fn sampler(text: &str) -> Result<Sampler, String> {
    text.parse().map_err(|error: SearchError| error.to_string())
}

/// Reads a key with a range.
fn range(text: &str) -> Result<Range, String> {
    text.parse().map_err(|error: SearchError| error.to_string())
}

/// Reads a number from 0 to 1.
fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be a number from 0 to 1".to_string()),
    }
}

/// The names of the presets.
fn recipes() -> PossibleValuesParser {
    PossibleValuesParser::new(RECIPES.map(|recipe| recipe.name))
}

/// A path that can be written into a checkpoint or a study. The parser has refused what is not UTF-8.
fn path_of_text(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

/// Reads a precision, as `--set` does.
fn precision(text: &str) -> Result<PrecisionChoice, String> {
    let mut config = Config::default();
    match config.set("precision", text) {
        Ok(()) => Ok(config.precision),
        Err(_) => Err("must be f32, half or auto".to_string()),
    }
}

/// Reads a duration between a hundredth of a second and a day.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.01..=86_400.0).contains(&value) => Ok(value),
        _ => Err("must be a number of seconds, 0.01 to 86400".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn whole_numbers() {
        assert_eq!(whole::<u64>("20_000"), Ok(20_000));
        assert_eq!(whole::<usize>(" 0 "), Ok(0));
        for text in ["", "_", "-5", "1e4", "2.5", "many", "+3", "18446744073709551616"] {
            assert!(whole::<u64>(text).is_err(), "{text}");
        }
        assert_eq!(between("7", 1, 7), Ok(7));
        assert!(between("0", 1, 7).is_err() && between("8", 1, 7).is_err());
        assert_eq!(number("0.8"), Ok(0.8));
        assert!(number("hot").is_err());
    }

    #[test]
    fn tolerances() {
        assert_eq!(tolerance("0.01"), Ok(0.01));
        assert_eq!(tolerance("1%"), Ok(0.01));
        assert_eq!(tolerance("0"), Ok(0.0));
        assert!(tolerance("-1%").is_err());
        assert!(tolerance("nan").is_err());
        assert!(tolerance("100%").is_err());
        assert!(tolerance("much").is_err());
    }
}
