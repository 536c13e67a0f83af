//! What a request may ask for: scoring, log-probabilities, stops, limits, cancellation.

use super::*;
use crate::request::ScoreRequest;
use crate::sampling::LogSoftmax;
use crate::{ScoreResult, SubmitError};

fn score(engine: &Engine, prompt: &[u32], continuations: &[&[u32]]) -> ScoreResult {
    let request = ScoreRequest {
        prompt: prompt.to_vec(),
        continuations: continuations.iter().map(|tokens| tokens.to_vec()).collect(),
        adapter: Some(random_adapter(engine.base(), 5)),
        pooled_from: None,
        priority: Priority::Background,
        deadline: None,
    };
    let reply = engine.score(request).expect("the engine takes the request");
    reply.blocking_recv().expect("an answer").expect("a result")
}

#[test]
fn a_continuation_scores_what_its_tokens_score_one_by_one() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let prompt: Vec<u32> = (60..79).collect();
    let continuations: [&[u32]; 4] = [&[90, 91, 92], &[100], &[], &[120; 20]];
    let result = score(&engine, &prompt, &continuations);
    let adapter = random_adapter(engine.base(), 5);
    for (continuation, score) in continuations.iter().zip(&result.continuations) {
        let mut tokens = prompt.clone();
        let mut expected = Vec::new();
        for &token in *continuation {
            let logits = logits(&engine, &tokens, Some(Arc::clone(&adapter)));
            expected.push(LogSoftmax::new(&logits).of(token));
            tokens.push(token);
        }
        assert_eq!(score.token_logprobs, expected);
        let sum: f64 = expected.iter().map(|&value| f64::from(value)).sum();
        assert_eq!(score.logprob, sum);
    }
}

#[test]
fn the_greedy_continuation_is_marked_greedy() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let prompt: Vec<u32> = (60..79).collect();
    let adapter = Some(random_adapter(engine.base(), 5));
    let request = GenerateRequest {
        adapter,
        ..greedy(&prompt, 4)
    };
    let answer = collect(engine.generate(request).expect("taken"));
    let mut other = answer.tokens.clone();
    other[3] = (other[3] + 1) % 256;
    let result = score(&engine, &prompt, &[&answer.tokens, &other]);
    let greedy: Vec<bool> = result
        .continuations
        .iter()
        .map(|score| score.is_greedy)
        .collect();
    assert_eq!(greedy, [true, false]);
    let reported: Vec<f32> = answer.logprobs.iter().map(|one| one.logprob).collect();
    assert_eq!(result.continuations[0].token_logprobs, reported);
}

#[test]
fn prompt_logprobs_are_those_of_scoring() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let tokens: Vec<u32> = (60..100).collect();
    let adapter = Some(random_adapter(engine.base(), 5));
    let request = GenerateRequest {
        adapter,
        prompt_logprobs: Some(1),
        ..greedy(&tokens, 1)
    };
    let answer = collect(engine.generate(request).expect("taken"));
    let reported: Vec<f32> = answer
        .prompt_logprobs
        .expect("prompt log-probabilities were asked for")
        .iter()
        .map(|one| one.logprob)
        .collect();
    let scored = score(&engine, &tokens[..1], &[&tokens[1..]]);
    assert_eq!(reported, scored.continuations[0].token_logprobs);
}

#[test]
fn a_generation_ends_at_its_limit_or_at_the_context() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let long: Vec<u32> = (0..250).map(|i| 40 + i % 100).collect();
    let answer = collect(engine.generate(greedy(&long, 100)).expect("taken"));
    assert_eq!(
        (answer.tokens.len(), answer.reason),
        (6, FinishReason::Length)
    );
    let nothing = collect(engine.generate(greedy(&long, 0)).expect("taken"));
    assert_eq!(
        (nothing.tokens.len(), nothing.reason),
        (0, FinishReason::Length)
    );
}

#[test]
fn a_seed_fixes_the_text_and_another_changes_it() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let sampled = |seed| {
        let sampling = Sampling {
            temperature: 1.5,
            seed,
            ..Sampling::default()
        };
        let request = GenerateRequest {
            sampling,
            ..greedy(&[70, 80, 90], 24)
        };
        collect(engine.generate(request).expect("taken")).tokens
    };
    assert_eq!(sampled(3), sampled(3));
    assert_ne!(sampled(3), sampled(4));
}

#[test]
fn requests_that_cannot_run_are_refused_with_the_numbers() {
    let config = EngineConfig {
        kv_tokens: 64,
        ..EngineConfig::default()
    };
    let (engine, _directory) = tiny_engine(KernelChoice::best(), config);
    let refused = |prompt: Vec<u32>| engine.generate(greedy(&prompt, 1)).err();
    assert_eq!(refused(vec![]), Some(SubmitError::PromptEmpty));
    let too_long = SubmitError::TooLong {
        tokens: 65,
        limit: 64,
    };
    assert_eq!(refused(vec![50; 64]), Some(too_long));
    let vocabulary = engine.config().vocabulary;
    let unknown = SubmitError::TokenOutOfRange {
        token: 1 << 20,
        vocabulary,
    };
    assert_eq!(refused(vec![50, 1 << 20]), Some(unknown));
    engine.drain();
    assert_eq!(refused(vec![50]), Some(SubmitError::Draining));
}

#[test]
fn a_full_queue_refuses_and_a_client_that_hangs_up_makes_room() {
    let config = EngineConfig {
        max_queue: 2,
        max_running: 1,
        ..EngineConfig::default()
    };
    let (engine, _directory) = tiny_engine(KernelChoice::best(), config);
    let endless = || greedy(&[70, 71], 200);
    let mut first = engine.generate(endless()).expect("taken");
    assert!(matches!(
        first.blocking_recv(),
        Some(GenerateEvent::Started { .. })
    ));
    let second = engine.generate(endless()).expect("taken");
    let third = engine.generate(endless()).expect("taken");
    let refused = engine.generate(endless()).err();
    let Some(SubmitError::QueueFull {
        waiting: 2,
        limit: 2,
        retry_after,
    }) = refused
    else {
        panic!("a third has no place: {refused:?}");
    };
    assert!(retry_after.as_secs() >= 1);
    drop(first);
    drop(second);
    assert_eq!(collect(third).tokens.len(), 200);
}

#[test]
fn an_adapter_without_weights_has_no_effect_and_a_random_one_has() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let effect = |adapter| {
        runtime
            .block_on(engine.effect(Arc::new(adapter)))
            .expect("an effect")
    };
    let random = random_modules(engine.base(), 9);
    let moved = effect(engine.prepare(&random));
    assert!(moved.divergence > 1e-3);
    assert!(moved.information > 0.0 && moved.base_information > 0.0);
    let mut silent = random_modules(engine.base(), 10);
    for module in &mut silent.modules {
        module.b.fill(0.0);
    }
    assert_eq!(effect(engine.prepare(&silent)).divergence, 0.0);
}
