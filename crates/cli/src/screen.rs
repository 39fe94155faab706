//! A few lines at the bottom of the terminal that are drawn again and again, with what is over above them.
//!
//! Written here, because a window may be made narrower while they stand: terminals then break lines that are too long,
//! and whoever goes up by as many rows as it has written leaves the upper ones behind. So a line is never longer than
//! the window was, never filled up with spaces, and before it is drawn again its rows are counted at the width that
//! the window has now. Each picture is one write: nothing flickers. A terminal that is gone is no reason to stop.

use console::{Term, measure_text_width};
use std::io::{IsTerminal, Write};

/// Lines at the bottom of the terminal, on stderr.
pub(crate) struct Screen {
    term: Term,
    /// How wide each line is that stands there.
    drawn: Vec<usize>,
}

impl Screen {
    /// None where stderr is no terminal, or one that cannot go back.
    pub(crate) fn new() -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        (std::io::stderr().is_terminal() && !dumb).then(|| Self { term: Term::stderr(), drawn: Vec::new() })
    }

    /// Rows and columns.
    pub(crate) fn size(&self) -> (usize, usize) {
        let (rows, columns) = self.term.size();
        (usize::from(rows).max(2), usize::from(columns).max(2))
    }

    /// Draws `lines` in the place of those that stand there, with `above` before them, which stays.
    pub(crate) fn draw(&mut self, above: &str, lines: &[String]) {
        let (rows, columns) = self.size();
        let (text, drawn) = picture(&self.drawn, above, lines, rows, columns);
        self.drawn = drawn;
        let _ = self.term.write_all(text.as_bytes()).and_then(|()| self.term.flush());
    }
}

/// What is written, and how wide its lines are.
fn picture(
    drawn: &[usize],
    above: &str,
    lines: &[String],
    rows: usize,
    columns: usize,
) -> (String, Vec<usize>) {
    // A line as wide as the window leaves the cursor in one row or the next, as terminals like it.
    let room = columns - 1;
    let standing: usize = drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
    let mut text = String::from("\r");
    if standing > 1 {
        text += &format!("\x1b[{}A", (standing - 1).min(rows - 1));
    }
    text += "\x1b[J";
    if !above.is_empty() {
        text += above;
        text.push('\n');
    }
    let lines: Vec<String> =
        lines.iter().map(|line| console::truncate_str(line, room, "").into_owned()).collect();
    text += &lines.join("\n");
    (text, lines.iter().map(|line| measure_text_width(line)).collect())
}

/// Whether the terminal's language has characters beyond ASCII: the first of the three variables that is set says it.
pub(crate) fn unicode() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    is_unicode(["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).as_deref())
}

fn is_unicode(locale: Option<&str>) -> bool {
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn a_picture_takes_the_place_of_the_one_before() {
        let (text, drawn) = picture(&[], "", &lines(&["one", "three"]), 24, 80);
        assert_eq!((text.as_str(), &drawn[..]), ("\r\x1b[Jone\nthree", &[3, 5][..]));
        let (text, drawn) = picture(&drawn, "done", &lines(&["two"]), 24, 80);
        assert_eq!((text.as_str(), &drawn[..]), ("\r\x1b[1A\x1b[Jdone\ntwo", &[3][..]));
        let (text, drawn) = picture(&drawn, "", &[], 24, 80);
        assert_eq!((text.as_str(), drawn.len()), ("\r\x1b[J", 0));
    }

    #[test]
    fn a_narrower_window_has_broken_the_lines() {
        let (text, drawn) = picture(&[79, 60], "", &lines(&[&"x".repeat(79)]), 24, 40);
        assert_eq!(text, format!("\r\x1b[3A\x1b[J{}", "x".repeat(39)));
        assert_eq!(drawn, [39]);
        // No further than there are rows.
        assert!(picture(&[79; 9], "", &[], 4, 10).0.starts_with("\r\x1b[3A"));
    }

    #[test]
    fn locales() {
        for (locale, expected) in [
            (Some("C.UTF-8"), true),
            (Some("de_DE.utf8"), true),
            (Some("C"), false),
            (Some("de_DE.ISO-8859-1"), false),
            (None, false),
        ] {
            assert_eq!(is_unicode(locale), expected, "{locale:?}");
        }
    }
}
