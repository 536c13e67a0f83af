//! Small operations that every layer uses, from candle's elementary ones.

use candle_core::{D, Result, Tensor};

/// `x / sqrt(mean(x²) + epsilon) · weight` along the last dimension.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    let root = mean.affine(1.0, f64::from(epsilon))?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(weight)
}

/// Rotates the first `2 * pairs` elements of heads `[rows, heads, head_dim]`: element `j` pairs with `j + pairs`.
/// `cosines` and `sines` are `[rows, 1, pairs]`.
pub(super) fn rotate(heads: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
    let pairs = cosines.dim(D::Minus1)?;
    let width = heads.dim(D::Minus1)?;
    let first = heads.narrow(D::Minus1, 0, pairs)?;
    let second = heads.narrow(D::Minus1, pairs, pairs)?;
    let turned_first = (first.broadcast_mul(cosines)? - second.broadcast_mul(sines)?)?;
    let turned_second = (second.broadcast_mul(cosines)? + first.broadcast_mul(sines)?)?;
    if 2 * pairs == width {
        return Tensor::cat(&[turned_first, turned_second], D::Minus1);
    }
    let rest = heads.narrow(D::Minus1, 2 * pairs, width - 2 * pairs)?;
    Tensor::cat(&[turned_first, turned_second, rest], D::Minus1)
}

/// Softmax along the last dimension.
pub(super) fn softmax(scores: &Tensor) -> Result<Tensor> {
    let largest = scores.max_keepdim(D::Minus1)?;
    let weights = scores.broadcast_sub(&largest)?.exp()?;
    let total = weights.sum_keepdim(D::Minus1)?;
    weights.broadcast_div(&total)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensor(values: &[f32], shape: (usize, usize, usize)) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).expect("values fit the shape")
    }

    #[test]
    fn rotation_leaves_what_lies_behind_its_pairs() {
        let heads = tensor(&[1.0, 2.0, 7.0, 8.0], (1, 1, 4));
        let (cosine, sine) = (tensor(&[0.6], (1, 1, 1)), tensor(&[0.8], (1, 1, 1)));
        let turned = rotate(&heads, &cosine, &sine).expect("fitting shapes");
        let turned: Vec<f32> = (turned.flatten_all().and_then(|t| t.to_vec1())).expect("values");
        assert_eq!(turned, [0.6 - 1.6, 1.2 + 0.8, 7.0, 8.0]);
    }

    #[test]
    fn masked_scores_get_no_weight() {
        let scores = tensor(&[3.0f32.ln(), 0.0, f32::NEG_INFINITY], (1, 1, 3));
        let weights = softmax(&scores).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
        let weights = weights.expect("fitting shapes");
        assert!((weights[0] - 0.75).abs() < 1e-6 && (weights[1] - 0.25).abs() < 1e-6);
        assert_eq!(weights[2], 0.0);
    }
}
