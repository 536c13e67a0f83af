//! Whole requests to the routes, in this process: uploads as forms, and JSON bodies behind which something is computed.
#![no_main]

use std::cell::OnceCell;

use fuzz::service::{Call, post, routes, state};
use libfuzzer_sys::fuzz_target;

/// Where a body goes, and as what: forms half of the time.
const ROUTES: [(&str, &str); 16] = [
    (
        "/v1/adapters?dry_run=true",
        "multipart/form-data; boundary=X",
    ),
    ("/v1/datasets", "multipart/form-data; boundary=X"),
    (
        "/v1/adapters?dry_run=true",
        "multipart/form-data; boundary=X",
    ),
    ("/v1/datasets", "multipart/form-data; boundary=X"),
    ("/v1/datasets", "application/json"),
    ("/v1/adapters", "application/json"),
    ("/v1/completions", "application/json"),
    ("/v1/chat/completions", "application/json"),
    ("/v1/classify", "application/json"),
    ("/v1/score", "application/json"),
    ("/tokenize", "application/json"),
    ("/detokenize", "application/json"),
    ("/generate", "application/json"),
    ("/completion", "application/json"),
    ("/v2/models/tiny/infer", "application/octet-stream"),
    ("/v1/replay", "application/json"),
];

thread_local! {
    static CALL: OnceCell<Call> = const { OnceCell::new() };
}

// The first byte chooses the route, the second how much of the body is JSON where bytes may follow it.
fuzz_target!(|data: &[u8]| {
    let (route, rest) = fuzz::choice(data);
    let (length, body) = fuzz::choice(rest);
    let (path, content_type) = ROUTES[usize::from(route) % ROUTES.len()];
    let mut request = post(path, content_type, body);
    if content_type == "application/octet-stream" {
        request = request.insert_header(("inference-header-content-length", length.to_string()));
    }
    let (status, answer) = CALL.with(|call| call.get_or_init(|| routes(state()))(request));
    // A hostile body is the caller's fault, never the server's.
    assert!(
        status < 500 || status == 503,
        "{status}: {}",
        String::from_utf8_lossy(&answer)
    );
});
