//! Every kernel set against candle's dequantised product, plain formulas and each other, over random shapes.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::f16;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::gguf::RawTensor;

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn kernel_sets() -> impl Iterator<Item = KernelChoice> {
    KernelChoice::ALL
        .into_iter()
        .filter(|choice| choice.is_available())
}

/// A random matrix in a stored type: packed, and dequantised by candle.
fn matrix(dtype: GgmlDType, outputs: usize, inputs: usize, seed: u64) -> (PackedMatrix, Vec<f32>) {
    let values = Tensor::from_vec(
        random(seed, outputs * inputs),
        (outputs, inputs),
        &Device::Cpu,
    );
    let stored = QTensor::quantize(&values.expect("a tensor"), dtype).expect("a stored tensor");
    let bytes = stored.data().expect("bytes");
    let raw = RawTensor {
        dtype,
        rows: outputs,
        columns: inputs,
        bytes: &bytes,
    };
    let packed = PackedMatrix::pack(&[(raw, None)]).expect("a packable matrix");
    let dense = stored
        .dequantize(&Device::Cpu)
        .and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>())
        .expect("candle dequantises");
    (packed, dense)
}

fn dense_product(rows: &[f32], weights: &[f32], inputs: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for row in rows.chunks_exact(inputs) {
        for weights in weights.chunks_exact(inputs) {
            let terms = row
                .iter()
                .zip(weights)
                .map(|(x, w)| f64::from(*x) * f64::from(*w));
            out.push(terms.sum::<f64>() as f32);
        }
    }
    out
}

fn run(
    (kernels, resolution): (KernelChoice, Resolution),
    matrix: &PackedMatrix,
    rows: &[f32],
    groups: &[RowGroup<'_>],
) -> Vec<f32> {
    let inputs = matrix.inputs();
    let mut pool = Pool::new(2);
    let (mut floats, mut quantized) = (vec![0.0; rows.len()], QuantizedRows::new(resolution));
    quantized.produce(&mut pool, kernels, (&mut floats, inputs), |row, out| {
        out.copy_from_slice(&rows[row * inputs..(row + 1) * inputs]);
    });
    let mut values = vec![0.0; rows.len() / inputs * matrix.outputs()];
    let mut reduced = Vec::new();
    let input = BatchRows::new(&floats, &quantized);
    let output = ProjectionOutput::replacing(&mut values, &mut reduced);
    project(&mut pool, kernels, matrix, input, (groups, output));
    values
}

/// Quantising activations loses at most half a step of 1/127, or of 1/(127 · 254), per element.
fn tolerance(resolution: Resolution, inputs: usize) -> f32 {
    let step = match resolution {
        Resolution::Coarse => 1.0 / 127.0,
        Resolution::Fine => 1.0 / (127.0 * 254.0),
    };
    0.5 * step * (inputs as f32).sqrt() * 4.0 + 1e-4
}

fn choices() -> impl Iterator<Item = (KernelChoice, Resolution)> {
    kernel_sets().flat_map(|kernels| {
        [Resolution::Coarse, Resolution::Fine].map(|resolution| (kernels, resolution))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn stored_types_multiply_like_their_dequantised_values(
        rows in 1usize..20, outputs in 1usize..70, blocks in 1usize..6, seed in any::<u64>(),
        dtype in prop_oneof![
            Just(GgmlDType::Q4_0), Just(GgmlDType::Q4_1), Just(GgmlDType::Q8_0),
            Just(GgmlDType::Q5_1), Just(GgmlDType::F16), Just(GgmlDType::F32),
        ],
    ) {
        let inputs = blocks * 32;
        let (packed, dense) = matrix(dtype, outputs, inputs, seed);
        let x = random(seed ^ 1, rows * inputs);
        let expected = dense_product(&x, &dense, inputs);
        for choice in choices() {
            for (got, expected) in run(choice, &packed, &x, &[]).iter().zip(&expected) {
                let allowed = tolerance(choice.1, inputs);
                prop_assert!((got - expected).abs() <= allowed, "{choice:?} {got} {expected}");
            }
        }
        let mut row = vec![0.0; inputs];
        for (output, dense) in dense.chunks_exact(inputs).enumerate() {
            packed.read_row(output, &mut row);
            for (got, expected) in row.iter().zip(dense) {
                prop_assert!((got - expected).abs() <= 2e-3 * expected.abs().max(1.0));
            }
        }
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_in_a_batch(
        rows in 2usize..20, outputs in 1usize..40, seed in any::<u64>(), quantised in any::<bool>(),
    ) {
        let dtype = if quantised { GgmlDType::Q4_1 } else { GgmlDType::F32 };
        let (packed, _) = matrix(dtype, outputs, 64, seed);
        let x = random(seed ^ 2, rows * 64);
        for kernels in choices() {
            let batch = run(kernels, &packed, &x, &[]);
            for (row, batch) in x.chunks_exact(64).zip(batch.chunks_exact(outputs)) {
                prop_assert_eq!(run(kernels, &packed, row, &[]), batch);
            }
        }
    }

    #[test]
    fn deltas_are_added_to_their_own_rows_and_columns(
        before in 0usize..5, changed in 1usize..12, after in 0usize..5, seed in any::<u64>(),
    ) {
        let (inputs, outputs, rank) = (32, 50, 3);
        let rows = before + changed + after;
        let (packed, dense) = matrix(GgmlDType::F32, outputs, inputs, seed);
        let (a, b) = (random(seed ^ 3, rank * inputs), random(seed ^ 4, 20 * rank));
        let delta = LowRank {
            reduction: PackedMatrix::from_floats(&a, rank, inputs),
            expansions: vec![Expansion {
                matrix: PackedMatrix::from_floats(&b, 20, rank),
                reduced_column: 0,
                output_column: 30,
            }],
        };
        let x = random(seed ^ 5, rows * inputs);
        let mut expected = dense_product(&x, &dense, inputs);
        let reduced = dense_product(&x, &a, inputs);
        let expanded = dense_product(&reduced, &b, rank);
        for row in before..before + changed {
            for column in 0..20 {
                expected[row * outputs + 30 + column] += expanded[row * 20 + column];
            }
        }
        let group = RowGroup { rows: before..before + changed, delta: &delta };
        for kernels in choices() {
            let got = run(kernels, &packed, &x, std::slice::from_ref(&group));
            for (got, expected) in got.iter().zip(&expected) {
                prop_assert!((got - expected).abs() <= 2e-2, "{kernels:?} {got} {expected}");
            }
        }
    }

    #[test]
    fn attention_is_the_softmax_of_the_scores(
        tokens in 1usize..70, hidden in 0usize..69, heads in 1usize..5, vectors in 1usize..17,
        seed in any::<u64>(),
    ) {
        let shape = AttentionShape { heads, kv_heads: 1, head_dim: vectors * 16, scale: 0.3 };
        let (cache, table, keys, values) = stored_tokens(&shape, tokens, seed);
        let query = random(seed ^ 6, heads * shape.head_dim);
        let first = hidden % tokens;
        let visible = first * shape.head_dim..;
        let expected = plain_attention(&shape, &query, &keys[visible.clone()], &values[visible]);
        let view = KvView { cache: &cache, table: &table, first, tokens };
        for kernels in kernel_sets() {
            let mut out = vec![0.0; query.len()];
            attend(kernels, &shape, &view, 0, (&query, &mut out));
            for (got, expected) in out.iter().zip(&expected) {
                prop_assert!((got - expected).abs() <= 2e-3, "{kernels:?} {got} {expected}");
            }
        }
    }

    #[test]
    fn geglu_is_its_formula(seed in any::<u64>(), width in 1usize..80) {
        let scaled = |seed| random(seed, width).iter().map(|x| x * 8.0).collect::<Vec<_>>();
        let (gate, up) = (scaled(seed), scaled(seed ^ 7));
        for kernels in kernel_sets() {
            let mut out = vec![0.0; width];
            geglu_row(kernels, &gate, &up, &mut out);
            for ((gate, up), got) in gate.iter().zip(&up).zip(&out) {
                let (x, up) = (f64::from(*gate), f64::from(*up));
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                let expected = 0.5 * x * (1.0 + inner.tanh()) * up;
                prop_assert!((f64::from(*got) - expected).abs() <= 1e-5 * expected.abs().max(1.0));
            }
        }
    }

    #[test]
    fn swiglu_is_its_formula(seed in any::<u64>(), width in 1usize..80) {
        let scaled = |seed| random(seed, width).iter().map(|x| x * 30.0).collect::<Vec<_>>();
        let (gate, up) = (scaled(seed), scaled(seed ^ 7));
        for kernels in kernel_sets() {
            let mut out = vec![0.0; width];
            swiglu_row(kernels, &gate, &up, &mut out);
            for ((gate, up), got) in gate.iter().zip(&up).zip(&out) {
                let (gate, up) = (f64::from(*gate), f64::from(*up));
                let expected = gate / (1.0 + (-gate).exp()) * up;
                prop_assert!((f64::from(*got) - expected).abs() <= 1e-5 * expected.abs().max(1.0));
            }
        }
    }
}

/// Stores random keys and values through `rotate_and_store` without turning them, in blocks of descending number;
/// returns them as they were before they became f16.
fn stored_tokens(
    shape: &AttentionShape,
    tokens: usize,
    seed: u64,
) -> (Vec<f16>, Vec<u32>, Vec<f32>, Vec<f32>) {
    let blocks = tokens.div_ceil(BLOCK_TOKENS);
    let table: Vec<u32> = (0..blocks as u32).rev().collect();
    // Unwritten slots hold NaN: whatever reads them shows.
    let mut cache = vec![f16::NAN; blocks * shape.block_elements()];
    let width = shape.head_dim;
    let (keys, values) = (
        random(seed, tokens * width),
        random(seed ^ 8, tokens * width),
    );
    let mut projected = Vec::new();
    for token in 0..tokens {
        projected.extend(vec![0.0; shape.heads * width]);
        projected.extend(&keys[token * width..(token + 1) * width]);
        projected.extend(&values[token * width..(token + 1) * width]);
    }
    let rows: Vec<KvRow> = (0..tokens)
        .map(|position| KvRow {
            position,
            block: table[position / BLOCK_TOKENS],
        })
        .collect();
    let still = RotaryTable::without_rotation(tokens, width);
    rotate_and_store(
        &mut Pool::new(2),
        shape,
        HeadTransform::rotation(&still),
        &rows,
        (&mut projected, &mut cache),
    );
    (cache, table, keys, values)
}

fn plain_attention(
    shape: &AttentionShape,
    query: &[f32],
    keys: &[f32],
    values: &[f32],
) -> Vec<f32> {
    let width = shape.head_dim;
    let mut out = Vec::new();
    for query in query.chunks_exact(width) {
        let scores: Vec<f64> = keys
            .chunks_exact(width)
            .map(|key| {
                let terms = key
                    .iter()
                    .zip(query)
                    .map(|(k, q)| f64::from(*k) * f64::from(*q));
                terms.sum::<f64>() * f64::from(shape.scale)
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for element in 0..width {
            let column = values.iter().skip(element).step_by(width);
            let sum: f64 = column.zip(&weights).map(|(v, w)| f64::from(*v) * w).sum();
            out.push((sum / total) as f32);
        }
    }
    out
}

#[test]
fn rotation_turns_pairs_half_a_head_apart() {
    let mut head = vec![1.0, 0.0, 0.0, 2.0];
    let (cosines, sines) = ([0.6, 0.0], [0.8, 1.0]);
    rope_row(&mut head, &cosines, &sines);
    assert_eq!(head, [0.6, -2.0, 0.8, 0.0]);
}

#[test]
fn rms_norm_divides_by_the_root_of_the_mean_square() {
    let mut out = vec![0.0; 4];
    rms_norm_row(
        &[1.0, -1.0, 3.0, -5.0],
        &[1.0, 2.0, 3.0, 4.0],
        0.0,
        &mut out,
    );
    for (got, expected) in out.iter().zip([1.0 / 3.0, -2.0 / 3.0, 3.0, -20.0 / 3.0f32]) {
        assert!((got - expected).abs() <= f32::EPSILON * expected.abs());
    }
}

#[test]
fn query_and_key_rows_are_taken_in_the_given_order() {
    let values =
        Tensor::new(&[[1.0f32; 32], [2.0; 32], [3.0; 32]], &Device::Cpu).expect("a tensor");
    let stored = QTensor::quantize(&values, GgmlDType::Q8_0).expect("a stored tensor");
    let bytes = stored.data().expect("bytes");
    let raw = RawTensor {
        dtype: GgmlDType::Q8_0,
        rows: 3,
        columns: 32,
        bytes: &bytes,
    };
    let packed = PackedMatrix::pack(&[(raw, Some(vec![2, 0, 1]))]).expect("packable");
    let mut row = vec![0.0; 32];
    let firsts: Vec<f32> = (0..3)
        .map(|output| {
            packed.read_row(output, &mut row);
            row[0].round()
        })
        .collect();
    assert_eq!(firsts, [3.0, 1.0, 2.0]);
}
