//! Packed float matrices against sums in double precision.

use proptest::prelude::*;

use super::{kernel_sets, random};
use crate::kernels::{DenseMatrix, Resolution};
use crate::served::ServedMatrix;

/// `[rows, inputs]` times the matrix whose entry for an input and an output `value` tells.
fn expected(
    rows: &[f32],
    inputs: usize,
    outputs: usize,
    value: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let product = |row: &[f32], output: usize| {
        let products = row.iter().enumerate();
        products
            .map(|(input, x)| f64::from(*x) * f64::from(value(input, output)))
            .sum()
    };
    rows.chunks_exact(inputs)
        .flat_map(|row| (0..outputs).map(move |output| product(row, output)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_matrix_and_its_transpose_multiply_rows_of_any_number(
        seed in any::<u64>(),
        count in 0..15usize,
        inputs in 1..300usize,
        outputs in 1..150usize,
        add in any::<bool>(),
    ) {
        let values = random(seed, inputs * outputs);
        let rows = random(seed ^ 1, count * inputs);
        let before = random(seed ^ 2, count * outputs);
        let forward = DenseMatrix::new(&values, inputs);
        let backward = DenseMatrix::transposed(&values, outputs);
        let by_rows = expected(&rows, inputs, outputs, |input, output| values[output * inputs + input]);
        let by_columns = expected(&rows, inputs, outputs, |input, output| values[input * outputs + output]);
        for kernels in kernel_sets() {
            for (matrix, expected) in [(&forward, &by_rows), (&backward, &by_columns)] {
                let mut output = before.clone();
                matrix.product(kernels, &rows, &mut output, add);
                for ((got, expected), before) in output.iter().zip(expected).zip(&before) {
                    let expected = expected + if add { f64::from(*before) } else { 0.0 };
                    prop_assert!(
                        (f64::from(*got) - expected).abs() < 1e-4,
                        "{}: {got} instead of {expected}", kernels.name()
                    );
                }
            }
        }
    }

    #[test]
    fn a_transpose_in_bytes_multiplies_rows_within_its_rounding(
        seed in any::<u64>(),
        count in 1..15usize,
        blocks in 1..9usize,
        outputs in 1..150usize,
        add in any::<bool>(),
    ) {
        let inputs = 32 * blocks;
        let values = random(seed, inputs * outputs);
        let rows = random(seed ^ 1, count * inputs);
        let before = random(seed ^ 2, count * outputs);
        let matrix = ServedMatrix::transposed(&values, outputs).expect("whole blocks");
        let exact = expected(&rows, inputs, outputs, |input, output| values[input * outputs + output]);
        // A weight is off by up to 1/254, evenly: 0.0013 in a term whose other factor is even in -1 to 1. Seven times the
        // deviation of their sum.
        let rounding = 0.0092 * (inputs as f64).sqrt();
        for kernels in kernel_sets() {
            let mut output = before.clone();
            matrix.product((kernels, Resolution::Fine), &rows, &mut output, add);
            for ((got, exact), before) in output.iter().zip(&exact).zip(&before) {
                let exact = exact + if add { f64::from(*before) } else { 0.0 };
                prop_assert!(
                    (f64::from(*got) - exact).abs() <= rounding,
                    "{}: {got} instead of {exact}", kernels.name()
                );
            }
        }
    }
}
