//! BLEU against reference values. They come from sacrebleu 2.6.0:
//!
//! ```python
//! for corpus in CORPORA:
//!     candidates = [candidate for candidate, _ in corpus]
//!     references = [reference for _, reference in corpus]
//!     print(sacrebleu.corpus_bleu(candidates, [references]).score)
//! ```

use super::{bleu, tokenize, words};

/// Pairs of candidate and reference.
type Corpus = &'static [(&'static str, &'static str)];

const CORPORA: &[(Corpus, f64)] = &[
    (
        &[(
            "The ferry left the old harbour before dawn.",
            "The ferry left the old harbour shortly before dawn.",
        )],
        66.90484408935988,
    ),
    (
        &[
            (
                "It cost $1,204.60 -- about 3.5% more.",
                "It cost $1,204.60, about 3.5% more.",
            ),
            (
                "He said: \"wait, wait\" (twice).",
                "He said \"wait, wait\" twice.",
            ),
        ],
        51.099558112917855,
    ),
    (
        &[("the the the the the the the", "the cat sat on the red mat")],
        7.809849842300637,
    ),
    (
        &[("one two three five", "one two four three five")],
        35.1862973998119,
    ),
    (&[("two words", "two words")], 0.0),
    (
        &[
            ("short", "a much longer reference text than the candidate"),
            (
                "but this candidate has enough words in it",
                "but this candidate has enough words in it",
            ),
        ],
        44.60949145585982,
    ),
    (&[("", "something was expected")], 0.0),
    (
        &[
            ("", "first"),
            (
                "the second of the pair is scored alone",
                "the second of the pair is scored alone",
            ),
        ],
        88.24969025845958,
    ),
    (
        &[(
            "Zoë's café — größer, naïve & 1990-2000 kept",
            "Zoë's café – größer, naïve &amp; 1990-2000 kept",
        )],
        74.19446627365011,
    ),
    (
        &[(
            "line one of the text\nline two of the text",
            "line one of the text line two of the text",
        )],
        100.00000000000004,
    ),
    (
        &[(
            "a hyphen-\nated word and a &lt;tag&gt; &amp;quot; here",
            "a hyphenated word and a <tag> \" here",
        )],
        63.15552371794033,
    ),
    (
        &[(
            "Case Matters In This Metric Here",
            "case matters in this Metric Here too",
        )],
        13.741272855400096,
    ),
    (
        &[(
            "a.b,c ..,, 1.2,3. 4-5-6 x-7 7-x [q]{r}~`^@:;/ don't",
            "a . b , c . . , , 1.2,3 . 4 - 5-6 x-7 7 - x [ q ] { r } ~ ` ^ @ : ; / don't",
        )],
        100.00000000000004,
    ),
    (
        &[(
            "sep\u{1c}arate\u{a0}these\u{85}words and more of them",
            "sep arate these words and more of them",
        )],
        100.00000000000004,
    ),
    (
        &[(
            "a longer candidate than its reference is not punished by brevity at all",
            "a longer candidate than its reference",
        )],
        38.05803001674947,
    ),
    (
        &[(
            "<skipped> marks vanish from the text wholly",
            "marks vanish from the text wholly  \n",
        )],
        100.00000000000004,
    ),
    (
        &[(
            "alpha beta gamma delta epsilon",
            "zeta eta theta iota kappa",
        )],
        0.0,
    ),
    (
        &[(
            "alpha x beta y gamma z",
            "alpha beta gamma delta epsilon zeta",
        )],
        10.682175159905853,
    ),
];

#[test]
fn equals_sacrebleu() {
    for (corpus, expected) in CORPORA {
        let (candidates, references): (Vec<&str>, Vec<&str>) = corpus.iter().copied().unzip();
        let score = bleu(&candidates, &references);
        assert!(
            (score - expected).abs() < 1e-9,
            "{corpus:?}: {score}, expected {expected}"
        );
    }
}

#[test]
fn no_candidates_score_nothing() {
    assert_eq!(bleu::<&str, &str>(&[], &[]), 0.0);
}

#[test]
fn marks_within_numbers_stay_and_others_stand_alone() {
    let line = tokenize("In 1990-2000, $1,204.60 (net).Twice, don't.");
    assert_eq!(
        words(&line),
        [
            "In", "1990", "-", "2000", ",", "$", "1,204.60", "(", "net", ")", ".", "Twice", ",",
            "don't", "."
        ]
    );
}
