//! Server-sent events of a generation: one chunk per token, the end merged into the last token where it is known to come,
//! the usage only when asked for, `[DONE]` last. How a chunk looks, and what of this is different, is the dialect's business.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Bytes;
use engine::{FinishReason, GenerateEvent, TokenLogprob};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::Serialize;

use super::generation::Running;
use super::usage::Usage;
use crate::error::ApiError;

/// A part of one choice, as the engine made it.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Position among the choices.
    pub index: usize,
    /// Position of the choice's prompt.
    pub prompt: usize,
    /// Whether it is the first part of the choice.
    pub first: bool,
    /// The token, unless the part is an echo or only an end.
    pub token: Option<u32>,
    /// Text that became final.
    pub text: String,
    /// Log-probability of the token, when asked for.
    pub logprob: Option<TokenLogprob>,
    /// The prompt's log-probabilities: the part then stands for the echoed prompt.
    pub echo: Option<Vec<TokenLogprob>>,
    /// Why the choice ended, in its last part.
    pub finish: Option<FinishReason>,
}

/// How parts become chunks.
pub trait Dialect: 'static {
    /// The chunk of a part, as JSON.
    fn part(&mut self, part: Part) -> String;
    /// The chunk that carries the usage, as JSON.
    fn usage(&self, usage: &Usage) -> String {
        json(usage)
    }
    /// The chunk of a failure, as JSON.
    fn failure(&self, error: ApiError) -> String {
        json(&error.body())
    }
    /// The prompt of a choice has been computed; this many of its tokens were found in the cache.
    fn started(&mut self, _index: usize, _cached_tokens: usize) {}
    /// Whether the prompt is sent back in front of each choice.
    fn echoes(&self) -> bool {
        false
    }
    /// Whether a token waits for what comes next, so that the end can go into its chunk. The last there can be always does.
    fn waits(&self, _part: &Part) -> bool {
        false
    }
    /// Whether the end goes into a chunk without text or token; then no token waits.
    fn ends_apart(&self) -> bool {
        false
    }
    /// Whether `[DONE]` closes the stream.
    fn says_done(&self) -> bool {
        true
    }
}

/// What a stream needs to know besides its dialect.
pub struct StreamPlan {
    /// The choices.
    pub running: Vec<Running>,
    /// Tokens of each prompt.
    pub prompt_tokens: Vec<usize>,
    /// Whether the usage closes the stream.
    pub include_usage: bool,
}

/// The streamed answer. The client going away drops it, and with it the engine's work.
pub fn respond(plan: StreamPlan, dialect: impl Dialect) -> HttpResponse {
    event_stream(chunks(plan, dialect))
}

/// An answer of server-sent events.
pub fn event_stream(events: impl Stream<Item = Result<Bytes, ApiError>> + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(events)
}

/// One event that carries JSON.
pub fn data(json: &str) -> Bytes {
    Bytes::from(format!("data: {json}\n\n"))
}

/// JSON of a chunk.
pub fn json(chunk: &impl Serialize) -> String {
    serde_json::to_string(chunk).expect("chunks have string keys and finite numbers")
}

struct Streaming<D> {
    events: BoxStream<'static, (usize, GenerateEvent)>,
    choices: Vec<Choice>,
    dialect: D,
    usage: Usage,
    include_usage: bool,
    stage: Stage,
}

/// What is known of a choice while it is streamed.
struct Choice {
    prompt: usize,
    prompt_tokens: usize,
    max_tokens: usize,
    tokens: usize,
    started: bool,
    /// The token that may be, or can only be, the last one, kept until the next event.
    held: Option<Part>,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Tokens,
    Done,
    Over,
}

fn chunks<D: Dialect>(
    plan: StreamPlan,
    dialect: D,
) -> impl Stream<Item = Result<Bytes, ApiError>> + 'static {
    let choices = plan
        .running
        .iter()
        .map(|running| Choice {
            prompt: running.prompt,
            prompt_tokens: plan.prompt_tokens[running.prompt],
            max_tokens: running.max_tokens,
            tokens: 0,
            started: false,
            held: None,
        })
        .collect();
    let events = stream::select_all(plan.running.into_iter().map(events_of)).boxed();
    let streaming = Streaming {
        events,
        choices,
        dialect,
        usage: Usage::default(),
        include_usage: plan.include_usage,
        stage: Stage::Tokens,
    };
    stream::unfold(streaming, |mut streaming| async move {
        let bytes = streaming.next().await?;
        Some((Ok(bytes), streaming))
    })
}

fn events_of(running: Running) -> BoxStream<'static, (usize, GenerateEvent)> {
    stream::unfold(running, |mut running| async move {
        let event = running.next().await?;
        Some(((running.index, event), running))
    })
    .boxed()
}

impl<D: Dialect> Streaming<D> {
    async fn next(&mut self) -> Option<Bytes> {
        while self.stage == Stage::Tokens {
            match self.events.next().await {
                Some((index, event)) => {
                    if let Some(bytes) = self.on_event(index, event) {
                        return Some(bytes);
                    }
                }
                None => {
                    self.stage = Stage::Done;
                    if self.include_usage {
                        return Some(data(&self.dialect.usage(&self.usage)));
                    }
                }
            }
        }
        if self.stage == Stage::Done {
            self.stage = Stage::Over;
            let done = Bytes::from_static(b"data: [DONE]\n\n");
            return self.dialect.says_done().then_some(done);
        }
        None
    }

    fn on_event(&mut self, index: usize, event: GenerateEvent) -> Option<Bytes> {
        let parts = match event {
            GenerateEvent::Started {
                cached_tokens,
                prompt_logprobs,
                ..
            } => [self.on_start(index, cached_tokens, prompt_logprobs), None],
            GenerateEvent::Token {
                token,
                text,
                logprob,
            } => self.on_token(index, token, text, logprob),
            GenerateEvent::Finished { reason, text } => self.on_finish(index, reason, text),
            GenerateEvent::Failed(error) => {
                self.stage = Stage::Done;
                return Some(data(&self.dialect.failure(error.into())));
            }
        };
        let chunks = parts.into_iter().flatten();
        let chunks: Vec<Bytes> = chunks.map(|part| data(&self.dialect.part(part))).collect();
        (!chunks.is_empty()).then(|| chunks.concat().into())
    }

    fn on_start(
        &mut self,
        index: usize,
        cached_tokens: usize,
        prompt_logprobs: Option<Vec<TokenLogprob>>,
    ) -> Option<Part> {
        let choice = &self.choices[index];
        let (prompt, tokens) = (choice.prompt, choice.prompt_tokens);
        let counted = self
            .choices
            .iter()
            .any(|choice| choice.prompt == prompt && choice.started);
        if !counted {
            self.usage.add_prompt(tokens, cached_tokens);
        }
        self.choices[index].started = true;
        self.dialect.started(index, cached_tokens);
        self.dialect.echoes().then(|| Part {
            index,
            prompt,
            first: true,
            echo: Some(prompt_logprobs.unwrap_or_default()),
            ..Part::default()
        })
    }

    /// The token that waited, then this one unless it waits in its turn.
    fn on_token(
        &mut self,
        index: usize,
        token: u32,
        text: String,
        logprob: Option<TokenLogprob>,
    ) -> [Option<Part>; 2] {
        self.usage.add_completion(1);
        let echoes = self.dialect.echoes();
        let choice = &mut self.choices[index];
        choice.tokens += 1;
        let part = Part {
            index,
            prompt: choice.prompt,
            first: choice.tokens == 1 && !echoes,
            token: Some(token),
            text,
            logprob,
            ..Part::default()
        };
        let before = choice.held.take();
        let may_be_last = choice.tokens == choice.max_tokens || self.dialect.waits(&part);
        if may_be_last && !self.dialect.ends_apart() {
            choice.held = Some(part);
            return [before, None];
        }
        [before, Some(part)]
    }

    fn on_finish(&mut self, index: usize, reason: FinishReason, text: String) -> [Option<Part>; 2] {
        let echoes = self.dialect.echoes();
        let choice = &mut self.choices[index];
        let mut part = choice.held.take().unwrap_or(Part {
            index,
            prompt: choice.prompt,
            first: choice.tokens == 0 && !echoes,
            ..Part::default()
        });
        part.text.push_str(&text);
        if self.dialect.ends_apart() && !part.text.is_empty() {
            let end = Part {
                index,
                prompt: part.prompt,
                finish: Some(reason),
                ..Part::default()
            };
            return [Some(part), Some(end)];
        }
        part.finish = Some(reason);
        [Some(part), None]
    }
}
