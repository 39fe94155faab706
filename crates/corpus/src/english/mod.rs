//! The built-in corpus: simple English whose entropy is known.
//!
//! A first run must not need a network, and a text that nobody wrote has an advantage over every real one:
//! it can be said how well it can be predicted. So `builtin:english` is drawn from a grammar of our own,
//! with its own lexicon of some fifteen hundred words and eight settings with a cast of three people each.
//! Over the 27 characters it reads like this (seed 0):
//!
//! > at the station lucy the engineer needs to unlock her kite on the silent doorstep today a nurse admires
//! > her and lucy forgets fifteen knives in the little station next year she will wind the tiny camera it is
//! > too precise and old finally frank the driver greets her on the old platform the pigeons that he likes
//! > fear him but he never misses the noisy train in the wet carriage the small nurses like laura frank
//! > repairs a small valve opposite the dark track but the maids are thin although the wind blows
//!
//! There is something to learn at every distance: spelling, which words follow which, number and tense
//! (*ninety travellers that lucy knows are clever*; *it is leather*, *they are leather*), and who is spoken
//! of where, which lasts for many sentences: only at school are there meteors, and *the teacher* is *alice*
//! and *she*.
//!
//! The grammar is a finite network of choice points (`network`), built from rules (`grammar`) and words
//! (`lexicon`). At no choice point can the same words be reached in two ways, so every text has exactly one
//! derivation. The probability of a text is that of its choices, and the entropy rate follows exactly from
//! the stationary distribution of the network:
//!
//! rate = (expected entropy of the choices of a sentence) / (expected characters of a sentence)
//!
//! which is 0.51 nats, or 0.74 bits, per character. No predictor loses less in the long run. A model
//! that sees windows of T characters and nothing before them cannot reach that rate; what it can reach at
//! best, [`window_floor`] says (`automaton`, the network letter by letter): 0.73 nats over windows of 32,
//! 0.63 over 64, 0.57 over 128.
//!
//! Choice number i of the text takes the random number at address i, and compares integers with integer
//! weights: a text is a function of its seed, the same on every machine, and begins with every shorter text
//! of that seed.

mod automaton;
mod grammar;
mod lexicon;
mod network;

use std::sync::OnceLock;

use diapason_random::{Purpose, Stream};

use automaton::Automaton;
use network::Network;

pub use automaton::WindowFloor;

/// How many windows suffice for a floor in a report: at T = 32 the standard error of its mean is below 0.002
/// nats, and a call takes about a second.
pub const FLOOR_WINDOWS: usize = 1000;

/// The first `chars` characters of the text of `seed`, as ids: `a` to `z` are 0 to 25, the space is 26.
pub fn generate(chars: usize, seed: u64) -> Vec<u8> {
    let network = network();
    let stream = Stream::new(seed, Purpose::Grammar, 0);
    // The last word may stand over.
    let mut text = Vec::with_capacity(chars.saturating_add(64));
    let mut state = network.opening;
    let mut choice = 0;
    while text.len() < chars {
        let [a, b, c, d] = stream.bits(choice);
        choice += 1;
        let step = network.states[state as usize].draw(u64::from(a) | u64::from(b) << 32);
        if let Some(list) = step.words {
            text.extend_from_slice(network.lists[list as usize].draw(u64::from(c) | u64::from(d) << 32));
        }
        state = step.next;
    }
    text.truncate(chars);
    text
}

/// The entropy rate of the text in nats per character: what the best possible predictor loses on average once
/// it has seen enough of the text.
pub fn entropy_rate() -> f64 {
    network().entropy_rate()
}

/// The least possible mean loss of a predictor that is given windows x_1 .. x_T at uniformly random places,
/// nothing before them, and predicts x_2 .. x_{T+1}; `t` is T. Estimated from `windows` windows
/// ([`FLOOR_WINDOWS`] is enough for a report), always the same ones. A `t` of 0 counts as 1, fewer than 2
/// windows as 2.
///
/// The first call builds the automaton (1.3 million nodes), which takes a quarter of a second; a call needs up
/// to 120 MB.
pub fn window_floor(t: usize, windows: usize) -> WindowFloor {
    static AUTOMATON: OnceLock<Automaton> = OnceLock::new();
    let automaton = AUTOMATON.get_or_init(|| Automaton::new(network()));
    automaton::window_floor(network(), automaton, t.max(1), windows.max(2))
}

fn network() -> &'static Network {
    static NETWORK: OnceLock<Network> = OnceLock::new();
    NETWORK.get_or_init(grammar::network)
}

#[cfg(test)]
mod tests;
