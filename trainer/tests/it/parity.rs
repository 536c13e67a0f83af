//! Against torch, transformers and PEFT in f32 on the real model: logits, gradients, ten optimizer steps.
//!
//! Needs the model file (`make model`, or `QUICKCHANGE_MODEL`) and the folder of reference values beside the repository;
//! says what it skipped without them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapters::{Adapter, AdapterFiles, BaseModel, Limits};
use engine::gguf::GgufFile;
use engine::testing::{base_model, reference_values};
use engine::{DenseWeights, Resolution};
use safetensors::SafeTensors;
use serde::Deserialize;
use trainer::loss::Targets;
use trainer::model::{Inputs, PassOptions, TrainingModel};
use trainer::optimizer::{AdamW, AdamWOptions};
use trainer::parameters::LoraParameters;
use trainer::segments::Segments;

const LIMITS: Limits = Limits {
    max_rank: 64,
    max_bytes: 64 << 20,
};

#[derive(Deserialize)]
struct TrainingReference {
    input_ids: Vec<Vec<u32>>,
    losses: Vec<f32>,
}

#[derive(Deserialize)]
struct GreedyReference {
    prompt_ids: Vec<u32>,
}

struct Reference {
    model: TrainingModel,
    base: BaseModel,
    folder: PathBuf,
}

/// The model and the folder of reference values, or `None` after saying what is missing.
fn reference(test: &str) -> Option<Reference> {
    let model = base_model(test)?;
    let folder = reference_values(test)?;
    let file = GgufFile::open(&model).unwrap();
    let model = TrainingModel::new(DenseWeights::from_gguf(&file).unwrap());
    Some(Reference {
        base: model.base(&file.digest()),
        model,
        folder,
    })
}

impl Reference {
    fn adapter(&self) -> LoraParameters {
        let files = AdapterFiles::read(&self.folder.join("adapter0"), &LIMITS).unwrap();
        let adapter = Adapter::parse(&files, &self.base, &LIMITS).unwrap();
        LoraParameters::from_modules(&self.base, &adapter.modules).unwrap()
    }

    fn no_adapter(&self) -> LoraParameters {
        LoraParameters::initialised(&self.base, &[], 0).unwrap()
    }

    fn json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> T {
        serde_json::from_slice(&fs_err::read(self.folder.join(name)).unwrap()).unwrap()
    }
}

/// The values of a little-endian `f32` file in numpy's format, version 1.
fn numpy_values(path: &Path) -> Vec<f32> {
    let bytes = fs_err::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    values(&bytes[10 + header..])
}

fn values(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]))
        .collect()
}

fn check_logits(reference: &Reference, parameters: &LoraParameters, name: &str) {
    let prompts: Vec<GreedyReference> = reference.json(&format!("greedy_{name}.json"));
    let lengths: Vec<usize> = prompts
        .iter()
        .map(|prompt| prompt.prompt_ids.len())
        .collect();
    let last: Vec<usize> = lengths
        .iter()
        .scan(0, |end, length| {
            *end += length;
            Some(*end - 1)
        })
        .collect();
    let tokens = prompts
        .into_iter()
        .flat_map(|prompt| prompt.prompt_ids)
        .collect();
    let inputs = Inputs {
        tokens,
        segments: Arc::new(Segments::independent(&lengths)),
    };
    let logits = reference.model.logits(parameters, &inputs, &last).unwrap();
    let expected = numpy_values(&reference.folder.join(format!("logits_last_{name}.npy")));
    assert_eq!(logits.len(), expected.len());
    let worst = logits
        .iter()
        .zip(&expected)
        .fold(0f32, |worst, (got, expected)| {
            worst.max((got - expected).abs())
        });
    assert!(worst <= 1e-3, "{name}: a logit differs by {worst}");
}

#[test]
fn logits_agree_with_transformers() {
    let Some(reference) = reference("logits_agree_with_transformers") else {
        return;
    };
    check_logits(&reference, &reference.no_adapter(), "base");
    check_logits(&reference, &reference.adapter(), "adapter0");
}

#[test]
fn gradients_and_ten_steps_agree_with_peft() {
    let Some(reference) = reference("gradients_and_ten_steps_agree_with_peft") else {
        return;
    };
    let expected: TrainingReference = reference.json("train_ref.json");
    let (inputs, targets) = next_token_batch(&expected.input_ids);
    let parameters = reference.adapter();
    let decay = AdamWOptions {
        weight_decay: 0.01,
        ..AdamWOptions::default()
    };
    let mut optimizer = AdamW::new(&parameters, decay);
    let options = PassOptions {
        weight: 1.0 / targets.rows.len() as f32,
        dropout: 0.0,
        seed: 0,
        recompute: false,
    };
    for (step, expected_loss) in expected.losses.iter().enumerate() {
        let (loss, gradients) = reference
            .model
            .loss_and_gradients(&parameters, &inputs, &targets, options)
            .unwrap();
        assert!(
            (loss - expected_loss).abs() <= 1e-3,
            "step {step}: loss {loss} against {expected_loss}"
        );
        if step == 0 {
            check_gradients(&reference, &parameters, &gradients);
        }
        optimizer.step(&parameters, &gradients, 1e-3).unwrap();
    }
}

/// What the way back in bytes does to gradients, with an adapter that was trained.
#[test]
fn gradients_in_bytes_point_where_those_in_f32_do() {
    let Some(path) = base_model("gradients_in_bytes_point_where_those_in_f32_do") else {
        return;
    };
    let file = GgufFile::open(&path).unwrap();
    let sequences: Vec<Vec<u32>> = (0..4u32)
        .map(|row| (0..24).map(|place| 500 + 977 * row + 131 * place).collect())
        .collect();
    let (inputs, targets) = next_token_batch(&sequences);
    let options = PassOptions {
        weight: 1.0 / targets.rows.len() as f32,
        dropout: 0.0,
        seed: 0,
        recompute: false,
    };
    let gradients = |resolution| {
        let model = TrainingModel::from_gguf(&file, resolution).unwrap();
        let base = model.base(&file.digest());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pretrained/sentiment-ft");
        let files = AdapterFiles::read(&folder, &LIMITS).unwrap();
        let adapter = Adapter::parse(&files, &base, &LIMITS).unwrap();
        let parameters = LoraParameters::from_modules(&base, &adapter.modules).unwrap();
        let found = model.loss_and_gradients(&parameters, &inputs, &targets, options);
        let gradients = found.unwrap().1;
        let layers = (0..base.layers).map(|layer| gradients.layer(layer).unwrap().to_vec());
        layers.collect::<Vec<_>>().concat()
    };
    let exact = gradients(None);
    let product = |left: &[f32], right: &[f32]| {
        let terms = left.iter().zip(right);
        terms
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>()
    };
    let size = product(&exact, &exact).sqrt();
    for (resolution, least) in [
        (Resolution::Fine, 0.9999),
        (Resolution::Mixed, 0.99),
        (Resolution::Coarse, 0.95),
    ] {
        let found = gradients(Some(resolution));
        assert_ne!(found, exact);
        let length = product(&found, &found).sqrt();
        let cosine = product(&found, &exact) / (length * size);
        eprintln!(
            "{resolution:?}: cosine {cosine:.6}, length {:.4}",
            length / size
        );
        assert!(cosine >= least, "{resolution:?}: {cosine}");
        assert!(
            (length / size - 1.0).abs() < 0.05,
            "{resolution:?}: {length} for {size}"
        );
    }
}

/// Every token predicted from those before it.
fn next_token_batch(sequences: &[Vec<u32>]) -> (Inputs, Targets) {
    let lengths: Vec<usize> = sequences
        .iter()
        .map(|sequence| sequence.len() - 1)
        .collect();
    let tokens: Vec<u32> = sequences
        .iter()
        .flat_map(|sequence| &sequence[..sequence.len() - 1])
        .copied()
        .collect();
    let targets = Targets {
        rows: (0..tokens.len()).collect(),
        tokens: sequences
            .iter()
            .flat_map(|sequence| &sequence[1..])
            .copied()
            .collect(),
    };
    (
        Inputs {
            tokens,
            segments: Arc::new(Segments::independent(&lengths)),
        },
        targets,
    )
}

fn check_gradients(
    reference: &Reference,
    parameters: &LoraParameters,
    gradients: &trainer::optimizer::Gradients,
) {
    let bytes = fs_err::read(reference.folder.join("grads_adapter0_step0.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let places = parameters.places();
    assert_eq!(places.len(), expected.len());
    for place in places {
        let name = place.tensor_name();
        let expected = values(expected.tensor(&name).unwrap().data());
        let got = &gradients.layer(place.layer).unwrap()[place.range.clone()];
        let square = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|value| f64::from(value).powi(2)).sum::<f64>()
        };
        let error = square(
            &mut got
                .iter()
                .zip(&expected)
                .map(|(got, expected)| got - expected),
        )
        .sqrt();
        let size = square(&mut expected.iter().copied()).sqrt();
        assert!(
            error <= 1e-3 * size,
            "{name}: the gradient is off by {error} of {size}"
        );
    }
}
