//! A table of text: aligned for the terminal, or in Markdown.
//!
//! Columns belong to groups (what the early pass says, what the full pass says) and have a rank. A terminal that
//! is too narrow for all shows as many ranks as fit, the lowest first; the files of a study always have all.

/// Where the text of a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// One column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Name of the group it belongs to; empty: none.
    pub(crate) group: String,
    /// Name.
    pub(crate) title: String,
    /// 0: always shown. Columns of one rank are shown together or not at all.
    pub(crate) rank: u8,
    /// Alignment.
    pub(crate) align: Align,
    /// One text per row.
    pub(crate) cells: Vec<String>,
}

impl Column {
    pub(crate) fn new(group: &str, title: &str, rank: u8, align: Align, cells: Vec<String>) -> Self {
        Self { group: group.to_string(), title: title.to_string(), rank, align, cells }
    }

    fn width(&self) -> usize {
        self.cells.iter().chain([&self.title]).map(|text| text.chars().count()).max().unwrap_or(0)
    }

    fn is_blank(&self) -> bool {
        self.cells.iter().all(String::is_empty)
    }
}

/// Spaces between columns, and between groups.
const GAP: usize = 2;

/// Columns of equal length, side by side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
}

/// Columns next to each other with the same group.
struct Group<'a> {
    name: &'a str,
    columns: Vec<&'a Column>,
    /// Width of its columns with the gaps between them, or of its name.
    width: usize,
}

impl Table {
    /// Adds a column, unless it has nothing to say.
    pub(crate) fn push(&mut self, column: Column) {
        if !column.is_blank() {
            self.columns.push(column);
        }
    }

    /// The table in at most `width` columns of text, if leaving out ranks achieves that; and whether any were left
    /// out.
    pub(crate) fn to_text(&self, width: usize) -> (String, bool) {
        let highest = self.columns.iter().map(|column| column.rank).max().unwrap_or(0);
        let mut ranks = vec![0];
        let shown = |ranks: &[u8]| -> Vec<&Column> {
            self.columns.iter().filter(|column| ranks.contains(&column.rank)).collect()
        };
        for rank in 1..=highest {
            ranks.push(rank);
            let groups = groups(&shown(&ranks));
            let needed = groups.iter().map(|group| group.width + GAP).sum::<usize>().saturating_sub(GAP);
            if needed > width {
                ranks.pop();
            }
        }
        let columns = shown(&ranks);
        (lines(&groups(&columns)).join("\n") + "\n", columns.len() < self.columns.len())
    }

    /// The table in Markdown; the group, up to a comma, is part of a column's name.
    pub(crate) fn to_markdown(&self) -> String {
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let titles = self.columns.iter().map(|column| {
            let group = column.group.split(',').next().unwrap_or_default();
            let name = format!("{group} {}", column.title);
            escape_markdown(name.trim())
        });
        let mut text = row(titles.collect());
        text += &row(self
            .columns
            .iter()
            .map(|column| match column.align {
                Align::Left => "---".to_string(),
                Align::Right => "---:".to_string(),
            })
            .collect());
        for i in 0..self.columns.first().map_or(0, |column| column.cells.len()) {
            text += &row(self.columns.iter().map(|column| escape_markdown(&column.cells[i])).collect());
        }
        text
    }
}

fn groups<'a>(columns: &[&'a Column]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for column in columns {
        match groups.last_mut() {
            Some(group) if group.name == column.group => group.columns.push(column),
            _ => groups.push(Group { name: &column.group, columns: vec![column], width: 0 }),
        }
    }
    for group in &mut groups {
        let columns = group.columns.iter().map(|column| column.width() + GAP).sum::<usize>() - GAP;
        group.width = columns.max(group.name.chars().count());
    }
    groups
}

/// Header of groups (if there are any), header of columns, rule, rows.
fn lines(groups: &[Group<'_>]) -> Vec<String> {
    let gap = " ".repeat(GAP);
    let line = |cells: Vec<String>| cells.join(&gap).trim_end().to_string();
    let mut lines = Vec::new();
    if groups.iter().any(|group| !group.name.is_empty()) {
        lines.push(line(groups.iter().map(|group| format!("{:^1$}", group.name, group.width)).collect()));
    }
    // A group that is narrower than its name is filled up on the left.
    let of_group = |group: &Group<'_>, text: &dyn Fn(&Column) -> String| {
        let cells: Vec<String> = group
            .columns
            .iter()
            .map(|column| match column.align {
                Align::Left => format!("{:<1$}", text(column), column.width()),
                Align::Right => format!("{:>1$}", text(column), column.width()),
            })
            .collect();
        format!("{:>1$}", cells.join(&gap), group.width)
    };
    lines.push(line(groups.iter().map(|group| of_group(group, &|column| column.title.clone())).collect()));
    lines.push(groups.iter().map(|group| "-".repeat(group.width)).collect::<Vec<_>>().join(&gap));
    let rows = groups.first().and_then(|group| group.columns.first()).map_or(0, |column| column.cells.len());
    for i in 0..rows {
        lines.push(line(
            groups.iter().map(|group| of_group(group, &|column| column.cells[i].clone())).collect(),
        ));
    }
    lines
}

/// Text that Markdown shows as it is: names come from outside.
pub(crate) fn escape_markdown(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\\' | '|' | '`' | '*' | '[' | ']' | '#' => escaped.extend(['\\', character]),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Text whose lines stay as they are: a block of code, fenced by more backticks than it has in a row.
pub(crate) fn block(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let lines: Vec<String> =
        text.split('\n').map(|line| diapason_storage::printable(line).into_owned()).collect();
    format!("{fence}text\n{}\n{fence}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let texts = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let mut table = Table::default();
        table.push(Column::new("", "n_heads", 0, Align::Left, texts(&["8", "16"])));
        table.push(Column::new("early, 4000 steps", "loss", 0, Align::Right, texts(&["1.4581", "1.4716"])));
        table.push(Column::new("early, 4000 steps", "bpc", 3, Align::Right, texts(&["2.104", "2.123"])));
        table.push(Column::new("full, 20000 steps", "loss", 0, Align::Right, texts(&["1.3307", "1.3434"])));
        table.push(Column::new("full, 20000 steps", "bpc", 2, Align::Right, texts(&["1.920", "1.938"])));
        table.push(Column::new("", "nothing", 0, Align::Left, texts(&["", ""])));
        table
    }

    #[test]
    fn groups_have_a_header_of_their_own() {
        let (text, dropped) = table().to_text(80);
        assert!(!dropped);
        assert_eq!(
            format!("\n{text}"),
            "
         early, 4000 steps  full, 20000 steps
n_heads        loss    bpc        loss    bpc
-------  -----------------  -----------------
8            1.4581  2.104      1.3307  1.920
16           1.4716  2.123      1.3434  1.938
"
        );
    }

    #[test]
    fn a_narrow_terminal_shows_the_ranks_that_fit() {
        let mut table = table();
        table.push(Column::new(
            "",
            "a column that fits nowhere",
            1,
            Align::Left,
            vec!["x".into(), "y".into()],
        ));
        let (text, dropped) = table.to_text(45);
        assert!(dropped);
        assert!(text.lines().all(|line| line.len() <= 45) && text.contains("bpc"), "{text}");
        // What has rank 0 stays, however narrow it gets.
        let (text, dropped) = table.to_text(10);
        assert!(dropped && text.contains("1.3434") && !text.contains("bpc"), "{text}");
    }

    #[test]
    fn markdown_shows_names_as_they_are() {
        assert_eq!(
            table().to_markdown(),
            "\
| n_heads | early loss | early bpc | full loss | full bpc |
| --- | ---: | ---: | ---: | ---: |
| 8 | 1.4581 | 2.104 | 1.3307 | 1.920 |
| 16 | 1.4716 | 2.123 | 1.3434 | 1.938 |
"
        );
        assert_eq!(escape_markdown("<b>|x\n"), "&lt;b>\\|x ");
        assert_eq!(block("a\nb"), "```text\na\nb\n```\n");
        assert_eq!(block("````"), "`````text\n````\n`````\n");
    }
}
