//! How `trainer evaluate` and `trainer profile` run the engine, in the server's own flags.

use clap::Args;
use engine::{KernelChoice, LoadOptions};

use crate::recipe::{ActivationBits, Recipe};

/// The flags that decide how prompts are computed; the ones a server was started with give its figures.
#[derive(Args, Clone, Debug)]
pub struct EngineArguments {
    /// Bits an activation keeps where it meets quantised weights, as the server's flag of that name; 32 multiplies dequantised weights in f32, slowly
    #[arg(long, value_enum, default_value_t = ActivationBits::Mixed)]
    pub activation_bits: ActivationBits,

    /// Kernel set: portable, avx2 or avx512vnni [default: the fastest this CPU can run]
    #[arg(long, env = "QUICKCHANGE_KERNELS")]
    pub kernels: Option<KernelChoice>,

    /// Threads that compute; they change no figure [default: one per core]
    #[arg(long, env = "QUICKCHANGE_THREADS")]
    pub threads: Option<usize>,
}

impl EngineArguments {
    /// An adapter's training serves it the same way; in f32 that would take as long as the training, and two bytes are the closest to it.
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self {
            activation_bits: match recipe.activation_bits {
                ActivationBits::ThirtyTwo => ActivationBits::Sixteen,
                bits => bits,
            },
            kernels: None,
            threads: recipe.threads,
        }
    }

    /// As the engine takes them.
    pub(crate) fn options(&self) -> LoadOptions {
        let defaults = LoadOptions::default();
        let resolution = self.activation_bits.resolution();
        LoadOptions {
            threads: self.threads.unwrap_or(defaults.threads),
            kernels: self.kernels,
            resolution: resolution.unwrap_or_default(),
            dense: resolution.is_none(),
            ..defaults
        }
    }
}
