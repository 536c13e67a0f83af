//! What a generated text counts as: where it ends, and whether it is a label that strayed into a generation task.

use crate::task::Task;

/// The answer within a generated text: everything before its first blank line, trimmed.
///
/// A blank line holds nothing but white space. The generation continues the prompt's last line, so one leading line
/// break ends that line and two make a blank one.
pub fn cut_generation(text: &str) -> &str {
    let breaks = text.match_indices('\n').map(|(position, _)| position);
    let blank = breaks
        .clone()
        .zip(breaks.skip(1))
        .find(|(first, second)| text[first + 1..*second].trim().is_empty());
    match blank {
        Some((start, _)) => text[..start].trim(),
        None => text.trim(),
    }
}

/// The label and its task when a text is nothing but a label of some classification task, whatever its case and the
/// punctuation around it; what a collapsed classification adapter gives when it is asked for text.
pub fn bare_label(text: &str) -> Option<(Task, &'static str)> {
    let word = text
        .trim_matches(|letter: char| !letter.is_alphanumeric())
        .to_lowercase();
    Task::ALL.into_iter().find_map(|task| {
        let label = task.labels().iter().find(|label| **label == word)?;
        Some((task, *label))
    })
}

#[cfg(test)]
mod tests {
    use super::{bare_label, cut_generation};
    use crate::task::Task;

    #[test]
    fn a_generation_ends_at_its_first_blank_line() {
        let cases = [
            ("One point.\n\n### Input:\nmore", "One point."),
            (
                "\nOne point.\nStill the point.\n\nNot.",
                "One point.\nStill the point.",
            ),
            ("  padded \t\n \t \nNot.", "padded"),
            ("windows\r\n\r\nNot.", "windows"),
            ("\n\nstarts with a blank line", ""),
            ("no blank line at all\n", "no blank line at all"),
            ("naïve – dash\n\n…", "naïve – dash"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(cut_generation(text), expected, "{text:?}");
        }
    }

    #[test]
    fn only_a_label_by_itself_is_a_bare_label() {
        assert_eq!(bare_label("positive"), Some((Task::Sentiment, "positive")));
        assert_eq!(
            bare_label(" \"Entailment\".\n"),
            Some((Task::Inference, "entailment"))
        );
        assert_eq!(bare_label("No!"), Some((Task::Detection, "no")));
        assert_eq!(bare_label("no one came"), None);
        assert_eq!(bare_label("..."), None);
        assert_eq!(bare_label(""), None);
    }
}
