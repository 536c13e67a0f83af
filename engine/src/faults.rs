//! Where tests make the engine fail, to see that nothing but the request at fault is lost.

use std::fmt;
use std::sync::Arc;

/// What the engine's thread is about to do. A panic of the hook is one of the engine at that place.
#[derive(Debug, Clone, Copy)]
pub enum Fault<'a> {
    /// To look at its queue.
    Turn,
    /// To compute a step over sequences; of each the tokens that go into it.
    Step(&'a [&'a [u32]]),
    /// To use what was computed for a sequence; its tokens so far, and where among them.
    Answer(&'a [u32], usize),
}

/// Called by the engine's thread with what it is about to do.
#[derive(Clone)]
pub struct FaultHook(Arc<dyn Fn(Fault<'_>) + Send + Sync>);

impl FaultHook {
    /// A hook that calls `hook`.
    pub fn new(hook: impl Fn(Fault<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(crate) fn call(&self, fault: Fault<'_>) {
        (self.0)(fault);
    }
}

impl fmt::Debug for FaultHook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FaultHook")
    }
}
