//! Ways of computing less or keeping less: the gradients stay. A context computed once for a batch gives the loss and the gradients of a context repeated for every example.

use adapters::Projection;
use engine::gguf::GgufFile;
use engine::testing::TinyModel;
use engine::{DenseWeights, Resolution};
use trainer::batch::passes;
use trainer::examples::TokenizedExample;
use trainer::model::{PassOptions, TrainingModel};
use trainer::optimizer::{AdamW, AdamWOptions, Gradients};
use trainer::parameters::{LoraParameters, targets_of};

const OPTIONS: PassOptions = PassOptions {
    weight: 0.1,
    dropout: 0.0,
    seed: 0,
    recompute: false,
};

#[test]
fn a_shared_context_gives_the_gradients_of_a_repeated_one() {
    let folder = tempfile::tempdir().unwrap();
    let weights = DenseWeights::load(&TinyModel::write(folder.path(), 5)).unwrap();
    let model = TrainingModel::new(weights);
    let parameters =
        LoraParameters::initialised(&model.base(""), &targets_of(&Projection::ALL, 4, 1.5), 3)
            .unwrap();
    let context = (0..40).map(|index| 10 + (index * 37) % 200);
    let example = |own: &[u32], completion: &[u32]| TokenizedExample {
        record: 0,
        prompt: context.clone().chain(own.iter().copied()).collect(),
        completion: completion.to_vec(),
        label: None,
    };
    let examples = [
        example(&[21, 33, 99], &[101, 2]),
        example(&[87], &[45, 46, 2]),
        example(&[3, 3, 150, 12], &[77]),
    ];
    let run = |batches: Vec<Vec<&TokenizedExample>>| {
        let (mut loss, mut rows, mut gradients) = (0.0, 0, Gradients::default());
        for pass in batches.iter().flat_map(|batch| passes(batch, 1000)) {
            let (pass_loss, pass_gradients) = model
                .loss_and_gradients(&parameters, &pass.inputs, &pass.targets, OPTIONS)
                .unwrap();
            loss += pass_loss;
            rows += pass.inputs.tokens.len();
            gradients.add(pass_gradients);
        }
        (loss, rows, gradients)
    };

    // One update first, because a fresh B is zero and A would have no gradient to compare.
    let (_, _, first) = run(vec![examples.iter().collect()]);
    AdamW::new(&parameters, AdamWOptions::default())
        .step(&parameters, &first, 0.05)
        .unwrap();

    let (shared_loss, shared_rows, shared) = run(vec![examples.iter().collect()]);
    let (repeated_loss, repeated_rows, repeated) =
        run(examples.iter().map(|example| vec![example]).collect());
    assert_eq!(
        (shared_rows, repeated_rows),
        (40 + 4 + 3 + 4, 3 * 40 + 4 + 3 + 4)
    );
    assert!(
        (shared_loss - repeated_loss).abs() < 1e-4 * repeated_loss,
        "{shared_loss} {repeated_loss}"
    );
    for place in parameters.places() {
        let gradient = |gradients: &Gradients| {
            gradients.layer(place.layer).unwrap()[place.range.clone()].to_vec()
        };
        let (shared, repeated) = (gradient(&shared), gradient(&repeated));
        let largest = repeated
            .iter()
            .fold(0f32, |largest, value| largest.max(value.abs()));
        assert!(largest > 0.0, "{} has no gradient", place.tensor_name());
        for (shared, repeated) in shared.iter().zip(&repeated) {
            assert!(
                (shared - repeated).abs() <= 1e-4 * largest,
                "{}: {shared} {repeated}",
                place.tensor_name()
            );
        }
    }
}

#[test]
fn layers_computed_again_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let file = GgufFile::open(&TinyModel::write(folder.path(), 5)).unwrap();
    let example = TokenizedExample {
        record: 0,
        prompt: (10..60).collect(),
        completion: vec![101, 2],
        label: None,
    };
    for resolution in [None, Some(Resolution::Fine)] {
        let model = TrainingModel::from_gguf(&file, resolution).unwrap();
        let targets = targets_of(&Projection::ALL, 4, 1.5);
        let parameters = LoraParameters::initialised(&model.base(""), &targets, 3).unwrap();
        let pass = &passes(&[&example], 1000)[0];
        let run = |recompute| {
            let options = PassOptions {
                dropout: 0.2,
                recompute,
                ..OPTIONS
            };
            model
                .loss_and_gradients(&parameters, &pass.inputs, &pass.targets, options)
                .unwrap()
        };
        assert_eq!(run(true), run(false));
    }
}
