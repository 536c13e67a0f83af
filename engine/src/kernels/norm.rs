//! RMSNorm where it does not stand before a product: of single heads, and of what is added to the residual stream.

use super::{Pool, SharedPointer};

/// Rows a thread takes at a time.
const ROWS: usize = 4;
/// Partial sums of a reduction; fixed, so that the order of additions never changes.
const LANES: usize = 16;

/// `residual += rms_norm(x) · weight`, row by row of `weight.len()` elements.
///
/// # Panics
///
/// If `x` and `residual` differ in length or are not whole rows.
pub fn add_normed(
    pool: &mut Pool,
    (weight, epsilon): (&[f32], f32),
    x: &[f32],
    residual: &mut [f32],
) {
    let width = weight.len();
    assert!(x.len() == residual.len() && x.len().is_multiple_of(width));
    let residual = SharedPointer(residual.as_mut_ptr());
    pool.for_each_chunk(x.len() / width, ROWS, |start, end| {
        for row in start..end {
            // SAFETY: the buffer has as many rows of `width` floats as `x`, and this thread alone has this one.
            let residual =
                unsafe { std::slice::from_raw_parts_mut(residual.get().add(row * width), width) };
            let x = &x[row * width..(row + 1) * width];
            let inverse = inverse_rms(x, epsilon);
            for ((residual, x), weight) in residual.iter_mut().zip(x).zip(weight) {
                *residual += x * inverse * weight;
            }
        }
    });
}

/// `x = rms_norm(x) · weight` in place.
pub(super) fn norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let inverse = inverse_rms(x, epsilon);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * inverse * weight;
    }
}

/// `1 / sqrt(mean(x²) + epsilon)`.
pub(super) fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x * x;
    }
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    1.0 / (sums.iter().sum::<f32>() / x.len() as f32 + epsilon).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normed_by_themselves() {
        // Roots of the mean squares: sqrt((9 + 16) / 2 + 3.5) = 4 and sqrt((4 + 21) / 2 + 3.5) = 4.
        let x = [3.0, 4.0, 2.0, 21.0f32.sqrt()];
        let mut residual = [10.0, 20.0, 30.0, 40.0];
        add_normed(&mut Pool::new(2), (&[2.0, 8.0], 3.5), &x, &mut residual);
        assert_eq!(residual[..3], [11.5, 28.0, 31.0]);
        let mut head = [3.0, 4.0];
        norm_in_place(&mut head, &[2.0, 8.0], 3.5);
        assert_eq!(head, [1.5, 8.0]);
    }
}
