//! Makes a report of an evaluation's record without a server: `cargo run -p evaluation --example report -- html <record.json >page.html`. The record is what
//! `GET /v1/evaluations/{id}` answers; the forms are `html`, `md` and `csv`.

use std::io::{Read, Write};

use evaluation::{Evaluation, report};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut record = String::new();
    std::io::stdin().read_to_string(&mut record)?;
    let evaluation: Evaluation = serde_json::from_str(&record)?;
    let text = match std::env::args().nth(1).as_deref() {
        Some("html") => report::html(&evaluation),
        Some("md") => report::markdown(&evaluation),
        Some("csv") => report::csv(&evaluation),
        other => return Err(format!("the form is {other:?}; say html, md or csv").into()),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
