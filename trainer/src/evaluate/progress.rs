//! How far an evaluation is, as a bar.

use std::sync::{Mutex, PoisonError};

use evaluation::{EvaluationPlan, Observer, Stage, Stages};
use indicatif::{ProgressBar, ProgressStyle};
use tasks::Cell;

/// A bar over the work of all examples, in prompt tokens that are computed, so that its estimate knows long from short.
pub(super) struct Bar<'a> {
    plan: &'a EvaluationPlan,
    bar: ProgressBar,
    stages: Mutex<Stages>,
}

impl<'a> Bar<'a> {
    pub(super) fn new(plan: &'a EvaluationPlan) -> Self {
        let style =
            ProgressStyle::with_template("{wide_bar} {percent} % · {msg} · {elapsed} + {eta}")
                .expect("the template is a constant and valid");
        let bar = ProgressBar::new(plan.total_work() as u64).with_style(style);
        Self {
            plan,
            bar,
            stages: Mutex::default(),
        }
    }

    /// Takes the bar away; where the time went.
    pub(super) fn finish(&self) -> Stages {
        self.bar.finish_and_clear();
        *self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Bar<'_> {
    fn examples_done(&self, cell: &Cell, count: usize) {
        let work = self.plan.work(cell) * count as f64;
        self.bar.inc(work as u64);
        let (dataset, shots) = (&cell.dataset, cell.shots);
        self.bar
            .set_message(format!("{dataset}, {shots} demonstrations"));
    }

    fn spent(&self, stage: Stage, seconds: f64) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.add(stage, seconds);
    }
}
