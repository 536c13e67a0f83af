//! Every kernel set against candle's dequantised product, plain formulas and each other, over random shapes.

mod attention;
mod dense;
mod elementwise;
mod products;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::KernelChoice;

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn kernel_sets() -> impl Iterator<Item = KernelChoice> {
    KernelChoice::ALL
        .into_iter()
        .filter(|choice| choice.is_available())
}
