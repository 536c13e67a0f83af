//! The async-openai client, unchanged: what it sends is understood, what it gets it can read, errors arrive with status, code and
//! field.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest,
    CreateChatCompletionRequestArgs, StopConfiguration,
};
use async_openai::types::completions::{CreateCompletionRequest, CreateCompletionRequestArgs};
use futures_util::StreamExt;
use serde_json::json;

use crate::harness::{App, Options};

const PROMPT: &str = "The ferry";

fn client(app: &App, key: &str) -> Client<OpenAIConfig> {
    let config = OpenAIConfig::new()
        .with_api_base(format!("{}/v1", app.client.address()))
        .with_api_key(key);
    Client::with_config(config)
}

fn greedy(model: &str) -> CreateCompletionRequestArgs {
    let mut request = CreateCompletionRequestArgs::default();
    request
        .model(model)
        .prompt(PROMPT)
        .max_tokens(16u32)
        .temperature(0.0);
    request
}

fn chat(model: &str) -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default()
        .content("Where is the ferry?")
        .build()
        .unwrap();
    CreateChatCompletionRequestArgs::default()
        .model(model)
        .messages([message.into()])
        .max_completion_tokens(12u32)
        .temperature(0.0)
        .logprobs(true)
        .top_logprobs(2u8)
        .build()
        .unwrap()
}

/// The text of the first choice.
async fn text(client: &Client<OpenAIConfig>, request: CreateCompletionRequest) -> String {
    let answer = client.completions().create(request).await.unwrap();
    answer.choices[0].text.clone()
}

#[tokio::test]
async fn completions_by_base_and_adapter_whole_and_as_a_stream() {
    let app = App::with_adapters(&["first", "second"]).await;
    let client = client(&app, "unused");
    let listed = client.models().list().await.unwrap();
    let ids: Vec<&str> = listed.data.iter().map(|model| model.id.as_str()).collect();
    assert_eq!(ids, ["tiny", "first", "second"]);
    let mut texts = Vec::new();
    for model in ids {
        let completions = client.completions();
        let request = greedy(model).build().unwrap();
        let whole = completions.create(request.clone()).await.unwrap();
        let usage = whole.usage.unwrap();
        assert_eq!(
            usage.prompt_tokens + usage.completion_tokens,
            usage.total_tokens
        );
        let stream = completions.create_stream(request).await.unwrap();
        let pieces: Vec<_> = stream.collect().await;
        let pieces = pieces.into_iter().flat_map(|piece| piece.unwrap().choices);
        let streamed: String = pieces.map(|choice| choice.text).collect();
        assert_eq!(streamed, whole.choices[0].text);
        texts.push(streamed);
    }
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
}

#[tokio::test]
async fn several_choices_log_probabilities_stops_and_seeds() {
    let app = App::with_adapters(&["first", "second"]).await;
    let client = client(&app, "unused");
    let sampled = async |seed: i64| {
        let mut request = greedy("tiny");
        request.temperature(1.0).n(3u8).seed(seed).logprobs(2u8);
        let completions = client.completions();
        completions.create(request.build().unwrap()).await.unwrap()
    };
    let (one, same, other) = (sampled(7).await, sampled(7).await, sampled(8).await);
    let texts = |answer: &async_openai::types::completions::CreateCompletionResponse| {
        let choices = answer.choices.iter();
        choices
            .map(|choice| choice.text.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&one).len(), 3);
    assert_eq!(texts(&one), texts(&same));
    assert_ne!(texts(&one), texts(&other));
    let logprobs = one.choices[0].logprobs.as_ref().unwrap();
    assert_eq!(logprobs.tokens.len(), logprobs.token_logprobs.len());
    assert_eq!(logprobs.tokens.len(), logprobs.top_logprobs.len());

    // Some of the models say nothing at all.
    for model in ["tiny", "first", "second"] {
        let whole = text(&client, greedy(model).build().unwrap()).await;
        let Some(stop) = whole.chars().last().map(String::from) else {
            continue;
        };
        let mut stopped = greedy(model);
        stopped.stop(StopConfiguration::StringArray(vec![stop.clone()]));
        let cut = text(&client, stopped.build().unwrap()).await;
        assert_eq!(whole.split(&stop).next(), Some(cut.as_str()));
    }
}

#[tokio::test]
async fn chats_whole_and_as_a_stream() {
    let app = App::with_adapters(&["first"]).await;
    let client = client(&app, "unused");
    for model in ["tiny", "first"] {
        let whole = client.chat().create(chat(model)).await.unwrap();
        let choice = &whole.choices[0];
        let logprobs = choice.logprobs.as_ref().unwrap().content.as_ref().unwrap();
        assert!(logprobs.iter().all(|token| token.top_logprobs.len() == 2));
        let stream = client.chat().create_stream(chat(model)).await.unwrap();
        let pieces: Vec<_> = stream.collect().await;
        let pieces = pieces.into_iter().flat_map(|piece| piece.unwrap().choices);
        let streamed: String = pieces.filter_map(|choice| choice.delta.content).collect();
        assert_eq!(Some(&streamed), choice.message.content.as_ref());
    }
}

/// What the client made of an answer that is an error.
fn refusal(error: OpenAIError) -> serde_json::Value {
    let OpenAIError::ApiError(answer) = error else {
        panic!("{error:?}");
    };
    let error = answer.api_error;
    assert!(!error.message.is_empty());
    json!([
        answer.status_code.as_u16(),
        error.r#type,
        error.code,
        error.param
    ])
}

#[tokio::test]
async fn errors_arrive_with_status_code_and_field() {
    let app = App::start_with(Options {
        api_key: vec!["right".to_owned()],
        ..Options::default()
    })
    .await;
    let ask = async |key: &str, request: &CreateCompletionRequestArgs| {
        let client = client(&app, key);
        refusal(
            client
                .completions()
                .create(request.build().unwrap())
                .await
                .unwrap_err(),
        )
    };
    let unknown = ask("right", &greedy("nobody")).await;
    assert_eq!(
        unknown,
        json!([404, "not_found_error", "model_not_found", "model"])
    );
    let mut hot = greedy("tiny");
    hot.temperature(9.0);
    let hot = ask("right", &hot).await;
    assert_eq!(
        hot,
        json!([400, "invalid_request_error", "invalid_value", "temperature"])
    );
    let mut best_of = greedy("tiny");
    best_of.best_of(3u8);
    let best_of = ask("right", &best_of).await;
    assert_eq!(
        best_of,
        json!([400, "invalid_request_error", "not_supported", "best_of"])
    );
    let wrong = ask("wrong", &greedy("tiny")).await;
    assert_eq!(
        wrong,
        json!([401, "authentication_error", "invalid_api_key", null])
    );
}
