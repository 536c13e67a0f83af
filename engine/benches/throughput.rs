//! How fast the engine is by itself, without HTTP: `cargo bench -p engine`. Workloads run in turns, several rounds of
//! them; the table holds medians with the slowest and fastest round. The comparison with other servers is in `bench/`.
//!
//! `QUICKCHANGE_MODEL` names another model file, `QUICKCHANGE_KERNELS` a kernel set, `QUICKCHANGE_THREADS` a thread count,
//! `QUICKCHANGE_ROUNDS` the rounds. An argument keeps the workloads whose names contain it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use adapters::{Adapter, LoraConfig, LoraModule, Manifest, Projection};
use engine::{
    Engine, EngineConfig, GenerateEvent, GenerateRequest, LoadOptions, Model, PreparedAdapter,
    Priority, Resolution, Sampling,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rank of the adapters, the usual choice.
const RANK: usize = 8;

type Adapters = Vec<Arc<PreparedAdapter>>;

/// Streams that run together: each reads `prompt` tokens and writes `answer` tokens.
struct Workload {
    name: &'static str,
    streams: usize,
    prompt: usize,
    answer: usize,
    /// Distinct adapters among the streams; 0 is the base model.
    adapters: usize,
}

const WORKLOADS: [Workload; 14] = [
    workload("prefill 128, base", 1, 128, 0, 0),
    workload("prefill 512, base", 1, 512, 0, 0),
    workload("prefill 512, adapter", 1, 512, 0, 1),
    workload("prefill 2048, base", 1, 2048, 0, 0),
    workload("decode, base", 1, 16, 96, 0),
    workload("decode, adapter", 1, 16, 96, 1),
    workload("decode at 2048, base", 1, 2048, 64, 0),
    workload("8 streams, base", 8, 16, 64, 0),
    workload("8 streams, one adapter", 8, 16, 64, 1),
    workload("8 streams, 8 adapters", 8, 16, 64, 8),
    workload("16 streams, base", 16, 16, 64, 0),
    workload("16 streams, 16 adapters", 16, 16, 64, 16),
    workload("32 streams, base", 32, 16, 64, 0),
    workload("32 streams, 16 adapters", 32, 16, 64, 16),
];

const fn workload(
    name: &'static str,
    streams: usize,
    prompt: usize,
    answer: usize,
    adapters: usize,
) -> Workload {
    Workload {
        name,
        streams,
        prompt,
        answer,
        adapters,
    }
}

fn main() {
    let setting = |name: &str| std::env::var(name).ok();
    let number = |name: &str| setting(name).map(|text| text.parse().expect("a number"));
    let default = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    );
    let path = PathBuf::from(setting("QUICKCHANGE_MODEL").unwrap_or_else(|| default.to_owned()));
    let kernels =
        setting("QUICKCHANGE_KERNELS").map(|name| name.parse().expect("the name of a kernel set"));
    let mut options = LoadOptions {
        kernels,
        ..LoadOptions::default()
    };
    options.threads = number("QUICKCHANGE_THREADS").unwrap_or(options.threads);
    options.resolution = match setting("QUICKCHANGE_ACTIVATION_BITS").as_deref() {
        Some("8") => Resolution::Coarse,
        Some("16") => Resolution::Fine,
        _ => options.resolution,
    };
    let started = Instant::now();
    let model = Model::load(&path, &options).expect("the model loads: `make model` fetches it");
    let loaded = started.elapsed();
    // Guessed tokens would measure how repetitive random prompts make the model.
    let config = EngineConfig {
        draft_tokens: 0,
        ..EngineConfig::default()
    };
    let engine = Engine::start(model, config).expect("a CPU has room");
    let started = Instant::now();
    let adapters: Adapters = (0..16).map(|seed| random_adapter(&engine, seed)).collect();
    println!(
        "{} kernels, {} threads, model loaded in {loaded:.0?}, 16 adapters made and packed in {:.0?}",
        engine.kernels(),
        options.threads,
        started.elapsed()
    );

    measure(
        &engine,
        &adapters,
        number("QUICKCHANGE_ROUNDS").unwrap_or(5),
    );
}

/// Runs the wanted workloads in turns and prints their rates.
fn measure(engine: &Engine, adapters: &Adapters, rounds: usize) {
    let filter = std::env::args()
        .nth(1)
        .filter(|text| !text.starts_with('-'));
    let wanted = |workload: &&Workload| filter.as_ref().is_none_or(|f| workload.name.contains(f));
    let workloads: Vec<&Workload> = WORKLOADS.iter().filter(wanted).collect();
    let mut rates = vec![Vec::new(); workloads.len()];
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..rounds {
        for (workload, rates) in workloads.iter().zip(&mut rates) {
            rates.push(rate(engine, workload, adapters, &mut random));
        }
    }
    println!(
        "{:<28}{:>10}{:>10}{:>10}",
        "tokens per second", "median", "slowest", "fastest"
    );
    for (workload, rates) in workloads.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let (slowest, fastest) = (rates[0], rates[rates.len() - 1]);
        let median = rates[rates.len() / 2];
        println!(
            "{:<28}{median:>10.0}{slowest:>10.0}{fastest:>10.0}",
            workload.name
        );
    }
}

/// Tokens per second: of the prompt when nothing is generated, else of the answers between the last stream's first token
/// and the first stream's last.
fn rate(engine: &Engine, workload: &Workload, adapters: &Adapters, random: &mut ChaCha8Rng) -> f64 {
    let started = Instant::now();
    let streams: Vec<_> = (0..workload.streams)
        .map(|stream| {
            let vocabulary = engine.tokenizer().vocabulary() as u32;
            let prompt = (0..workload.prompt).map(|_| random.random_range(256..vocabulary));
            let adapter = (workload.adapters > 0).then(|| &adapters[stream % workload.adapters]);
            let request = GenerateRequest {
                prompt: prompt.collect(),
                adapter: adapter.cloned(),
                sampling: Sampling::default(),
                max_tokens: workload.answer,
                min_tokens: 0,
                stop: Vec::new(),
                ignore_eos: true,
                logprobs: None,
                prompt_logprobs: None,
                priority: Priority::Interactive,
                deadline: None,
            };
            let mut events = engine.generate(request).expect("the engine takes requests");
            std::thread::spawn(move || {
                let mut moments = Vec::new();
                while let Some(event) = events.blocking_recv() {
                    match event {
                        GenerateEvent::Started { .. } | GenerateEvent::Token { .. } => {
                            moments.push(Instant::now());
                        }
                        GenerateEvent::Finished { .. } => break,
                        GenerateEvent::Failed(error) => return Err(error),
                    }
                }
                Ok(moments)
            })
        })
        .collect();
    let moments: Vec<Vec<Instant>> = streams
        .into_iter()
        .map(|stream| {
            stream
                .join()
                .expect("a stream that ends")
                .expect("a CPU computes")
        })
        .collect();
    if workload.answer == 0 {
        return workload.prompt as f64 / (moments[0][0] - started).as_secs_f64();
    }
    let begin = moments.iter().map(|m| m[1]).max().expect("a stream");
    let end = moments
        .iter()
        .map(|m| m[m.len() - 1])
        .min()
        .expect("a stream");
    let within = |moment: &&Instant| **moment > begin && **moment <= end;
    let tokens = moments.iter().flatten().filter(within).count();
    tokens as f64 / (end - begin).as_secs_f64()
}

/// Rank 8 on every projection of every layer, A and B both random.
fn random_adapter(engine: &Engine, seed: u64) -> Arc<PreparedAdapter> {
    let base = engine.base();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = |count: usize, width: f32| -> Vec<f32> {
        (0..count)
            .map(|_| random.random_range(-width..width))
            .collect()
    };
    let mut modules = Vec::new();
    for layer in 0..base.layers {
        for projection in Projection::ALL {
            let shape = base.shape(projection);
            modules.push(LoraModule {
                layer,
                projection,
                rank: RANK,
                scale: 2.0,
                a: uniform(RANK * shape.inputs, 1.0 / (shape.inputs as f32).sqrt()),
                b: uniform(shape.outputs * RANK, 0.01),
            });
        }
    }
    let adapter = Adapter {
        version: format!("{seed:064x}").parse().expect("64 hex digits"),
        config: LoraConfig::new(&base.name, RANK, 16.0, Projection::ALL.to_vec(), 0.0),
        manifest: Manifest::default(),
        bytes: 0,
        tensors_matched: 2 * modules.len(),
        modules,
    };
    Arc::new(engine.prepare(&adapter))
}
