//! Borrowing the values of candle tensors on the CPU without copying them.

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};

/// The values of a contiguous `f32` storage; an error for any other layout or type.
pub(crate) fn contiguous_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg(format!("expected contiguous values, got {layout:?}")))?;
    Ok(&values[start..end])
}

/// Calls `use_values` with the tensor's values in row-major order.
pub(crate) fn with_values<T>(
    tensor: &Tensor,
    use_values: impl FnOnce(&[f32]) -> Result<T>,
) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => use_values(contiguous_slice(storage, layout)?),
        _ => Err(Error::Msg("training runs on the CPU".into())),
    }
}
