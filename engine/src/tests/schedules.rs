//! Whatever arrives whenever, with whatever the engine is allowed to do: every answer is bit for bit that of the same
//! request alone on a fresh engine.

use proptest::prelude::*;

use super::driven::{Answered, Asked, Awaited, Driven};
use super::*;
use crate::ScoreRequest;

/// What makes one schedule; everything shrinks.
#[derive(Debug, Clone)]
struct Schedule {
    config: EngineConfig,
    kernels: usize,
    threads: usize,
    arrivals: Vec<Arrival>,
}

#[derive(Debug, Clone)]
struct Arrival {
    /// Steps that run before it arrives.
    steps: usize,
    /// Steps after which its client hangs up.
    patience: Option<usize>,
    background: bool,
    adapter: usize,
    prompt: Prompt,
    kind: Kind,
}

#[derive(Debug, Clone)]
struct Prompt {
    /// Which of the shared beginnings, and how much of it.
    beginning: u32,
    shared: usize,
    own: u32,
    tail: usize,
}

#[derive(Debug, Clone)]
enum Kind {
    Generate {
        max_tokens: usize,
        seed: Option<u64>,
        /// Only a few tokens are likely, so that the answer repeats itself and guesses are often right.
        narrow: bool,
        prompt_logprobs: bool,
    },
    Score {
        lengths: Vec<usize>,
        /// Where the mean hidden state begins, in percent of the prompt.
        pooled: Option<usize>,
    },
    Logits,
}

fn prompts() -> impl Strategy<Value = Prompt> {
    (0u32..3, 0usize..50, 0u32..200, 1usize..20).prop_map(|(beginning, shared, own, tail)| Prompt {
        beginning,
        shared,
        own,
        tail,
    })
}

fn kinds() -> impl Strategy<Value = Kind> {
    let generation = (
        0usize..24,
        prop::option::of(0u64..9),
        any::<bool>(),
        prop::bool::weighted(0.15),
    )
        .prop_map(
            |(max_tokens, seed, narrow, prompt_logprobs)| Kind::Generate {
                max_tokens,
                seed,
                narrow,
                prompt_logprobs,
            },
        );
    let scores = (
        prop::collection::vec(0usize..24, 1..4),
        prop::option::of(0usize..100),
    )
        .prop_map(|(lengths, pooled)| Kind::Score { lengths, pooled });
    prop_oneof![
        6 => generation,
        3 => scores,
        1 => Just(Kind::Logits),
    ]
}

fn arrivals() -> impl Strategy<Value = Arrival> {
    (
        0usize..6,
        prop::option::weighted(0.15, 0usize..12),
        any::<bool>(),
        0usize..4,
        prompts(),
        kinds(),
    )
        .prop_map(
            |(steps, patience, background, adapter, prompt, kind)| Arrival {
                steps,
                patience,
                background,
                adapter,
                prompt,
                kind,
            },
        )
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let config = (
        prop_oneof![1usize..6, 6usize..40, Just(256)],
        prop_oneof![112usize..200, Just(2048)],
        1usize..9,
        any::<bool>(),
        prop_oneof![Just(0usize), 1usize..9],
    )
        .prop_map(
            |(step_tokens, kv_tokens, max_running, prefix_cache, draft_tokens)| EngineConfig {
                step_tokens,
                kv_tokens,
                max_running,
                prefix_cache,
                draft_tokens,
                ..EngineConfig::default()
            },
        );
    let arrivals = prop::collection::vec(arrivals(), 1..10);
    (config, 0usize..8, 1usize..3, arrivals).prop_map(|(config, kernels, threads, arrivals)| {
        Schedule {
            config,
            kernels,
            threads,
            arrivals,
        }
    })
}

fn asked(arrival: &Arrival, adapters: &[Option<Arc<PreparedAdapter>>]) -> Asked {
    let Prompt {
        beginning,
        shared,
        own,
        tail,
    } = arrival.prompt;
    let common = (0..shared as u32).map(|i| 40 + (i * (7 + beginning) + beginning * 50) % 23);
    let rest = (0..tail as u32).map(|i| 30 + (i * 5 + own) % 211);
    let prompt: Vec<u32> = common.chain(rest).collect();
    let adapter = adapters[arrival.adapter].clone();
    let priority = if arrival.background {
        Priority::Background
    } else {
        Priority::Interactive
    };
    match &arrival.kind {
        Kind::Generate {
            max_tokens,
            seed,
            narrow,
            prompt_logprobs,
        } => {
            let bias = [(70, 60.0), (81, 60.0), (99, 57.0)];
            let sampling = Sampling {
                temperature: if seed.is_some() { 1.3 } else { 0.0 },
                seed: seed.unwrap_or_default(),
                logit_bias: bias.into_iter().filter(|_| *narrow).collect(),
                ..Sampling::default()
            };
            Asked::Generate(GenerateRequest {
                adapter,
                sampling,
                priority,
                prompt_logprobs: prompt_logprobs.then_some(1),
                ..greedy(&prompt, *max_tokens)
            })
        }
        Kind::Score { lengths, pooled } => {
            let continuation = |(index, &length): (usize, &usize)| -> Vec<u32> {
                (0..length)
                    .map(|i| 50 + ((i * 11 + index * 3) % 97) as u32)
                    .collect()
            };
            Asked::Score(ScoreRequest {
                pooled_from: pooled.map(|percent| prompt.len() * percent / 100),
                prompt,
                continuations: lengths.iter().enumerate().map(continuation).collect(),
                adapter,
                priority,
                deadline: None,
            })
        }
        Kind::Logits => Asked::Logits(LogitsRequest {
            prompt,
            adapter,
            priority,
            deadline: None,
        }),
    }
}

/// An answer, or what had arrived of it when the client hung up.
fn check(awaited: Option<Awaited>, expected: &Answered) {
    if let Some(awaited) = awaited {
        assert_eq!(&awaited.answer(), expected);
    }
}

fn run(schedule: &Schedule) {
    let choices: Vec<_> = available_kernels().collect();
    let kernels = choices[schedule.kernels % choices.len()];
    let plain = EngineConfig {
        prefix_cache: false,
        draft_tokens: 0,
        ..EngineConfig::default()
    };
    let mut reference = Driven::new(plain, kernels, 1);
    let mut driven = Driven::new(schedule.config.clone(), kernels, schedule.threads);
    let adapters: Vec<_> = (0..4u64)
        .map(|seed| (seed > 0).then(|| random_adapter(&driven.base, seed)))
        .collect();
    let mut awaited: Vec<(Option<Awaited>, Option<usize>)> = Vec::new();
    let step = |driven: &mut Driven, awaited: &mut Vec<(Option<Awaited>, Option<usize>)>| {
        for (waiting, patience) in awaited.iter_mut() {
            match patience {
                Some(0) => *waiting = None,
                Some(left) => *left -= 1,
                None => {}
            }
        }
        driven.step();
    };
    for arrival in &schedule.arrivals {
        for _ in 0..arrival.steps {
            step(&mut driven, &mut awaited);
        }
        let receiver = driven.ask(asked(arrival, &adapters));
        awaited.push((Some(receiver), arrival.patience));
    }
    for _ in 0..12 {
        step(&mut driven, &mut awaited);
    }
    driven.finish();
    for (arrival, (awaited, _)) in schedule.arrivals.iter().zip(awaited) {
        let expected = reference.alone(asked(arrival, &adapters));
        check(awaited, &expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_changes_an_answer(schedule in schedules()) {
        run(&schedule);
    }
}

#[test]
fn the_engine_answers_as_each_request_would_be_alone() {
    let config = EngineConfig {
        kv_tokens: 160,
        step_tokens: 24,
        max_running: 5,
        ..EngineConfig::default()
    };
    let (engine, _directory) = tiny_engine(KernelChoice::best(), config);
    let mut reference = Driven::new(EngineConfig::default(), KernelChoice::best(), 1);
    let requests: Vec<GenerateRequest> = (0..12u64)
        .map(|index| {
            let seed = index % 4;
            let prompt: Vec<u32> = (0..20 + index as u32 * 5).map(|i| 40 + i % 17).collect();
            GenerateRequest {
                adapter: (seed > 0).then(|| random_adapter(engine.base(), seed)),
                sampling: Sampling {
                    temperature: if index % 3 == 0 { 1.1 } else { 0.0 },
                    seed: index,
                    ..Sampling::default()
                },
                ..greedy(&prompt, 20)
            }
        })
        .collect();
    let receivers: Vec<_> = (requests.iter().cloned())
        .map(|request| engine.generate(request).expect("taken"))
        .collect();
    for (request, receiver) in requests.into_iter().zip(receivers) {
        let answer = Answer {
            cached_tokens: 0,
            ..collect(receiver)
        };
        let expected = reference.alone(Asked::Generate(request));
        assert_eq!(Answered::Generate(answer), expected);
    }
}
