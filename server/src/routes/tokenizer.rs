//! `POST /tokenize`, `POST /detokenize`, `GET /tokenizer_info`.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::inference::prompts::check_tokens;
use crate::openapi::InferenceErrors;
use crate::state::State;

/// A text to encode.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// The text.
    pub prompt: String,
    /// Add the special tokens the model expects around a text; true unless given.
    pub add_special_tokens: Option<bool>,
}

/// The tokens of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenizeResponse {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// How many there are.
    pub count: usize,
    /// How many one request may have.
    pub max_model_len: usize,
}

/// Tokens to decode.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DetokenizeRequest {
    /// Token ids.
    pub tokens: Vec<u32>,
}

/// The text of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct DetokenizeResponse {
    /// The text, special tokens included.
    pub prompt: String,
}

/// What a client needs to tokenise for itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenizerInfo {
    /// Beginning of a text.
    pub bos_token: Option<String>,
    /// End of a text or turn.
    pub eos_token: Option<String>,
    /// Padding.
    pub pad_token: Option<String>,
    /// The template of conversations, in Jinja.
    pub chat_template: Option<String>,
    /// Id of `bos_token`.
    pub bos_token_id: Option<u32>,
    /// Id of `eos_token`.
    pub eos_token_id: Option<u32>,
    /// Id of `pad_token`.
    pub pad_token_id: Option<u32>,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Tokens one request may have.
    pub model_max_length: usize,
}

impl RequestBody for TokenizeRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        if object.contains_key("messages") && !object.contains_key("prompt") {
            return Err(ApiError::not_supported(
                "messages",
                "send the rendered conversation as `prompt`",
            ));
        }
        read(&Value::Object(object))
    }
}

impl RequestBody for DetokenizeRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

/// Encodes a text.
#[utoipa::path(post, path = "/tokenize", tag = "tokenizer", request_body = TokenizeRequest,
    responses((status = 200, description = "The tokens", body = TokenizeResponse), InferenceErrors))]
pub async fn tokenize(
    _key: InferenceKey,
    state: Data<State>,
    body: Json<TokenizeRequest>,
) -> HttpResponse {
    let add_special_tokens = body.0.add_special_tokens.unwrap_or(true);
    let tokens = state
        .engine
        .tokenizer()
        .encode(&body.0.prompt, add_special_tokens);
    HttpResponse::Ok().json(TokenizeResponse {
        count: tokens.len(),
        tokens,
        max_model_len: state.engine.max_model_len(),
    })
}

/// Decodes tokens.
#[utoipa::path(post, path = "/detokenize", tag = "tokenizer", request_body = DetokenizeRequest,
    responses((status = 200, description = "The text", body = DetokenizeResponse), InferenceErrors))]
pub async fn detokenize(
    _key: InferenceKey,
    state: Data<State>,
    body: Json<DetokenizeRequest>,
) -> Result<HttpResponse, ApiError> {
    let tokenizer = state.engine.tokenizer();
    check_tokens(&body.0.tokens, tokenizer.vocabulary(), "tokens")?;
    Ok(HttpResponse::Ok().json(DetokenizeResponse {
        prompt: tokenizer.decode(&body.0.tokens),
    }))
}

/// Describes the tokenizer.
#[utoipa::path(get, path = "/tokenizer_info", tag = "tokenizer",
    responses((status = 200, description = "Special tokens and the chat template", body = TokenizerInfo), InferenceErrors))]
pub async fn tokenizer_info(_key: InferenceKey, state: Data<State>) -> HttpResponse {
    let tokenizer = state.engine.tokenizer();
    HttpResponse::Ok().json(TokenizerInfo {
        bos_token: tokenizer.token_string(tokenizer.bos()),
        eos_token: tokenizer.token_string(tokenizer.eos()),
        pad_token: tokenizer.token_string(tokenizer.pad()),
        chat_template: state
            .engine
            .chat_template()
            .map(|template| template.source().to_owned()),
        bos_token_id: tokenizer.bos(),
        eos_token_id: tokenizer.eos(),
        pad_token_id: tokenizer.pad(),
        vocab_size: tokenizer.vocabulary(),
        model_max_length: state.engine.max_model_len(),
    })
}
