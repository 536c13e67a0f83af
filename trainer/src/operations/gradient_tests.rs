//! The layer and the loss against the same written with candle's differentiable operations, and pieces of both against
//! finite differences. Everything is random, the scale is not 1 and no rank is 1.

use std::slice;
use std::sync::{Arc, Mutex};

use adapters::Projection;
use candle_core::{Device, Result, Tensor, Var};
use engine::{Decoder, DenseLayer, DenseWeights, ModelConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::gradient_oracle::{
    HEAD_WIDTH, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, Oracle, VOCABULARY, norm,
};
use super::rms_norm::RmsNorm;
use super::swiglu;
use crate::frozen::{FrozenModel, describe};
use crate::layer::DecoderLayer;
use crate::layout::{LayerLayout, targets_of};
use crate::loss::{HeadLoss, Targets};
use crate::segments::{Segment, Segments};

fn random(seed: u64, count: usize, spread: f32) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| random.random_range(-spread..spread))
        .collect()
}

fn model() -> Arc<FrozenModel> {
    let (queries, keys) = (HEADS * HEAD_WIDTH, KV_HEADS * HEAD_WIDTH);
    let weight = |seed, outputs: usize, inputs: usize| {
        random(seed, outputs * inputs, (3.0 / inputs as f32).sqrt())
    };
    let layer = DenseLayer {
        attention_norm: random(1, HIDDEN, 1.5),
        query: weight(2, queries, HIDDEN),
        key: weight(3, keys, HIDDEN),
        value: weight(4, keys, HIDDEN),
        output: weight(5, HIDDEN, queries),
        feed_forward_norm: random(6, HIDDEN, 1.5),
        gate: weight(7, INTERMEDIATE, HIDDEN),
        up: weight(8, INTERMEDIATE, HIDDEN),
        down: weight(9, HIDDEN, INTERMEDIATE),
    };
    let config = ModelConfig {
        name: "random".into(),
        layers: 1,
        hidden: HIDDEN,
        intermediate: INTERMEDIATE,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_WIDTH,
        vocabulary: VOCABULARY,
        context_length: 200,
        rope_theta: 100.0,
        rms_epsilon: 1e-3,
        decoder: Decoder::plain(1, HEAD_WIDTH, 100.0),
    };
    let weights = DenseWeights {
        config,
        embedding: random(10, VOCABULARY * HIDDEN, 1.0),
        layers: vec![layer],
        output_norm: random(11, HIDDEN, 1.5),
        head: None,
    };
    Arc::new(FrozenModel::new(weights, None))
}

/// A shared start, two segments after it, one of them longer than an attention block, one after both of its forebears,
/// and one on its own.
fn segments() -> Arc<Segments> {
    let segment = |rows: std::ops::Range<usize>, prefix: &[std::ops::Range<usize>]| Segment {
        rows,
        prefix: prefix.to_vec(),
    };
    let shared = 0..9;
    Arc::new(Segments::new(vec![
        segment(0..9, &[]),
        segment(9..14, slice::from_ref(&shared)),
        segment(14..90, slice::from_ref(&shared)),
        segment(90..93, &[shared.clone(), 9..14]),
        segment(93..100, &[]),
    ]))
}

fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f32) {
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (got, expected) = (values(got), values(expected));
    let largest = expected
        .iter()
        .fold(0f32, |largest, value| largest.max(value.abs()));
    assert!(
        largest > 1e-3,
        "{what}: the expected values are all but zero, so this compares nothing"
    );
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!(
            (got - expected).abs() <= tolerance * largest,
            "{what}[{index}]: {got} against {expected}"
        );
    }
}

fn check_layer(projections: &[Projection]) -> Result<()> {
    let (model, segments) = (model(), segments());
    let layout = Arc::new(LayerLayout::new(
        &describe(&model.config, ""),
        &targets_of(projections, 3, 1.7),
    ));
    let input = Var::from_vec(
        random(20, segments.rows() * HIDDEN, 1.0),
        (segments.rows(), HIDDEN),
        &Device::Cpu,
    )?;
    let parameters = Var::from_vec(random(21, layout.length, 0.4), layout.length, &Device::Cpu)?;
    let direction = Tensor::from_vec(
        random(22, segments.rows() * HIDDEN, 1.0),
        input.shape(),
        &Device::Cpu,
    )?;

    let layer = DecoderLayer {
        model: Arc::clone(&model),
        index: 0,
        layout: Arc::clone(&layout),
        segments: Arc::clone(&segments),
        dropout: None,
        input_gradient: true,
        keeps: true,
        kept: Mutex::default(),
    };
    let output = input.apply_op2(parameters.as_tensor(), layer)?;
    let gradients = (&output * &direction)?.sum_all()?.backward()?;

    let oracle = Oracle {
        model: &model,
        layout: &layout,
        segments: &segments,
    };
    let expected = oracle.layer(input.as_tensor(), parameters.as_tensor())?;
    let expected_gradients = (&expected * &direction)?.sum_all()?.backward()?;

    assert_close("output", &output, &expected, 1e-5);
    for (what, variable) in [("input", &input), ("parameters", &parameters)] {
        let gradient = |store: &candle_core::backprop::GradStore| {
            store.get(variable.as_tensor()).unwrap().clone()
        };
        assert_close(
            what,
            &gradient(&gradients),
            &gradient(&expected_gradients),
            2e-5,
        );
    }
    Ok(())
}

#[test]
fn a_layer_with_every_projection_trained_agrees_with_plain_operations() {
    check_layer(&Projection::ALL).unwrap();
}

#[test]
fn a_layer_with_some_projections_trained_agrees_with_plain_operations() {
    check_layer(&[Projection::Key, Projection::Down]).unwrap();
}

#[test]
fn the_loss_agrees_with_plain_operations() -> Result<()> {
    let model = model();
    let hidden = Var::from_vec(random(30, 7 * HIDDEN, 1.0), (7, HIDDEN), &Device::Cpu)?;
    let targets = Targets {
        rows: vec![1, 2, 6],
        tokens: vec![5, 36, 0],
    };
    let loss = hidden.apply_op1(HeadLoss {
        model: Arc::clone(&model),
        targets: targets.clone(),
        weight: 0.3,
        gradient: Mutex::default(),
    })?;
    let gradients = (&loss * 2.0)?.backward()?;

    let head = model.head();
    let normed = norm(hidden.as_tensor(), head.norm.weight, 1e-3)?;
    let transposed = head.weight.transposed_values();
    let transposed = Tensor::from_vec(transposed, (HIDDEN, VOCABULARY), &Device::Cpu)?;
    let rows = Tensor::new(&[1u32, 2, 6], &Device::Cpu)?;
    let logits = normed.index_select(&rows, 0)?.matmul(&transposed)?;
    let expected =
        (candle_nn::loss::cross_entropy(&logits, &Tensor::new(targets.tokens, &Device::Cpu)?)?
            * (3.0 * 0.3))?;
    let expected_gradients = (&expected * 2.0)?.backward()?;

    assert_close("loss", &loss, &expected, 1e-5);
    let gradient =
        |store: &candle_core::backprop::GradStore| store.get(hidden.as_tensor()).unwrap().clone();
    assert_close(
        "hidden",
        &gradient(&gradients),
        &gradient(&expected_gradients),
        1e-5,
    );
    Ok(())
}

/// Compares `gradient` with central differences of `Σ direction · function` in double-width steps.
fn check_differences(
    input: &[f32],
    direction: &[f32],
    gradient: &[f32],
    function: impl Fn(&[f32]) -> Vec<f32>,
) {
    const STEP: f32 = 1e-2;
    let value = |input: &[f32]| -> f64 {
        function(input)
            .iter()
            .zip(direction)
            .map(|(y, d)| f64::from(*y) * f64::from(*d))
            .sum()
    };
    for index in 0..input.len() {
        let moved = |by: f32| {
            let mut moved = input.to_vec();
            moved[index] += by;
            value(&moved)
        };
        let expected = (moved(STEP) - moved(-STEP)) / (2.0 * f64::from(STEP));
        let got = f64::from(gradient[index]);
        assert!(
            (got - expected).abs() < 2e-3 * expected.abs().max(1.0),
            "[{index}]: {got} against {expected}"
        );
    }
}

#[test]
fn the_gate_agrees_with_finite_differences() {
    let (input, direction) = (random(40, 24, 3.0), random(41, 12, 1.0));
    let gradient = swiglu::backward(&input, &direction, 6);
    check_differences(&input, &direction, &gradient, |input| {
        swiglu::forward(input, 6)
    });
}

#[test]
fn the_normalisation_adds_what_finite_differences_say() {
    let (input, direction, weight) = (
        random(42, 36, 2.0),
        random(43, 36, 1.0),
        random(44, 18, 1.5),
    );
    let norm = RmsNorm {
        weight: &weight,
        epsilon: 0.1,
    };
    let mut gradient = vec![0.25; 36];
    norm.backward(&input, &direction, &mut gradient);
    gradient.iter_mut().for_each(|value| *value -= 0.25);
    check_differences(&input, &direction, &gradient, |input| norm.forward(input));
}

#[test]
fn dropout_is_the_same_in_forward_and_backward() -> Result<()> {
    let (model, segments) = (model(), segments());
    let layout = Arc::new(LayerLayout::new(
        &describe(&model.config, ""),
        &targets_of(&[Projection::Up], 2, 1.3),
    ));
    let values = random(51, layout.length, 0.4);
    let output = |values: &[f32], dropout: f32| -> Result<(f32, Vec<f32>)> {
        let input = Tensor::from_vec(
            random(50, segments.rows() * HIDDEN, 1.0),
            (segments.rows(), HIDDEN),
            &Device::Cpu,
        )?;
        let parameters = Var::from_slice(values, values.len(), &Device::Cpu)?;
        let layer = DecoderLayer {
            model: Arc::clone(&model),
            index: 0,
            layout: Arc::clone(&layout),
            segments: Arc::clone(&segments),
            dropout: (dropout > 0.0).then_some(super::lora_linear::Dropout {
                probability: dropout,
                seed: 3,
            }),
            input_gradient: false,
            keeps: true,
            kept: Mutex::default(),
        };
        let sum = input.apply_op2(parameters.as_tensor(), layer)?.sum_all()?;
        let gradients = sum.backward()?;
        Ok((
            sum.to_scalar()?,
            gradients.get(parameters.as_tensor()).unwrap().to_vec1()?,
        ))
    };
    let (sum, gradient) = output(&values, 0.5)?;
    assert!(
        (sum - output(&values, 0.0)?.0).abs() > 1e-2,
        "dropout changed nothing"
    );
    for index in (0..values.len()).step_by(17) {
        let mut moved = values.clone();
        moved[index] += 0.02;
        let above = output(&moved, 0.5)?.0;
        moved[index] -= 0.04;
        let expected = (above - output(&moved, 0.5)?.0) / 0.04;
        assert!(
            (gradient[index] - expected).abs() < 0.05 * expected.abs().max(0.5),
            "{} {expected}",
            gradient[index]
        );
    }
    Ok(())
}
