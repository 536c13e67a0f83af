//! What to evaluate: read, and every name in it resolved and every cell planned.
#![no_main]

use std::sync::OnceLock;

use actix_web::web::Data;
use fuzz::service::state;
use libfuzzer_sys::fuzz_target;
use server::body::{RequestBody, parse_object};
use server::evaluations::EvaluationRequest;
use server::state::State;

static STATE: OnceLock<Data<State>> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let Ok(object) = parse_object(data) else {
        return;
    };
    let Ok(request) = EvaluationRequest::from_object(object) else {
        return;
    };
    let planned = request.plan(STATE.get_or_init(state));
    if let Err(error) = planned {
        assert!(!error.to_string().is_empty());
    }
});
