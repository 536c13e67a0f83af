//! Macro-F1: the mean of the per-label F1 scores.

use crate::metrics::ConfusionMatrix;

/// The unweighted mean of F1 over the labels that occur among golds or predictions, 0..=1; 0 when there are none.
///
/// F1 of a label is `2 TP / (2 TP + FP + FN)`. A label that nobody has and nobody predicts says nothing and is left out,
/// as scikit-learn's `f1_score(average="macro")` does: RTE has no contradictions, so it counts there only once predicted.
pub fn macro_f1(matrix: &ConfusionMatrix) -> f64 {
    let scores: Vec<f64> = (0..matrix.counts.len())
        .filter_map(|label| {
            let occurrences = matrix.gold(label) + matrix.predicted(label);
            (occurrences > 0).then(|| 2.0 * matrix.counts[label][label] as f64 / occurrences as f64)
        })
        .collect();
    if scores.is_empty() {
        return 0.0;
    }
    scores.iter().sum::<f64>() / scores.len() as f64
}

#[cfg(test)]
mod tests {
    use super::macro_f1;
    use crate::metrics::ConfusionMatrix;

    #[test]
    fn averages_over_labels_that_occur() {
        // Golds 0 0 1 1 1, predictions 0 1 1 2 1: F1 is 2/3 for label 0, 2/3 for label 1, 0 for label 2.
        let matrix = ConfusionMatrix::new(&[0, 1, 1, 2, 1], &[0, 0, 1, 1, 1], 3);
        assert!((macro_f1(&matrix) - 4.0 / 9.0).abs() < 1e-12);
        // Label 2 neither had nor predicted drops out: F1 is 2/3 for label 0 and 6/7 for label 1.
        let matrix = ConfusionMatrix::new(&[0, 1, 1, 1, 1], &[0, 0, 1, 1, 1], 3);
        assert!((macro_f1(&matrix) - (2.0 / 3.0 + 6.0 / 7.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_scores_nothing() {
        assert_eq!(macro_f1(&ConfusionMatrix::new(&[], &[], 2)), 0.0);
    }
}
