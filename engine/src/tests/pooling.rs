//! The mean hidden state of a prompt: by its definition, and the same bits however it is computed.

use super::architectures::{adapter_modules, gguf, prompt, worst};
use super::device::devices;
use super::*;
use crate::testing::TinyDecoder;
use crate::{ScoreRequest, ScoreResult, SubmitError};

/// How far keys and values in f16, and adapters in f16, may move a hidden state; they are near 1.
const TOLERANCE: f64 = 2e-2;

fn request(
    prompt: &[u32],
    from: Option<usize>,
    adapter: Option<Arc<PreparedAdapter>>,
) -> ScoreRequest {
    ScoreRequest {
        prompt: prompt.to_vec(),
        continuations: vec![vec![70, 71], vec![90]],
        adapter,
        pooled_from: from,
        priority: Priority::Interactive,
        deadline: None,
    }
}

fn score(engine: &Engine, request: ScoreRequest) -> ScoreResult {
    let reply = engine.score(request).expect("the engine takes the request");
    reply.blocking_recv().expect("an answer").expect("a result")
}

#[test]
fn the_mean_follows_the_definition_of_every_architecture() {
    let prompt = prompt(24);
    let kernels = std::iter::once(ComputeDevice::Cpu);
    for device in kernels.chain(devices()) {
        for decoder in TinyDecoder::ALL {
            let (path, _folder) = gguf(decoder);
            let options = LoadOptions {
                device,
                ..options(KernelChoice::best(), true)
            };
            let config = EngineConfig {
                step_tokens: 7,
                ..EngineConfig::default()
            };
            let engine = start(Model::load(&path, &options).expect("it loads"), config);
            let modules = adapter_modules(engine.base());
            let adapter = adapter_of(modules.clone(), 11, engine.base());
            let adapter = Arc::new(engine.prepare(&adapter));
            let mut plain = Vec::new();
            for from in [0, 9, 23] {
                let served = engine.max_model_len();
                let asked = (prompt.as_slice(), from);
                let expected = reference::mean_hidden(decoder, asked, served, &modules);
                let asked = request(&prompt, Some(from), Some(Arc::clone(&adapter)));
                let mean = score(&engine, asked).mean_hidden.expect("asked for");
                let off = worst(&mean, &expected);
                assert!(off < TOLERANCE, "{device:?}, {decoder:?}, {from}: {off}");
                plain = score(&engine, request(&prompt, Some(from), None))
                    .mean_hidden
                    .expect("asked for");
                assert!(worst(&plain, &expected) > 0.1, "{device:?}, {decoder:?}");
            }
            let last = reference::mean_hidden(decoder, (&prompt, 23), engine.max_model_len(), &[]);
            assert!(worst(&plain, &last) < TOLERANCE, "{device:?}, {decoder:?}");
        }
    }
}

#[test]
fn the_cache_serves_what_stands_before_the_mean_and_changes_no_bit() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let adapter = random_adapter(engine.base(), 4);
    let prompt = prompt(70);
    let ask = |from| score(&engine, request(&prompt, from, Some(Arc::clone(&adapter))));
    let cold = ask(Some(35));
    assert_eq!(cold.cached_tokens, 0);
    let warm = ask(Some(35));
    assert_eq!(warm.cached_tokens, 32);
    assert_eq!(warm.mean_hidden, cold.mean_hidden);
    assert_eq!(warm.continuations, cold.continuations);
    let whole = ask(Some(0));
    assert_eq!(whole.cached_tokens, 0);
    assert_ne!(whole.mean_hidden, cold.mean_hidden);
    let without = ask(None);
    assert_eq!((without.cached_tokens, without.mean_hidden), (64, None));
}

#[test]
fn a_mean_is_the_same_bits_in_any_company_and_after_giving_way() {
    let request = |base: &BaseModel, index: usize| {
        let prompt = prompt(30 + 5 * index as u32);
        let adapter = (!index.is_multiple_of(3)).then(|| random_adapter(base, index as u64));
        request(&prompt, Some(index * 4), adapter)
    };
    for kernels in available_kernels() {
        let (engine, _directory) = tiny_engine(kernels, EngineConfig::default());
        let alone: Vec<_> = (0..7)
            .map(|index| score(&engine, request(engine.base(), index)).mean_hidden)
            .collect();
        for (step_tokens, kv_tokens) in [(256, 2048), (5, 2048), (24, 96)] {
            let config = EngineConfig {
                step_tokens,
                kv_tokens,
                ..EngineConfig::default()
            };
            let (engine, _directory) = tiny_engine(kernels, config);
            let replies: Vec<_> = (0..7)
                .map(|index| engine.score(request(engine.base(), index)).expect("taken"))
                .collect();
            for (reply, expected) in replies.into_iter().zip(&alone) {
                let result = reply.blocking_recv().expect("an answer");
                let mean = result.expect("a result").mean_hidden;
                assert_eq!(&mean, expected, "{kernels:?}, {step_tokens}, {kv_tokens}");
            }
        }
    }
}

#[test]
fn a_mean_over_nothing_is_refused() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let refused = engine.score(request(&[70; 5], Some(5), None)).err();
    let expected = SubmitError::NothingToPool { from: 5, tokens: 5 };
    assert_eq!(refused, Some(expected.clone()));
    insta::assert_snapshot!(expected, @"`pooled_from` is 5 and the prompt has 5 tokens; it must be less");
}
