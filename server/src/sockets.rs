//! What the operating system is told about connections: how many there may be, and when one that stalls is given up.

use std::net::TcpListener;
#[cfg(target_os = "linux")]
use std::time::Duration;

use anyhow::{Context, Result};

use crate::configuration::Configuration;

/// Most connections, however many descriptors there are; each costs some 10 KiB.
const MOST_CONNECTIONS: usize = 16_384;
/// Descriptors kept for the store, the log and whatever else is not a connection.
#[cfg(target_os = "linux")]
const KEPT_DESCRIPTORS: usize = 256;

/// Binds the address of a configuration.
///
/// # Errors
/// When it is taken, or is not this machine's.
pub fn listen(configuration: &Configuration) -> Result<TcpListener> {
    let (host, port) = (configuration.host, configuration.port);
    let listener = TcpListener::bind((host, port))
        .with_context(|| format!("cannot listen on {host}:{port}"))?;
    give_up_stalled(&listener, configuration.stall_seconds);
    Ok(listener)
}

/// Lets the system end connections whose client takes nothing of what it is sent for that long, which a server that waits to write
/// cannot see; connections inherit it from the listener.
#[cfg(target_os = "linux")]
fn give_up_stalled(listener: &TcpListener, seconds: u64) {
    let time = Duration::from_secs(seconds);
    if let Err(error) = socket2::SockRef::from(listener).set_tcp_user_timeout(Some(time)) {
        tracing::warn!(%error, "connections that stall will stay until their client ends them");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_up_stalled(_: &TcpListener, _: u64) {}

/// Most connections at a time: what is left of the descriptors that this process may have, after raising their number as far as it
/// may. Whoever comes then waits in the listener's backlog, and the store can still open its files.
#[cfg(target_os = "linux")]
pub fn most_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let descriptors = current.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    let spare = descriptors
        .saturating_sub(KEPT_DESCRIPTORS)
        .max(descriptors / 2);
    spare.clamp(1, MOST_CONNECTIONS)
}

/// Most connections at a time.
#[cfg(not(target_os = "linux"))]
pub fn most_connections() -> usize {
    MOST_CONNECTIONS
}
