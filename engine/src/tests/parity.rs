//! Against the f32 reference values in `../shared/parity`, and against candle's own quantised llama.

use std::path::Path;

use adapters::{Adapter, AdapterFiles, Limits};
use candle_core::Device;
use candle_core::quantized::gguf_file;
use candle_transformers::models::quantized_llama::ModelWeights;

use super::*;
use crate::sampling::{LogSoftmax, argmax, top_logprobs};

/// How far the log-probabilities of the reference's five best tokens may be off.
fn logprob_gate(resolution: Resolution) -> f32 {
    match resolution {
        // The base alone is off by 0.307 on the prompts below.
        Resolution::Coarse => 0.35,
        Resolution::Mixed => 0.25,
        Resolution::Fine => 0.02,
    }
}

/// The margin above which the best token must be the reference's.
const MARGIN_GATE: f32 = 0.3;

#[test]
fn the_quantised_path_is_close_to_the_reference() {
    let test = "the_quantised_path_is_close_to_the_reference";
    let (Some(model), Some(parity)) = (base_model(test), reference_values(test)) else {
        return;
    };
    for (kernels, resolution) in
        available_kernels().flat_map(|kernels| Resolution::ALL.map(|one| (kernels, one)))
    {
        let engine = load(
            &model,
            LoadOptions {
                resolution,
                ..options(kernels, false)
            },
        );
        for (file, adapter) in [
            ("base", None),
            ("adapter0", Some(reference_adapter(&engine, &parity))),
        ] {
            for (prompt, reference) in references(&parity, file) {
                let ours = logits(&engine, &prompt, adapter.clone());
                let (ours_soft, reference_soft) =
                    (LogSoftmax::new(&ours), LogSoftmax::new(&reference));
                let top = top_logprobs(&reference, 5);
                for (token, expected) in &top {
                    let difference = (ours_soft.of(*token) - expected).abs();
                    assert!(
                        difference <= logprob_gate(resolution),
                        "{file} {kernels:?}: token {token} is off by {difference}"
                    );
                }
                if top[0].1 - top[1].1 > MARGIN_GATE {
                    assert_eq!(argmax(&ours), top[0].0, "{file} {kernels:?}");
                }
                assert!(reference_soft.log_sum_exp().is_finite());
            }
        }
    }
}

#[test]
fn the_dense_path_is_the_reference_up_to_f16_keys_and_values() {
    let test = "the_dense_path_is_the_reference_up_to_f16_keys_and_values";
    let (Some(model), Some(parity)) = (base_model(test), reference_values(test)) else {
        return;
    };
    let engine = load(&model, options(KernelChoice::best(), true));
    for (file, adapter) in [
        ("base", None),
        ("adapter0", Some(reference_adapter(&engine, &parity))),
    ] {
        for (prompt, reference) in references(&parity, file) {
            let ours = logits(&engine, &prompt, adapter.clone());
            let differences = ours.iter().zip(&reference).map(|(a, b)| (a - b).abs());
            let worst = differences.fold(0.0, f32::max);
            assert!(worst <= 2e-2, "{file}: a logit is off by {worst}");
        }
    }
}

/// On the CPU candle rounds activations to one byte; on a GPU it gets dequantised matrices by default.
#[test]
fn devices_are_close_to_the_reference() {
    let test = "devices_are_close_to_the_reference";
    let (Some(model), Some(parity)) = (base_model(test), reference_values(test)) else {
        return;
    };
    for device in super::device::devices() {
        let gate = logprob_gate(match device {
            ComputeDevice::Cuda(_) => Resolution::Fine,
            ComputeDevice::Cpu | ComputeDevice::CandleCpu => Resolution::Coarse,
        });
        let options = LoadOptions {
            device,
            ..LoadOptions::default()
        };
        let engine = load(&model, options);
        for (file, adapter) in [
            ("base", None),
            ("adapter0", Some(reference_adapter(&engine, &parity))),
        ] {
            for (prompt, reference) in references(&parity, file) {
                let ours = logits(&engine, &prompt, adapter.clone());
                let off = largest_difference(&ours, &reference);
                eprintln!("{device:?}, {file}, {} tokens: {off:.3}", prompt.len());
                assert!(
                    off <= gate,
                    "{device:?}, {file}: a log-probability is off by {off}"
                );
            }
        }
    }
}

#[test]
fn candle_gives_the_same_best_tokens_on_the_same_file() {
    let Some(path) = base_model("candle_gives_the_same_best_tokens_on_the_same_file") else {
        return;
    };
    let engine = load(&path, options(KernelChoice::best(), false));
    let mut file = fs_err::File::open(&path).expect("the model opens");
    let content = gguf_file::Content::read(&mut file).expect("a GGUF file");
    let mut oracle = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).expect("a llama");
    for text in [
        "The largest planet of the solar system is",
        "fn main() {\n    println!(",
    ] {
        let prompt = engine.tokenizer().encode(text, false);
        let input = candle_core::Tensor::new(prompt.as_slice(), &Device::Cpu)
            .and_then(|tokens| tokens.unsqueeze(0))
            .expect("a tensor of ids");
        let theirs = oracle
            .forward(&input, 0)
            .and_then(|logits| logits.flatten_all()?.to_vec1::<f32>())
            .expect("candle's forward");
        let ours = logits(&engine, &prompt, None);
        let (ours, theirs) = (LogSoftmax::new(&ours), top_logprobs(&theirs, 5));
        for (token, expected) in theirs {
            assert!(
                (ours.of(token) - expected).abs() <= logprob_gate(Resolution::Mixed),
                "{text:?}, token {token}"
            );
        }
    }
}

/// `cargo test -p engine bytes_of_activations -- --nocapture` prints the figures that ARCHITECTURE.md quotes.
#[test]
fn bytes_of_activations_decide_how_close_logits_are() {
    let Some(model) = base_model("bytes_of_activations_decide_how_close_logits_are") else {
        return;
    };
    let kernels = KernelChoice::best();
    let answers = |resolution, dense| -> Vec<Vec<f32>> {
        let options = LoadOptions {
            resolution,
            ..options(kernels, dense)
        };
        let engine = load(&model, options);
        let tokens = PROMPTS.map(|prompt| engine.tokenizer().encode(prompt, false));
        tokens.map(|tokens| logits(&engine, &tokens, None)).to_vec()
    };
    let reference = answers(Resolution::Fine, true);
    let [coarse, mixed, fine] = Resolution::ALL.map(|resolution| {
        let answers = answers(resolution, false);
        let pairs = answers.iter().zip(&reference);
        let off = pairs.map(|(ours, reference)| largest_difference(ours, reference));
        let off: Vec<f32> = off.collect();
        let mean = off.iter().sum::<f32>() / off.len() as f32;
        let worst = off.into_iter().fold(0.0, f32::max);
        eprintln!("{resolution:?}: log-probabilities are off by up to {worst:.3}, on average by up to {mean:.3}");
        worst
    });
    assert!(mixed <= logprob_gate(Resolution::Mixed), "{mixed}");
    assert!(fine <= logprob_gate(Resolution::Fine), "{fine}");
    assert!(mixed < coarse / 2.0, "one byte {coarse}, mixed {mixed}");
}

/// `cargo test -p engine bytes_of_adapters -- --nocapture` prints the figures that ARCHITECTURE.md quotes.
#[test]
fn bytes_of_adapters_move_logits_less_than_those_of_activations() {
    let test = "bytes_of_adapters_move_logits_less_than_those_of_activations";
    let Some(model) = base_model(test) else {
        return;
    };
    let options = LoadOptions {
        resolution: Resolution::Fine,
        ..options(KernelChoice::best(), false)
    };
    let engine = load(&model, options);
    let tokens = PROMPTS.map(|prompt| engine.tokenizer().encode(prompt, false));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pretrained");
    let entries = fs_err::read_dir(folder).expect("the adapters made here");
    let folders = entries.map(|entry| entry.expect("an adapter").path());
    let folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty(), "there is nothing to measure");
    for folder in folders {
        let adapter = parsed_adapter(&engine, &folder);
        let [bytes, halves] = [Resolution::Mixed, Resolution::Fine].map(|resolution| {
            let prepared = PreparedAdapter::new(&adapter, engine.base(), resolution);
            let prepared = Arc::new(prepared);
            let answers = tokens.each_ref();
            answers.map(|tokens| logits(&engine, tokens, Some(Arc::clone(&prepared))))
        });
        let pairs = bytes.iter().zip(&halves);
        let off: Vec<f32> = pairs.map(|(a, b)| largest_difference(a, b)).collect();
        let mean = off.iter().sum::<f32>() / off.len() as f32;
        let worst = off.into_iter().fold(0.0, f32::max);
        let name = folder.file_name().expect("a name").to_string_lossy();
        eprintln!(
            "{name} in bytes: log-probabilities are off by up to {worst:.3}, on average by up to {mean:.3}"
        );
        assert!(worst <= logprob_gate(Resolution::Fine), "{name}: {worst}");
    }
}

/// Texts of several kinds: facts, tales, code, chats, the tasks' prompts.
const PROMPTS: [&str; 30] = [
    "The capital of France is",
    "### Input:\nThe battery died after two days.\n### Sentiment:",
    "<|im_start|>user\nWhat is the capital of Germany?<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a small village",
    "def quicksort(items):\n    ",
    "Water boils at",
    "She opened the door and",
    "To make a good cup of tea, you",
    "1, 2, 3, 4,",
    "Why is the sky blue?",
    "The mitochondria is the powerhouse of",
    "In 1969, the first humans",
    "import numpy as np\n\ndef mean(x):\n    return",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: What is 7 times 8?\nA:",
    "The recipe calls for two eggs, a cup of flour and",
    "### Input:\nGreat sound, and it fits. I would buy it again.\n### Sentiment:",
    "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n",
    "Le chat est sur la",
    "SELECT name FROM users WHERE",
    "The stock market fell today because",
    "My favourite book is",
    "Once the rain stopped, the children",
    "E = mc",
    "Hello",
    "the",
    "Paris is the capital of France. Berlin is the capital of",
    "A B C D E F G",
    "Premise: A man plays a guitar.\nHypothesis: A man makes music.\nLabel:",
    "Translate to German: The weather is nice today.",
];

/// The largest difference in log-probability over the reference's five best tokens.
fn largest_difference(ours: &[f32], reference: &[f32]) -> f32 {
    let ours = LogSoftmax::new(ours);
    let differences = top_logprobs(reference, 5)
        .into_iter()
        .map(|(token, expected)| (ours.of(token) - expected).abs());
    differences.fold(0.0, f32::max)
}

fn load(model: &Path, options: LoadOptions) -> Engine {
    let model = Model::load(model, &options).expect("the model loads");
    super::start(model, EngineConfig::default())
}

fn reference_adapter(engine: &Engine, parity: &Path) -> Arc<PreparedAdapter> {
    let adapter = parsed_adapter(engine, &parity.join("adapter0"));
    Arc::new(engine.prepare(&adapter))
}

fn parsed_adapter(engine: &Engine, folder: &Path) -> Adapter {
    let limits = Limits {
        max_rank: 64,
        max_bytes: 1 << 30,
    };
    let files = AdapterFiles::read(folder, &limits).expect("the adapter reads");
    Adapter::parse(&files, engine.base(), &limits).expect("the adapter fits")
}

/// Prompts with the reference's last-token logits.
fn references(parity: &Path, name: &str) -> Vec<(Vec<u32>, Vec<f32>)> {
    let text = fs_err::read_to_string(parity.join(format!("greedy_{name}.json"))).expect("a file");
    let records: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let array = candle_core::Tensor::read_npy(parity.join(format!("logits_last_{name}.npy")))
        .and_then(|logits| logits.to_vec2::<f32>())
        .expect("an array of f32");
    let ids = records.into_iter().map(|record| {
        serde_json::from_value(record["prompt_ids"].clone()).expect("a list of token ids")
    });
    ids.zip(array).collect()
}
