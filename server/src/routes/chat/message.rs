//! The messages of a conversation, as clients may write them.

use engine::ChatMessage;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;

/// One message.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Message {
    /// Who speaks: `system`, `developer`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: Option<Content>,
    /// Refused when there are any.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tool_calls: Option<Value>,
}

/// A text, or a list of text parts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or an array of text parts")]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts that are joined.
    Parts(Vec<ContentPart>),
}

/// One part of a message.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ContentPart {
    /// `text`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
}

impl Message {
    /// The message as the template takes it.
    ///
    /// # Errors
    /// `InvalidValue`, `MissingField` or `NotSupported`, naming the message's place.
    pub(super) fn check(&self, index: usize) -> Result<ChatMessage, ApiError> {
        let param = |field: &str| format!("messages[{index}].{field}");
        let has_calls = self
            .tool_calls
            .as_ref()
            .is_some_and(|calls| calls.as_array().is_none_or(|calls| !calls.is_empty()));
        if has_calls {
            return Err(ApiError::not_supported(
                param("tool_calls"),
                "put what the tools said into a message",
            ));
        }
        let role = match self.role.as_str() {
            "system" | "developer" => "system",
            "user" => "user",
            "assistant" => "assistant",
            "tool" | "function" => {
                return Err(ApiError::not_supported(
                    param("role"),
                    "put what the tool said into a user message",
                ));
            }
            other => {
                return Err(ApiError::invalid(
                    param("role"),
                    format!("role `{other}` is unknown; known: system, developer, user, assistant"),
                ));
            }
        };
        let content = match &self.content {
            Some(content) => content.text(&param("content"))?,
            None => {
                return Err(ApiError::MissingField {
                    message: format!("`{}` is missing; send a text", param("content")),
                    param: param("content"),
                });
            }
        };
        Ok(ChatMessage {
            role: role.to_owned(),
            content,
        })
    }
}

impl Content {
    fn text(&self, param: &str) -> Result<String, ApiError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Parts(parts) => parts
                .iter()
                .enumerate()
                .map(|(index, part)| match (part.kind.as_str(), &part.text) {
                    ("text", Some(text)) => Ok(text.as_str()),
                    ("text", None) => Err(ApiError::invalid(
                        format!("{param}[{index}].text"),
                        format!("`{param}[{index}]` has no `text`"),
                    )),
                    (kind, _) => Err(ApiError::not_supported(
                        format!("{param}[{index}].type"),
                        format!("parts of type `{kind}` cannot be read; send text"),
                    )),
                })
                .collect(),
        }
    }
}
