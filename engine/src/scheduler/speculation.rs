//! Guessing the next tokens of an answer by looking them up in what stands before them: where the last tokens stood
//! earlier, what followed then may follow again (prompt lookup decoding). Guesses are computed as further rows of the
//! step and kept as far as they are what the sampler chooses anyway, so they change the time an answer takes and
//! nothing else.

/// Lengths of the beginnings that are looked up; the longer one first.
const MATCHES: [usize; 2] = [3, 2];
/// How often a guess is taken to be right before any was made, by the length that was matched.
const PRIOR: [f64; 2] = [0.6, 0.4];
/// How fast the estimate follows what happens.
const RATE: f64 = 0.15;
/// How fast it returns to the prior while no guesses are made, so that a sequence gets another chance.
const RETURN: f64 = 0.01;

/// One sequence's guesses: how often they have been right.
#[derive(Debug, Clone)]
pub(crate) struct Drafter {
    /// By the length that was matched.
    acceptance: [f64; 2],
    /// Which of them the last guesses came from.
    matched: usize,
}

impl Default for Drafter {
    fn default() -> Self {
        Self {
            acceptance: PRIOR,
            matched: 0,
        }
    }
}

impl Drafter {
    /// Appends up to `most` guesses at what follows `tokens` to `guesses`, as many as are likelier to be right than
    /// `price`.
    pub(super) fn propose(
        &mut self,
        tokens: &[u32],
        price: f64,
        most: usize,
        guesses: &mut Vec<u32>,
    ) {
        for (which, length) in MATCHES.into_iter().enumerate() {
            let acceptance = &mut self.acceptance[which];
            let count = worthwhile(*acceptance, price, most);
            if count == 0 {
                *acceptance += RETURN * (PRIOR[which] - *acceptance);
                continue;
            }
            if let Some(end) = latest_match(tokens, length) {
                self.matched = which;
                // Past the end of what is known, the repetition is taken to repeat itself.
                let followers = tokens[end..].iter().cycle();
                guesses.extend(followers.take(count));
                return;
            }
        }
    }

    /// Learns that the first `accepted` of `drafted` guesses were right; when the answer `ended`, the next one may
    /// have been, too.
    pub(super) fn learn(&mut self, drafted: usize, accepted: usize, ended: bool) {
        let acceptance = &mut self.acceptance[self.matched];
        for _ in 0..accepted {
            *acceptance += RATE * (1.0 - *acceptance);
        }
        if accepted < drafted && !ended {
            *acceptance -= RATE * *acceptance;
        }
    }
}

/// How many guesses in a row are each likelier to be reached and right than `price`.
fn worthwhile(acceptance: f64, price: f64, most: usize) -> usize {
    let mut likely = acceptance;
    let mut count = 0;
    while count < most && likely > price {
        count += 1;
        likely *= acceptance;
    }
    count
}

/// Where the latest earlier occurrence of the last `length` tokens ends.
fn latest_match(tokens: &[u32], length: usize) -> Option<usize> {
    let pattern = &tokens[tokens.len().checked_sub(length)?..];
    (length..tokens.len())
        .rev()
        .find(|&end| tokens[end - length..end] == *pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guesses(tokens: &[u32], price: f64) -> Vec<u32> {
        let mut guesses = Vec::new();
        Drafter::default().propose(tokens, price, 4, &mut guesses);
        guesses
    }

    #[test]
    fn what_followed_the_last_three_tokens_is_guessed_again() {
        // 1 2 3 stood twice before: the later one counts.
        let tokens = [1, 2, 3, 9, 9, 1, 2, 3, 7, 6, 5, 4, 8, 1, 2, 3];
        assert_eq!(guesses(&tokens, 0.0), [7, 6, 5, 4]);
        // 0.6, 0.36, 0.22, 0.13 are the chances.
        assert_eq!(guesses(&tokens, 0.3), [7, 6]);
        assert!(guesses(&tokens, 0.7).is_empty());
    }

    #[test]
    fn two_tokens_are_looked_up_when_three_are_not_found() {
        assert_eq!(guesses(&[5, 2, 3, 7, 8, 1, 2, 3], 0.0), [7, 8, 1, 2]);
        assert_eq!(guesses(&[5, 2, 3, 7, 8, 1, 2, 3], 0.3), [7]);
        assert!(guesses(&[1, 2, 3, 4], 0.0).is_empty());
        assert!(guesses(&[1], 0.0).is_empty());
    }

    #[test]
    fn a_repetition_is_continued() {
        assert_eq!(guesses(&[4, 4, 4, 4], 0.0), [4, 4, 4, 4]);
        assert_eq!(guesses(&[1, 2, 1, 2, 1], 0.0), [2, 1, 2, 1]);
    }

    #[test]
    fn wrong_guesses_stop_the_guessing_and_time_brings_it_back() {
        let tokens = [1, 2, 3, 9, 1, 2, 3];
        let mut drafter = Drafter::default();
        let mut wrong = 0;
        let mut out = Vec::new();
        loop {
            out.clear();
            drafter.propose(&tokens, 0.25, 8, &mut out);
            if out.is_empty() {
                break;
            }
            drafter.learn(out.len(), 0, false);
            wrong += 1;
        }
        assert!((3..20).contains(&wrong), "{wrong}");
        let mut pause = 0;
        while out.is_empty() {
            drafter.propose(&tokens, 0.25, 8, &mut out);
            pause += 1;
        }
        assert!((2..50).contains(&pause), "{pause}");
        for _ in 0..30 {
            out.clear();
            drafter.propose(&tokens, 0.25, 8, &mut out);
            drafter.learn(out.len(), out.len(), false);
        }
        assert_eq!(out.len(), 8);
    }
}
