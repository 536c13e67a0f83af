//! The engine through its public surface: parity with reference values, and answers that never depend on company.

mod architectures;
mod damage;
mod device;
mod driven;
mod fairness;
mod faults;
mod invariance;
mod load;
mod parity;
mod pooling;
mod reference;
mod refusals;
mod requests;
mod schedules;
mod speculation;

use std::sync::Arc;

use adapters::{Adapter, BaseModel, LoraModule, Projection};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::testing::{TinyModel, base_model, reference_values};
use crate::{
    ComputeDevice, Engine, EngineConfig, FinishReason, GenerateEvent, GenerateRequest,
    KernelChoice, LoadOptions, LogitsRequest, Model, PreparedAdapter, Priority, Resolution,
    Sampling, TokenLogprob,
};

fn options(kernels: KernelChoice, dense: bool) -> LoadOptions {
    LoadOptions {
        threads: 2,
        kernels: Some(kernels),
        resolution: Resolution::Fine,
        dense,
        device: ComputeDevice::Cpu,
    }
}

fn start(model: Model, config: EngineConfig) -> Engine {
    Engine::start(model, config).expect("the engine starts")
}

fn available_kernels() -> impl Iterator<Item = KernelChoice> {
    let choices = KernelChoice::ALL.into_iter();
    choices.filter(|choice| choice.is_available())
}

/// A tiny model in a folder that lives as long as the test.
fn tiny_engine(kernels: KernelChoice, config: EngineConfig) -> (Engine, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = TinyModel::write(directory.path(), 7);
    let model = Model::load(&path, &options(kernels, false)).expect("the tiny model loads");
    (start(model, config), directory)
}

/// A random adapter, kept in bytes: every projection of every layer, rank 3, scale 1.5, A and B both non-zero.
fn random_adapter(base: &BaseModel, seed: u64) -> Arc<PreparedAdapter> {
    let adapter = random_modules(base, seed);
    Arc::new(PreparedAdapter::new(&adapter, base, Resolution::Mixed))
}

fn random_modules(base: &BaseModel, seed: u64) -> Adapter {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = |count: usize, width: f32| -> Vec<f32> {
        (0..count)
            .map(|_| random.random_range(-width..width))
            .collect()
    };
    let rank = 3;
    let mut modules = Vec::new();
    for layer in 0..base.layers {
        for projection in Projection::ALL {
            let shape = base.shape(projection);
            let width = 1.0 / (shape.inputs as f32).sqrt();
            modules.push(LoraModule {
                layer,
                projection,
                rank,
                scale: 1.5,
                a: uniform(rank * shape.inputs, width),
                b: uniform(shape.outputs * rank, 0.3),
            });
        }
    }
    adapter_of(modules, seed, base)
}

fn adapter_of(modules: Vec<LoraModule>, seed: u64, base: &BaseModel) -> Adapter {
    let config = adapters::LoraConfig::new(&base.name, 3, 4.5, Projection::ALL.to_vec(), 0.0);
    Adapter {
        version: format!("{seed:064x}").parse().expect("64 hex digits"),
        config,
        manifest: adapters::Manifest::default(),
        bytes: 0,
        tensors_matched: 2 * modules.len(),
        modules,
    }
}

fn greedy(prompt: &[u32], max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.to_vec(),
        adapter: None,
        sampling: Sampling::default(),
        max_tokens,
        min_tokens: 0,
        stop: Vec::new(),
        ignore_eos: true,
        logprobs: Some(2),
        prompt_logprobs: None,
        priority: Priority::Interactive,
        deadline: None,
    }
}

/// What a generation produced.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    cached_tokens: usize,
    prompt_logprobs: Option<Vec<TokenLogprob>>,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    text: String,
    reason: FinishReason,
}

fn collect(mut events: UnboundedReceiver<GenerateEvent>) -> Answer {
    let mut answer = Answer {
        cached_tokens: 0,
        prompt_logprobs: None,
        tokens: Vec::new(),
        logprobs: Vec::new(),
        text: String::new(),
        reason: FinishReason::Length,
    };
    while let Some(event) = events.blocking_recv() {
        match event {
            GenerateEvent::Started {
                cached_tokens,
                prompt_logprobs,
                ..
            } => {
                answer.cached_tokens = cached_tokens;
                answer.prompt_logprobs = prompt_logprobs;
            }
            GenerateEvent::Token {
                token,
                text,
                logprob,
            } => {
                answer.tokens.push(token);
                answer.text.push_str(&text);
                answer.logprobs.extend(logprob);
            }
            GenerateEvent::Finished { reason, text } => {
                answer.text.push_str(&text);
                answer.reason = reason;
                return answer;
            }
            GenerateEvent::Failed(error) => panic!("the generation failed: {error}"),
        }
    }
    panic!("the events ended before the generation did");
}

fn logits(engine: &Engine, prompt: &[u32], adapter: Option<Arc<PreparedAdapter>>) -> Vec<f32> {
    let request = LogitsRequest {
        prompt: prompt.to_vec(),
        adapter,
        priority: Priority::Interactive,
        deadline: None,
    };
    let reply = engine
        .logits(request)
        .expect("the engine takes the request");
    let reply = reply.blocking_recv().expect("the engine answers");
    reply.expect("the engine finishes the request")
}
