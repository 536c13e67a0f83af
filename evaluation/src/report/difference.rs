//! How far a cell is from what it is compared with, and how such numbers are written.

use crate::cell_report::{CellReport, Verdict};

/// What a cell is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    /// The base model.
    Base,
    /// The model of `against`.
    Other,
}

/// A cell's distance from its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Difference {
    pub(super) delta: f64,
    /// Paired 95 % interval; `None` in records without one.
    pub(super) interval: Option<[f64; 2]>,
    pub(super) verdict: Verdict,
}

impl Reference {
    /// The difference of a cell; `None` where it was not compared.
    pub(super) fn difference(self, cell: &CellReport) -> Option<Difference> {
        match self {
            Self::Base => {
                let interval = cell.delta_ci95();
                Some(Difference {
                    delta: cell.delta,
                    interval,
                    // Records of earlier versions hold the interval and no verdict.
                    verdict: interval.map_or(cell.verdict, Verdict::of),
                })
            }
            Self::Other => cell.against.as_ref().map(|other| Difference {
                delta: other.delta,
                interval: Some(other.delta_ci95),
                verdict: other.verdict,
            }),
        }
    }
}

impl Difference {
    /// `+0.120, +0.072 to +0.168`.
    pub(super) fn text(&self) -> String {
        match self.interval {
            Some(interval) => format!("{}, {}", signed(self.delta), signed_interval(interval)),
            None => signed(self.delta),
        }
    }
}

/// Three digits with a sign, which what rounds to zero has as plus.
pub(super) fn signed(number: f64) -> String {
    with_sign(number, 3)
}

/// A number with a sign, which what rounds to zero has as plus.
pub(super) fn with_sign(number: f64, digits: usize) -> String {
    let text = format!("{number:+.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|digit| matches!(digit, '0' | '.')) => format!("+{rest}"),
        _ => text,
    }
}

/// `+0.072 to +0.168`.
pub(super) fn signed_interval([low, high]: [f64; 2]) -> String {
    format!("{} to {}", signed(low), signed(high))
}

/// `0.948 to 0.992`.
pub(super) fn interval([low, high]: [f64; 2]) -> String {
    format!("{low:.3} to {high:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rounds_to_zero_is_not_negative() {
        assert_eq!(signed(-0.0004), "+0.000");
        assert_eq!(signed(-0.0006), "-0.001");
        assert_eq!(with_sign(-0.004, 2), "+0.00");
        assert_eq!(with_sign(-10.0, 0), "-10");
    }
}
