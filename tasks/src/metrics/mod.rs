//! The metrics, one file each: pure functions of predictions and golds. What is scored against what is `score`'s affair.

mod accuracy;
mod bleu;
mod bootstrap;
mod confusion;
mod macro_f1;
mod rouge;

pub use accuracy::accuracy;
pub use bleu::bleu;
pub use bootstrap::{Interval, RESAMPLES, bootstrap_mean, bootstrap_paired};
pub use confusion::ConfusionMatrix;
pub use macro_f1::macro_f1;
pub use rouge::{Rouge, rouge};
