//! How long steps take, learnt from those that ran, and what follows: how many prompt rows may stand beside running
//! streams, and what a guessed token costs. Only arithmetic: nothing here looks at a clock.

use crate::workload::RowPrices;

/// What an older step counts against the next newer one.
const MEMORY: f64 = 0.95;
/// What prompts may add to a step, as a share of what the streams beside them are used to. Twice the usual gap is the
/// bound; the rest is left for what the estimate misses and for a machine that does something else.
const PROMPT_SHARE: f64 = 0.4;
/// What prompts that outnumber the streams may add at most. Each of them waits for as long as the streams are spared, so
/// they add [`PROMPT_SHARE`] times as many as there are for each stream.
const MOST_PROMPT_SHARE: f64 = 3.0;
/// Prompt rows that always go: one bad estimate must not stop prompts.
const LEAST_PROMPT_ROWS: usize = 4;
/// Prompt rows beside streams before anything was measured.
const FIRST_PROMPT_ROWS: usize = 16;
/// Rows whose work takes as long as reading the weights, until steps of different sizes have shown it.
const ROWS_OF_WEIGHTS: f64 = 4.0;
/// Seconds that a step of background work alone may take: as long as a user's request may find the engine busy when it comes.
const BACKGROUND_STEP_SECONDS: f64 = 0.08;
/// Prompt rows of such a step that always go: fewer would read the weights for little.
const LEAST_BACKGROUND_ROWS: usize = 32;
/// A step that takes longer than this many times the expected is taken as one that did: the machine was elsewhere.
const OUTLIER: f64 = 3.0;

/// Estimates of a step's seconds: a line over its decode rows, and a price for each prompt row.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// Exponentially weighted sums over steps without prompts.
    weight: f64,
    rows: f64,
    rows_squared: f64,
    seconds: f64,
    rows_seconds: f64,
    /// Exponentially weighted sums over steps with prompts.
    prompt_rows: f64,
    prompt_seconds: f64,
}

impl Pace {
    /// Learns from a step of `decode_rows` (guesses included) and `prompt_rows` that took `seconds`.
    pub(super) fn observe(&mut self, decode_rows: usize, prompt_rows: usize, seconds: f64) {
        let seconds = match self.expected(decode_rows, prompt_rows) {
            Some(expected) => seconds.min(OUTLIER * expected),
            None => seconds,
        };
        if prompt_rows > 0 {
            let own = (seconds - self.decode_seconds(decode_rows).unwrap_or(0.0)).max(0.0);
            self.prompt_rows = MEMORY * self.prompt_rows + prompt_rows as f64;
            self.prompt_seconds = MEMORY * self.prompt_seconds + own;
            return;
        }
        let rows = decode_rows as f64;
        self.weight = MEMORY * self.weight + 1.0;
        self.rows = MEMORY * self.rows + rows;
        self.rows_squared = MEMORY * self.rows_squared + rows * rows;
        self.seconds = MEMORY * self.seconds + seconds;
        self.rows_seconds = MEMORY * self.rows_seconds + rows * seconds;
    }

    /// Prompt rows that may stand beside `decode_rows` rows, `own_rows` of them of `streams` users' streams, when `prompts` users'
    /// requests have prompts left.
    ///
    /// The usual gap is that of the company the streams are about to have: where many begin at once, the first to have read
    /// its prompt does not hold up the others, whose tokens it will soon wait for in every step. The last prompt is not
    /// company yet, so a single long one keeps to the gap of the streams that run.
    pub(super) fn prompt_rows_beside(
        &self,
        decode_rows: usize,
        (own_rows, streams): (usize, usize),
        prompts: usize,
    ) -> usize {
        let company = own_rows + prompts.saturating_sub(1);
        let seconds = (
            self.decode_seconds(decode_rows),
            self.decode_seconds(company),
        );
        let ((Some(now), Some(usual)), Some(price)) = (seconds, self.prompt_row()) else {
            return FIRST_PROMPT_ROWS;
        };
        let outnumbered = (prompts as f64 / streams.max(1) as f64).max(1.0);
        let share = (PROMPT_SHARE * outnumbered).min(MOST_PROMPT_SHARE);
        let spare = (1.0 + share) * usual - now;
        // The cast saturates, also for a price of zero.
        ((spare / price) as usize).max(LEAST_PROMPT_ROWS)
    }

    /// Decode rows of background work that may stand beside `decode_rows` interactive ones: they add no more than a prompt may.
    pub(super) fn background_decodes_beside(&self, decode_rows: usize) -> usize {
        let Some((fixed, slope)) = self.line() else {
            return 1;
        };
        let spare = PROMPT_SHARE * (fixed + slope * decode_rows as f64);
        // The cast saturates, also for a slope of zero.
        ((spare / slope) as usize).max(1)
    }

    /// Prompt rows of a step that nobody waits for, beside `decode_rows` decode rows.
    pub(super) fn background_rows(&self, decode_rows: usize) -> usize {
        let Some(price) = self.prompt_row() else {
            return LEAST_BACKGROUND_ROWS;
        };
        let left = BACKGROUND_STEP_SECONDS - self.decode_seconds(decode_rows).unwrap_or(0.0);
        ((left / price) as usize).max(LEAST_BACKGROUND_ROWS)
    }

    /// What one more row costs a step of `decode_rows` rows, as a share of what it costs per row: a guess pays when it
    /// is right more often than that.
    pub(super) fn price_of_guess(&self, decode_rows: usize) -> f64 {
        let rows = decode_rows as f64;
        match self.line() {
            Some((fixed, slope)) if fixed + slope > 0.0 => rows * slope / (fixed + slope * rows),
            _ => rows / (rows + ROWS_OF_WEIGHTS),
        }
    }

    /// What rows take by now; `None` until prompts and answers have been computed.
    pub(super) fn prices(&self) -> Option<RowPrices> {
        let (step, answer) = self.line()?;
        Some(RowPrices {
            prompt: self.prompt_row()?,
            step,
            answer,
        })
    }

    fn expected(&self, decode_rows: usize, prompt_rows: usize) -> Option<f64> {
        let prompts = match prompt_rows {
            0 => 0.0,
            rows => rows as f64 * self.prompt_row()?,
        };
        let decodes = match decode_rows {
            0 => 0.0,
            rows => self.decode_seconds(rows)?,
        };
        Some(decodes + prompts)
    }

    /// Seconds of a step without prompts.
    fn decode_seconds(&self, rows: usize) -> Option<f64> {
        let (fixed, slope) = self.line()?;
        Some(fixed + slope * rows as f64)
    }

    fn prompt_row(&self) -> Option<f64> {
        (self.prompt_rows > 0.0).then(|| self.prompt_seconds / self.prompt_rows)
    }

    /// Seconds of an empty step and of each decode row, by least squares.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 {
            return None;
        }
        let (rows, seconds) = (self.rows / self.weight, self.seconds / self.weight);
        let variance = self.rows_squared / self.weight - rows * rows;
        let slope = if variance > 0.1 {
            (self.rows_seconds / self.weight - rows * seconds) / variance
        } else {
            seconds / (rows + ROWS_OF_WEIGHTS)
        };
        // Neither a row nor an empty step takes less than no time.
        let slope = slope.clamp(0.0, seconds / rows.max(1.0));
        Some((seconds - slope * rows, slope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: f64 = 1e-3;

    /// A machine with 4 ms for the weights, 1 ms for a decode row, 0.5 ms for a prompt row.
    fn seconds(decodes: usize, prompts: usize) -> f64 {
        (4.0 + decodes as f64 + 0.5 * prompts as f64) * MILLI
    }

    fn learnt(steps: &[(usize, usize)]) -> Pace {
        let mut pace = Pace::default();
        for &(decodes, prompts) in steps {
            pace.observe(decodes, prompts, seconds(decodes, prompts));
        }
        pace
    }

    #[test]
    fn prompts_beside_streams_stay_under_the_usual_gap() {
        let mut steps: Vec<(usize, usize)> = (0..40).map(|step| (1 + step % 8, 0)).collect();
        steps.extend([(4, 10), (8, 12), (2, 6)]);
        let pace = learnt(&steps);
        // Four tenths of 5 ms and of 12 ms, at 0.5 ms a row.
        assert_eq!(pace.prompt_rows_beside(1, (1, 1), 1), 4);
        assert_eq!(pace.prompt_rows_beside(8, (8, 8), 1), 9);
        for decodes in 1..32 {
            let rows = pace.prompt_rows_beside(decodes, (decodes, decodes), 1);
            assert!(seconds(decodes, rows) < 2.0 * seconds(decodes, 0));
        }
    }

    #[test]
    fn whoever_begins_first_does_not_hold_up_those_who_began_with_it() {
        let mut steps: Vec<(usize, usize)> = (0..40).map(|step| (1 + step % 8, 0)).collect();
        steps.extend([(4, 10), (8, 12), (2, 6)]);
        let pace = learnt(&steps);
        // 3.8 times the 11 ms that seven rows take, less the 5 ms of the one that decodes, at 0.5 ms a row.
        let rows = pace.prompt_rows_beside(1, (1, 1), 7);
        assert!((73..=74).contains(&rows), "{rows}");
        // As many prompts as streams: 1.4 times the 11 ms, less 8 ms.
        let rows = pace.prompt_rows_beside(4, (4, 4), 4);
        assert!((14..=15).contains(&rows), "{rows}");
        assert!(seconds(4, rows) < 2.0 * seconds(7, 0));
        // However many there are, four times what the streams are about to be used to: 4 times 35 ms, less 5 ms.
        let rows = pace.prompt_rows_beside(1, (1, 1), 31);
        assert!((269..=270).contains(&rows), "{rows}");
    }

    #[test]
    fn background_work_keeps_out_of_the_streams_way() {
        let mut steps: Vec<(usize, usize)> = (0..40).map(|step| (1 + step % 8, 0)).collect();
        steps.extend([(4, 10), (8, 12), (2, 6)]);
        let pace = learnt(&steps);
        // Four tenths of 5 ms and of 12 ms, at 1 ms a row.
        assert_eq!(pace.background_decodes_beside(1), 2);
        assert_eq!(pace.background_decodes_beside(8), 4);
        // 80 ms less the 4 ms of an empty step, or the 36 ms of one with 32 rows, at 0.5 ms a row.
        assert!((151..=152).contains(&pace.background_rows(0)));
        assert!((87..=88).contains(&pace.background_rows(32)));
        assert_eq!(pace.background_rows(100), LEAST_BACKGROUND_ROWS);
        assert_eq!(Pace::default().background_decodes_beside(4), 1);
        assert_eq!(Pace::default().background_rows(0), LEAST_BACKGROUND_ROWS);
    }

    #[test]
    fn prompts_always_go_on() {
        let mut pace = learnt(&[(1, 0), (2, 0)]);
        pace.observe(1, 1, 5.0);
        assert_eq!(pace.prompt_rows_beside(1, (1, 1), 1), LEAST_PROMPT_ROWS);
        assert_eq!(
            Pace::default().prompt_rows_beside(1, (1, 1), 1),
            FIRST_PROMPT_ROWS
        );
    }

    #[test]
    fn one_step_that_hung_changes_little() {
        let steps: Vec<(usize, usize)> =
            (0..40).map(|step| (1 + step % 4, 4 * (step % 2))).collect();
        let mut pace = learnt(&steps);
        let before = pace.prompt_rows_beside(2, (2, 2), 1);
        pace.observe(2, 4, 900.0 * MILLI);
        pace.observe(2, 0, 900.0 * MILLI);
        let after = pace.prompt_rows_beside(2, (2, 2), 1);
        assert!(
            after * 2 >= before && after <= before * 2,
            "{before}, then {after}"
        );
    }

    #[test]
    fn a_slower_machine_is_noticed() {
        let mut pace = learnt(&[(1, 0), (3, 0), (2, 8)]);
        for _ in 0..120 {
            pace.observe(2, 0, 3.0 * seconds(2, 0));
            // Prompt rows became five times as expensive as the streams.
            pace.observe(2, 8, 3.0 * seconds(2, 0) + 8.0 * 7.5 * MILLI);
        }
        assert_eq!(pace.prompt_rows_beside(2, (2, 2), 1), LEAST_PROMPT_ROWS);
    }

    #[test]
    fn a_guess_is_cheap_alone_and_dear_in_company() {
        let pace = learnt(&(0..40).map(|step| (1 + step % 8, 0)).collect::<Vec<_>>());
        assert!((pace.price_of_guess(1) - 1.0 / 5.0).abs() < 1e-6);
        assert!((pace.price_of_guess(8) - 8.0 / 12.0).abs() < 1e-6);
        assert!((Pace::default().price_of_guess(1) - 0.2).abs() < 1e-6);
    }

    #[test]
    fn steps_of_one_size_still_give_an_estimate() {
        let pace = learnt(&[(4, 0); 10]);
        assert!((pace.decode_seconds(4).expect("measured") - 8.0 * MILLI).abs() < 1e-9);
        assert!((pace.decode_seconds(8).expect("measured") - 12.0 * MILLI).abs() < 1e-9);
    }
}
