//! Tables in markdown that can be read as they are, too.

use crate::rounds::Spread;

/// A table that is printed once it is full.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&str]) -> Table {
        Table { rows: vec![columns.iter().map(|&column| column.to_owned()).collect()] }
    }

    /// Adds a row, of as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    /// Prints it, with a question above.
    pub fn print(&self, question: &str) {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        println!("\n## {question}\n");
        for (nth, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("| {} |", cells.join(" | "));
            if nth == 0 {
                println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
            }
        }
    }
}

/// Prints a table with a row for each way: its name, what it takes, and the ratio to the first.
pub fn print_ways(question: &str, what: &str, names: &[&str], spreads: &[Spread]) {
    let mut table = Table::new(&["way", what, "ratio"]);
    for (name, spread) in names.iter().zip(spreads) {
        table.row(vec![(*name).to_owned(), spread.to_string(), spread.ratio(&spreads[0])]);
    }
    table.print(question);
}
