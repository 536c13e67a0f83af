//! Small operations that every layer uses, one of candle's fused ones where it has it: a launch on a GPU takes longer
//! than the arithmetic of a few rows.

use candle_core::{D, Result, Tensor};

/// `x / sqrt(mean(x²) + epsilon) · weight` along the last dimension.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    candle_nn::ops::rms_norm(&x.contiguous()?, weight, epsilon)
}

/// Rotates the first `2 * pairs` elements of heads `[rows, heads, head_dim]`: element `j` pairs with `j + pairs`.
/// `cosines` and `sines` are `[rows, pairs]`.
pub(super) fn rotate(heads: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
    let (turned, width) = (2 * cosines.dim(D::Minus1)?, heads.dim(D::Minus1)?);
    let rotated = |heads: &Tensor| {
        let heads = heads.contiguous()?.unsqueeze(0)?;
        candle_nn::rotary_emb::rope_thd(&heads, cosines, sines)?.squeeze(0)
    };
    if turned == width {
        return rotated(heads);
    }
    let first = rotated(&heads.narrow(D::Minus1, 0, turned)?)?;
    let rest = heads.narrow(D::Minus1, turned, width - turned)?;
    Tensor::cat(&[first, rest], D::Minus1)
}

/// Softmax along the last dimension.
pub(super) fn softmax(scores: &Tensor) -> Result<Tensor> {
    candle_nn::ops::softmax_last_dim(&scores.contiguous()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensor(values: &[f32], shape: impl candle_core::shape::ShapeWithOneHole) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).expect("values fit the shape")
    }

    #[test]
    fn rotation_leaves_what_lies_behind_its_pairs() {
        let heads = tensor(&[1.0, 2.0, 7.0, 8.0], (1, 1, 4));
        let (cosine, sine) = (tensor(&[0.6], (1, 1)), tensor(&[0.8], (1, 1)));
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
