//! ROUGE against reference values. They come from rouge_score 0.1.2:
//!
//! ```python
//! scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
//! for candidate, reference in PAIRS:
//!     scores = scorer.score(reference, candidate)
//!     print([scores[kind].fmeasure for kind in ("rouge1", "rouge2", "rougeL")])
//! ```

use proptest::prelude::*;

use super::rouge;

/// Candidate, reference, F-measures of ROUGE-1, ROUGE-2, ROUGE-L.
const PAIRS: &[(&str, &str, [f64; 3])] = &[
    (
        "The harbour reopened on Monday.",
        "The harbour reopened on Monday.",
        [1.0, 1.0, 1.0],
    ),
    (
        "The ferry left the old harbour before dawn",
        "Before dawn, the ferry had left the harbour.",
        [0.875, 0.42857142857142855, 0.625],
    ),
    (
        "red red red red blue",
        "red blue red green",
        [0.6666666666666665, 0.28571428571428575, 0.4444444444444445],
    ),
    ("a b a b a b", "b a b a", [0.8, 0.7499999999999999, 0.8]),
    (
        "Prices rose by 3.5%, to $1,204.60!",
        "prices rose 3.5 % to 1204.60 dollars",
        [0.7058823529411765, 0.39999999999999997, 0.7058823529411765],
    ),
    (
        "Die Größe überraschte Zoë's café",
        "die grosse uberraschte zoe s cafe",
        [0.30769230769230765, 0.0, 0.30769230769230765],
    ),
    (
        "20\u{212a} in the shade",
        "20k in the shade",
        [1.0, 1.0, 1.0],
    ),
    (
        "first line of two\nsecond line here",
        "second line here\nfirst line of two",
        [1.0, 0.8333333333333334, 0.5714285714285714],
    ),
    (
        "tabs\tand\u{a0}odd   spaces\r\n",
        "tabs and odd spaces",
        [1.0, 1.0, 1.0],
    ),
    ("", "something was expected", [0.0, 0.0, 0.0]),
    ("!!! ... ???", "nothing but marks", [0.0, 0.0, 0.0]),
    ("yes", "yes", [1.0, 0.0, 1.0]),
    ("yes", "yes it is", [0.5, 0.0, 0.5]),
    (
        "don't re-enter e-mail_address2",
        "do not re enter email address2",
        [0.4615384615384615, 0.1818181818181818, 0.4615384615384615],
    ),
    (
        "Почта закрыта until 2025",
        "почта закрыта until 2025",
        [1.0, 1.0, 1.0],
    ),
];

#[test]
fn equals_rouge_score() {
    for (candidate, reference, expected) in PAIRS {
        let scores = rouge(candidate, reference);
        let scores = [scores.rouge_1, scores.rouge_2, scores.rouge_l];
        for (score, expected) in scores.iter().zip(expected) {
            assert!(
                (score - expected).abs() < 1e-12,
                "{candidate:?} against {reference:?}: {scores:?}, expected {expected}"
            );
        }
    }
}

#[test]
fn the_reference_values_tell_the_three_scores_apart() {
    assert!(
        PAIRS
            .iter()
            .any(|(_, _, [one, two, long])| one != two && two != long && one != long)
    );
}

proptest! {
    #[test]
    fn stays_in_range_and_is_symmetric(first in "[ab c.\n]{0,30}", second in "[abc d]{0,30}") {
        let there = rouge(&first, &second);
        let back = rouge(&second, &first);
        for (there, back) in [
            (there.rouge_1, back.rouge_1),
            (there.rouge_2, back.rouge_2),
            (there.rouge_l, back.rouge_l),
        ] {
            prop_assert!((0.0..=1.0).contains(&there));
            prop_assert!((there - back).abs() < 1e-12);
        }
        prop_assert!(there.rouge_l <= there.rouge_1 + 1e-12);
    }
}
