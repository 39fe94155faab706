//! What a training step may not do once it runs: allocate, read or write, take a lock. And what the engine has
//! allocated by then: what it said.
//!
//! Allocations are counted by the allocator, over all threads. For everything else the system is asked: after some
//! steps the process forbids itself all system calls but the wait and wake of a sleeping thread, and is killed at the
//! first other one. Each of these tests runs in a process of its own, which is this program again with a role.

use diapason_corpus::windows::{Windows, training_windows};
use diapason_engine::{
    Batch, CpuEngine, Engine, Optimizer, Precision, Scores, Shape, Update, Updating, memory_needed,
    memory_of_updates,
};
use diapason_model::{Activation, LossPositions, ModelConfig, Norm, Positions, initialise};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::process::{Command, Stdio};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The environment variable that gives a process of this program its role.
const ROLE: &str = "DIAPASON_TEST_ROLE";

/// Steps until all room has been made.
const FIRST: u64 = 3;
/// Steps that are watched.
const WATCHED: u64 = 20;

/// A run without all that lies around its steps.
struct Run {
    engine: CpuEngine,
    text: Vec<u8>,
    windows: Windows,
    step: u64,
    update: Update,
}

impl Run {
    fn new(parts: ModelConfig, precision: Precision, threads: usize, update: Update) -> Self {
        let model = ModelConfig {
            vocabulary: 27,
            d_model: 64,
            n_heads: 4,
            n_layers: 2,
            mlp_ratio: 4.0,
            max_len: 32,
            ..parts
        };
        let shape = Shape { batch_size: 20, sequence_length: 32 };
        let parameters = initialise(&model, 0);
        let mut engine = CpuEngine::with_precision(precision, model, &parameters, threads, shape).unwrap();
        engine.keep_average(true);
        let text = (0..10_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u8 % 27).collect();
        Self { engine, text, windows: Windows::default(), step: 0, update }
    }

    /// Windows, forward, loss, backward, update.
    fn steps(&mut self, count: u64) {
        for _ in 0..count {
            training_windows(&self.text, 0, self.step, 20, 32, &mut self.windows);
            self.step += 1;
            self.engine.draw_masks(0, self.step);
            let update = Update { number: self.step, ..self.update };
            let Windows { inputs, targets, sequence_length } = &self.windows;
            let batch = Batch { inputs, targets, sequence_length: *sequence_length };
            assert!(self.engine.step(batch, &update).loss.is_finite());
        }
    }
}

/// The notebook's parts, and most of the others.
fn parts() -> [ModelConfig; 3] {
    let seed = ModelConfig::default();
    let fast = ModelConfig {
        norm: Norm::RmsNorm,
        positions: Positions::Rotary,
        activation: Activation::ReluSquared,
        mlp_bias: false,
        qk_norm: true,
        logit_softcap: 15.0,
        embedding_norm: true,
        ngram_table: 2,
        value_residual: true,
        ..seed
    };
    let other = ModelConfig {
        positions: Positions::Sinusoidal,
        activation: Activation::Swiglu,
        ngram_table: 5,
        ngram_rows: 3000,
        embedding_residual: true,
        dropout: 0.1,
        loss_positions: LossPositions::Last,
        ..seed
    };
    [seed, fast, other]
}

/// This program again, to run nothing but `test` in `role`.
fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(ROLE, role).stdin(Stdio::null());
    command
}

#[test]
fn steps_allocate_nothing() {
    if std::env::var_os(ROLE).is_none() {
        let output = again("steps_allocate_nothing", "counted").output().unwrap();
        assert!(output.status.success(), "{output:#?}");
        return;
    }
    let plain = Update::default();
    let clipping = Update { gradient_clip: 0.1, average: 0.1, ..plain };
    let by_unit = Update { adaptive_clip: 0.01, optimizer: Optimizer::Muon, ..plain };
    // Not too many: after a minute the test harness itself allocates, to say that it has taken a minute.
    let kinds = [(1, Precision::F32), (2, Precision::F32), (3, Precision::F32), (2, Precision::Half)];
    for ((threads, precision), parts) in kinds.into_iter().flat_map(|kind| parts().map(|parts| (kind, parts)))
    {
        let update = [plain, clipping, by_unit][threads - 1];
        let mut run = Run::new(parts, precision, threads, update);
        run.steps(FIRST);
        let region = Region::new(ALLOCATOR);
        run.steps(WATCHED);
        let change = region.change();
        let calls = change.allocations + change.reallocations + change.deallocations;
        assert_eq!(calls, 0, "{threads} threads, {precision:?}: {change:?}");
        // Nor do evaluations of one size.
        let n = 96 * 32;
        let (inputs, targets) = (&run.text[..n], &run.text[1..=n]);
        let batch = Batch { inputs, targets, sequence_length: 32 };
        let mut scores = Scores::default();
        run.engine.evaluate(batch, &mut scores);
        let region = Region::new(ALLOCATOR);
        run.engine.evaluate(batch, &mut scores);
        let change = region.change();
        assert_eq!(change.allocations + change.reallocations, 0, "evaluation, {threads} threads: {change:?}");
        // The counter counts, on other threads too.
        std::thread::spawn(|| drop(vec![0u8; 100])).join().unwrap();
        assert!(region.change().allocations >= 1);
    }
}

#[test]
fn memory_is_what_was_said() {
    if std::env::var_os(ROLE).is_none() {
        let output = again("memory_is_what_was_said", "counted").output().unwrap();
        assert!(output.status.success(), "{output:#?}");
        return;
    }
    let [seed, fast, other] = parts();
    let model = |vocabulary, d_model, n_layers, parts: ModelConfig| ModelConfig {
        vocabulary,
        d_model,
        n_heads: 4,
        n_layers,
        mlp_ratio: 4.0,
        max_len: 64,
        ..parts
    };
    let tied = ModelConfig { tie_embeddings: true, ..seed };
    let cases = [
        (model(27, 64, 2, seed), 20, 32),
        (model(27, 128, 2, seed), 1, 64),
        (model(27, 128, 1, tied), 100, 8),
        (model(256, 20, 3, seed), 4, 8),
        (model(256, 64, 1, tied), 7, 50),
        (model(27, 128, 3, fast), 20, 32),
        (model(27, 64, 2, other), 40, 32),
    ];
    for (model, batch_size, sequence_length) in cases {
        for (threads, precision, updating) in [
            (1, Precision::F32, Updating::default()),
            (3, Precision::F32, Updating::default()),
            (2, Precision::Half, Updating { clips: true, averages: true, ..Updating::default() }),
            (3, Precision::F32, Updating { optimizer: Optimizer::Muon, ..Updating::default() }),
        ] {
            let shape = Shape { batch_size, sequence_length };
            // A batch, and an evaluation larger than it.
            let symbols =
                vec![1u8; (batch_size * sequence_length).max(8192 / sequence_length * sequence_length)];
            let batch = |positions: usize| {
                let (inputs, targets) = (&symbols[..positions], &symbols[..positions]);
                Batch { inputs, targets, sequence_length }
            };
            let mut scores = Scores::default();
            let region = Region::new(ALLOCATOR);
            let parameters = initialise(&model, 0);
            let mut engine =
                CpuEngine::with_precision(precision, model, &parameters, threads, shape).unwrap();
            drop(parameters);
            let Updating { optimizer, clips, averages } = updating;
            engine.keep_average(averages);
            let update = Update {
                optimizer,
                gradient_clip: if clips { 1.0 } else { 0.0 },
                average: if averages { 1.0 } else { 0.0 },
                ..Update::default()
            };
            engine.step(batch(batch_size * sequence_length), &update);
            engine.evaluate(batch(symbols.len()), &mut scores);
            scores = Scores::default();
            let change = region.change();
            let has = change.bytes_allocated as f64 + change.bytes_reallocated as f64
                - change.bytes_deallocated as f64;
            let updates = memory_of_updates(&model, updating, threads);
            let said = (memory_needed(&model, precision, shape, threads) + updates) as f64;
            // Names, ranges and tables are not counted.
            let little = 100_000.0;
            assert!(
                (has - said).abs() < 0.02 * said + little,
                "{model:?} {precision:?} {shape:?} {updating:?} on {threads}: {has} bytes, said {said}"
            );
            drop((engine, scores));
        }
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod system_calls {
    use super::{FIRST, ModelConfig, Optimizer, Precision, ROLE, Run, Update, WATCHED, again};
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };
    use std::collections::BTreeMap;
    use std::error::Error;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    /// What a process says when it has come through. Nothing else of this length is let through.
    const THROUGH: &str = "no other system call was made\n";

    /// From here on this process is killed at any system call, of any of its threads, but futex (the wait and wake of
    /// a sleeping thread), restart_syscall (the wait goes on after the process was stopped), clock_gettime (where the
    /// clock is not read without the kernel), and the writing of [`THROUGH`] to stdout.
    fn forbid() -> Result<(), Box<dyn Error>> {
        let argument = |index, length, value| SeccompCondition::new(index, length, SeccompCmpOp::Eq, value);
        let to_stdout = argument(0, SeccompCmpArgLen::Dword, 1)?;
        let of_the_length = argument(2, SeccompCmpArgLen::Qword, THROUGH.len() as u64)?;
        let rules = BTreeMap::from([
            (libc::SYS_futex, vec![]),
            (libc::SYS_restart_syscall, vec![]),
            (libc::SYS_clock_gettime, vec![]),
            (libc::SYS_write, vec![SeccompRule::new(vec![to_stdout, of_the_length])?]),
        ]);
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            std::env::consts::ARCH.try_into()?,
        )?;
        let program: BpfProgram = filter.try_into()?;
        Ok(seccompiler::apply_filter_all_threads(&program)?)
    }

    /// The process with a role: some steps freely, then some under the filter; then waits to be killed, since ending
    /// takes more system calls.
    fn watched(role: &str) {
        let optimizer = if role.contains("+muon") { Optimizer::Muon } else { Optimizer::Adam };
        let threads = role.split('+').next().and_then(|threads| threads.parse().ok()).unwrap();
        let update = Update { optimizer, ..Update::default() };
        let mut run = Run::new(ModelConfig::default(), Precision::F32, threads, update);
        run.steps(FIRST);
        let mut out = std::io::stdout().lock();
        out.flush().unwrap();
        if let Err(error) = forbid() {
            writeln!(out, "\nnot permitted: {error}").unwrap();
            return;
        }
        run.steps(WATCHED);
        if role.ends_with("+control") {
            let _ = std::fs::metadata("/");
        }
        out.write_all(THROUGH.as_bytes()).unwrap();
        out.flush().unwrap();
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn steps_only_wait_and_wake() {
        if let Ok(role) = std::env::var(ROLE) {
            return watched(&role);
        }
        for (role, comes_through) in
            [("1", true), ("2", true), ("3", true), ("2+muon", true), ("2+control", false)]
        {
            let mut command = again("system_calls::steps_only_wait_and_wake", role);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut through = false;
            let mut lines = Vec::new();
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                lines.push(line.unwrap());
                through = lines.last().is_some_and(|line| line.ends_with(THROUGH.trim_end()));
                if through {
                    break;
                }
            }
            let _ = child.kill();
            let status = child.wait().unwrap();
            if let Some(refusal) = lines.iter().find(|line| line.starts_with("not permitted")) {
                // Not through a macro: the harness would keep it to itself.
                let _ = writeln!(std::io::stderr(), "SKIPPED: seccomp is {refusal}");
                return;
            }
            if comes_through {
                assert!(through, "{role} threads: a step made another system call: {status}; {lines:?}");
            } else {
                assert!(
                    !through && status.signal() == Some(libc::SIGSYS),
                    "the filter does not kill: {lines:?}"
                );
            }
        }
    }
}
