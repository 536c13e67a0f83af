//! Operations on single rows against their formulas.

use proptest::prelude::*;

use super::{kernel_sets, random};
use crate::kernels::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

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
