//! Accuracy: the share of predicted labels that are the gold label.

/// The share of positions at which prediction and gold agree, 0..=1; 0 when there are none.
///
/// # Panics
///
/// When the two slices differ in length.
pub fn accuracy(predictions: &[usize], golds: &[usize]) -> f64 {
    assert_eq!(
        predictions.len(),
        golds.len(),
        "one prediction for each gold label"
    );
    if golds.is_empty() {
        return 0.0;
    }
    let right = predictions
        .iter()
        .zip(golds)
        .filter(|(a, b)| a == b)
        .count();
    right as f64 / golds.len() as f64
}

#[cfg(test)]
mod tests {
    use super::accuracy;

    #[test]
    fn counts_agreements() {
        assert_eq!(accuracy(&[0, 1, 2, 1], &[0, 1, 1, 2]), 0.5);
        assert_eq!(accuracy(&[2, 0, 1], &[2, 0, 1]), 1.0);
        assert_eq!(accuracy(&[], &[]), 0.0);
    }

    #[test]
    #[should_panic(expected = "one prediction for each gold label")]
    fn refuses_slices_of_different_length() {
        accuracy(&[0, 1], &[0]);
    }
}
