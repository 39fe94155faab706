//! Text in HTML, and what a page needs around its content.
//!
//! Names, values and error texts come from outside: from a command line, from a database that others can write to.
//! Whatever is not this program's own markup goes through [`text`], in elements and in attributes alike. Should one
//! place ever be forgotten, the page's policy still lets nothing be loaded or sent.

use diapason_storage::printable;

/// Whom the page may ask for anything: nobody. Its own style and its own few lines of script are in it.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Seconds after which a page of a running study is read again.
const REFRESH: u32 = 10;

/// Text as an element or an attribute holds it; what would be obeyed or hidden is written out.
pub(super) fn text(plain: &str) -> String {
    let plain = printable(plain);
    let mut escaped = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The same for text whose lines count.
pub(super) fn lines(plain: &str) -> String {
    plain.split('\n').map(text).collect::<Vec<_>>().join("\n")
}

/// A whole page. `body` is markup. While a study runs the page is read again by itself.
pub(super) fn page(title: &str, running: bool, body: &str) -> String {
    let refresh = match running {
        true => format!("<meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n"),
        false => String::new(),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n{refresh}\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        text(title)
    )
}

/// A section with a heading; nothing if there is nothing in it.
pub(super) fn section(heading: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>{}</h2>\n{content}</section>\n", text(heading))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_markup_is_text() {
        assert_eq!(text("<b a='\"'>&\u{1b}"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;\\u{1b}");
        assert_eq!(lines("a\n<b>"), "a\n&lt;b&gt;");
        assert_eq!(section("x", ""), "");
    }
}
