//! The network letter by letter, and the forward algorithm.
//!
//! A predictor that sees a window of text without what came before does not know where in the grammar the
//! window begins. The best it can do is to keep, for every place where it might be, the probability of being
//! there: the forward algorithm (Baum and Petrie, 1966; Rabiner, Proc. IEEE 77, 1989, section III A). For
//! that, each state's words become a trie, whose nodes are the places; a letter leads from a node to exactly
//! one other, so the places only become fewer as the window is read, and soon there is a single one.
//!
//! Nodes with the same future are shared where that is easy to see: equal endings of a list's words before
//! the same state, and whatever a state's trie takes over unchanged from the state that it may silently pass
//! to.

use std::collections::HashMap;

use diapason_random::{Purpose, Stream};

use super::network::{ListId, Network, SPACE, StateId, entropy};

/// Number of characters.
pub(super) const SYMBOLS: usize = SPACE as usize + 1;

/// Index of a node.
type NodeId = u32;

/// Marks the target of an edge that ends a word: the number is a state's.
const STATE: u32 = 1 << 31;

/// A letter, its probability at this node, and the node (or, while building, the state) after it.
#[derive(Clone, Copy)]
struct Edge {
    probability: f64,
    target: u32,
    letter: u8,
}

/// The nodes of all tries, with the stationary probability of each.
pub(super) struct Automaton {
    /// The edges of node n are `edges[first[n]..first[n + 1]]`, by letter.
    first: Vec<u32>,
    edges: Vec<Edge>,
    /// Probability of being at a node at a uniformly random place of an endless text.
    pub(super) mass: Vec<f64>,
    /// Entropy of the next letter at a node, in nats.
    pub(super) entropy: Vec<f64>,
}

/// What is known about the place: nodes with probabilities that sum to 1.
pub(super) type Belief = Vec<(NodeId, f64)>;

impl Automaton {
    pub(super) fn new(network: &Network) -> Self {
        let mut tries = Tries {
            network,
            first: vec![0],
            edges: Vec::new(),
            templates: HashMap::new(),
            lists: HashMap::new(),
            roots: HashMap::new(),
        };
        for state in 0..network.states.len() as StateId {
            if network.arrivals[state as usize] > 0.0 {
                tries.root(state);
            }
        }
        let Tries { first, mut edges, roots, .. } = tries;

        // The mass of a state's arrivals flows down its trie. Children have lower numbers than parents.
        let nodes = first.len() - 1;
        let mut mass = vec![0.0; nodes];
        for (state, arrivals) in (0..).zip(&network.arrivals) {
            if let Some(&root) = roots.get(&state) {
                mass[root as usize] += arrivals;
            }
        }
        for node in (0..nodes).rev() {
            for edge in &edges[first[node] as usize..first[node + 1] as usize] {
                if edge.target & STATE == 0 {
                    mass[edge.target as usize] += mass[node] * edge.probability;
                }
            }
        }
        for mass in &mut mass {
            *mass /= network.characters_per_sentence;
        }

        for edge in &mut edges {
            if edge.target & STATE != 0 {
                edge.target = roots[&(edge.target & !STATE)];
            }
        }
        let mut automaton = Self { first, edges, mass, entropy: Vec::new() };
        automaton.entropy = (0..nodes as NodeId)
            .map(|node| entropy(automaton.edges(node).iter().map(|edge| edge.probability)))
            .collect();
        automaton
    }

    /// The number of nodes.
    pub(super) fn len(&self) -> usize {
        self.mass.len()
    }

    fn edges(&self, node: NodeId) -> &[Edge] {
        &self.edges[self.first[node as usize] as usize..self.first[node as usize + 1] as usize]
    }

    /// What is known without having seen a letter.
    pub(super) fn stationary(&self) -> Belief {
        (0..).zip(self.mass.iter().copied()).filter(|&(_, mass)| mass > 0.0).collect()
    }

    /// Probabilities of the next letter.
    pub(super) fn predict(&self, belief: &Belief) -> [f64; SYMBOLS] {
        let mut probabilities = [0.0; SYMBOLS];
        for &(node, weight) in belief {
            for edge in self.edges(node) {
                probabilities[edge.letter as usize] += weight * edge.probability;
            }
        }
        probabilities
    }

    /// What is known after one more letter, for each letter that is `wanted`. `scratch` is all zeros, of the
    /// length of the automaton, before and after.
    pub(super) fn advance(
        &self,
        belief: &Belief,
        wanted: &[bool; SYMBOLS],
        scratch: &mut [f64],
    ) -> [Belief; SYMBOLS] {
        let mut after: [Belief; SYMBOLS] = Default::default();
        for &(node, weight) in belief {
            for edge in self.edges(node) {
                if wanted[edge.letter as usize] {
                    after[edge.letter as usize].push((edge.target, weight * edge.probability));
                }
            }
        }
        for belief in &mut after {
            let mut sum = 0.0;
            for &(node, weight) in belief.iter() {
                scratch[node as usize] += weight;
                sum += weight;
            }
            // The first mention of a node takes the sum of all.
            belief.retain_mut(|(node, weight)| {
                *weight = std::mem::take(&mut scratch[*node as usize]) / sum;
                *weight > 0.0
            });
        }
        after
    }
}

/// Builds the tries. Edges of a node are written at once, after those of its children.
struct Tries<'a> {
    network: &'a Network,
    first: Vec<u32>,
    edges: Vec<Edge>,
    templates: HashMap<ListId, Vec<Vec<Edge>>>,
    lists: HashMap<(ListId, StateId), NodeId>,
    roots: HashMap<StateId, NodeId>,
}

impl Tries<'_> {
    fn push(&mut self, edges: impl IntoIterator<Item = Edge>) -> NodeId {
        self.edges.extend(edges);
        self.first.push(self.edges.len() as u32);
        self.first.len() as NodeId - 2
    }

    /// The node at which all readings of `state` begin.
    fn root(&mut self, state: StateId) -> NodeId {
        if let Some(&node) = self.roots.get(&state) {
            return node;
        }
        let network = self.network;
        let steps = &network.states[state as usize];
        let parts = steps.steps.iter().map(|step| {
            let node = match step.words {
                Some(list) => self.list(list, step.next),
                None => self.root(step.next),
            };
            (node, steps.probability(step))
        });
        let parts: Belief = parts.collect();
        let node = self.mix(&parts);
        self.roots.insert(state, node);
        node
    }

    /// The node that behaves like `parts`, whose readings are distinct.
    fn mix(&mut self, parts: &Belief) -> NodeId {
        if let [(node, _)] = parts[..] {
            return node;
        }
        let mut by_letter: [(f64, Belief); SYMBOLS] = Default::default();
        for &(node, weight) in parts {
            for edge in
                &self.edges[self.first[node as usize] as usize..self.first[node as usize + 1] as usize]
            {
                let (sum, after) = &mut by_letter[edge.letter as usize];
                *sum += weight * edge.probability;
                after.push((edge.target, weight * edge.probability));
            }
        }
        let mut edges = Vec::new();
        for (letter, (probability, mut after)) in (0..).zip(by_letter) {
            if after.is_empty() {
                continue;
            }
            let target = if let [(target, _)] = after[..] {
                target
            } else {
                after.iter_mut().for_each(|(_, weight)| *weight /= probability);
                self.mix(&after)
            };
            edges.push(Edge { probability, target, letter });
        }
        self.push(edges)
    }

    /// The trie of a list's words, each followed by the state `next`.
    fn list(&mut self, list: ListId, next: StateId) -> NodeId {
        if let Some(&node) = self.lists.get(&(list, next)) {
            return node;
        }
        let network = self.network;
        let template = self.templates.entry(list).or_insert_with(|| template(network, list));
        let base = self.first.len() as u32 - 1;
        for node in template.iter() {
            self.edges.extend(node.iter().map(|edge| {
                let target = if edge.target == STATE { STATE | next } else { base + edge.target };
                Edge { target, ..*edge }
            }));
            self.first.push(self.edges.len() as u32);
        }
        let node = self.first.len() as NodeId - 2;
        self.lists.insert((list, next), node);
        node
    }
}

/// The trie of a list with equal endings shared; the root is last, and a target of `STATE` ends a word.
fn template(network: &Network, list: ListId) -> Vec<Vec<Edge>> {
    let list = &network.lists[list as usize];
    let mut words: Vec<(&[u8], f64)> =
        list.words.iter().enumerate().map(|(i, word)| (&word[..], list.probability(i))).collect();
    words.sort_by_key(|&(word, _)| word);
    let mut nodes = Vec::new();
    subtrie(&words, 0, &mut nodes, &mut HashMap::new());
    nodes
}

/// Appends the node for `words`, which agree in their first `depth` letters; returns its index.
fn subtrie(
    words: &[(&[u8], f64)],
    depth: usize,
    nodes: &mut Vec<Vec<Edge>>,
    known: &mut HashMap<Vec<(u8, u64, u32)>, u32>,
) -> u32 {
    let total: f64 = words.iter().map(|(_, probability)| probability).sum();
    let edges: Vec<Edge> = words
        .chunk_by(|(a, _), (b, _)| a[depth] == b[depth])
        .map(|group| {
            let probability = group.iter().map(|(_, probability)| probability).sum::<f64>() / total;
            let ends = group.len() == 1 && group[0].0.len() == depth + 1;
            let target = if ends { STATE } else { subtrie(group, depth + 1, nodes, known) };
            Edge { probability, target, letter: group[0].0[depth] }
        })
        .collect();
    let key = edges.iter().map(|edge| (edge.letter, edge.probability.to_bits(), edge.target)).collect();
    *known.entry(key).or_insert_with(|| {
        nodes.push(edges);
        nodes.len() as u32 - 1
    })
}

/// The least possible mean loss of a predictor that sees windows without earlier context, in nats per
/// character, estimated from a sample of windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowFloor {
    /// Mean over all T predicted positions.
    pub mean: f64,
    /// Standard error of `mean`.
    pub mean_error: f64,
    /// The last of the T positions alone: the one that sees most context.
    pub last: f64,
    /// Standard error of `last`.
    pub last_error: f64,
    /// How many windows were drawn.
    pub windows: usize,
}

/// One sampled window: its letters x_1 .. x_T, and what is added up for it.
struct Window {
    letters: Vec<u8>,
    excess: f64,
    last_excess: f64,
}

/// The floor for windows of `t` >= 1 characters, from `windows` >= 2 of them.
///
/// After the letters x_1 .. x_j of a window, let H_j be the entropy of the prediction, and h_j the mean
/// entropy of the predictions by those who know the node as well, weighted by the belief. The floor is
/// E[H_j], averaged over j, and E[h_j] is the entropy rate exactly. So only the excess H_j - h_j has to be
/// sampled: the information about the next letter that lies in the node and not in the window. It is never
/// negative, varies far less than H_j, and is 0 from where the window tells its node.
pub(super) fn window_floor(
    network: &Network,
    automaton: &Automaton,
    t: usize,
    windows: usize,
) -> WindowFloor {
    let mut sample = sample(automaton, t, windows);
    // Windows with a common beginning share its belief.
    sample.sort_by(|a, b| a.letters.cmp(&b.letters));
    let mut scratch = vec![0.0; automaton.len()];
    descend(automaton, &automaton.stationary(), &mut sample, 0, &mut scratch);

    let rate = network.entropy_rate();
    let (mean, mean_error) = mean_and_error(sample.iter().map(|window| window.excess / t as f64));
    let (last, last_error) = mean_and_error(sample.iter().map(|window| window.last_excess));
    WindowFloor { mean: rate + mean, mean_error, last: rate + last, last_error, windows }
}

/// Independent windows at uniformly random places of an endless text.
fn sample(automaton: &Automaton, t: usize, windows: usize) -> Vec<Window> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = automaton
        .mass
        .iter()
        .map(|mass| {
            sum += mass;
            sum
        })
        .collect();
    (0..windows as u64)
        .map(|window| {
            // Step 0 is the text; steps from 1 are the windows.
            let stream = Stream::new(0, Purpose::Grammar, 1 + window);
            let place = stream.unit(0) * sum;
            let mut node = cumulative.partition_point(|&sum| sum <= place) as NodeId;
            let mut letters = Vec::with_capacity(t);
            for position in 1..=t as u64 {
                let mut at = stream.unit(position);
                let edges = automaton.edges(node);
                let mut edge = edges[edges.len() - 1];
                for candidate in edges {
                    if at < candidate.probability {
                        edge = *candidate;
                        break;
                    }
                    at -= candidate.probability;
                }
                letters.push(edge.letter);
                node = edge.target;
            }
            Window { letters, excess: 0.0, last_excess: 0.0 }
        })
        .collect()
}

/// Adds the excess from position `depth` on to `windows`, which agree in their first `depth` letters, after
/// which `belief` is what is known.
fn descend(
    automaton: &Automaton,
    belief: &Belief,
    windows: &mut [Window],
    depth: usize,
    scratch: &mut [f64],
) {
    let t = windows[0].letters.len();
    if depth > 0 {
        if belief.len() == 1 {
            return;
        }
        let known: f64 = belief.iter().map(|&(node, weight)| weight * automaton.entropy[node as usize]).sum();
        let excess = entropy(automaton.predict(belief).into_iter()) - known;
        for window in windows.iter_mut() {
            window.excess += excess;
            if depth == t {
                window.last_excess = excess;
            }
        }
    }
    if depth == t {
        return;
    }
    let mut wanted = [false; SYMBOLS];
    windows.iter().for_each(|window| wanted[window.letters[depth] as usize] = true);
    let mut after = automaton.advance(belief, &wanted, scratch);
    for group in windows.chunk_by_mut(|a, b| a.letters[depth] == b.letters[depth]) {
        let belief = std::mem::take(&mut after[group[0].letters[depth] as usize]);
        descend(automaton, &belief, group, depth + 1, scratch);
    }
}

/// The mean and its standard error.
fn mean_and_error(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / (n - 1.0);
    (mean, libm::sqrt(variance / n))
}
