//! A table in Markdown.

/// A header and rows of as many fields.
pub(super) struct Table {
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// The table as Markdown, each line with its end.
    pub(super) fn markdown(&self) -> String {
        let rule = format!("|{}\n", " --- |".repeat(self.header.len()));
        let rows = self.rows.iter().map(|row| line(row));
        std::iter::once(line(&self.header) + &rule)
            .chain(rows)
            .collect()
    }
}

fn line(fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| escaped(field)).collect();
    format!("| {} |\n", fields.join(" | "))
}

/// What would end a field is written so that it does not.
pub(super) fn escaped(field: &str) -> String {
    field.replace('|', "\\|").replace('\n', " ")
}
