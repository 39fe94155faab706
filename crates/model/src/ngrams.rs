//! Tables of n-grams: which rows an embedding has beside that of its own symbol.

use crate::ModelConfig;

/// The longest n-grams that can have a table.
pub const LONGEST_NGRAM: usize = 8;

/// 2^64 over the golden ratio: Knuth's multiplicative hashing.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// The tables of a model, for the last 2, 3, .. `ngram_table` symbols, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NgramTables {
    vocabulary: u64,
    tables: Vec<Table>,
}

/// The table of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    /// First row.
    start: usize,
    rows: usize,
    /// Whether each n-gram has a row of its own.
    own: bool,
}

impl NgramTables {
    /// Of this model; none if it has no n-grams.
    pub fn new(model: &ModelConfig) -> Self {
        let vocabulary = model.vocabulary as u64;
        let mut start = 0;
        let tables = (2..=model.ngram_table)
            .map(|n| {
                let all = u128::from(vocabulary) * (u128::from(vocabulary) + 1).pow(n as u32 - 1);
                let own = all <= model.ngram_rows as u128;
                let rows = if own { all as usize } else { model.ngram_rows };
                start += rows;
                Table { start: start - rows, rows, own }
            })
            .collect();
        Self { vocabulary, tables }
    }

    /// Number of tables.
    pub fn count(&self) -> usize {
        self.tables.len()
    }

    /// Rows of all tables together.
    pub fn rows(&self) -> usize {
        self.tables.last().map_or(0, |table| table.start + table.rows)
    }

    /// Tells `each` the row of position `t` of `window` in every table.
    ///
    /// A position before the window counts as the symbol V. Where a table has a row for each n-gram, the symbols are the digits of its number,
    /// the last one lowest. Elsewhere the row is hashed: from the last symbol to the first h = (h + symbol + 1) x 2^64 / golden ratio, modulo
    /// 2^64, its upper half then also laid over the lower one (exclusive or); the upper half, as a fraction, is the place in the table. Some
    /// n-grams then share a row.
    #[inline]
    pub fn each_row(&self, window: &[u8], t: usize, mut each: impl FnMut(usize)) {
        let last = u64::from(window[t]);
        let (mut code, mut digit, mut hash) = (last, self.vocabulary, mixed(0, last));
        for (back, &Table { start, rows, own }) in (1..).zip(&self.tables) {
            let symbol = t.checked_sub(back).map_or(self.vocabulary, |at| u64::from(window[at]));
            hash = mixed(hash, symbol);
            let row = if own {
                // Tables with all n-grams come before the others: neither of these grows beyond their rows' number times V + 1.
                code += symbol * digit;
                digit *= self.vocabulary + 1;
                code as usize
            } else {
                (((hash >> 32) * rows as u64) >> 32) as usize
            };
            each(start + row);
        }
    }
}

/// One step of the hash.
#[inline]
fn mixed(hash: u64, symbol: u64) -> u64 {
    let hash = hash.wrapping_add(symbol + 1).wrapping_mul(FACTOR);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(vocabulary: usize, ngram_table: usize, ngram_rows: usize) -> NgramTables {
        NgramTables::new(&ModelConfig { vocabulary, ngram_table, ngram_rows, ..ModelConfig::default() })
    }

    fn rows(tables: &NgramTables, window: &[u8], t: usize) -> Vec<usize> {
        let mut rows = Vec::new();
        tables.each_row(window, t, |row| rows.push(row));
        rows
    }

    #[test]
    fn sizes() {
        assert_eq!(tables(27, 0, 1000).rows(), 0);
        assert_eq!(tables(27, 2, 1000).rows(), 27 * 28);
        assert_eq!(tables(27, 3, 1 << 15).rows(), 27 * 28 + 27 * 28 * 28);
        assert_eq!(tables(27, 5, 1 << 15).rows(), 27 * 28 + 27 * 28 * 28 + 2 * (1 << 15));
        assert_eq!(tables(256, 8, 5).rows(), 7 * 5);
        assert_eq!(tables(1, 8, 1 << 20).count(), 7);
    }

    #[test]
    fn each_ngram_has_a_row_of_its_own_where_there_is_room() {
        let tables = tables(3, 3, 1000);
        let mut seen = vec![0; tables.rows()];
        for n in [2, 3] {
            for t in 0..n {
                // Every content of the t positions before and the one itself.
                for code in 0..3usize.pow(t as u32 + 1) {
                    let window: Vec<u8> = (0..=t).map(|i| (code / 3usize.pow(i as u32) % 3) as u8).collect();
                    seen[rows(&tables, &window, t)[n - 2]] += 1;
                }
            }
        }
        assert!(seen.iter().all(|&count| count <= 1), "{seen:?}");
        assert!(seen[..3 * 4].iter().all(|&count| count == 1), "{seen:?}");
        // A symbol cannot be missing behind one that is there.
        assert_eq!(seen[3 * 4..].iter().filter(|&&count| count == 0).count(), 3 * 3);
    }

    #[test]
    fn as_written_down() {
        // 27 symbols: "cab" of which only "ab" has a number.
        let tables = tables(27, 4, 800);
        let found = rows(&tables, &[2, 0, 1], 2);
        assert_eq!(found[0], 1);
        let mut hash = 0u64;
        let mut expected = Vec::new();
        for symbol in [1u64, 0, 2, 27] {
            hash = hash.wrapping_add(symbol + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            hash = (hash & 0xFFFF_FFFF_0000_0000) + ((hash >> 32) ^ (hash & 0xFFFF_FFFF));
            expected.push(((u128::from(hash >> 32) * 800) >> 32) as usize);
        }
        assert_eq!(found[1..], [27 * 28 + expected[2], 27 * 28 + 800 + expected[3]]);
    }

    #[test]
    fn hashed_rows_lie_inside_and_apart() {
        let tables = tables(256, 8, 3000);
        let mut counts = vec![0usize; tables.rows()];
        let stream = diapason_random::Stream::new(1, diapason_random::Purpose::Test, 0);
        let window: Vec<u8> = (0..30_000).map(|i| stream.below(i, 256) as u8).collect();
        for t in 7..window.len() {
            for (table, row) in rows(&tables, &window, t).into_iter().enumerate() {
                assert!((table * 3000..(table + 1) * 3000).contains(&row));
                counts[row] += 1;
            }
        }
        // Ten in each on average.
        assert!(counts.iter().all(|&count| count < 40), "{:?}", counts.iter().max());
        assert!(counts.iter().filter(|&&count| count == 0).count() < 20);
        // By all symbols, in their order.
        let row = |window: &[u8]| *rows(&tables, window, 7).last().unwrap();
        assert_ne!(row(&[1, 2, 3, 4, 5, 6, 7, 8]), row(&[2, 1, 3, 4, 5, 6, 7, 8]));
        assert_ne!(row(&[1, 2, 3, 4, 5, 6, 7, 8]), row(&[1, 2, 3, 4, 5, 6, 8, 7]));
    }
}
