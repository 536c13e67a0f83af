//! Work that must not hold up the answers that are being written.

use tokio::sync::oneshot;

use crate::error::ApiError;

/// What the scheduler of the operating system gives such work beside a busy thread: with 15, about a thirtieth.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 15;

/// Runs work that takes a while on a thread of its own, behind the engine's threads: these never sleep while somebody waits
/// for a token, and each of them that has to make room holds up the others. With nobody waiting the work takes no longer.
///
/// # Errors
/// The work's own, or `Internal` when it panicked or the system has no thread left.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (sender, receiver) = oneshot::channel();
    let span = tracing::Span::current();
    std::thread::Builder::new()
        .name("adapter-loading".to_owned())
        .spawn(move || {
            step_back();
            let _inside = span.enter();
            // Nobody waits any more when the request was given up.
            let _ = sender.send(work());
        })
        .map_err(ApiError::internal)?;
    receiver.await.map_err(ApiError::internal)?
}

/// Lowers this thread's priority unless it is lower already; where that fails the work merely competes.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        let this = rustix::thread::gettid();
        // On Linux a priority belongs to a thread, whatever the name of the call says.
        let lower =
            rustix::process::getpriority_process(Some(this)).is_ok_and(|now| now >= NICENESS);
        if lower {
            return;
        }
        if let Err(error) = rustix::process::setpriority_process(Some(this), NICENESS) {
            tracing::debug!(%error, "an adapter is loaded at the priority of answers");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_behind_and_its_panic_is_an_error() {
        let before = niceness();
        let inside = in_background(|| Ok(niceness())).await.expect("done");
        let behind = if cfg!(target_os = "linux") { 15 } else { 0 };
        assert_eq!(inside, before.max(behind));
        assert_eq!(niceness(), before, "only the loading thread steps back");
        let panicked = in_background::<()>(|| panic!("a panic of this test")).await;
        assert!(matches!(panicked, Err(ApiError::Internal { .. })));
    }

    fn niceness() -> i32 {
        #[cfg(target_os = "linux")]
        {
            let this = rustix::thread::gettid();
            rustix::process::getpriority_process(Some(this)).expect("this thread has a priority")
        }
        #[cfg(not(target_os = "linux"))]
        0
    }
}
