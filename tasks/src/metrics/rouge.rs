//! ROUGE-1, ROUGE-2 and ROUGE-L, equal to Google's `rouge_score` package with `use_stemmer=False`.
//!
//! Lin (2004), *ROUGE: A Package for Automatic Evaluation of Summaries*. ROUGE-L is the sentence-level one: one longest
//! common subsequence of the two whole texts, line breaks ignored, no union over sentences.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// F-measures with equal weight on precision and recall, each 0..=1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rouge {
    /// Overlap of words.
    pub rouge_1: f64,
    /// Overlap of pairs of neighbouring words.
    pub rouge_2: f64,
    /// Longest common subsequence of words.
    pub rouge_l: f64,
}

/// Scores one candidate text against one reference text. A text without words scores 0.
pub fn rouge(candidate: &str, reference: &str) -> Rouge {
    let candidate = lower_case(candidate);
    let reference = lower_case(reference);
    let candidate: Vec<&str> = words(&candidate).collect();
    let reference: Vec<&str> = words(&reference).collect();
    Rouge {
        rouge_1: ngram_f_measure(&candidate, &reference, 1),
        rouge_2: ngram_f_measure(&candidate, &reference, 2),
        rouge_l: f_measure(
            longest_common_subsequence(&candidate, &reference),
            candidate.len(),
            reference.len(),
        ),
    }
}

/// Lower-cased over the whole of Unicode, because some letters beyond ASCII have an ASCII lower case (the Kelvin sign).
fn lower_case(text: &str) -> String {
    text.to_lowercase()
}

/// Runs of ASCII letters and digits; everything else separates.
fn words(lowered: &str) -> impl Iterator<Item = &str> {
    lowered
        .split(|letter: char| !letter.is_ascii_lowercase() && !letter.is_ascii_digit())
        .filter(|word| !word.is_empty())
}

fn ngram_f_measure(candidate: &[&str], reference: &[&str], size: usize) -> f64 {
    let mut left: HashMap<&[&str], usize> = HashMap::new();
    for ngram in reference.windows(size) {
        *left.entry(ngram).or_default() += 1;
    }
    let mut shared = 0;
    for ngram in candidate.windows(size) {
        if let Some(count) = left.get_mut(ngram)
            && *count > 0
        {
            *count -= 1;
            shared += 1;
        }
    }
    let ngrams = |words: &[&str]| (words.len() + 1).saturating_sub(size);
    f_measure(shared, ngrams(candidate), ngrams(reference))
}

fn f_measure(shared: usize, in_candidate: usize, in_reference: usize) -> f64 {
    if shared == 0 {
        return 0.0;
    }
    let precision = shared as f64 / in_candidate as f64;
    let recall = shared as f64 / in_reference as f64;
    2.0 * precision * recall / (precision + recall)
}

fn longest_common_subsequence(first: &[&str], second: &[&str]) -> usize {
    let mut lengths = vec![0; second.len() + 1];
    for word in first {
        let mut diagonal = 0;
        for (column, other) in second.iter().enumerate() {
            let above = lengths[column + 1];
            lengths[column + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(lengths[column])
            };
            diagonal = above;
        }
    }
    lengths[second.len()]
}

#[cfg(test)]
mod tests;
