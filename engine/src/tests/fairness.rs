//! Who is served when there is more work than a step holds. Rows and steps are counted, never time.

use super::driven::{Asked, Driven, seconds};
use super::*;

fn prompt(length: u32, salt: u32) -> Vec<u32> {
    (0..length)
        .map(|i| 30 + (i * 7 + salt * 31) % 223)
        .collect()
}

/// Steps until a request's first event, at most `most`.
fn steps_to_start(
    driven: &mut Driven,
    events: &mut UnboundedReceiver<GenerateEvent>,
    most: usize,
) -> usize {
    for step in 1..=most {
        driven.step();
        if events.try_recv().is_ok() {
            return step;
        }
    }
    panic!("nothing arrived in {most} steps");
}

fn request(driven: &Driven, adapter: u64, prompt: &[u32], max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        adapter: Some(random_adapter(&driven.base, adapter)),
        logprobs: None,
        ..greedy(prompt, max_tokens)
    }
}

#[test]
fn one_request_is_not_behind_a_hundred_on_another_adapter() {
    let config = EngineConfig {
        draft_tokens: 0,
        ..EngineConfig::default()
    };
    let mut driven = Driven::new(config, KernelChoice::best(), 2);
    let crowd = request(&driven, 1, &prompt(64, 0), 40);
    let crowd: Vec<_> = (0..100)
        .map(|salt| {
            driven.generate(GenerateRequest {
                prompt: prompt(64, salt),
                ..crowd.clone()
            })
        })
        .collect();
    for _ in 0..6 {
        driven.step();
    }
    assert_eq!(driven.scheduler.running(), 64);
    let single = request(&driven, 2, &prompt(64, 7), 4);
    let mut events = driven.generate(single.clone());
    let rows = driven.scheduler.totals().step_rows;
    steps_to_start(&mut driven, &mut events, 12);
    let rows = driven.scheduler.totals().step_rows - rows;
    // Its own 64 rows, as many for the crowd, and the crowd's decodes of those steps.
    assert!(rows < 600, "{rows} rows until the first token");
    driven.finish();
    let Asked::Generate(alone) = Asked::Generate(single) else {
        unreachable!("a generation was asked for");
    };
    let mut tokens = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let GenerateEvent::Token { token, .. } = event {
            tokens.push(token);
        }
    }
    let expected = driven.alone(Asked::Generate(alone));
    let super::driven::Answered::Generate(expected) = expected else {
        unreachable!("a generation was asked for");
    };
    assert_eq!(tokens, expected.tokens);
    for events in crowd {
        assert_eq!(collect(events).tokens.len(), 40);
    }
}

#[test]
fn adapters_share_prompt_rows_evenly() {
    let config = EngineConfig {
        step_tokens: 64,
        ..EngineConfig::default()
    };
    let mut driven = Driven::new(config, KernelChoice::best(), 2);
    let crowd = request(&driven, 1, &[30], 1);
    let mut crowd: Vec<_> = (0..6)
        .map(|salt| {
            driven.generate(GenerateRequest {
                prompt: prompt(128, salt),
                ..crowd.clone()
            })
        })
        .collect();
    let single = request(&driven, 2, &prompt(128, 9), 1);
    let mut events = driven.generate(single);
    // 64 rows a step, half of them for each: 128 tokens take four steps, and the crowd's first prompt takes as long.
    assert_eq!(steps_to_start(&mut driven, &mut events, 20), 4);
    assert!(crowd[0].try_recv().is_ok());
    assert!(crowd[1].try_recv().is_err());
    driven.finish();
}

#[test]
fn an_interactive_request_takes_the_place_of_a_background_one() {
    let config = EngineConfig {
        max_running: 3,
        kv_tokens: 192,
        ..EngineConfig::default()
    };
    let mut driven = Driven::new(config, KernelChoice::best(), 2);
    let background: Vec<_> = (0..3)
        .map(|salt| GenerateRequest {
            priority: Priority::Background,
            ..greedy(&prompt(40, salt), 16)
        })
        .collect();
    let asked = background.clone().into_iter();
    let evaluated: Vec<_> = asked.map(|request| driven.generate(request)).collect();
    for _ in 0..3 {
        driven.step();
    }
    assert_eq!(driven.scheduler.running(), 3);
    let mut first = driven.generate(greedy(&prompt(60, 8), 5));
    assert_eq!(steps_to_start(&mut driven, &mut first, 5), 1);
    assert_eq!(driven.scheduler.paused(), 1);
    driven.finish();
    for (request, events) in background.into_iter().zip(evaluated) {
        let answer = Answer {
            cached_tokens: 0,
            ..collect(events)
        };
        let expected = driven.alone(Asked::Generate(request));
        assert_eq!(super::driven::Answered::Generate(answer), expected);
    }
}

#[test]
fn a_long_prompt_never_doubles_the_gap_of_running_streams() {
    let config = EngineConfig {
        draft_tokens: 0,
        ..EngineConfig::default()
    };
    let mut driven = Driven::new(config, KernelChoice::best(), 2);
    let streams: Vec<_> = (0..4)
        .map(|salt| driven.generate(greedy(&prompt(20, salt), 120)))
        .collect();
    for _ in 0..10 {
        driven.step();
    }
    let mut long = driven.generate(greedy(&prompt(200, 5), 1));
    let usual = seconds(4, 0);
    for _ in 0..100 {
        let rows = driven.step();
        let gap = seconds(4, rows - 4);
        assert!(gap < 2.0 * usual, "{rows} rows take {gap} s");
        if long.try_recv().is_ok() {
            drop(streams);
            return;
        }
        assert!(rows > 4, "the prompt stands still");
    }
    panic!("the prompt is never done");
}

#[test]
fn background_work_neither_doubles_the_gap_of_a_stream_nor_keeps_a_prompt_waiting() {
    let config = EngineConfig {
        draft_tokens: 0,
        ..EngineConfig::default()
    };
    let mut driven = Driven::new(config, KernelChoice::best(), 2);
    let background = |length, tokens, salt| GenerateRequest {
        priority: Priority::Background,
        ..greedy(&prompt(length, salt), tokens)
    };
    let evaluated: Vec<_> = (0..12)
        .map(|salt| driven.generate(background(12, 30, salt)))
        .collect();
    // Until they all write, and steps with and without prompts have been seen.
    for _ in 0..12 {
        driven.step();
    }
    let more: Vec<_> = (20..30)
        .map(|salt| driven.generate(background(150, 1, salt)))
        .collect();
    let mut user = driven.generate(greedy(&prompt(40, 40), 20));
    assert_eq!(steps_to_start(&mut driven, &mut user, 5), 1);
    let usual = seconds(1, 0);
    let mut rows = 0;
    while !user.is_closed() {
        rows = driven.step();
        // Two decode rows of the background beside the user's, then prompt rows.
        let gap = seconds(rows.min(3), rows.saturating_sub(3));
        assert!(gap < 2.0 * usual || user.is_closed(), "{rows} rows");
    }
    assert!(rows > 1, "the background stands still");
    driven.finish();
    for (salt, events) in (0..12).zip(evaluated) {
        let answer = Answer {
            cached_tokens: 0,
            ..collect(events)
        };
        let expected = driven.alone(Asked::Generate(background(12, 30, salt)));
        assert_eq!(super::driven::Answered::Generate(answer), expected);
    }
    drop(more);
}

#[test]
fn a_continuation_is_computed_in_chunks_beside_streams() {
    let mut driven = Driven::new(EngineConfig::default(), KernelChoice::best(), 2);
    let stream = driven.generate(GenerateRequest {
        sampling: Sampling {
            temperature: 2.0,
            ..Sampling::default()
        },
        ..greedy(&prompt(20, 1), 100)
    });
    for _ in 0..10 {
        driven.step();
    }
    let score = crate::ScoreRequest {
        prompt: prompt(21, 2),
        continuations: vec![prompt(90, 3), prompt(3, 4), prompt(50, 5)],
        adapter: None,
        pooled_from: None,
        priority: Priority::Interactive,
        deadline: None,
    };
    let mut awaited = driven.ask(Asked::Score(score.clone()));
    let super::driven::Awaited::Score(reply) = &mut awaited else {
        unreachable!("a score was asked for");
    };
    let mut most = 0;
    while reply.is_empty() {
        most = most.max(driven.step());
    }
    assert!(most < 32, "a step of {most} rows");
    let result = awaited.answer();
    drop(stream);
    assert_eq!(result, driven.alone(Asked::Score(score)));
}
