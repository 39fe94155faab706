//! What both Rust peers share: the model's sizes, the data that `run` prepared, and the conversation with `run`.
//!
//! The conversation is that of `../common.py`, word for word: `--check` prints one JSON object about correctness
//! and ends; otherwise the peer takes its first step, says `started`, and then answers each line on standard
//! input, a number of seconds, with the times of the training steps that it made in them.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Instant;

pub const D_MODEL: usize = 256;
pub const N_HEADS: usize = 8;
pub const N_LAYERS: usize = 4;
pub const VOCABULARY: usize = 27;
pub const WINDOWS: usize = 64;
pub const T: usize = 32;
pub const NORM_EPSILON: f64 = 1e-6;
const CHECK_STEPS: usize = 20;

/// A tensor as it lies in the file: row-major numbers and sizes.
#[derive(Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// Tensors by the names of Diapason's checkpoints.
pub type Named = BTreeMap<String, Array>;

/// One batch: `WINDOWS * T` symbols, and those one further.
pub struct Batch {
    pub inputs: Vec<u32>,
    pub targets: Vec<u32>,
}

/// One framework's model and optimizer.
pub trait Peer: Sized {
    const PACKAGE: &str;
    fn new(weights: &Named) -> Result<Self, Box<dyn Error>>;
    /// Forward, loss, backward, update; the loss is that before the update. The gradients are kept where asked for.
    fn step(&mut self, batch: &Batch, gradients: Option<&mut Named>) -> Result<f32, Box<dyn Error>>;
    fn parameters(&self) -> Result<Named, Box<dyn Error>>;
}

struct Data {
    weights: Named,
    text: Vec<u32>,
    starts: Vec<u32>,
}

impl Data {
    fn read(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let bytes = fs::read(folder.join("weights.safetensors"))?;
        let mut weights = Named::new();
        for (name, view) in safetensors::SafeTensors::deserialize(&bytes)?.tensors() {
            let numbers = view.data().chunks_exact(4);
            let data = numbers.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            weights.insert(name, Array { shape: view.shape().to_vec(), data });
        }
        let text = fs::read(folder.join("text.txt"))?;
        let text = text.iter().map(|&c| if c == b' ' { 26 } else { u32::from(c - b'a') }).collect();
        let starts = fs::read(folder.join("starts.u32"))?;
        let starts = starts.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Self { weights, text, starts })
    }

    fn batch(&self, step: usize) -> Batch {
        let steps = self.starts.len() / WINDOWS;
        let starts = &self.starts[step % steps * WINDOWS..][..WINDOWS];
        let rows = |shift: usize| {
            starts.iter().flat_map(|&start| &self.text[start as usize + shift..][..T]).copied().collect()
        };
        Batch { inputs: rows(0), targets: rows(1) }
    }
}

/// The whole program of a peer: `--data FOLDER [--check]`.
pub fn main<P: Peer>() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder =
        arguments.iter().skip_while(|a| *a != "--data").nth(1).ok_or("usage: --data FOLDER [--check]")?;
    let data = Data::read(Path::new(folder))?;
    let mut peer = P::new(&data.weights)?;
    if arguments.iter().any(|a| a == "--check") {
        return say(check(&mut peer, &data)?);
    }
    let mut number = 0;
    let mut step = |peer: &mut P| -> Result<(f64, f32), Box<dyn Error>> {
        let start = Instant::now();
        let loss = peer.step(&data.batch(number), None)?;
        number += 1;
        Ok((1e3 * start.elapsed().as_secs_f64(), loss))
    };
    let (_, first) = step(&mut peer)?;
    say(json!({ "event": "started", "loss": first }))?;
    for line in io::stdin().lock().lines() {
        let seconds: f64 = line?.trim().parse()?;
        step(&mut peer)?; // The caches are another program's by now.
        let (mut times, mut loss) = (Vec::new(), 0.0);
        let start = Instant::now();
        while times.len() < 2 || start.elapsed().as_secs_f64() < seconds {
            let (time, now) = step(&mut peer)?;
            times.push(time);
            loss = now;
        }
        say(json!({ "event": "turn", "ms": times, "loss": loss }))?;
    }
    Ok(())
}

/// What shows that the peer trains the whole model.
fn check<P: Peer>(peer: &mut P, data: &Data) -> Result<Value, Box<dyn Error>> {
    let before = peer.parameters()?;
    let mut gradients = Named::new();
    let mut losses = vec![peer.step(&data.batch(0), Some(&mut gradients))?];
    for number in 1..CHECK_STEPS {
        losses.push(peer.step(&data.batch(number), None)?);
    }
    let after = peer.parameters()?;
    let idle: Vec<&String> = before.keys().filter(|name| gradients.get(*name).is_none_or(is_zero)).collect();
    let squares = gradients.values().flat_map(|x| &x.data).map(|&x| f64::from(x) * f64::from(x));
    let changed = |(name, x): (&String, &Array)| {
        after.get(name).map_or(0, |y| x.data.iter().zip(&y.data).filter(|(a, b)| a != b).count())
    };
    Ok(json!({
        "versions": { P::PACKAGE: version(P::PACKAGE)? },
        "parameters": before.values().map(|x| x.data.len()).sum::<usize>(),
        "without_gradient": idle,
        "gradient_norm": squares.sum::<f64>().sqrt(),
        "changed": before.iter().map(changed).sum::<usize>(),
        "losses": losses,
    }))
}

fn is_zero(x: &Array) -> bool {
    x.data.iter().all(|&x| x == 0.0)
}

/// The version in the lock file that this program was built from.
fn version(package: &str) -> Result<String, Box<dyn Error>> {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{package}\"\nversion = \"");
    let (_, rest) = lock.split_once(&name).ok_or("package not in Cargo.lock")?;
    Ok(rest.split('"').next().unwrap_or_default().to_string())
}

fn say(object: Value) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    writeln!(out, "{object}")?;
    Ok(out.flush()?)
}
