//! What is refused because it would come too late, and what is given up because it did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::{EngineError, Fault, FaultHook, SubmitError};

#[test]
fn a_request_is_given_up_when_its_time_is_over() {
    let deadline = Instant::now() + Duration::from_millis(200);
    let config = EngineConfig {
        fault_hook: Some(FaultHook::new(move |fault| {
            if let Fault::Answer(tokens, _) = fault {
                // The third token takes until the deadline has passed.
                while tokens.len() == 5 && Instant::now() < deadline {}
            }
        })),
        draft_tokens: 0,
        ..EngineConfig::default()
    };
    let (engine, _folder) = tiny_engine(KernelChoice::best(), config);
    let late = GenerateRequest {
        deadline: Some(deadline),
        ..greedy(&[70, 71, 72], 50)
    };
    let mut events = engine.generate(late).expect("taken");
    let patient = engine.generate(greedy(&[80, 81], 50)).expect("taken");
    let mut tokens = 0;
    loop {
        match events.blocking_recv().expect("an end") {
            GenerateEvent::Token { .. } => tokens += 1,
            GenerateEvent::Failed(error) => {
                assert_eq!(error, EngineError::DeadlineExceeded);
                break;
            }
            GenerateEvent::Started { .. } => {}
            GenerateEvent::Finished { .. } => panic!("it had no time for that"),
        }
    }
    assert_eq!(tokens, 3);
    assert_eq!(collect(patient).tokens.len(), 50);
    let over = GenerateRequest {
        deadline: Some(deadline),
        ..greedy(&[70], 1)
    };
    assert_eq!(engine.generate(over).err(), Some(SubmitError::Expired));
}

#[test]
fn a_request_that_would_come_too_late_is_refused_with_the_time_it_would_take() {
    let (engine, _folder) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    // What rows take is learnt.
    collect(engine.generate(greedy(&[70, 71, 72], 50)).expect("taken"));
    let soon = || Some(Instant::now() + Duration::from_millis(15));
    let hasty = || GenerateRequest {
        deadline: soon(),
        ..greedy(&[90, 91], 2)
    };
    let crowd: Vec<_> = (0..30)
        .map(|salt| {
            engine
                .generate(greedy(&[100 + salt; 20], 400))
                .expect("taken")
        })
        .collect();
    let refused = engine.generate(hasty()).err();
    let Some(SubmitError::TooLate {
        needed,
        left,
        retry_after,
    }) = refused
    else {
        panic!("the crowd takes longer than that: {refused:?}");
    };
    assert!(needed > left && retry_after.as_secs() >= 1);
    drop(crowd);
    // Nobody is before it now, so it is tried.
    let patient = GenerateRequest {
        deadline: Some(Instant::now() + Duration::from_secs(60)),
        ..greedy(&[90, 91], 2)
    };
    assert_eq!(
        collect(engine.generate(patient).expect("taken"))
            .tokens
            .len(),
        2
    );
}

#[test]
fn the_tokens_that_wait_are_bounded() {
    let held = Arc::new(AtomicBool::new(true));
    let holds = Arc::clone(&held);
    let config = EngineConfig {
        max_queue_tokens: 100,
        fault_hook: Some(FaultHook::new(move |fault| {
            while matches!(fault, Fault::Step(_)) && holds.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        })),
        ..EngineConfig::default()
    };
    let (engine, _folder) = tiny_engine(KernelChoice::best(), config);
    // More than the bound, but alone.
    let first = engine.generate(greedy(&[70, 71], 150)).expect("taken");
    let refused = engine.generate(greedy(&[80], 1)).err();
    assert!(
        matches!(
            refused,
            Some(SubmitError::TooMuchWork {
                tokens: 154,
                limit: 100,
                ..
            })
        ),
        "{refused:?}"
    );
    let background = GenerateRequest {
        priority: Priority::Background,
        ..greedy(&[80], 120)
    };
    let background = engine.generate(background).expect("taken");
    held.store(false, Ordering::Release);
    assert_eq!(collect(background).tokens.len(), 120);
    assert_eq!(collect(first).tokens.len(), 150);
}
