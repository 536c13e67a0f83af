//! Corpus BLEU, equal to sacrebleu's `corpus_bleu` with its defaults: one reference for each candidate, tokeniser 13a,
//! n-grams up to four, exponential smoothing, case kept.
//!
//! Papineni et al. (2002), *BLEU: a Method for Automatic Evaluation of Machine Translation*; Post (2018), *A Call for
//! Clarity in Reporting BLEU Scores*; Chen and Cherry (2014) for the smoothing.

use std::collections::HashMap;

const MAX_ORDER: usize = 4;

/// The BLEU of a corpus, 0..=100. Candidate and reference of the same index belong together.
///
/// # Panics
///
/// When the two slices differ in length.
pub fn bleu<Candidate: AsRef<str>, Reference: AsRef<str>>(
    candidates: &[Candidate],
    references: &[Reference],
) -> f64 {
    assert_eq!(
        candidates.len(),
        references.len(),
        "one reference for each candidate"
    );
    let mut counts = Counts::default();
    for (candidate, reference) in candidates.iter().zip(references) {
        let candidate = tokenize(candidate.as_ref());
        let reference = tokenize(reference.as_ref());
        counts.add(&words(&candidate), &words(&reference));
    }
    counts.score()
}

#[derive(Default)]
struct Counts {
    matched: [usize; MAX_ORDER],
    total: [usize; MAX_ORDER],
    candidate_words: usize,
    reference_words: usize,
}

impl Counts {
    fn add(&mut self, candidate: &[&str], reference: &[&str]) {
        self.candidate_words += candidate.len();
        self.reference_words += reference.len();
        for order in 1..=MAX_ORDER {
            let mut left: HashMap<&[&str], usize> = HashMap::new();
            for ngram in reference.windows(order) {
                *left.entry(ngram).or_default() += 1;
            }
            for ngram in candidate.windows(order) {
                self.total[order - 1] += 1;
                if let Some(count) = left.get_mut(ngram)
                    && *count > 0
                {
                    *count -= 1;
                    self.matched[order - 1] += 1;
                }
            }
        }
    }

    fn score(&self) -> f64 {
        if self.matched.iter().all(|matched| *matched == 0) || self.total.contains(&0) {
            return 0.0;
        }
        let mut smoothing = 1.0;
        let mut log_sum = 0.0;
        for (&matched, &total) in self.matched.iter().zip(&self.total) {
            let matched = if matched == 0 {
                smoothing /= 2.0;
                smoothing
            } else {
                matched as f64
            };
            log_sum += (100.0 * matched / total as f64).ln();
        }
        (self.brevity_penalty() * (log_sum / MAX_ORDER as f64).exp()).min(100.0)
    }

    fn brevity_penalty(&self) -> f64 {
        if self.candidate_words < self.reference_words {
            (1.0 - self.reference_words as f64 / self.candidate_words as f64).exp()
        } else {
            1.0
        }
    }
}

/// The text with spaces around every token, by the rules of NIST's mteval-v13a script for Western languages.
fn tokenize(text: &str) -> String {
    let mut line = text
        .trim_end_matches(is_space)
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    for (entity, character) in [
        ("&quot;", "\""),
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ] {
        line = line.replace(entity, character);
    }
    let line = space_symbols(&format!(" {line} "));
    let line = space_pairs(&line, |before, mark| {
        (!before.is_ascii_digit() && is_point(mark)).then_some(Spacing::AroundSecond)
    });
    let line = space_pairs(&line, |mark, after| {
        (is_point(mark) && !after.is_ascii_digit()).then_some(Spacing::AroundFirst)
    });
    space_pairs(&line, |before, mark| {
        (before.is_ascii_digit() && mark == '-').then_some(Spacing::AroundSecond)
    })
}

fn words(line: &str) -> Vec<&str> {
    line.split(is_space)
        .filter(|word| !word.is_empty())
        .collect()
}

fn is_point(letter: char) -> bool {
    matches!(letter, '.' | ',')
}

/// Python's `str.split()` also splits at the four ASCII separator controls, which Unicode does not call white space.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{1c}'..='\u{1f}')
}

/// ASCII symbols stand alone, except the apostrophe, comma, hyphen and full stop.
fn space_symbols(line: &str) -> String {
    let mut spaced = String::with_capacity(2 * line.len());
    for letter in line.chars() {
        if matches!(letter, ' '..='&' | '('..='+' | ':'..='@' | '/' | '['..='`' | '{'..='~') {
            spaced.extend([' ', letter, ' ']);
        } else {
            spaced.push(letter);
        }
    }
    spaced
}

enum Spacing {
    AroundFirst,
    AroundSecond,
}

/// Goes over the line in pairs of neighbours, left to right. A pair that the rule takes is spaced and passed over whole,
/// so that its second character starts no pair of its own: regular expression substitution behaves so, and the rules are
/// defined by it.
fn space_pairs(line: &str, rule: impl Fn(char, char) -> Option<Spacing>) -> String {
    let mut spaced = String::with_capacity(2 * line.len());
    let mut letters = line.chars().peekable();
    while let Some(first) = letters.next() {
        let spacing = letters.peek().and_then(|second| rule(first, *second));
        match (spacing, letters.peek().copied()) {
            (Some(Spacing::AroundFirst), Some(second)) => {
                spaced.extend([' ', first, ' ', second]);
                letters.next();
            }
            (Some(Spacing::AroundSecond), Some(second)) => {
                spaced.extend([first, ' ', second, ' ']);
                letters.next();
            }
            _ => spaced.push(first),
        }
    }
    spaced
}

#[cfg(test)]
mod tests;
