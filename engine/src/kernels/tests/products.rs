//! Products of stored matrices and of low-rank deltas.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::{kernel_sets, random};
use crate::gguf::RawTensor;
use crate::kernels::*;

/// Every type with tiles of its own, and one without.
const STORED: [GgmlDType; 12] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::F32,
    GgmlDType::Q3K,
];

/// A random matrix in a stored type: packed, and dequantised by candle.
fn matrix(dtype: GgmlDType, outputs: usize, inputs: usize, seed: u64) -> (PackedMatrix, Vec<f32>) {
    let stored = stored(dtype, outputs, inputs, seed);
    let bytes = stored.data().expect("bytes");
    let raw = RawTensor {
        dtype,
        rows: outputs,
        columns: inputs,
        bytes: &bytes,
    };
    let packed = PackedMatrix::pack(&[(raw, None)], &Arena::default()).expect("a packable matrix");
    (packed, dense(&stored))
}

fn stored(dtype: GgmlDType, outputs: usize, inputs: usize, seed: u64) -> QTensor {
    let values = random(seed, outputs * inputs);
    let values = Tensor::from_vec(values, (outputs, inputs), &Device::Cpu).expect("a tensor");
    QTensor::quantize(&values, dtype).expect("a stored tensor")
}

fn dense(stored: &QTensor) -> Vec<f32> {
    let dense = stored.dequantize(&Device::Cpu);
    dense
        .and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>())
        .expect("candle dequantises")
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
        Resolution::Coarse | Resolution::Mixed => 1.0 / 127.0,
        Resolution::Fine => 1.0 / (127.0 * 254.0),
    };
    0.5 * step * (inputs as f32).sqrt() * 4.0 + 1e-4
}

fn choices() -> impl Iterator<Item = (KernelChoice, Resolution)> {
    kernel_sets().flat_map(|kernels| Resolution::ALL.map(|resolution| (kernels, resolution)))
}

#[test]
fn beside_an_outlier_small_values_are_kept() {
    let inputs = 128;
    for dtype in [GgmlDType::Q4_1, GgmlDType::Q8_0] {
        let (packed, dense) = matrix(dtype, 20, inputs, 5);
        let mut x = random(6, inputs);
        x[40] = 60.0;
        let expected = dense_product(&x, &dense, inputs);
        for kernels in kernel_sets() {
            let worst = |resolution| {
                let got = run((kernels, resolution), &packed, &x, &[]);
                let off = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                off.fold(0.0, f32::max)
            };
            // A step of the outlier's block is 60 / 127, half of what the block's other values are at most.
            let [coarse, mixed, fine] = Resolution::ALL.map(worst);
            assert!(
                coarse > 5.0 * mixed,
                "{kernels:?} {dtype:?}: {coarse}, {mixed}"
            );
            assert!(mixed > 2.0 * fine, "{kernels:?} {dtype:?}: {mixed}, {fine}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn stored_types_multiply_like_their_dequantised_values(
        rows in 1usize..20, outputs in 1usize..40, blocks in 1usize..4, seed in any::<u64>(),
        dtype in prop::sample::select(STORED.to_vec()),
    ) {
        let inputs = blocks * dtype.block_size().max(32);
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
        rows in 2usize..20, outputs in 1usize..40, seed in any::<u64>(),
        dtype in prop::sample::select(STORED.to_vec()),
    ) {
        let (packed, _) = matrix(dtype, outputs, 256, seed);
        let x = random(seed ^ 2, rows * 256);
        for kernels in choices() {
            let batch = run(kernels, &packed, &x, &[]);
            for (row, batch) in x.chunks_exact(256).zip(batch.chunks_exact(outputs)) {
                prop_assert_eq!(run(kernels, &packed, row, &[]), batch);
            }
        }
    }

    #[test]
    fn deltas_are_added_to_their_own_rows_and_columns(
        before in 0usize..5, changed in 1usize..12, after in 0usize..5, seed in any::<u64>(),
        inputs in 17usize..80, rank in 1usize..11, bytes in any::<bool>(),
    ) {
        let outputs = 50;
        let rows = before + changed + after;
        let (packed, dense) = matrix(GgmlDType::F32, outputs, inputs, seed);
        let (a, b) = (random(seed ^ 3, rank * inputs), random(seed ^ 4, 20 * rank));
        let (reduction, matrix) = match bytes {
            true => (
                PackedReduction::from_floats_as_bytes(&a, rank, inputs),
                PackedMatrix::from_floats_as_bytes(&b, 20, rank),
            ),
            false => (
                PackedReduction::from_floats(&a, rank, inputs),
                PackedMatrix::from_floats(&b, 20, rank),
            ),
        };
        let (mut kept_a, mut kept_b) = (a.clone(), b.clone());
        let rows_of_a = kept_a.chunks_exact_mut(inputs).enumerate();
        rows_of_a.for_each(|(row, out)| reduction.read_row(row, out));
        let rows_of_b = kept_b.chunks_exact_mut(rank).enumerate();
        rows_of_b.for_each(|(row, out)| matrix.read_row(row, out));
        for (kept, value) in kept_a.iter().zip(&a).chain(kept_b.iter().zip(&b)) {
            prop_assert!((kept - value).abs() <= 1.0 / 252.0, "{kept} is kept for {value}");
        }
        let delta = LowRank {
            reduction,
            expansions: vec![Expansion {
                matrix,
                reduced_column: 0,
                output_column: 30,
            }],
        };
        let x = random(seed ^ 5, rows * inputs);
        let mut expected = dense_product(&x, &dense, inputs);
        let reduced = dense_product(&x, &kept_a, inputs);
        let expanded = dense_product(&reduced, &kept_b, rank);
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
}

#[test]
fn parts_of_several_types_stand_below_each_other_as_they_are() {
    // Queries of 50 rows, keys of 40 and values of 24, none of which fills its last tile.
    let parts = [
        (GgmlDType::Q4K, 50),
        (GgmlDType::Q4K, 40),
        (GgmlDType::Q6K, 24),
        (GgmlDType::F16, 7),
    ];
    let (inputs, rows) = (512, 5);
    let stored = parts.map(|(dtype, outputs)| stored(dtype, outputs, inputs, outputs as u64));
    let bytes = stored
        .each_ref()
        .map(|stored| stored.data().expect("bytes"));
    let raw: Vec<_> = parts
        .iter()
        .zip(&bytes)
        .map(|((dtype, outputs), bytes)| {
            let raw = RawTensor {
                dtype: *dtype,
                rows: *outputs,
                columns: inputs,
                bytes,
            };
            (raw, None)
        })
        .collect();
    let packed = PackedMatrix::pack(&raw, &Arena::default()).expect("a packable stack");
    let dense: Vec<f32> = stored.iter().flat_map(dense).collect();
    assert_eq!(packed.outputs(), 50 + 40 + 24 + 7);
    assert!(packed.bytes() < dense.len() * size_of::<f32>() / 2);
    let x = random(9, rows * inputs);
    let expected = dense_product(&x, &dense, inputs);
    for choice in choices() {
        for (got, expected) in run(choice, &packed, &x, &[]).iter().zip(&expected) {
            let allowed = tolerance(choice.1, inputs);
            assert!(
                (got - expected).abs() <= allowed,
                "{choice:?} {got} {expected}"
            );
        }
    }
    let mut row = vec![0.0; inputs];
    packed.read_row(50 + 40 + 3, &mut row);
    for (got, expected) in row.iter().zip(&dense[(50 + 40 + 3) * inputs..]) {
        assert!((got - expected).abs() <= 1e-6);
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
    let packed =
        PackedMatrix::pack(&[(raw, Some(vec![2, 0, 1]))], &Arena::default()).expect("packable");
    let mut row = vec![0.0; 32];
    let firsts: Vec<f32> = (0..3)
        .map(|output| {
            packed.read_row(output, &mut row);
            row[0].round()
        })
        .collect();
    assert_eq!(firsts, [3.0, 1.0, 2.0]);
}
