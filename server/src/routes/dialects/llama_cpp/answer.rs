//! Answers of llama.cpp's completions, whole and streamed.

use actix_web::web::Data;
use engine::{FinishReason, TokenLogprob};
use serde::Serialize;
use utoipa::ToSchema;

use super::LlamaCppError;
use super::parameters::LlamaCppRequest;
use crate::error::ApiError;
use crate::inference::generation::Finished;
use crate::inference::logprobs::{ChatAlternative, chat_token};
use crate::inference::parameters::Generation;
use crate::inference::prompts::EncodedPrompt;
use crate::inference::stream::{Dialect, Part, json};
use crate::inference::target::{AdapterReference, Target};
use crate::routes::dialects::ending::Ending;
use crate::state::State;

/// A whole answer, or the last part of a streamed one, whose text has come before.
#[derive(Debug, Serialize, ToSchema)]
pub struct LlamaCppCompletion {
    /// What the parts of a stream have too.
    #[serde(flatten)]
    pub part: LlamaCppPart,
    /// The model as it was named.
    pub model: String,
    /// The adapter version that answered; null for the base model.
    pub adapter: Option<AdapterReference>,
    /// How it was generated.
    pub generation_settings: Settings,
    /// The prompt.
    pub prompt: String,
    /// Whether the text has a line break.
    pub has_new_line: bool,
    /// `false`: a prompt that is too long is refused.
    pub truncated: bool,
    /// `eos`, `word` or `limit`.
    pub stop_type: &'static str,
    /// The stop string that ended it, if one did.
    pub stopping_word: String,
    /// Whether `stop_type` is `eos`.
    pub stopped_eos: bool,
    /// Whether `stop_type` is `word`.
    pub stopped_word: bool,
    /// Whether `stop_type` is `limit`.
    pub stopped_limit: bool,
    /// Prompt tokens whose prefix was cached.
    pub tokens_cached: usize,
}

/// A part of a streamed answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct LlamaCppPart {
    /// Position of the prompt.
    pub index: usize,
    /// The text.
    pub content: String,
    /// The tokens, in parts of streams and when asked for.
    pub tokens: Vec<u32>,
    /// Always 0: places are not the client's to choose.
    pub id_slot: usize,
    /// Whether the answer has ended.
    pub stop: bool,
    /// Tokens generated so far.
    pub tokens_predicted: usize,
    /// Tokens of the prompt.
    pub tokens_evaluated: usize,
    /// With `n_probs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub completion_probabilities: Vec<Probability>,
}

/// How an answer was generated.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Settings {
    /// Most tokens; -1 for as many as the context holds.
    pub n_predict: i64,
    /// The seed.
    pub seed: u64,
    /// Softmax temperature.
    pub temperature: f32,
    /// Only the likeliest tokens, this many; 0 for all.
    pub top_k: usize,
    /// Nucleus sampling.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the likeliest.
    pub min_p: f32,
    /// Divides the logits of tokens seen so far.
    pub repeat_penalty: f32,
    /// Taken off every token that has occurred in the answer.
    pub presence_penalty: f32,
    /// Taken off each token per occurrence in the answer.
    pub frequency_penalty: f32,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Go on past the end-of-turn token.
    pub ignore_eos: bool,
    /// Alternatives reported per token.
    pub n_probs: usize,
    /// Server-sent events.
    pub stream: bool,
}

/// A token with its alternatives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Probability {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub token: String,
    /// Its UTF-8 bytes.
    pub bytes: Vec<u8>,
    /// Its log-probability, nats.
    pub logprob: f32,
    /// The likeliest tokens, best first.
    pub top_logprobs: Vec<Alternative>,
}

/// An alternative to a token.
#[derive(Debug, Serialize, ToSchema)]
pub struct Alternative {
    /// Its id.
    pub id: u32,
    /// The rest.
    #[serde(flatten)]
    pub rest: ChatAlternative,
}

/// What is known of the answers while they are made.
pub struct Answer {
    state: Data<State>,
    /// Held to the end of the answer, so that the adapter counts as in use for as long.
    target: Target,
    prompts: Vec<EncodedPrompt>,
    request: LlamaCppRequest,
    generation: Generation,
    choices: Vec<Choice>,
}

/// One answer so far.
#[derive(Clone, Default)]
struct Choice {
    text: String,
    tokens: Vec<u32>,
    cached_tokens: usize,
}

impl Answer {
    /// Answers of which nothing has come yet.
    pub fn new(
        state: &Data<State>,
        target: Target,
        prompts: Vec<EncodedPrompt>,
        (request, generation): (LlamaCppRequest, Generation),
    ) -> Self {
        Self {
            state: state.clone(),
            target,
            choices: vec![Choice::default(); prompts.len()],
            prompts,
            request,
            generation,
        }
    }

    /// The answers that the engine finished.
    pub fn whole(mut self, finished: Vec<Finished>) -> Vec<LlamaCppCompletion> {
        let mut completions = Vec::with_capacity(finished.len());
        for own in finished {
            let choice = &mut self.choices[own.index];
            choice.tokens = own.tokens.iter().map(|&(token, _)| token).collect();
            choice.text = own.text;
            choice.cached_tokens = own.cached_tokens;
            let mut completion = self.completion(own.index, own.reason);
            completion.part.content = self.choices[own.index].text.clone();
            if self.request.return_tokens == Some(true) {
                completion.part.tokens = self.choices[own.index].tokens.clone();
            }
            let logprobs = own
                .tokens
                .iter()
                .filter_map(|(_, logprob)| logprob.as_ref());
            completion.part.completion_probabilities =
                logprobs.map(|logprob| self.probability(logprob)).collect();
            completions.push(completion);
        }
        completions
    }

    /// The end of an answer, without its text.
    fn completion(&self, index: usize, reason: FinishReason) -> LlamaCppCompletion {
        let choice = &self.choices[index];
        let tokenizer = self.state.engine.tokenizer();
        let ending = Ending::of(reason, &choice.tokens, &self.generation, tokenizer);
        let stop_type = match ending {
            Ending::Length => "limit",
            Ending::EndOfTurn(_) => "eos",
            Ending::StopString(_) => "word",
        };
        LlamaCppCompletion {
            part: LlamaCppPart {
                stop: true,
                ..self.empty_part(index)
            },
            model: self.target.model.clone(),
            adapter: self.target.reference(),
            generation_settings: self.settings(),
            prompt: self.prompts[index].text.clone(),
            has_new_line: choice.text.contains('\n'),
            truncated: false,
            stop_type,
            stopped_eos: stop_type == "eos",
            stopped_word: stop_type == "word",
            stopped_limit: stop_type == "limit",
            stopping_word: match ending {
                Ending::StopString(text) => text,
                Ending::Length | Ending::EndOfTurn(_) => String::new(),
            },
            tokens_cached: choice.cached_tokens,
        }
    }

    fn empty_part(&self, index: usize) -> LlamaCppPart {
        LlamaCppPart {
            index,
            content: String::new(),
            tokens: Vec::new(),
            id_slot: 0,
            stop: false,
            tokens_predicted: self.choices[index].tokens.len(),
            tokens_evaluated: self.prompts[index].tokens.len(),
            completion_probabilities: Vec::new(),
        }
    }

    fn settings(&self) -> Settings {
        let sampling = &self.generation.sampling;
        let most = self.generation.max_tokens.map(i64::try_from);
        Settings {
            n_predict: most.and_then(Result::ok).unwrap_or(-1),
            seed: sampling.seed,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repeat_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            stop: self.generation.stop.clone(),
            ignore_eos: self.generation.ignore_eos,
            n_probs: self.generation.logprobs.unwrap_or(0),
            stream: self.request.stream == Some(true),
        }
    }

    fn probability(&self, logprob: &TokenLogprob) -> Probability {
        let own = chat_token(self.state.engine.tokenizer(), logprob);
        let ids = logprob.top.iter().map(|&(id, _)| id);
        let top = ids.zip(own.top_logprobs);
        Probability {
            id: logprob.token,
            token: own.token,
            bytes: own.bytes,
            logprob: own.logprob,
            top_logprobs: top.map(|(id, rest)| Alternative { id, rest }).collect(),
        }
    }
}

impl Dialect for Answer {
    fn part(&mut self, part: Part) -> String {
        let choice = &mut self.choices[part.index];
        choice.text.push_str(&part.text);
        choice.tokens.extend(part.token);
        if let Some(reason) = part.finish {
            return json(&self.completion(part.index, reason));
        }
        let logprob = part.logprob.as_ref();
        json(&LlamaCppPart {
            content: part.text,
            tokens: part.token.into_iter().collect(),
            completion_probabilities: logprob
                .map(|logprob| self.probability(logprob))
                .into_iter()
                .collect(),
            ..self.empty_part(part.index)
        })
    }

    fn started(&mut self, index: usize, cached_tokens: usize) {
        self.choices[index].cached_tokens = cached_tokens;
    }

    fn failure(&self, error: ApiError) -> String {
        json(&LlamaCppError::from(error).body())
    }

    fn ends_apart(&self) -> bool {
        true
    }

    fn says_done(&self) -> bool {
        false
    }
}
