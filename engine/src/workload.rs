//! How much work requests have brought and how long it takes, so that one that would come too late is refused when it comes.
//!
//! Only interactive requests count: background work gives way to them, so it makes nobody wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adapters::Version;

/// What an older request counts against the next newer one when shares are learnt.
const MEMORY: f64 = 0.98;
/// The least that a request is taken to need of what it declared.
const LEAST_SHARE: f64 = 0.02;

/// Seconds that rows take, as the scheduler has learnt them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RowPrices {
    /// A prompt row.
    pub(crate) prompt: f64,
    /// A step, whatever it holds.
    pub(crate) step: f64,
    /// An answer's row of a step.
    pub(crate) answer: f64,
}

/// The rows that a request may take at most, by what it declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    /// Tokens that are known: prompts and continuations.
    pub(crate) prompt: u64,
    /// Tokens that may be generated.
    pub(crate) answer: u64,
}

/// What is left to be done, over all requests.
pub(crate) struct Workload {
    most_running: usize,
    total: Outstanding,
    tenants: Mutex<HashMap<Option<Version>, Arc<Outstanding>>>,
    shares: Mutex<Shares>,
    /// [`RowPrices`] as bits, zeros until they are known.
    prices: [AtomicU64; 3],
}

/// Declared rows that have not been computed yet.
#[derive(Default)]
struct Outstanding {
    requests: AtomicU64,
    prompt: AtomicU64,
    answer: AtomicU64,
}

/// The part of what was declared that was really computed: prompts are found in the cache, answers end early.
#[derive(Debug, Clone, Copy)]
struct Shares {
    prompt: [f64; 2],
    answer: [f64; 2],
}

/// A request's part of the workload, for as long as it lives.
pub(crate) struct Ticket {
    workload: Arc<Workload>,
    tenant: Arc<Outstanding>,
    declared: Rows,
    left: Rows,
    spent: Rows,
    completed: bool,
}

/// What a request that comes now would find.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Forecast {
    /// Rows before it and its own, as far as they are expected to be computed.
    pub(crate) rows: u64,
    /// Whether there are any before it.
    pub(crate) busy: bool,
    /// Seconds until its answer is complete; `None` before anything was measured.
    pub(crate) seconds: Option<f64>,
    /// Seconds until one request less is there; `None` before anything was measured.
    pub(crate) seconds_to_place: Option<f64>,
}

impl Workload {
    pub(crate) fn new(most_running: usize) -> Self {
        Self {
            most_running,
            total: Outstanding::default(),
            tenants: Mutex::default(),
            shares: Mutex::new(Shares {
                prompt: [1.0; 2],
                answer: [1.0; 2],
            }),
            prices: Default::default(),
        }
    }

    /// Shows what rows take by now.
    pub(crate) fn publish(&self, prices: RowPrices) {
        let values = [prices.prompt, prices.step, prices.answer];
        for (place, value) in self.prices.iter().zip(values) {
            place.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    fn prices(&self) -> Option<RowPrices> {
        let [prompt, step, answer] = self
            .prices
            .each_ref()
            .map(|bits| f64::from_bits(bits.load(Ordering::Relaxed)));
        let known = prompt > 0.0 && step + answer > 0.0;
        known.then_some(RowPrices {
            prompt,
            step,
            answer,
        })
    }

    /// What a request of an adapter version would find if it came now.
    ///
    /// Prompts are read one behind the other. Answers share each step with those of everybody who runs, and whoever ends is taken to be
    /// followed by a request like this one, so a step stays as long as it is now and a prompt of this size is read for each. Adapters
    /// share the engine evenly: a request waits for no more prompts and places than its own adapter has, times the adapters with work.
    pub(crate) fn forecast(&self, version: Option<&Version>, own: Rows) -> Forecast {
        let shares = *self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let (requests, all) = self.total.read();
        let (of_tenant, rows_of_tenant) = tenants
            .get(&version.cloned())
            .map_or((0, Rows::default()), |tenant| tenant.read());
        let active = tenants.values().filter(|tenant| tenant.read().0 > 0);
        let active = active.count().max(1) as u64;
        drop(tenants);
        let most_running = self.most_running as u64;
        let company = (requests + 1).min(most_running);
        let before = (requests + 1).min((of_tenant + 1) * active);
        let places = before.saturating_sub(most_running) as f64;
        let rows = shares.expected(all.plus(own));
        let fair = shares.expected(rows_of_tenant.plus(own).times(active));
        let (prompt, answer) = shares.expected(own);
        let prompts = rows.0.min(fair.0) + (company - 1) as f64 * prompt;
        let place = self.prices().map(|prices| {
            let seconds = prices.seconds(shares.expected(all), company);
            (prices, seconds / requests.max(1) as f64)
        });
        Forecast {
            rows: (rows.0 + rows.1) as u64,
            busy: requests > 0,
            seconds: place.map(|(prices, place)| {
                let steps = answer * (prices.step + prices.answer * company as f64);
                prompts * prices.prompt + steps + places * place
            }),
            seconds_to_place: place.map(|(_, place)| place),
        }
    }

    /// Counts a request until its ticket is dropped.
    pub(crate) fn enter(self: &Arc<Self>, version: Option<&Version>, declared: Rows) -> Ticket {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // Held by nobody else: no request is left that would count there.
        tenants.retain(|_, tenant| Arc::strong_count(tenant) > 1);
        let tenant = Arc::clone(tenants.entry(version.cloned()).or_default());
        drop(tenants);
        for outstanding in [&self.total, &*tenant] {
            outstanding.requests.fetch_add(1, Ordering::Relaxed);
            outstanding
                .prompt
                .fetch_add(declared.prompt, Ordering::Relaxed);
            outstanding
                .answer
                .fetch_add(declared.answer, Ordering::Relaxed);
        }
        Ticket {
            workload: Arc::clone(self),
            tenant,
            declared,
            left: declared,
            spent: Rows::default(),
            completed: false,
        }
    }
}

impl RowPrices {
    /// Seconds of (prompt, answer) rows, where `company` answers share each step.
    fn seconds(&self, (prompt, answer): (f64, f64), company: u64) -> f64 {
        prompt * self.prompt + answer * (self.step / company.max(1) as f64 + self.answer)
    }
}

impl Rows {
    fn plus(self, other: Self) -> Self {
        Self {
            prompt: self.prompt + other.prompt,
            answer: self.answer + other.answer,
        }
    }

    fn times(self, factor: u64) -> Self {
        Self {
            prompt: self.prompt * factor,
            answer: self.answer * factor,
        }
    }
}

impl Outstanding {
    fn read(&self) -> (u64, Rows) {
        let rows = Rows {
            prompt: self.prompt.load(Ordering::Relaxed),
            answer: self.answer.load(Ordering::Relaxed),
        };
        (self.requests.load(Ordering::Relaxed), rows)
    }
}

impl Shares {
    fn expected(&self, rows: Rows) -> (f64, f64) {
        let share = |[spent, declared]: [f64; 2]| (spent / declared).clamp(LEAST_SHARE, 1.0);
        (
            rows.prompt as f64 * share(self.prompt),
            rows.answer as f64 * share(self.answer),
        )
    }

    fn learn(&mut self, declared: Rows, spent: Rows) {
        let pairs = [
            (&mut self.prompt, spent.prompt, declared.prompt),
            (&mut self.answer, spent.answer, declared.answer),
        ];
        for (share, spent, declared) in pairs {
            if declared > 0 {
                share[0] = MEMORY * share[0] + spent as f64;
                share[1] = MEMORY * share[1] + declared as f64;
            }
        }
    }
}

impl Ticket {
    /// Notes computed rows. A request that gave way is computed again, so it may take more than it declared.
    pub(crate) fn spend(&mut self, rows: Rows) {
        self.spent = self.spent.plus(rows);
        self.give_back(rows);
    }

    /// Notes rows that were found in the cache.
    pub(crate) fn spare(&mut self, prompt: usize) {
        self.give_back(Rows {
            prompt: prompt as u64,
            answer: 0,
        });
    }

    /// Notes that the answer is complete: what it took says something about those to come.
    pub(crate) fn complete(&mut self) {
        self.completed = true;
    }

    fn give_back(&mut self, rows: Rows) {
        let taken = Rows {
            prompt: rows.prompt.min(self.left.prompt),
            answer: rows.answer.min(self.left.answer),
        };
        self.left.prompt -= taken.prompt;
        self.left.answer -= taken.answer;
        for outstanding in [&self.workload.total, &*self.tenant] {
            outstanding
                .prompt
                .fetch_sub(taken.prompt, Ordering::Relaxed);
            outstanding
                .answer
                .fetch_sub(taken.answer, Ordering::Relaxed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give_back(self.left);
        for outstanding in [&self.workload.total, &*self.tenant] {
            outstanding.requests.fetch_sub(1, Ordering::Relaxed);
        }
        if self.completed {
            let shares = self.workload.shares.lock();
            let mut shares = shares.unwrap_or_else(PoisonError::into_inner);
            shares.learn(self.declared, self.spent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: RowPrices = RowPrices {
        prompt: 1e-3,
        step: 4e-3,
        answer: 1e-3,
    };
    const OWN: Rows = Rows {
        prompt: 100,
        answer: 50,
    };

    fn version(digit: char) -> Version {
        let digits: String = std::iter::repeat_n(digit, 64).collect();
        digits.parse().expect("a version")
    }

    fn workload() -> Arc<Workload> {
        Arc::new(Workload::new(2))
    }

    #[test]
    fn nothing_is_foretold_before_anything_was_measured() {
        let forecast = workload().forecast(None, OWN);
        assert_eq!((forecast.rows, forecast.busy), (150, false));
        assert_eq!((forecast.seconds, forecast.seconds_to_place), (None, None));
    }

    #[test]
    fn a_request_waits_for_what_is_before_it() {
        let workload = workload();
        workload.publish(PRICES);
        let alone = workload.forecast(None, OWN).seconds.expect("prices");
        // 100 prompt rows at 1 ms, 50 steps of 5 ms.
        assert!((alone - 0.35).abs() < 1e-9, "{alone}");
        let tickets: Vec<Ticket> = (0..3).map(|_| workload.enter(None, OWN)).collect();
        let fourth = workload.forecast(None, OWN);
        // 400 prompt rows and 100 of whoever comes beside it, 50 steps of 6 ms, and two places at 0.25 s.
        let seconds = fourth.seconds.expect("prices");
        assert!((seconds - 1.3).abs() < 1e-9, "{seconds}");
        assert_eq!((fourth.rows, fourth.busy), (600, true));
        // Three requests take 0.75 s.
        let place = fourth.seconds_to_place.expect("prices");
        assert!((place - 0.25).abs() < 1e-9, "{place}");
        drop(tickets);
        let again = workload.forecast(None, OWN);
        assert_eq!((again.seconds, again.busy), (Some(alone), false));
    }

    #[test]
    fn a_crowd_on_another_adapter_counts_for_its_share_only() {
        let workload = workload();
        workload.publish(PRICES);
        let crowd: Vec<Ticket> = (0..100)
            .map(|_| workload.enter(Some(&version('a')), OWN))
            .collect();
        let _other = workload.enter(Some(&version('b')), OWN);
        let of_crowd = workload.forecast(Some(&version('a')), OWN).seconds;
        let of_other = workload.forecast(Some(&version('b')), OWN).seconds;
        // All of it; twice the two requests of the other adapter.
        assert!(of_crowd.expect("prices") > 25.0, "{of_crowd:?}");
        assert!(of_other.expect("prices") < 1.31, "{of_other:?}");
        drop(crowd);
    }

    #[test]
    fn what_requests_really_take_is_learnt_from_those_that_ended() {
        let workload = workload();
        for _ in 0..400 {
            let mut ticket = workload.enter(None, OWN);
            ticket.spare(80);
            ticket.spend(Rows {
                prompt: 20,
                answer: 10,
            });
            ticket.complete();
        }
        let forecast = workload.forecast(None, OWN);
        // A fifth of each.
        assert!((30..=32).contains(&forecast.rows), "{forecast:?}");
        drop(workload.enter(None, OWN));
        assert_eq!(workload.forecast(None, OWN), forecast);
    }

    #[test]
    fn work_that_is_done_twice_is_counted_once() {
        let workload = workload();
        let mut ticket = workload.enter(None, OWN);
        for _ in 0..3 {
            ticket.spend(Rows {
                prompt: 80,
                answer: 20,
            });
        }
        assert_eq!(workload.total.read(), (1, Rows::default()));
        drop(ticket);
        assert_eq!(workload.total.read(), (0, Rows::default()));
    }
}
