//! The engine's thread: takes what was submitted and steps while there is work. A panic costs the request that caused it and no other.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, TryRecvError};

use crate::error::EngineError;
use crate::executor::Executor;
use crate::faults::Fault;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::shared::Shared;

/// Panics in a row with no request to blame after which the thread gives up.
const MOST_UNEXPLAINED: usize = 3;

/// What a turn of the thread found.
enum Turn {
    GoOn,
    /// Nobody can submit anything any more.
    Over,
}

/// Works until the last handle is gone.
///
/// # Panics
/// When turns panic again and again though no request is to blame: the engine cannot be trusted any more.
pub(crate) fn run(mut executor: Executor, shared: &Shared, inbox: &Receiver<Sequence>) {
    let mut scheduler = Scheduler::new(shared.config.clone());
    let mut unexplained = 0;
    loop {
        if scheduler.is_idle() {
            match inbox.recv() {
                Ok(sequence) => scheduler.enqueue(sequence),
                Err(_) => break,
            }
        }
        // What a panic leaves half done is thrown away by `recover`, and the executor writes before it reads.
        let turn = catch_unwind(AssertUnwindSafe(|| {
            turn(&mut scheduler, &mut executor, shared, inbox)
        }));
        match turn {
            Ok(Turn::GoOn) => unexplained = 0,
            Ok(Turn::Over) => {
                let unfinished = scheduler.into_unfinished();
                return unfinished.for_each(|sequence| sequence.fail(EngineError::Stopped));
            }
            Err(panic) => {
                unexplained = match scheduler.recover() {
                    true => 0,
                    false => unexplained + 1,
                };
                if unexplained >= MOST_UNEXPLAINED {
                    let unfinished = scheduler.into_unfinished();
                    unfinished.for_each(|sequence| sequence.fail(EngineError::Stopped));
                    resume_unwind(panic);
                }
                shared.publish(&mut scheduler);
            }
        }
    }
}

fn turn(
    scheduler: &mut Scheduler,
    executor: &mut Executor,
    shared: &Shared,
    inbox: &Receiver<Sequence>,
) -> Turn {
    if let Some(hook) = &shared.config.fault_hook {
        hook.call(Fault::Turn);
    }
    loop {
        match inbox.try_recv() {
            Ok(sequence) => scheduler.enqueue(sequence),
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Disconnected) => return Turn::Over,
        }
    }
    // Before the step, so that whoever hears of its first token finds the place in the queue free.
    let places = scheduler.admit();
    shared.board.admitted(scheduler.running(), places);
    scheduler.step(executor, &shared.limits());
    // The step has woken those who wait for its tokens, and this thread would otherwise keep their core for the rest of
    // its time slice.
    std::thread::yield_now();
    shared.publish(scheduler);
    Turn::GoOn
}
