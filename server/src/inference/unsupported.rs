//! Parameters of OpenAI's and vLLM's interfaces that are known and have no effect here. They are refused unless they ask for
//! what happens anyway, because a parameter that is silently ignored gives an answer to a different question.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// A refused parameter: its name, which values are harmless, and what to do instead.
pub struct Refused {
    name: &'static str,
    harmless: fn(&Value) -> bool,
    instead: &'static str,
}

/// A refused parameter for a table of them.
pub const fn refused(
    name: &'static str,
    harmless: fn(&Value) -> bool,
    instead: &'static str,
) -> Refused {
    Refused {
        name,
        harmless,
        instead,
    }
}

const COMPLETION: &[Refused] = &[
    refused("best_of", is_one, "use `n` and choose among the choices"),
    refused("suffix", is_empty, "the model has no fill-in-the-middle"),
];

const CHAT: &[Refused] = &[
    refused("tools", is_empty, "describe the tools in a message"),
    refused("tool_choice", is_none_word, "leave it out"),
    refused("functions", is_empty, "describe them in a message"),
    refused("function_call", is_none_word, "leave it out"),
    refused("parallel_tool_calls", never, "leave it out"),
    refused("modalities", is_text_only, "only text is produced"),
    refused("audio", never, "only text is produced"),
    refused("prediction", never, "leave it out"),
    refused("reasoning_effort", never, "leave it out"),
    refused("verbosity", never, "ask for it in a message"),
    refused("web_search_options", never, "leave it out"),
    refused("echo", is_false, "use /v1/completions"),
    refused(
        "chat_template",
        never,
        "the base model's own template is used",
    ),
    refused("documents", is_empty, "put them in a message"),
    refused("add_generation_prompt", is_true, "use /v1/completions"),
    refused("continue_final_message", is_false, "use /v1/completions"),
];

const BOTH: &[Refused] = &[
    refused(
        "response_format",
        is_text_format,
        "only `{\"type\":\"text\"}` is produced",
    ),
    refused(
        "service_tier",
        is_default_tier,
        "there is one tier; leave it out",
    ),
    refused("store", is_false, "answers are not stored"),
    refused("metadata", is_empty, "answers are not stored"),
    refused(
        "prompt_cache_key",
        never,
        "prefixes are cached by content; leave it out",
    ),
    refused(
        "prompt_cache_retention",
        never,
        "prefixes are cached by content; leave it out",
    ),
    refused("safety_identifier", never, "use `user`"),
    refused("moderation", never, "leave it out"),
    refused(
        "use_beam_search",
        is_false,
        "sampling and greedy decoding are available",
    ),
    refused("length_penalty", is_one, "it belongs to beam search"),
    refused("stop_token_ids", is_empty, "use `stop`"),
    refused(
        "include_stop_str_in_output",
        is_false,
        "append the stop string yourself",
    ),
    refused("allowed_token_ids", is_empty, "use `logit_bias`"),
    refused("bad_words", is_empty, "use `logit_bias`"),
    refused(
        "truncate_prompt_tokens",
        never,
        "shorten the prompt; /tokenize counts its tokens",
    ),
    refused(
        "prompt_logprobs",
        never,
        "use `echo` with `logprobs` on /v1/completions",
    ),
    refused(
        "skip_special_tokens",
        is_true,
        "special tokens are never part of the text",
    ),
    refused("logits_processors", is_empty, "use `logit_bias`"),
    refused("guided_json", never, "there is no constrained decoding"),
    refused("guided_regex", never, "there is no constrained decoding"),
    refused("guided_choice", never, "use /v1/classify"),
    refused("guided_grammar", never, "there is no constrained decoding"),
    refused(
        "structured_outputs",
        never,
        "use /v1/classify for a choice among labels",
    ),
];

/// Refuses what /v1/completions knows and does not support.
///
/// # Errors
/// `NotSupported` naming the first such field.
pub fn refuse_for_completion(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse(object, COMPLETION)?;
    refuse(object, BOTH)
}

/// Refuses what /v1/chat/completions knows and does not support.
///
/// # Errors
/// `NotSupported` naming the first such field.
pub fn refuse_for_chat(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse(object, CHAT)?;
    refuse(object, BOTH)
}

/// Refuses what a table lists.
///
/// # Errors
/// `NotSupported` naming the first such field.
pub fn refuse(object: &Map<String, Value>, list: &[Refused]) -> Result<(), ApiError> {
    let offender = list.iter().find(|refused| {
        object
            .get(refused.name)
            .is_some_and(|value| !value.is_null() && !(refused.harmless)(value))
    });
    match offender {
        Some(refused) => Err(ApiError::not_supported(refused.name, refused.instead)),
        None => Ok(()),
    }
}

/// Harmless in no form.
pub fn never(_: &Value) -> bool {
    false
}

/// Harmless as 1.
pub fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

/// Harmless as `true`.
pub fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true)
}

/// Harmless as `false`.
pub fn is_false(value: &Value) -> bool {
    value.as_bool() == Some(false)
}

/// Harmless without content.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_none_word(value: &Value) -> bool {
    value.as_str() == Some("none")
}

fn is_text_only(value: &Value) -> bool {
    *value == serde_json::json!(["text"])
}

/// Harmless as the format of plain text.
pub fn is_text_format(value: &Value) -> bool {
    value.get("type").and_then(Value::as_str) == Some("text")
}

fn is_default_tier(value: &Value) -> bool {
    matches!(value.as_str(), Some("auto" | "default"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused_field(body: Value, chat: bool) -> Option<String> {
        let Value::Object(object) = body else {
            return None;
        };
        let result = if chat {
            refuse_for_chat(&object)
        } else {
            refuse_for_completion(&object)
        };
        result
            .err()
            .and_then(|error| error.param().map(str::to_owned))
    }

    #[test]
    fn parameters_without_effect_are_refused_by_name() {
        assert_eq!(
            refused_field(json!({"best_of": 2}), false).as_deref(),
            Some("best_of")
        );
        assert_eq!(
            refused_field(json!({"suffix": "x"}), false).as_deref(),
            Some("suffix")
        );
        assert_eq!(
            refused_field(json!({"tools": [{}]}), true).as_deref(),
            Some("tools")
        );
        assert_eq!(
            refused_field(json!({"response_format": {"type": "json_object"}}), true).as_deref(),
            Some("response_format")
        );
    }

    #[test]
    fn values_that_ask_for_what_happens_anyway_pass() {
        let body = json!({"best_of": 1, "suffix": null, "response_format": {"type": "text"}, "store": false, "lora_extra": 7});
        assert_eq!(refused_field(body, false), None);
        let body = json!({"tools": [], "tool_choice": "none", "modalities": ["text"]});
        assert_eq!(refused_field(body, true), None);
    }
}
