//! Tables that fit the terminal.

use std::io::{self, IsTerminal};

use console::{Term, measure_text_width, truncate_str};

use super::out;

/// A column is not made narrower than this.
const LEAST: usize = 8;
const GAP: &str = "  ";

/// Rows under a heading. Off a terminal nothing is cut.
#[derive(Debug)]
pub(super) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; control characters in it are made harmless.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| out::plain(&cell)).collect());
    }

    /// Writes it to stdout; where there are no rows, says `none` on stderr instead.
    pub fn print(&self, none: &str) -> io::Result<()> {
        if self.rows.is_empty() {
            out::note(none);
            return Ok(());
        }
        let stdout = Term::stdout();
        let width = io::stdout().is_terminal().then(|| usize::from(stdout.size().1));
        out::line(&self.render(width, out::Paint::of_stdout()))
    }

    /// The table's text, at most `width` wide.
    pub fn render(&self, width: Option<usize>, paint: out::Paint) -> String {
        let widths = self.widths(width);
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let mut lines = vec![paint.dim(&layout(&heads, &widths))];
        lines.extend(self.rows.iter().map(|row| layout(row, &widths)));
        lines.join("\n")
    }

    /// As wide as the widest cell; where that is too much, the widest columns give way.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let widest = |n: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(n)).map(|cell| measure_text_width(cell));
            cells.max().unwrap_or(0)
        };
        let heads = self.heads.iter().enumerate();
        let mut widths: Vec<usize> = heads.map(|(n, head)| widest(n).max(measure_text_width(head))).collect();
        let Some(limit) = limit else { return widths };
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            match widths.iter_mut().max() {
                Some(widest) if *widest > LEAST => *widest -= 1,
                _ => break,
            }
        }
        widths
    }
}

fn layout(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (n, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if n > 0 {
            line.push_str(GAP);
        }
        let cut = truncate_str(cell, *width, "…");
        line.push_str(&cut);
        line.push_str(&" ".repeat(width.saturating_sub(measure_text_width(&cut))));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["AGENT", "STATUS", "NOTE"]);
        table.row(["counter/a".into(), "active".into(), "x".repeat(30)]);
        table.row(["counter/grün\n".into(), "idle".into(), String::new()]);
        table
    }

    #[test]
    fn columns_line_up() {
        let text = table().render(None, out::Paint::NONE);
        assert_eq!(
            text,
            format!(
                "AGENT           STATUS  NOTE\ncounter/a       active  {}\ncounter/grün\\n  idle",
                "x".repeat(30)
            )
        );
    }

    #[test]
    fn the_widest_column_gives_way() {
        let text = table().render(Some(40), out::Paint::NONE);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains("counter/a ") && text.contains('…'), "{text}");
        // Too narrow for anything: it is cut no further than can be read.
        assert!(table().render(Some(5), out::Paint::NONE).contains("STATUS"));
    }
}
