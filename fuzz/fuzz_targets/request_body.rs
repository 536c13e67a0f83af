//! JSON bodies of every route: parsed, and read as each of the requests there are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use server::body::{RequestBody, parse_object, parse_optional_object};
use server::error::ApiError;
use server::evaluations::EvaluationRequest;
use server::loading::PromoteRequest;
use server::routes::adapters::ActivateRequest;
use server::routes::canary::CanaryRequest;
use server::routes::chat::ChatRequest;
use server::routes::classify::ClassifyRequest;
use server::routes::compare::CompareRequest;
use server::routes::completions::CompletionRequest;
use server::routes::dialects::generate::GenerateRequest;
use server::routes::dialects::llama_cpp::parameters::LlamaCppRequest;
use server::routes::dialects::open_inference::tensors::InferRequest;
use server::routes::dialects::sglang::generate::SglangRequest;
use server::routes::dialects::tgi::request::TgiRequest;
use server::routes::dialects::vllm::{LoadLoraRequest, UnloadLoraRequest};
use server::routes::replay::ReplayRequest;
use server::routes::score::ScoreRequest;
use server::routes::tokenizer::{DetokenizeRequest, TokenizeRequest};

/// Reads an object as one kind of request and drops it.
fn read<T: RequestBody>(object: Map<String, Value>) -> Result<(), ApiError> {
    T::from_object(object).map(drop)
}

const KINDS: [fn(Map<String, Value>) -> Result<(), ApiError>; 19] = [
    read::<CompletionRequest>,
    read::<ChatRequest>,
    read::<ClassifyRequest>,
    read::<ScoreRequest>,
    read::<CompareRequest>,
    read::<ReplayRequest>,
    read::<TokenizeRequest>,
    read::<DetokenizeRequest>,
    read::<EvaluationRequest>,
    read::<ActivateRequest>,
    read::<PromoteRequest>,
    read::<CanaryRequest>,
    read::<GenerateRequest>,
    read::<LlamaCppRequest>,
    read::<SglangRequest>,
    read::<TgiRequest>,
    read::<LoadLoraRequest>,
    read::<UnloadLoraRequest>,
    read_tensors,
];

/// An inference request, and the texts in its tensors.
fn read_tensors(object: Map<String, Value>) -> Result<(), ApiError> {
    let request = InferRequest::from_object(object)?;
    request.tensors.texts(b"\x03\0\0\0abc\x00\0\0\0").map(drop)
}

// The first byte chooses the request; a body follows.
fuzz_target!(|data: &[u8]| {
    let (choices, body) = fuzz::choice(data);
    let _ = parse_optional_object(body);
    let Ok(object) = parse_object(body) else {
        return;
    };
    let read = KINDS[usize::from(choices) % KINDS.len()];
    if let Err(error) = read(object) {
        assert!(!error.to_string().is_empty());
    }
});
