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
