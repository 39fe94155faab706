//! Generation: one text against reading the weights, many texts at once against the multiply-add peak.
//!
//! One text at a time uses every weight once for every character, so it cannot be faster than reading the weights from where they
//! lie, which is a cache for models of this size. How fast that is, a loop that only reads finds out: as many bytes,
//! on as many threads, in turns with the text. Many texts at once use what was read many times, and come near the arithmetic
//! peak instead.

use super::{Peak, TURN, median, rounds, spread, symbols};
use crate::api::{Cache, Engine, EngineError};
use crate::cpu::{CpuEngine, Shape, cache_bytes, generation_needed};
use diapason_kernels::{Buffer, Isa, Pool, Precision, read};
use diapason_model::{ModelConfig, NgramTables, Positions, initialise};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Texts at once.
const STREAMS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// What [`generation`] found; medians over the rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Symbols in a full context.
    pub context: usize,
    /// Symbols that are read again when it is full.
    pub kept: usize,
    /// Bytes of parameters that a character needs.
    pub weight_bytes: usize,
    /// How fast so many bytes are read, again and again, 10^9 bytes per second.
    pub read_gigabytes: f64,
    /// Characters per second of one text, if reading the weights were all.
    pub bound: f64,
    /// The rate of one text between re-encodings as a fraction of the bound: the median over rounds of their ratio.
    pub bound_fraction: f64,
    /// A tenth and nine tenths of the rounds had smaller fractions.
    pub bound_spread: (f64, f64),
    /// One text, and several at once.
    pub streams: Vec<Streams>,
    /// Multiply-add peak of the same threads, 10^9 operations per second.
    pub peak_gflops: f64,
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
    /// Rounds measured.
    pub rounds: usize,
}

/// Some texts at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Streams {
    /// How many.
    pub streams: usize,
    /// Characters per second between re-encodings, of all together.
    pub rate: f64,
    /// That rate's operations as a fraction of the peak.
    pub peak_fraction: f64,
    /// The share of the time that goes into reading the last half of a full context again.
    pub reencoding: f64,
    /// Characters per second with re-encoding.
    pub whole_rate: f64,
}

/// How many texts at once there is memory for, with half of what is free.
fn counts(model: &ModelConfig, context: usize) -> Vec<usize> {
    let room = CpuEngine::memory_available().unwrap_or(u128::MAX) / 2;
    let fits = |&n: &usize| n == 1 || cache_bytes(model, 2 * n, context) <= room;
    STREAMS.into_iter().filter(fits).collect()
}

/// Bytes of parameters that one character needs: all but the rows of the tables that are not looked up.
fn weight_bytes(model: &ModelConfig) -> usize {
    let ngrams = NgramTables::new(model);
    let symbols = if model.tie_embeddings { 0 } else { model.vocabulary - 1 };
    let positions = if model.positions == Positions::Learned { model.max_len - 1 } else { 0 };
    let unread = symbols + positions + ngrams.rows() - ngrams.count();
    4 * (model.parameters() - unread * model.d_model)
}

/// Bytes that [`generation`] allocates.
pub fn generation_memory(model: &ModelConfig, context: usize, threads: usize) -> u128 {
    generation_needed(model, context, threads, &counts(model, context)) + weight_bytes(model) as u128
}

/// Room for one window.
fn shape(context: usize) -> Shape {
    Shape { batch_size: 1, sequence_length: context }
}

/// Times, in turns, generation of one and of many texts with contexts of `context` symbols (at least 2), reading as many bytes
/// as the weights have, and the multiply-add peak. Symbols are given, not drawn.
///
/// # Errors
/// As [`CpuEngine::new`].
pub fn generation(
    model: &ModelConfig,
    context: usize,
    threads: usize,
    duration: Duration,
    observe: &mut dyn FnMut(usize, usize),
) -> Result<Generation, EngineError> {
    let mut engine = CpuEngine::new(*model, &initialise(model, 0), threads, shape(context))?;
    let isa = Isa::named(&engine.id().isa).unwrap_or_else(Isa::detect);
    let bytes = weight_bytes(model);
    let mut reader = Reader::new(isa, threads, bytes);
    let mut peak = Peak::new(isa, Precision::F32, threads, TURN);
    let mut writers: Vec<Writer> =
        counts(model, context).into_iter().map(|n| Writer::new(&engine, n, context)).collect();
    let start = Instant::now();
    for writer in &mut writers {
        writer.turn(&mut engine);
        peak.rate();
        reader.rate();
    }
    let total = rounds(duration.as_secs_f64(), start.elapsed().as_secs_f64());
    let mut found: Vec<[Vec<f64>; 4]> = vec![Default::default(); writers.len()];
    let (mut reads, mut fractions, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..total {
        observe(round, total);
        for (writer, found) in writers.iter_mut().zip(&mut found) {
            let turn = writer.turn(&mut engine);
            let limit = peak.rate();
            let bandwidth = reader.rate();
            if writer.streams == 1 {
                fractions.push(turn.rate * bytes as f64 / bandwidth);
            }
            peaks.push(limit / 1e9);
            reads.push(bandwidth / 1e9);
            let fraction = writer.flop * turn.rate / limit;
            for (values, value) in
                found.iter_mut().zip([turn.rate, fraction, turn.reencoding, turn.whole_rate])
            {
                values.push(value);
            }
        }
    }
    let read_gigabytes = median(&mut reads);
    let streams = writers.iter().zip(&mut found).map(|(writer, [rates, fractions, shares, whole])| Streams {
        streams: writer.streams,
        rate: median(rates),
        peak_fraction: median(fractions),
        reencoding: median(shares),
        whole_rate: median(whole),
    });
    Ok(Generation {
        context,
        kept: kept(context),
        weight_bytes: bytes,
        read_gigabytes,
        bound: 1e9 * read_gigabytes / bytes as f64,
        bound_fraction: median(&mut fractions),
        bound_spread: spread(&mut fractions),
        streams: streams.collect(),
        peak_gflops: median(&mut peaks),
        threads: engine.threads(),
        isa: isa.name().to_string(),
        rounds: total,
    })
}

/// Symbols that are read again when a context is full: as `diapason-generation` has it.
fn kept(context: usize) -> usize {
    (context / 2).max(1)
}

/// Some texts at once, from one re-encoding to the next, again and again.
struct Writer {
    streams: usize,
    context: usize,
    symbols: Vec<u8>,
    logits: Vec<f32>,
    cache: Cache,
    /// Operations for a character between re-encodings, on average.
    flop: f64,
}

/// What a turn of a [`Writer`] found.
struct Turn {
    rate: f64,
    reencoding: f64,
    whole_rate: f64,
}

impl Writer {
    fn new(engine: &CpuEngine, streams: usize, context: usize) -> Self {
        let model = engine.model();
        let lengths = kept(context) + 1..=context;
        // A third of a training step's operations, with so many positions to attend to.
        let flop = |length| model.training_flop(1, length) / 3.0;
        Self {
            streams,
            context,
            symbols: symbols(streams * context, model.vocabulary),
            logits: vec![0.0; streams * model.vocabulary],
            cache: engine.cache(streams, context),
            flop: lengths.clone().map(flop).sum::<f64>() / lengths.count().max(1) as f64,
        }
    }

    fn turn(&mut self, engine: &mut CpuEngine) -> Turn {
        let (contexts, next) = self.symbols.split_at(self.streams * kept(self.context));
        let (mut reencoding, mut between) = (0.0, 0.0);
        let (mut first, mut others) = (0, 0);
        while between < TURN {
            let start = Instant::now();
            engine.prefill(&mut self.cache, contexts, &mut self.logits);
            reencoding += start.elapsed().as_secs_f64();
            first += self.streams;
            let start = Instant::now();
            for symbols in next.chunks_exact(self.streams) {
                engine.decode(&mut self.cache, symbols, &mut self.logits);
            }
            between += start.elapsed().as_secs_f64();
            others += next.len();
        }
        let whole = reencoding + between;
        Turn {
            rate: others as f64 / between,
            reencoding: reencoding / whole,
            whole_rate: (first + others) as f64 / whole,
        }
    }
}

/// Measures how fast some threads together read a stretch of memory.
struct Reader {
    isa: Isa,
    pool: Pool,
    data: Buffer,
}

impl Reader {
    fn new(isa: Isa, threads: usize, bytes: usize) -> Self {
        Self { isa, pool: Pool::new(threads), data: Buffer::zeroed(bytes / 4) }
    }

    /// Bytes per second in the better of the two ways to read.
    fn rate(&mut self) -> f64 {
        [false, true].into_iter().map(|way| self.rate_of(way)).fold(0.0, f64::max)
    }

    fn rate_of(&mut self, side_by_side: bool) -> f64 {
        let (isa, data) = (self.isa, &self.data[..]);
        let share = data.len().div_ceil(self.pool.threads()).max(1);
        let start = Instant::now();
        let mut times = 0;
        // The threads meet now and then only: waiting for each other is no part of the limit.
        while start.elapsed().as_secs_f64() < TURN / 2.0 {
            self.pool.run(&|thread| {
                if let Some(own) = data.chunks(share).nth(thread) {
                    for _ in 0..8 {
                        black_box(read(isa, black_box(own), side_by_side));
                    }
                }
            });
            times += 8;
        }
        (times * 4 * data.len()) as f64 / start.elapsed().as_secs_f64()
    }
}
