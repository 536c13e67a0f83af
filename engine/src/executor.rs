//! Who computes a step: our kernels, or candle's operations on a device.

use candle_core::{Device, Result};

use crate::batch::{Output, Segment};
use crate::device::DeviceExecutor;
use crate::model::{KernelModel, Model, Weights};
use crate::step::KernelExecutor;

/// Where a step is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ComputeDevice {
    /// On the CPU by our own kernels.
    #[default]
    Cpu,
    /// On the CPU by candle's operations: slow, the reference for what a GPU computes.
    CandleCpu,
    /// On the CUDA device of that number; needs a build with the feature `cuda`.
    Cuda(usize),
}

impl ComputeDevice {
    /// The device that `cpu`, `candle-cpu`, `cuda` or `cuda:N` names.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "cpu" => Some(Self::Cpu),
            "candle-cpu" => Some(Self::CandleCpu),
            "cuda" => Some(Self::Cuda(0)),
            name => name.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda),
        }
    }

    /// The device as `from_name` takes it.
    pub fn name(self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::CandleCpu => "candle-cpu".to_owned(),
            Self::Cuda(number) => format!("cuda:{number}"),
        }
    }

    /// candle's device; `None` for our own kernels.
    pub(crate) fn candle(self) -> Option<Result<Device>> {
        match self {
            Self::Cpu => None,
            Self::CandleCpu => Some(Ok(Device::Cpu)),
            Self::Cuda(number) => Some(Device::new_cuda(number)),
        }
    }
}

/// The model with its cache, ready to compute.
pub(crate) enum Executor {
    Kernels(Box<KernelExecutor>),
    Device {
        executor: Box<DeviceExecutor>,
        /// A failure outside a step; the next step reports it.
        failure: Option<candle_core::Error>,
    },
}

impl Executor {
    /// An executor for sequences of up to `positions` tokens whose keys and values fill `blocks` blocks.
    pub(crate) fn new(model: Model, blocks: usize, positions: usize) -> Result<Self> {
        let config = model.config().clone();
        Ok(match model.into_weights() {
            Weights::Kernels(model) => Self::with_kernels(*model, blocks, positions),
            Weights::Device(weights) => {
                let executor = DeviceExecutor::new(config, weights, (blocks, positions))?;
                Self::Device {
                    executor: Box::new(executor),
                    failure: None,
                }
            }
        })
    }

    fn with_kernels(model: KernelModel, blocks: usize, positions: usize) -> Self {
        Self::Kernels(Box::new(KernelExecutor::new(model, blocks, positions)))
    }

    /// Copies a block's keys and values.
    pub(crate) fn copy_block(&mut self, from: u32, to: u32) {
        match self {
            Self::Kernels(executor) => executor.copy_block(from, to),
            Self::Device { executor, failure } => {
                let copied = executor.copy_block(from, to);
                *failure = failure.take().or(copied.err());
            }
        }
    }

    /// Computes the segments and hands what is wanted of them to `sink(segment, row of the segment, output)`.
    ///
    /// Segments with the same adapter should stand next to each other; rows of a segment see the earlier ones. Only a
    /// device can fail; what the cache holds of the segments' tokens is then undefined.
    pub(crate) fn run(
        &mut self,
        segments: &[Segment<'_>],
        sink: impl FnMut(usize, usize, Output<'_>),
    ) -> Result<()> {
        match self {
            Self::Kernels(executor) => {
                executor.run(segments, sink);
                Ok(())
            }
            Self::Device { executor, failure } => match failure.take() {
                Some(failure) => Err(failure),
                None => executor.run(segments, sink),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        for device in [
            ComputeDevice::Cpu,
            ComputeDevice::CandleCpu,
            ComputeDevice::Cuda(3),
        ] {
            assert_eq!(ComputeDevice::from_name(&device.name()), Some(device));
        }
        assert_eq!(
            ComputeDevice::from_name("cuda"),
            Some(ComputeDevice::Cuda(0))
        );
        assert_eq!(ComputeDevice::from_name("cuda:x"), None);
        assert_eq!(ComputeDevice::from_name("tpu"), None);
    }
}
