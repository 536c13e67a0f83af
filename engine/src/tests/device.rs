//! The step through candle's operations: on the CPU, and on a CUDA device where the build has the feature and the
//! machine the device.

use super::architectures::{adapter_modules, gguf, prompt, worst};
use super::*;
use crate::testing::TinyDecoder;

/// How far keys and values in f16 may move a logit.
const TOLERANCE: f64 = 2e-2;

/// The devices of candle's that this build and machine have.
pub(super) fn devices() -> Vec<ComputeDevice> {
    let mut devices = vec![ComputeDevice::CandleCpu];
    if cfg!(feature = "cuda") {
        devices.push(ComputeDevice::Cuda(0));
    }
    devices
}

fn engine_on(device: ComputeDevice, path: &std::path::Path, dense: bool) -> Engine {
    let options = LoadOptions {
        device,
        ..options(KernelChoice::best(), dense)
    };
    // Small steps, so that prompts are computed in chunks beside other sequences.
    let config = EngineConfig {
        step_tokens: 16,
        ..EngineConfig::default()
    };
    start(
        Model::load(path, &options).expect("the model loads"),
        config,
    )
}

#[test]
fn every_architecture_follows_its_definition_on_a_device() {
    let prompt = prompt(24);
    for device in devices() {
        for decoder in TinyDecoder::ALL {
            let (path, _folder) = gguf(decoder);
            let engine = engine_on(device, &path, true);
            let served = engine.max_model_len();
            let modules = adapter_modules(engine.base());
            for modules in [Vec::new(), modules] {
                let expected = reference::logits(decoder, &prompt, served, &modules);
                let adapter = (!modules.is_empty()).then(|| {
                    let adapter = adapter_of(modules, 11, engine.base());
                    Arc::new(engine.prepare(&adapter))
                });
                let off = worst(&logits(&engine, &prompt, adapter), &expected);
                assert!(
                    off < TOLERANCE,
                    "{device:?}, {decoder:?}: a logit is off by {off}"
                );
            }
        }
    }
}

#[test]
fn a_mixed_batch_of_adapters_answers_as_the_kernels_do() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = TinyModel::write(directory.path(), 7);
    let kernels = engine_on(ComputeDevice::Cpu, &path, true);
    let adapters: Vec<_> = (0..4)
        .map(|seed| (seed > 0).then(|| random_adapter(kernels.base(), seed)))
        .collect();
    let requests: Vec<GenerateRequest> = (0..8)
        .map(|index| GenerateRequest {
            adapter: adapters[index % 4].clone(),
            ..greedy(&prompt(5 + 7 * index as u32), 6)
        })
        .collect();
    let answers = |engine: &Engine| -> Vec<Answer> {
        let streams: Vec<_> = (requests.iter())
            .map(|request| engine.generate(request.clone()).expect("a free place"))
            .collect();
        streams.into_iter().map(collect).collect()
    };
    let expected = answers(&kernels);
    for device in devices() {
        let got = answers(&engine_on(device, &path, true));
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got.tokens, expected.tokens, "{device:?}");
            for (a, b) in got.logprobs.iter().zip(&expected.logprobs) {
                assert!(
                    f64::from(a.logprob - b.logprob).abs() < TOLERANCE,
                    "{device:?}: {a:?}, {b:?}"
                );
            }
        }
    }
}

#[test]
fn quantised_matrices_stay_quantised_on_a_device() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = TinyModel::write(directory.path(), 7);
    let prompt = prompt(20);
    let expected = logits(&engine_on(ComputeDevice::Cpu, &path, true), &prompt, None);
    for device in devices() {
        let got = logits(&engine_on(device, &path, false), &prompt, None);
        assert_ne!(
            got, expected,
            "{device:?} did not compute with quantised matrices"
        );
        let off = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let off = off.fold(0.0, f32::max);
        // candle rounds activations to one byte; with other weights the logits would be nats apart.
        assert!(off < 1.0, "{device:?}: a logit is off by {off}");
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    if cfg!(feature = "cuda") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = TinyModel::write(directory.path(), 7);
    let options = LoadOptions {
        device: ComputeDevice::Cuda(1),
        ..LoadOptions::default()
    };
    let error = Model::load(&path, &options).err().expect("a refusal");
    insta::assert_snapshot!(error, @"device `cuda:1` cannot be used: this build has no CUDA; build with `--features cuda`");
}
