//! Every architecture, from both formats, against the definitions.

use adapters::{LoraModule, Projection};

use super::*;
use crate::testing::TinyDecoder;

/// How far keys and values in f16, and adapters in f16, may move a logit.
const TOLERANCE: f64 = 2e-2;

pub(super) fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|index| 20 + index * 37 % 290).collect()
}

fn engine_of(path: &std::path::Path, dense: bool, config: EngineConfig) -> Engine {
    let model = Model::load(path, &options(KernelChoice::best(), dense));
    super::start(model.expect("the model loads"), config)
}

pub(super) fn gguf(decoder: TinyDecoder) -> (std::path::PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    decoder.write_gguf(&path).expect("a writable folder");
    (path, folder)
}

/// A random adapter whose fused projections share their A, as PEFT makes them.
pub(super) fn adapter_modules(base: &BaseModel) -> Vec<LoraModule> {
    let mut modules = random_modules(base, 11).modules;
    if base.fused {
        for layer in modules.chunks_exact_mut(Projection::ALL.len()) {
            let (query, gate) = (layer[0].a.clone(), layer[4].a.clone());
            layer[1].a.clone_from(&query);
            layer[2].a = query;
            layer[5].a = gate;
        }
    }
    modules
}

pub(super) fn worst(ours: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(ours.len(), reference.len());
    let pairs = ours.iter().zip(reference);
    pairs
        .map(|(a, b)| (f64::from(*a) - b).abs())
        .fold(0.0, f64::max)
}

#[test]
fn every_architecture_follows_its_definition_with_and_without_an_adapter() {
    let prompt = prompt(24);
    for decoder in TinyDecoder::ALL {
        let (path, _folder) = gguf(decoder);
        let engine = engine_of(&path, true, EngineConfig::default());
        let served = engine.max_model_len();
        let plain = reference::logits(decoder, &prompt, served, &[]);
        let off = worst(&logits(&engine, &prompt, None), &plain);
        assert!(off < TOLERANCE, "{decoder:?}: a logit is off by {off}");

        let modules = adapter_modules(engine.base());
        let adapted = reference::logits(decoder, &prompt, served, &modules);
        let effect = plain.iter().zip(&adapted).map(|(a, b)| (a - b).abs());
        assert!(effect.fold(0.0, f64::max) > 0.5, "{decoder:?}");
        let adapter = Arc::new(engine.prepare(&adapter_of(modules, 11, engine.base())));
        let off = worst(&logits(&engine, &prompt, Some(adapter)), &adapted);
        assert!(
            off < TOLERANCE,
            "{decoder:?}: an adapted logit is off by {off}"
        );
    }
}

#[test]
fn a_file_and_a_directory_of_the_same_weights_give_the_same_bits() {
    let prompt = prompt(24);
    for decoder in TinyDecoder::ALL {
        let (path, folder) = gguf(decoder);
        let engine = engine_of(&path, true, EngineConfig::default());
        let expected = logits(&engine, &prompt, None);
        for sharded in [false, true] {
            let directory = folder.path().join(format!("tiny-{sharded}"));
            let written = decoder.write_directory(&directory, sharded);
            written.expect("a writable folder");
            let engine = engine_of(&directory, true, EngineConfig::default());
            assert_eq!(engine.base().name, format!("tiny-{sharded}"));
            assert_eq!(logits(&engine, &prompt, None), expected, "{decoder:?}");
        }
    }
}

#[test]
fn chunks_and_cached_prefixes_change_no_bit_behind_windows_and_norms() {
    let prompt = prompt(40);
    for decoder in [TinyDecoder::Gemma3, TinyDecoder::Phi3, TinyDecoder::Qwen2] {
        let (path, _folder) = gguf(decoder);
        let whole = engine_of(&path, false, EngineConfig::default());
        let expected = logits(&whole, &prompt, None);
        assert_eq!(
            logits(&whole, &prompt, None),
            expected,
            "{decoder:?} from the cache"
        );
        let small = EngineConfig {
            step_tokens: 3,
            ..EngineConfig::default()
        };
        let chunked = engine_of(&path, false, small);
        assert_eq!(
            logits(&chunked, &prompt, None),
            expected,
            "{decoder:?} in chunks"
        );
    }
}

#[test]
fn the_served_length_decides_between_long_and_short_rotary_factors() {
    let prompt = prompt(12);
    let (path, _folder) = gguf(TinyDecoder::Phi3);
    let logits_at = |kv_tokens| {
        let config = EngineConfig {
            kv_tokens,
            ..EngineConfig::default()
        };
        let engine = engine_of(&path, true, config);
        (engine.max_model_len(), logits(&engine, &prompt, None))
    };
    for (kv_tokens, served) in [(16, 16), (4096, 48)] {
        let (length, ours) = logits_at(kv_tokens);
        assert_eq!(length, served);
        let reference = reference::logits(TinyDecoder::Phi3, &prompt, served, &[]);
        let off = worst(&ours, &reference);
        assert!(off < TOLERANCE, "{served}: a logit is off by {off}");
    }
}
