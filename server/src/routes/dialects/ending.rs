//! Why an answer ended, as exactly as other servers tell it. The engine says only that it stopped or ran out of tokens.

use engine::{FinishReason, Tokenizer};

use crate::inference::parameters::Generation;

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// No more tokens were allowed.
    Length,
    /// This token ends a turn.
    EndOfTurn(u32),
    /// This text was asked to end it.
    StopString(String),
}

impl Ending {
    /// Finds the reason in the tokens of the whole answer.
    pub fn of(
        reason: FinishReason,
        tokens: &[u32],
        generation: &Generation,
        tokenizer: &Tokenizer,
    ) -> Self {
        if reason == FinishReason::Length {
            return Self::Length;
        }
        let last = tokens.last().copied();
        match last.filter(|token| tokenizer.end_of_turn().contains(token)) {
            Some(token) if !generation.ignore_eos => Self::EndOfTurn(token),
            _ => Self::StopString(first_stop(&tokenizer.decode_text(tokens), &generation.stop)),
        }
    }
}

/// The stop string that is completed first in a text, the longest of several; empty when there is none.
fn first_stop(text: &str, stops: &[String]) -> String {
    let found = stops.iter().filter_map(|stop| {
        let start = text.find(stop.as_str())?;
        Some((start + stop.len(), start, stop))
    });
    found
        .min()
        .map(|(_, _, stop)| stop.clone())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stop_string_completed_first_is_named() {
        let stops = ["later".to_owned(), "\n\n".to_owned(), "a\n\n".to_owned()];
        assert_eq!(first_stop("a\n\nlater", &stops), "a\n\n");
        assert_eq!(first_stop("b\n\nlater", &stops), "\n\n");
        assert_eq!(first_stop("none", &stops), "");
    }
}
