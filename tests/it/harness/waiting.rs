//! Waiting for what a server does by itself: asked again and again, and failing the test when it never comes.

use std::time::{Duration, Instant};

use super::App;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is `true`.
async fn until(what: &str, mut asked: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !asked().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::task::yield_now().await;
    }
}

impl App {
    /// Waits until no request of a client is handled any more.
    pub(crate) async fn nobody_is_served(&self) {
        // The one that asks is being handled itself.
        until("nobody is served", async || {
            self.client.metric("quickchange_requests_in_flight").await == 1.0
        })
        .await;
    }

    /// Waits until the metrics show that.
    pub(crate) async fn shown(&self, what: impl Fn(&str) -> bool) {
        until("the metrics show it", async || {
            what(&self.client.metrics().await)
        })
        .await;
    }

    /// Waits until the engine has nothing to do.
    pub(crate) async fn engine_is_idle(&self) {
        until("the engine is idle", async || {
            let running = self.client.metric("quickchange_requests_running").await;
            running + self.client.metric("quickchange_requests_waiting").await == 0.0
        })
        .await;
    }

    /// Waits until the server's end of the connection from that port of a client is gone.
    #[cfg(target_os = "linux")]
    pub(crate) async fn connection_is_gone(&self, port: u16) {
        // Remote addresses are the third column: address and port in hex.
        let remote = format!(":{port:04X}");
        until("the connection is gone", async || {
            let table = fs_err::read_to_string("/proc/self/net/tcp").unwrap();
            !table.lines().any(|line| {
                let remote_address = line.split_whitespace().nth(2);
                remote_address.is_some_and(|address| address.ends_with(&remote))
            })
        })
        .await;
    }
}
