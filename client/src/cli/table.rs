//! Aligned text: rows under headings, and fields beside their names.

use super::terminal::visible;

/// Blanks between two columns.
const GAP: &str = "  ";

/// Rows under headings. Columns are as wide as their widest cell.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

struct Column {
    heading: String,
    side: Side,
}

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    /// For figures, so that their digits stand under each other.
    Right,
}

impl Table {
    pub(crate) fn new<H: Into<String>>(columns: impl IntoIterator<Item = (H, Side)>) -> Self {
        let column = |(heading, side): (H, Side)| Column {
            heading: visible(&heading.into()),
            side,
        };
        Self {
            columns: columns.into_iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. It has one cell for each column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        assert_eq!(
            cells.len(),
            self.columns.len(),
            "a row has one cell for each column"
        );
        self.rows
            .push(cells.iter().map(|cell| visible(cell)).collect());
    }

    /// The text, each line ended; headings alone if there are no rows.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let headings: Vec<&str> = self.columns.iter().map(|c| c.heading.as_str()).collect();
        let mut text = self.line(&headings, &widths);
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            text.push_str(&self.line(&cells, &widths));
        }
        text
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].chars().count());
        let heading = self.columns[at].heading.chars().count();
        cells.chain([heading]).max().unwrap_or(0)
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let blanks = " ".repeat(width - cell.chars().count());
            match column.side {
                Side::Left => line.extend([cell, blanks.as_str(), GAP]),
                Side::Right => line.extend([blanks.as_str(), cell, GAP]),
            }
        }
        format!("{}\n", line.trim_end())
    }
}

/// Names and values, the values under each other.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let line = format!("{name:width$}{GAP}{}", visible(value));
        format!("{}\n", line.trim_end())
    };
    pairs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new([
            ("NAME", Side::Left),
            ("SIZE", Side::Right),
            ("WHY", Side::Left),
        ]);
        table.row(["a".into(), "12.1 µs".into(), "-".into()]);
        table.row(["long-name".into(), "3".into(), String::new()]);
        let wanted = "\
NAME          SIZE  WHY
a          12.1 µs  -
long-name        3
";
        assert_eq!(table.render(), wanted);
    }

    #[test]
    fn a_table_without_rows_keeps_its_headings() {
        let table = Table::new([("ID", Side::Right), ("NAME", Side::Left)]);
        assert_eq!(table.render(), "ID  NAME\n");
    }

    #[test]
    fn cells_cannot_break_lines_or_steer_the_terminal() {
        let mut table = Table::new([("A", Side::Left)]);
        table.row(["x\n\u{1b}[31my".into()]);
        assert_eq!(table.render(), "A\nx  [31my\n");
        assert_eq!(fields(&[("a", "b\r\nc".into())]), "a  b  c\n");
    }

    #[test]
    fn fields_stand_under_each_other() {
        let text = fields(&[("node", "n0".into()), ("uptime", "3s".into())]);
        assert_eq!(text, "node    n0\nuptime  3s\n");
    }
}
