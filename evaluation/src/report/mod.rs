//! What people read of an evaluation: a page for browsers, Markdown, CSV for spreadsheets, and the card that travels with an adapter version.
//! All of it is made of records; nothing is measured or judged anew here but what a record of an earlier version lacks.

mod card;
mod csv;
mod difference;
mod html;
mod markdown;
mod models;
mod table;
mod words;

#[cfg(test)]
mod tests;

pub use card::{CardFacts, card};
pub use csv::csv;
pub use html::html;
pub use markdown::markdown;
