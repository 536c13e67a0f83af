//! Panics in the engine's thread: the request at fault fails, and nobody else notices.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

use super::*;
use crate::{EngineError, Fault, FaultHook, ScoreRequest, ScoreResult, SubmitError};

/// In the prompt of the request at fault, and in no other.
const POISON: u32 = 310;

fn engine_with(
    config: EngineConfig,
    hook: impl Fn(Fault<'_>) + Send + Sync + 'static,
) -> (Engine, tempfile::TempDir) {
    let config = EngineConfig {
        fault_hook: Some(FaultHook::new(hook)),
        ..config
    };
    tiny_engine(KernelChoice::best(), config)
}

fn small_steps() -> EngineConfig {
    EngineConfig {
        step_tokens: 24,
        ..EngineConfig::default()
    }
}

/// Prompts of which no two share a block.
fn prompts() -> Vec<Vec<u32>> {
    (0..5)
        .map(|salt| (0..40).map(|place| 40 + salt * 45 + place).collect())
        .collect()
}

fn poisoned() -> Vec<u32> {
    (0..30).map(|place| 60 + place).chain([POISON]).collect()
}

fn score(engine: &Engine, prompt: &[u32]) -> oneshot::Receiver<Result<ScoreResult, EngineError>> {
    let request = ScoreRequest {
        prompt: prompt.to_vec(),
        continuations: vec![vec![71, 72, 73], vec![90], vec![71, 80, 81, 82]],
        adapter: None,
        pooled_from: Some(3),
        priority: Priority::Background,
        deadline: None,
    };
    engine.score(request).expect("taken")
}

/// Fails the test unless a generation fails with that error; returns how many tokens came before.
fn failure(mut events: UnboundedReceiver<GenerateEvent>, expected: EngineError) -> usize {
    let mut tokens = 0;
    while let Some(event) = events.blocking_recv() {
        match event {
            GenerateEvent::Token { .. } => tokens += 1,
            GenerateEvent::Failed(error) => {
                assert_eq!(error, expected);
                return tokens;
            }
            GenerateEvent::Started { .. } => {}
            GenerateEvent::Finished { .. } => panic!("it should have failed"),
        }
    }
    panic!("the events ended without a word");
}

/// Asks for answers and scores beside the poisoned request, compares them with those of an engine without faults, and returns the
/// tokens that the poisoned one got.
fn others_get_their_answers(engine: &Engine) -> usize {
    let (sound, _folder) = tiny_engine(KernelChoice::best(), small_steps());
    let adapter = |place: usize| (place > 1).then(|| random_adapter(engine.base(), place as u64));
    let ask = |engine: &Engine, place: usize, prompt: &Vec<u32>| {
        let request = GenerateRequest {
            adapter: adapter(place),
            ..greedy(prompt, 20)
        };
        engine.generate(request).expect("taken")
    };
    let prompts = prompts();
    let ask_all = |engine: &Engine| -> Vec<_> {
        let asked = prompts.iter().enumerate();
        asked
            .map(|(place, prompt)| ask(engine, place, prompt))
            .collect()
    };
    let scored = score(engine, &prompts[2]);
    let awaited = ask_all(engine);
    let bad = engine.generate(greedy(&poisoned(), 20)).expect("taken");
    let tokens = failure(bad, EngineError::Panicked);
    let expected: Vec<Answer> = ask_all(&sound).into_iter().map(collect).collect();
    for (awaited, expected) in awaited.into_iter().zip(expected) {
        assert_eq!(collect(awaited), expected);
    }
    let wait = |reply: oneshot::Receiver<_>| reply.blocking_recv().expect("an answer");
    assert_eq!(wait(scored), wait(score(&sound, &prompts[2])));
    // And those that come later.
    let later = collect(ask(engine, 0, &prompts[0]));
    assert_eq!(later.text, collect(ask(&sound, 0, &prompts[0])).text);
    assert!(!engine.has_ended());
    tokens
}

#[test]
fn a_request_that_makes_steps_panic_is_found_among_others() {
    let (engine, _folder) = engine_with(small_steps(), |fault| {
        if let Fault::Step(sequences) = fault {
            let found = sequences.iter().any(|tokens| tokens.contains(&POISON));
            assert!(!found, "a step with the poisoned request");
        }
    });
    assert_eq!(others_get_their_answers(&engine), 0);
    assert!(engine.statistics().panics >= 1);
}

#[test]
fn a_request_whose_answer_panics_costs_the_others_nothing() {
    let (engine, _folder) = engine_with(small_steps(), |fault| {
        if let Fault::Answer(tokens, position) = fault {
            assert!(
                tokens.get(30) != Some(&POISON) || position < 35,
                "the sixth token"
            );
        }
    });
    assert_eq!(others_get_their_answers(&engine), 5);
    assert_eq!(engine.statistics().panics, 1);
}

#[test]
fn steps_that_panic_in_company_only_come_to_an_end() {
    let (engine, _folder) = engine_with(small_steps(), |fault| {
        if let Fault::Step(sequences) = fault {
            assert!(sequences.len() < 2, "a step with company");
        }
    });
    let awaited: Vec<_> = prompts()
        .iter()
        .map(|prompt| engine.generate(greedy(prompt, 20)).expect("taken"))
        .collect();
    for mut events in awaited {
        let mut last = None;
        while let Some(event) = events.blocking_recv() {
            last = Some(event);
        }
        let ended = matches!(
            last,
            Some(GenerateEvent::Finished { .. } | GenerateEvent::Failed(EngineError::Panicked))
        );
        assert!(ended, "{last:?}");
    }
    assert_eq!(
        collect(engine.generate(greedy(&[70], 3)).expect("taken"))
            .tokens
            .len(),
        3
    );
}

#[test]
fn a_panic_outside_of_any_request_loses_none() {
    let turns = AtomicUsize::new(0);
    let (engine, _folder) = engine_with(small_steps(), move |fault| {
        if let Fault::Turn = fault {
            let turn = turns.fetch_add(1, Ordering::Relaxed);
            assert!(turn.is_multiple_of(3), "two of three turns");
        }
    });
    let answer = collect(engine.generate(greedy(&[70, 71], 6)).expect("taken"));
    assert_eq!(answer.tokens.len(), 6);
    assert!(engine.statistics().panics >= 6);
}

#[test]
fn an_engine_that_only_panics_ends_and_tells_everybody() {
    let (engine, _folder) = engine_with(small_steps(), |fault| {
        assert!(!matches!(fault, Fault::Turn), "every turn");
    });
    let ended = engine.ended();
    let awaited = engine.generate(greedy(&[70, 71], 6)).expect("taken");
    assert_eq!(failure(awaited, EngineError::Stopped), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(ended);
    assert!(engine.has_ended());
    let refused = engine.generate(greedy(&[70], 1)).err();
    assert_eq!(refused, Some(SubmitError::Stopped));
}
