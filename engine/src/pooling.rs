//! The mean of a prompt's hidden states, taken up chunk by chunk.

/// Where the part of a prompt that is its own begins, for [`ScoreRequest::pooled_from`]: behind the ids that it shares
/// with `context`, the ids of what stands before that part, and before its last id.
///
/// Compared as ids, because a text tokenised alone may end in other tokens than it does with more text behind it.
///
/// [`ScoreRequest::pooled_from`]: crate::ScoreRequest::pooled_from
pub fn own_part(context: &[u32], prompt: &[u32]) -> usize {
    let pairs = context.iter().zip(prompt);
    let shared = pairs.take_while(|(left, right)| left == right).count();
    shared.min(prompt.len().saturating_sub(1))
}

/// A mean under way.
///
/// Every position is added once, in order, so the sum is the same bits however the prompt is cut into chunks and how
/// often it is computed.
pub(crate) struct Pooling {
    from: usize,
    /// The position that is added next.
    next: usize,
    /// Sums of the positions before it, `[hidden]`. In f64, so that the mean of a long prompt is as exact as that of a
    /// short one.
    sums: Vec<f64>,
}

impl Pooling {
    /// A mean over the positions from `from` on.
    pub(crate) fn new(from: usize, hidden: usize) -> Self {
        Self {
            from,
            next: from,
            sums: vec![0.0; hidden],
        }
    }

    /// The first position whose hidden state is still wanted.
    pub(crate) fn next(&self) -> usize {
        self.next
    }

    /// Takes the hidden state at a position, `[hidden]`; one that was taken before, or is not wanted, changes nothing.
    pub(crate) fn add(&mut self, position: usize, hidden: &[f32]) {
        if position != self.next {
            return;
        }
        self.next += 1;
        for (sum, x) in self.sums.iter_mut().zip(hidden) {
            *sum += f64::from(*x);
        }
    }

    /// The mean of what was taken, `[hidden]`.
    pub(crate) fn mean(&self) -> Vec<f32> {
        let count = (self.next - self.from).max(1) as f64;
        self.sums.iter().map(|sum| (sum / count) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_part_begins_where_the_context_ends() {
        assert_eq!(own_part(&[], &[5, 6]), 0);
        assert_eq!(own_part(&[5, 6], &[5, 6, 7]), 2);
        assert_eq!(own_part(&[5, 6, 9], &[5, 6, 1, 7]), 2);
        assert_eq!(own_part(&[5, 6], &[5, 6]), 1);
    }

    #[test]
    fn each_position_counts_once() {
        let mut pooling = Pooling::new(2, 2);
        pooling.add(1, &[100.0, 100.0]);
        pooling.add(2, &[1.0, -2.0]);
        assert_eq!(pooling.next(), 3);
        pooling.add(2, &[50.0, 50.0]);
        pooling.add(3, &[2.0, 5.0]);
        assert_eq!(pooling.mean(), [1.5, 1.5]);
    }
}
