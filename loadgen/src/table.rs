//! Figures in rows and columns, written as CSV and as JSON. Draws nothing.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// Figures of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Of its file, without an ending.
    pub(crate) name: &'static str,
    pub(crate) head: Vec<String>,
    /// What is not a number is nothing: an empty field, `null`.
    pub(crate) rows: Vec<Vec<f64>>,
}

impl Table {
    /// Without rows.
    pub(crate) fn new(name: &'static str, head: &str) -> Self {
        let head = head.split_whitespace().map(Into::into).collect();
        Self { name, head, rows: Vec::new() }
    }

    /// One more row, a value for each column.
    pub(crate) fn push(&mut self, row: Vec<f64>) {
        debug_assert_eq!(row.len(), self.head.len(), "{}", self.name);
        self.rows.push(row);
    }

    /// One line of names, then the rows.
    pub(crate) fn to_csv(&self) -> String {
        let mut text = self.head.join(",");
        text.push('\n');
        for row in &self.rows {
            for (column, value) in row.iter().enumerate() {
                let comma = if column == 0 { "" } else { "," };
                text.push_str(comma);
                if value.is_finite() {
                    write!(text, "{value}").expect("text grows");
                }
            }
            text.push('\n');
        }
        text
    }

    fn to_value(&self) -> Value {
        let value = |&value: &f64| if value.is_finite() { json!(value) } else { Value::Null };
        let rows: Vec<Vec<Value>> =
            self.rows.iter().map(|row| row.iter().map(value).collect()).collect();
        json!({ "columns": self.head, "rows": rows })
    }
}

/// All of them in one object, by name.
pub(crate) fn to_json(tables: &[Table]) -> String {
    let tables: Map<String, Value> =
        tables.iter().map(|table| (table.name.to_owned(), table.to_value())).collect();
    Value::Object(tables).to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_the_same_figures_and_nothing_for_what_is_no_number() {
        let mut table = Table::new("t", "a_seconds b");
        table.push(vec![0.5, 3.0]);
        table.push(vec![f64::NAN, 1e15]);
        assert_eq!(table.to_csv(), "a_seconds,b\n0.5,3\n,1000000000000000\n");
        let value: Value = serde_json::from_str(&to_json(&[table])).unwrap();
        assert_eq!(value["t"]["rows"], json!([[0.5, 3.0], [null, 1e15]]));
    }
}
