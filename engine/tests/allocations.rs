//! What running answers ask of the allocator: nothing but the blocks in which the channels to the clients keep events.
//!
//! The only test of its binary, because the counter counts whatever runs in the process.

use std::alloc::System;
use std::sync::Arc;

use adapters::{Adapter, BaseModel, LoraConfig, LoraModule, Manifest, Projection};
use engine::testing::TinyModel;
use engine::{
    Engine, EngineConfig, GenerateEvent, GenerateRequest, KernelChoice, LoadOptions, Model,
    PreparedAdapter, Priority, Sampling,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const STREAMS: usize = 8;
/// A control token: it has no text, so that its event carries no string.
const SILENT: u32 = 3;
/// Events that tokio's unbounded channel keeps in one allocation.
const EVENTS_OF_A_BLOCK: usize = 32;

fn adapter(base: &BaseModel, seed: u8) -> Adapter {
    let value = |i: usize| ((i * 7 + usize::from(seed)) % 11) as f32 * 0.01 - 0.05;
    let shapes = (0..base.layers).flat_map(|layer| {
        Projection::ALL.map(|projection| (layer, projection, base.shape(projection)))
    });
    let modules: Vec<LoraModule> = shapes
        .map(|(layer, projection, shape)| LoraModule {
            layer,
            projection,
            rank: 2,
            scale: 1.5,
            a: (0..2 * shape.inputs).map(value).collect(),
            b: (0..shape.outputs * 2).map(value).collect(),
        })
        .collect();
    Adapter {
        version: format!("{seed:064x}").parse().expect("64 hex digits"),
        config: LoraConfig::new(&base.name, 2, 3.0, Projection::ALL.to_vec(), 0.0),
        manifest: Manifest::default(),
        bytes: 0,
        tensors_matched: 2 * modules.len(),
        modules,
    }
}

/// Runs eight answers of `tokens` tokens at a time, one on the base and seven on adapters of their own; returns how
/// often memory was asked for.
fn asked_for(engine: &Engine, adapters: &[Arc<PreparedAdapter>], tokens: usize) -> usize {
    let region = Region::new(ALLOCATOR);
    let receivers: Vec<_> = (0..STREAMS)
        .map(|stream| {
            let request = GenerateRequest {
                prompt: (0..20).map(|i| 40 + i * 3 + stream as u32).collect(),
                adapter: stream
                    .checked_sub(1)
                    .map(|index| Arc::clone(&adapters[index])),
                sampling: Sampling {
                    logit_bias: [(SILENT, 100.0)].into_iter().collect(),
                    ..Sampling::default()
                },
                max_tokens: tokens,
                min_tokens: 0,
                stop: Vec::new(),
                ignore_eos: true,
                logprobs: None,
                prompt_logprobs: None,
                priority: Priority::Interactive,
                deadline: None,
            };
            engine
                .generate(request)
                .expect("the engine takes the request")
        })
        .collect();
    for mut receiver in receivers {
        let mut answered = 0;
        while let Some(event) = receiver.blocking_recv() {
            match event {
                GenerateEvent::Token { token, .. } => {
                    assert_eq!(token, SILENT);
                    answered += 1;
                }
                GenerateEvent::Finished { .. } => break,
                GenerateEvent::Started { .. } => {}
                GenerateEvent::Failed(error) => panic!("the generation failed: {error}"),
            }
        }
        assert_eq!(answered, tokens);
    }
    let change = region.change();
    change.allocations + change.reallocations
}

#[test]
fn a_token_of_a_running_answer_allocates_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = TinyModel::write(directory.path(), 7);
    for draft_tokens in [0, 8] {
        let options = LoadOptions {
            threads: 2,
            kernels: Some(KernelChoice::best()),
            ..LoadOptions::default()
        };
        let model = Model::load(&path, &options).expect("the tiny model loads");
        let config = EngineConfig {
            draft_tokens,
            ..EngineConfig::default()
        };
        let engine = Engine::start(model, config).expect("the engine starts");
        let adapters: Vec<_> = (1..STREAMS as u8)
            .map(|seed| Arc::new(engine.prepare(&adapter(engine.base(), seed))))
            .collect();
        let (short, long) = (40, 200);
        asked_for(&engine, &adapters, long);
        let (few, many) = (
            asked_for(&engine, &adapters, short),
            asked_for(&engine, &adapters, long),
        );
        let tokens = STREAMS * (long - short);
        // Besides the events: finished requests leave their remembered blocks in a tree.
        let expected = 2 * tokens / EVENTS_OF_A_BLOCK;
        assert!(
            many.saturating_sub(few) <= expected,
            "{tokens} more tokens asked {} more times for memory, at most {expected} are expected",
            many - few
        );
    }
}
