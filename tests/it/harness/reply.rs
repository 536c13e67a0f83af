//! What came back: a whole reply, or the chunks of a stream.

use serde_json::Value;

/// A reply that has been read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) async fn read(response: reqwest::Response) -> Self {
        Self::try_read(response).await.unwrap()
    }

    /// [`Reply::read`] from a server that may be gone before the end.
    pub(crate) async fn try_read(response: reqwest::Response) -> reqwest::Result<Self> {
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await?,
        })
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| {
            panic!("not JSON ({error}), status {}: {}", self.status, self.body)
        })
    }

    /// The body as JSON of a reply that must have this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        if self.body.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// Checks an error reply: status and code exactly, the type that goes with the status, and words that its message must hold.
    #[track_caller]
    pub(crate) fn expect_error(&self, status: u16, code: &str, words: &[&str]) {
        assert_eq!(self.status, status, "{}", self.body);
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{error}");
        let kind = match status {
            401 | 403 => "authentication_error",
            404 => "not_found_error",
            409 => "conflict_error",
            429 | 503 => "overloaded_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        assert_eq!(error["type"], kind, "{error}");
        assert!(error.as_object().unwrap().contains_key("param"), "{error}");
        let message = error["message"].as_str().unwrap();
        for word in words {
            assert!(
                message.contains(word),
                "{word:?} is not in the message {message:?}"
            );
        }
    }

    /// The receipt of an answer.
    #[track_caller]
    pub(crate) fn receipt(&self) -> Value {
        serde_json::from_str(self.header("x-quickchange-receipt").unwrap()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A stream of server-sent events, read to its end.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) chunks: Vec<Value>,
    /// Whether `[DONE]` was the last event.
    pub(crate) done: bool,
}

impl Stream {
    /// Splits the body of an answer that must be 200 and an event stream.
    #[track_caller]
    pub(crate) fn parse(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{}", reply.body);
        let kind = reply.header("content-type").unwrap_or_default();
        assert!(
            kind.starts_with("text/event-stream"),
            "content type {kind:?}"
        );
        let events: Vec<&str> = reply
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        let done = events.last() == Some(&"[DONE]");
        let chunks = events
            .iter()
            .filter(|event| **event != "[DONE]")
            .map(|event| {
                serde_json::from_str(event).unwrap_or_else(|error| panic!("{error}: {event}"))
            })
            .collect();
        Self { chunks, done }
    }

    /// The concatenated text of one choice of a completion.
    pub(crate) fn text(&self, index: u64) -> String {
        self.choices(index)
            .filter_map(|choice| choice["text"].as_str().map(str::to_owned))
            .collect()
    }

    /// The concatenated content of one choice of a chat completion.
    pub(crate) fn content(&self, index: u64) -> String {
        self.choices(index)
            .filter_map(|choice| choice["delta"]["content"].as_str().map(str::to_owned))
            .collect()
    }

    /// The last finish reason of one choice.
    pub(crate) fn finish_reason(&self, index: u64) -> Option<String> {
        self.choices(index)
            .filter_map(|choice| choice["finish_reason"].as_str().map(str::to_owned))
            .last()
    }

    fn choices(&self, index: u64) -> impl Iterator<Item = &Value> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk["choices"].as_array().into_iter().flatten())
            .filter(move |choice| choice["index"] == index)
    }
}
