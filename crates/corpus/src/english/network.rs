//! The grammar as a finite network of choice points, and what can be computed from it exactly.
//!
//! A [`State`] is a choice point: a few weighted [`Step`]s, each of which says one word of a list (or
//! nothing) and leads to the next state. Weights are integers, so the same draws give the same text
//! everywhere.
//!
//! Two properties carry everything else. First, the readings of a state (what can be said next, silent steps
//! followed through) are distinct, and none begins another; so the text determines its derivation, and the
//! entropy of the text is the entropy of the choices. Second, all steps lead to states with lower numbers,
//! except those into the *starts*, where a sentence begins; so within a sentence the network has no cycles,
//! and expected visits follow in one pass.

use std::collections::HashMap;

/// Index of a [`State`].
pub(super) type StateId = u32;
/// Index of a [`WordList`].
pub(super) type ListId = u32;

/// The id of the space; `a` to `z` are 0 to 25.
pub(super) const SPACE: u8 = 26;

/// Words (or fixed phrases) with probabilities.
pub(super) struct WordList {
    /// Character ids of each entry, with the space that follows it.
    pub(super) words: Vec<Vec<u8>>,
    /// `cumulative[i]` is the sum of the weights of the entries up to and including i.
    cumulative: Vec<u32>,
    /// Entropy of the choice, in nats.
    pub(super) entropy: f64,
    /// Expected length, in characters.
    mean_length: f64,
}

impl WordList {
    fn new(entries: &[(String, u32)]) -> Self {
        let mut sum = 0;
        let cumulative: Vec<u32> = entries
            .iter()
            .map(|(_, weight)| {
                sum += weight;
                sum
            })
            .collect();
        let words: Vec<Vec<u8>> = entries.iter().map(|(word, _)| encode(word)).collect();
        let mut list = Self { words, cumulative, entropy: 0.0, mean_length: 0.0 };
        list.entropy = entropy((0..list.words.len()).map(|i| list.probability(i)));
        list.mean_length =
            (0..list.words.len()).map(|i| list.probability(i) * list.words[i].len() as f64).sum();
        list
    }

    fn total(&self) -> u32 {
        self.cumulative.last().copied().unwrap_or(0)
    }

    /// The probability of an entry.
    pub(super) fn probability(&self, index: usize) -> f64 {
        let below = if index == 0 { 0 } else { self.cumulative[index - 1] };
        f64::from(self.cumulative[index] - below) / f64::from(self.total())
    }

    /// The entry at a uniform 64-bit number.
    pub(super) fn draw(&self, random: u64) -> &[u8] {
        let at = scale(random, self.total());
        &self.words[self.cumulative.partition_point(|&sum| sum <= at)]
    }
}

/// One way to go on from a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Step {
    pub(super) weight: u32,
    /// `None`: a silent step.
    pub(super) words: Option<ListId>,
    pub(super) next: StateId,
}

/// A step that says a word of the list.
pub(super) fn say(weight: u32, words: ListId, next: StateId) -> Step {
    Step { weight, words: Some(words), next }
}

/// A step that says nothing.
pub(super) fn skip(weight: u32, next: StateId) -> Step {
    Step { weight, words: None, next }
}

/// A choice point.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) steps: Vec<Step>,
    total: u32,
}

impl State {
    fn new(steps: Vec<Step>) -> Self {
        let total = steps.iter().map(|step| step.weight).sum();
        Self { steps, total }
    }

    /// The probability of a step.
    pub(super) fn probability(&self, step: &Step) -> f64 {
        f64::from(step.weight) / f64::from(self.total)
    }

    /// The step at a uniform 64-bit number.
    pub(super) fn draw(&self, random: u64) -> Step {
        let mut at = scale(random, self.total);
        for step in &self.steps {
            if at < step.weight {
                return *step;
            }
            at -= step.weight;
        }
        self.steps[self.steps.len() - 1]
    }
}

/// The network and its stationary behaviour.
pub(super) struct Network {
    pub(super) states: Vec<State>,
    pub(super) lists: Vec<WordList>,
    /// Where every text begins; never returned to.
    pub(super) opening: StateId,
    /// Expected arrivals at each state by a spoken word, per sentence, in the stationary regime.
    pub(super) arrivals: Vec<f64>,
    /// Entropy of a sentence's choices, in nats.
    pub(super) entropy_per_sentence: f64,
    /// Expected characters of a sentence.
    pub(super) characters_per_sentence: f64,
}

impl Network {
    /// Nats per character.
    pub(super) fn entropy_rate(&self) -> f64 {
        self.entropy_per_sentence / self.characters_per_sentence
    }

    /// Expected visits to and spoken arrivals at each state during one sentence from `start`, and the
    /// probabilities of the start of the next.
    fn sentence(&self, start: StateId, starts: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let mut visits = vec![0.0; self.states.len()];
        let mut arrivals = vec![0.0; self.states.len()];
        let mut ends = vec![0.0; starts];
        let mut pass = |id: usize, visits: &mut [f64]| {
            let state = &self.states[id];
            for step in &state.steps {
                let mass = visits[id] * state.probability(step);
                if step.words.is_some() {
                    arrivals[step.next as usize] += mass;
                }
                match ends.get_mut(step.next as usize) {
                    Some(end) => *end += mass,
                    None => visits[step.next as usize] += mass,
                }
            }
        };
        visits[start as usize] = 1.0;
        pass(start as usize, &mut visits);
        for id in (starts..self.states.len()).rev() {
            if visits[id] > 0.0 {
                pass(id, &mut visits);
            }
        }
        (visits, arrivals, ends)
    }

    /// Fills in the stationary quantities; states `0..starts` are the starts of sentences.
    fn solve(&mut self, starts: usize) {
        let sentences: Vec<_> = (0..starts).map(|start| self.sentence(start as StateId, starts)).collect();
        let weights = stationary(sentences.iter().map(|(_, _, ends)| ends.clone()).collect());
        let mut visits = vec![0.0; self.states.len()];
        for (weight, (v, a, _)) in weights.iter().zip(&sentences) {
            for id in 0..self.states.len() {
                visits[id] += weight * v[id];
                self.arrivals[id] += weight * a[id];
            }
        }
        for (id, state) in self.states.iter().enumerate() {
            let mut nats = entropy(state.steps.iter().map(|step| state.probability(step)));
            let mut characters = 0.0;
            for step in &state.steps {
                if let Some(list) = step.words {
                    let list = &self.lists[list as usize];
                    nats += state.probability(step) * list.entropy;
                    characters += state.probability(step) * list.mean_length;
                }
            }
            self.entropy_per_sentence += visits[id] * nats;
            self.characters_per_sentence += visits[id] * characters;
        }
    }
}

/// Collects the states and lists of a network; equal ones become one.
pub(super) struct Builder {
    states: Vec<State>,
    numbers: HashMap<State, StateId>,
    lists: Vec<WordList>,
    list_numbers: HashMap<Vec<(String, u32)>, ListId>,
    starts: usize,
}

impl Builder {
    /// A builder with `starts` sentence starts, to be filled by [`Builder::start`].
    pub(super) fn new(starts: usize) -> Self {
        Self {
            states: vec![State::default(); starts],
            numbers: HashMap::new(),
            lists: Vec::new(),
            list_numbers: HashMap::new(),
            starts,
        }
    }

    /// The state with these steps.
    pub(super) fn state(&mut self, steps: Vec<Step>) -> StateId {
        let state = State::new(steps);
        if let Some(&id) = self.numbers.get(&state) {
            return id;
        }
        let id = self.states.len() as StateId;
        self.states.push(state.clone());
        self.numbers.insert(state, id);
        id
    }

    /// Makes `steps` the start `id`.
    pub(super) fn start(&mut self, id: StateId, steps: Vec<Step>) {
        self.states[id as usize] = State::new(steps);
    }

    /// A list with given weights.
    pub(super) fn weighted(&mut self, entries: Vec<(String, u32)>) -> ListId {
        if let Some(&id) = self.list_numbers.get(&entries) {
            return id;
        }
        let id = self.lists.len() as ListId;
        self.lists.push(WordList::new(&entries));
        self.list_numbers.insert(entries, id);
        id
    }

    /// A list in order of frequency: the word of rank r (from 0) has a weight proportional to 1 / (r + 8),
    /// the law of Zipf and Mandelbrot.
    pub(super) fn words<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) -> ListId {
        let ranked = words.into_iter().zip(8..).map(|(word, rank)| (word.into(), 1_000_000 / rank));
        self.weighted(ranked.collect())
    }

    /// The finished network.
    pub(super) fn finish(self, opening: StateId) -> Network {
        let mut network = Network {
            arrivals: vec![0.0; self.states.len()],
            states: self.states,
            lists: self.lists,
            opening,
            entropy_per_sentence: 0.0,
            characters_per_sentence: 0.0,
        };
        network.solve(self.starts);
        network
    }
}

/// `bound` * `random` / 2^64, an integer in 0..bound.
fn scale(random: u64, bound: u32) -> u32 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u32
}

/// Lower-case words as ids, with a space after the last.
fn encode(words: &str) -> Vec<u8> {
    words
        .bytes()
        .chain([b' '])
        .map(|byte| if byte == b' ' { SPACE } else { byte.wrapping_sub(b'a') })
        .collect()
}

/// -sum p ln p, in nats.
pub(super) fn entropy(probabilities: impl Iterator<Item = f64>) -> f64 {
    probabilities.filter(|&p| p > 0.0).map(|p| -p * libm::log(p)).sum()
}

/// The stationary distribution of an irreducible Markov chain with transition matrix `p` (rows sum to 1), by
/// the elimination of Grassmann, Taksar and Heyman (1985), which never subtracts.
fn stationary(mut p: Vec<Vec<f64>>) -> Vec<f64> {
    let n = p.len();
    for k in (1..n).rev() {
        let leaving: f64 = p[k][..k].iter().sum();
        for i in 0..k {
            p[i][k] /= leaving;
            for j in 0..k {
                p[i][j] += p[i][k] * p[k][j];
            }
        }
    }
    let mut weights = vec![1.0; n];
    for k in 1..n {
        weights[k] = (0..k).map(|i| weights[i] * p[i][k]).sum();
    }
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}
