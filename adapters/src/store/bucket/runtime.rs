//! Waiting for asynchronous work in a thread that may block.

use tokio::runtime::{Builder, Handle};

/// A runtime of the store's own: its connections outlive each call, and no caller's runtime has to be there for them.
#[derive(Debug)]
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bucket")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Blocks until `work` is done.
    pub(super) fn wait<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        let runtime = self.0.as_ref().expect("there until it is dropped");
        if Handle::try_current().is_err() {
            return runtime.block_on(work);
        }
        // tokio panics where a thread that drives one runtime waits for another. Whether this thread does cannot be asked.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| runtime.block_on(work));
            waiting
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting for its threads would be a panic where the store is dropped by asynchronous code.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_and_ends_with_and_without_a_runtime_around_it() {
        let answer = || {
            let runtime = Runtime::start().expect("it starts");
            let text = String::from("borrowed");
            runtime.wait(async { text.len() })
        };
        assert_eq!(answer(), 8);
        let around = Builder::new_current_thread()
            .build()
            .expect("a runtime of the caller");
        assert_eq!(around.block_on(async { answer() }), 8);
    }
}
