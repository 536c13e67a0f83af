//! Guessed tokens change how many steps an answer takes, and nothing else.

use super::driven::{Answered, Asked, Driven};
use super::*;

fn config(draft_tokens: usize) -> EngineConfig {
    EngineConfig {
        draft_tokens,
        ..EngineConfig::default()
    }
}

/// An answer with the steps it took.
fn answer(draft_tokens: usize, request: &GenerateRequest) -> (Answer, u64, Driven) {
    let mut driven = Driven::new(config(draft_tokens), KernelChoice::best(), 1);
    let Answered::Generate(answer) = driven.alone(Asked::Generate(request.clone())) else {
        unreachable!("a generation was asked for");
    };
    (answer, driven.scheduler.totals().steps, driven)
}

/// A request whose answer has a few tokens only: guesses from what was answered are often right.
fn narrow(temperature: f32) -> GenerateRequest {
    let logit_bias = [(70, 60.0), (81, 60.0), (99, 59.0)].into_iter().collect();
    GenerateRequest {
        sampling: Sampling {
            temperature,
            seed: 5,
            logit_bias,
            ..Sampling::default()
        },
        ..greedy(&[70, 81, 70, 81, 99, 70, 81], 60)
    }
}

#[test]
fn a_greedy_answer_is_the_same_in_fewer_steps() {
    let (plain, plain_steps, _) = answer(0, &narrow(0.0));
    let (guessed, steps, driven) = answer(8, &narrow(0.0));
    assert_eq!(guessed, plain);
    assert_eq!(plain_steps, 60);
    assert!(steps < 45, "{steps} steps");
    let totals = driven.scheduler.totals();
    assert_eq!(totals.accepted_tokens, plain_steps - steps);
    assert!(totals.draft_tokens >= totals.accepted_tokens);
}

#[test]
fn a_sampled_answer_is_the_same_with_right_and_wrong_guesses() {
    let (plain, _, _) = answer(0, &narrow(1.4));
    let distinct: std::collections::BTreeSet<u32> = plain.tokens.iter().copied().collect();
    assert!(distinct.len() > 1, "{distinct:?}");
    let (guessed, _, driven) = answer(8, &narrow(1.4));
    assert_eq!(guessed, plain);
    let totals = driven.scheduler.totals();
    assert!(
        totals.accepted_tokens > 0 && totals.draft_tokens > totals.accepted_tokens,
        "{totals:?}"
    );
}

#[test]
fn an_answer_ends_in_the_middle_of_right_guesses() {
    for max_tokens in [9, 10, 11, 12, 13, 14] {
        let limited = GenerateRequest {
            max_tokens,
            ..narrow(0.0)
        };
        assert_eq!(answer(8, &limited).0, answer(0, &limited).0);
    }
    let whole = answer(0, &narrow(0.0)).0.text;
    let characters: Vec<char> = whole.chars().collect();
    let stop: String = characters[20..24].iter().collect();
    let stopped = GenerateRequest {
        stop: vec![stop],
        ..narrow(0.0)
    };
    let (plain, guessed) = (answer(0, &stopped).0, answer(8, &stopped).0);
    assert_eq!(plain.reason, FinishReason::Stop);
    assert_eq!(guessed, plain);
}

#[test]
fn rejected_guesses_are_never_remembered() {
    let mut driven = Driven::new(config(8), KernelChoice::best(), 1);
    let Answered::Generate(first) = driven.alone(Asked::Generate(narrow(1.4))) else {
        unreachable!("a generation was asked for");
    };
    // A second turn: what was said, and something new.
    let mut prompt = narrow(1.4).prompt;
    prompt.extend(&first.tokens);
    prompt.extend([120, 121, 122]);
    let turn = greedy(&prompt, 8);
    let events = driven.generate(turn.clone());
    driven.finish();
    let warm = collect(events);
    // 7 tokens of the first prompt and 59 computed ones of its answer fill four blocks.
    assert_eq!(warm.cached_tokens, 64);
    let Answered::Generate(cold) = driven.alone(Asked::Generate(turn)) else {
        unreachable!("a generation was asked for");
    };
    assert_eq!((warm.tokens, warm.logprobs), (cold.tokens, cold.logprobs));
}
