//! The confusion matrix of a classification.

use serde::{Deserialize, Serialize};

/// Counts of (gold, predicted) label pairs: `counts[gold][predicted]`, `[classes, classes]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfusionMatrix {
    /// Rows are gold labels, columns predicted labels, both in label order.
    pub counts: Vec<Vec<usize>>,
}

impl ConfusionMatrix {
    /// Counts the pairs of `predictions` and `golds`, label indices below `classes`.
    ///
    /// # Panics
    ///
    /// When the slices differ in length or an index is not below `classes`.
    pub fn new(predictions: &[usize], golds: &[usize], classes: usize) -> Self {
        assert_eq!(
            predictions.len(),
            golds.len(),
            "one prediction for each gold label"
        );
        let mut counts = vec![vec![0; classes]; classes];
        for (&predicted, &gold) in predictions.iter().zip(golds) {
            counts[gold][predicted] += 1;
        }
        ConfusionMatrix { counts }
    }

    /// How many examples have this gold label.
    pub fn gold(&self, label: usize) -> usize {
        self.counts[label].iter().sum()
    }

    /// How many examples were given this label.
    pub fn predicted(&self, label: usize) -> usize {
        self.counts.iter().map(|row| row[label]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::ConfusionMatrix;

    #[test]
    fn rows_are_golds_and_columns_are_predictions() {
        let matrix = ConfusionMatrix::new(&[0, 1, 1, 2, 1], &[0, 0, 1, 1, 1], 3);
        assert_eq!(matrix.counts, [[1, 1, 0], [0, 2, 1], [0, 0, 0]]);
        assert_eq!(matrix.gold(1), 3);
        assert_eq!(matrix.predicted(1), 3);
        assert_eq!(matrix.predicted(2), 1);
        assert_eq!(matrix.gold(2), 0);
    }
}
