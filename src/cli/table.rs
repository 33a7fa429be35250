//! Tables that fit the terminal.

use std::io;

use console::{measure_text_width, truncate_str};

use super::out;

/// A column is not made narrower than this.
const LEAST: usize = 8;
/// No more columns are left out than leave so many.
const FEWEST: usize = 2;
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
        if out::is_quiet() {
            return out::line(&self.names());
        }
        out::line(&self.render(out::width(), out::Paint::of_stdout()))
    }

    /// The ids alone, a line each; where there are none, the first column.
    fn names(&self) -> String {
        let column = self.heads.iter().position(|head| *head == "ID").unwrap_or_default();
        let names: Vec<&str> =
            self.rows.iter().filter_map(|row| row.get(column)).map(String::as_str).collect();
        names.join("\n")
    }

    /// The table's text, at most `width` wide: the widest columns give way, and where that is not enough the
    /// last ones are left out. Ids do neither: a part of one is of no use to the next command.
    pub fn render(&self, width: Option<usize>, paint: out::Paint) -> String {
        let (mut columns, mut widths) = ((0..self.heads.len()).collect::<Vec<_>>(), self.widths());
        while let Some(limit) = width {
            if self.fit(&columns, &mut widths, limit) || columns.len() <= FEWEST {
                break;
            }
            let Some(last) = columns.iter().rposition(|n| !self.is_id(*n)) else { break };
            columns.remove(last);
            widths = self.widths();
        }
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let mut lines = vec![paint.dim(&layout(&heads, &columns, &widths))];
        lines.extend(self.rows.iter().map(|row| layout(row, &columns, &widths)));
        lines.join("\n")
    }

    /// As wide as the widest cell.
    fn widths(&self) -> Vec<usize> {
        let widest = |n: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(n)).map(|cell| measure_text_width(cell));
            cells.max().unwrap_or(0)
        };
        let heads = self.heads.iter().enumerate();
        heads.map(|(n, head)| widest(n).max(measure_text_width(head))).collect()
    }

    fn is_id(&self, n: usize) -> bool {
        self.heads.get(n).is_some_and(|head| *head == "ID")
    }

    /// Has the widest of these columns give way, no further than their heads; whether that is enough.
    fn fit(&self, columns: &[usize], widths: &mut [usize], limit: usize) -> bool {
        let gaps = GAP.len() * columns.len().saturating_sub(1);
        loop {
            let sum: usize = columns.iter().filter_map(|n| widths.get(*n)).sum();
            if sum + gaps <= limit {
                return true;
            }
            let least =
                |n: usize| self.heads.get(n).map_or(LEAST, |head| measure_text_width(head).max(LEAST));
            let yields = |n: usize, width: usize| !self.is_id(n) && width > least(n);
            let yielding =
                widths.iter_mut().enumerate().filter(|(n, width)| columns.contains(n) && yields(*n, **width));
            match yielding.map(|(_, width)| width).max() {
                Some(widest) => *widest -= 1,
                None => return false,
            }
        }
    }
}

fn layout(cells: &[String], columns: &[usize], widths: &[usize]) -> String {
    let mut line = String::new();
    let shown = columns.iter().filter_map(|n| Some((cells.get(*n)?, widths.get(*n)?)));
    for (n, (cell, width)) in shown.enumerate() {
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
    fn the_names_alone_are_ids_where_there_are_some() {
        assert_eq!(table().names(), "counter/a\ncounter/grün\\n");
        let mut nodes = Table::new(&["NODE", "ID"]);
        nodes.row(["eu-1".into(), "b1".into()]);
        assert_eq!(nodes.names(), "b1");
    }

    #[test]
    fn the_widest_column_gives_way() {
        let text = table().render(Some(40), out::Paint::NONE);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains("counter/a ") && text.contains('…'), "{text}");
        let mut ids = Table::new(&["ID", "NOTE"]);
        ids.row(["i".repeat(36), "n".repeat(36)]);
        assert!(ids.render(Some(46), out::Paint::NONE).contains(&"i".repeat(36)));
        let wide = table().render(Some(25), out::Paint::NONE);
        assert!(wide.contains("STATUS") && !wide.contains("NOTE"), "the last column is left out: {wide}");
        assert!(ids.render(Some(60), out::Paint::NONE).contains(&"i".repeat(36)), "an id stays whole");
        // Too narrow for anything: it is cut no further than can be read.
        assert!(table().render(Some(5), out::Paint::NONE).contains("STATUS"));
    }
}
