//! A stream of tokens put together as text: whole characters only, and never a part of a stop string. When a sequence
//! ends for other reasons is decided by the scheduler.

/// Puts the text of one answer together as its tokens arrive.
///
/// The pieces add up to the bytes of all text tokens read as UTF-8, each invalid sequence replaced by U+FFFD as
/// [`String::from_utf8_lossy`] does, cut where the first stop string begins. *First* is the stop string completed
/// earliest, since that ends the generation; of several completed by one character, the longest. How the text is
/// divided into tokens makes no difference.
#[derive(Debug, Clone)]
pub struct TextAssembler {
    stops: Vec<StopMatcher>,
    /// Bytes of a character that is not complete.
    partial: Vec<u8>,
    /// Text that is not handed out: a suffix of what arrived that begins some stop string.
    held: String,
    stopped: bool,
}

/// What one token adds to the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// Text that is final; often empty.
    pub text: String,
    /// Whether a stop string is complete, with this token or an earlier one.
    pub stopped: bool,
}

/// How much of one stop string the text ends with (Knuth, Morris and Pratt 1977), byte by byte.
#[derive(Debug, Clone)]
struct StopMatcher {
    stop: Vec<u8>,
    /// For each prefix of `stop`, the length of the longest shorter prefix that is also its suffix.
    borders: Vec<usize>,
    matched: usize,
}

impl TextAssembler {
    /// Starts an empty text that ends at any of `stop`; empty stop strings are ignored.
    pub fn new(stop: Vec<String>) -> Self {
        let stops = (stop.into_iter().filter(|stop| !stop.is_empty()))
            .map(|stop| StopMatcher::new(stop.into_bytes()))
            .collect();
        Self {
            stops,
            partial: Vec::new(),
            held: String::new(),
            stopped: false,
        }
    }

    /// Adds the bytes of one token. A special token is not text and changes nothing.
    pub fn push(&mut self, token_bytes: &[u8], is_special: bool) -> Piece {
        let mut piece = Piece::default();
        if !self.stopped && !is_special {
            self.partial.extend_from_slice(token_bytes);
            let text = take_complete(&mut self.partial);
            piece.text = self.admit(&text);
        }
        piece.stopped = self.stopped;
        piece
    }

    /// Ends the text and hands out what was held back; the rest of an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let rest = std::mem::take(&mut self.partial);
        let mut text = self.admit(&String::from_utf8_lossy(&rest));
        text.push_str(&std::mem::take(&mut self.held));
        text
    }

    /// Appends whole characters; returns what has become final.
    fn admit(&mut self, text: &str) -> String {
        let arrived = self.held.len();
        self.held.push_str(text);
        for (position, byte) in text.bytes().enumerate() {
            let longest = (self.stops.iter_mut())
                .filter_map(|stop| stop.advance(byte))
                .max();
            if let Some(length) = longest {
                self.held.truncate(arrived + position + 1 - length);
                self.stopped = true;
                return std::mem::take(&mut self.held);
            }
        }
        let begun = self.stops.iter().map(|stop| stop.matched).max();
        let kept = self.held.split_off(self.held.len() - begun.unwrap_or(0));
        std::mem::replace(&mut self.held, kept)
    }
}

impl StopMatcher {
    fn new(stop: Vec<u8>) -> Self {
        let mut borders = vec![0; stop.len()];
        let mut border = 0;
        for end in 1..stop.len() {
            while border > 0 && stop[end] != stop[border] {
                border = borders[border - 1];
            }
            border += usize::from(stop[end] == stop[border]);
            borders[end] = border;
        }
        Self {
            stop,
            borders,
            matched: 0,
        }
    }

    /// Takes one more byte; the length of the stop string when this byte completes it.
    fn advance(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.stop[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.stop[self.matched] == byte);
        (self.matched == self.stop.len()).then_some(self.matched)
    }
}

/// Takes everything but an incomplete last character out of `bytes`, invalid sequences as U+FFFD.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let incomplete = (bytes.utf8_chunks().last())
        .map(|chunk| chunk.invalid())
        .filter(|invalid| could_continue(invalid))
        .map_or(0, <[u8]>::len);
    let kept = bytes.split_off(bytes.len() - incomplete);
    let complete = String::from_utf8_lossy(bytes).into_owned();
    *bytes = kept;
    complete
}

/// Whether more bytes could make a character of an invalid sequence.
fn could_continue(invalid: &[u8]) -> bool {
    std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(stop: &[&str], tokens: &[&[u8]]) -> (Vec<String>, bool) {
        let mut assembler = TextAssembler::new(stop.iter().map(|&stop| stop.to_owned()).collect());
        let pushed: Vec<Piece> = (tokens.iter())
            .map(|token| assembler.push(token, false))
            .collect();
        let stopped = pushed.last().is_some_and(|piece| piece.stopped);
        let mut texts: Vec<String> = pushed.into_iter().map(|piece| piece.text).collect();
        texts.push(assembler.finish());
        (texts, stopped)
    }

    #[test]
    fn characters_wait_for_their_last_byte() {
        let (texts, stopped) = pieces(&[], &[b"a\xe6\x9d", b"\xb1", b"\xf0\x9f", b"\x9a\x86b"]);
        assert_eq!(texts, ["a", "東", "", "🚆b", ""]);
        assert!(!stopped);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_once_that_is_certain() {
        let (texts, _) = pieces(&[], &[b"\xe6", b"x\xff", b"\xf0\x9f"]);
        assert_eq!(texts, ["", "\u{fffd}x\u{fffd}", "", "\u{fffd}"]);
    }

    #[test]
    fn a_stop_string_over_three_tokens_is_cut_and_never_shown() {
        let (texts, stopped) = pieces(&["\n\nQ:"], &[b"yes\n", b"\nQ", b": what", b"?"]);
        assert_eq!(texts, ["yes", "", "", "", ""]);
        assert!(stopped);
    }

    #[test]
    fn text_that_only_began_a_stop_string_is_handed_out() {
        let (texts, stopped) = pieces(&["aab"], &[b"xa", b"a", b"a", b"c", b"aa"]);
        assert_eq!(texts, ["x", "", "a", "aac", "", "aa"]);
        assert!(!stopped);
    }

    #[test]
    fn the_stop_string_completed_first_wins_and_then_the_longest() {
        assert_eq!(
            pieces(&["bcde", "d"], &[b"abcde"]),
            (vec!["abc".into(), String::new()], true)
        );
        assert_eq!(pieces(&["d", "bcd"], &[b"abc", b"de"]).0.concat(), "a");
    }

    #[test]
    fn special_tokens_are_not_text() {
        let mut assembler = TextAssembler::new(vec!["<|im_end|>".into(), String::new()]);
        assert_eq!(assembler.push(b"caf\xc3", false).text, "caf");
        assert_eq!(assembler.push(b"<|im_end|>", true), Piece::default());
        assert_eq!(assembler.push(b"\xa9", false).text, "é");
    }

    /// The whole text at once, straight from the definition.
    fn batch(bytes: &[u8], stops: &[String]) -> (String, bool) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let matches = stops.iter().filter_map(|stop| {
            let start = text.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        match matches.min() {
            Some((_, start)) => (text[..start].to_owned(), true),
            None => (text, false),
        }
    }

    /// Few letters, so that stop strings do occur, with two- and three-byte characters and broken ones.
    fn fragment() -> impl Strategy<Value = Vec<u8>> {
        let letters = ["a", "b", "\n", "é", "東"].map(|text| text.as_bytes().to_vec());
        let broken = [vec![0xe6], vec![0x9d, 0xb1], vec![0xff], vec![0xc3]];
        prop::sample::select([&letters[..], &letters, &letters, &broken].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn any_division_into_tokens_gives_the_text_of_the_whole(
            fragments in prop::collection::vec(fragment(), 0..40),
            lengths in prop::collection::vec(0usize..6, 0..60),
            stops in prop::collection::vec("[ab\né東\u{fffd}]{1,4}", 0..4),
        ) {
            let bytes = fragments.concat();
            let mut assembler = TextAssembler::new(stops.clone());
            let (mut text, mut stopped, mut start) = (String::new(), false, 0);
            for length in lengths.into_iter().chain([bytes.len()]) {
                let end = (start + length).min(bytes.len());
                let piece = assembler.push(&bytes[start..end], false);
                prop_assert!(!stopped || piece.text.is_empty() && piece.stopped);
                text += &piece.text;
                stopped = piece.stopped;
                start = end;
            }
            text += &assembler.finish();
            let (expected, ends) = batch(&bytes, &stops);
            prop_assert_eq!(text, expected);
            prop_assert!(ends || !stopped);
        }
    }
}
