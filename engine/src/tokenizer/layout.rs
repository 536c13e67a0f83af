//! What a `tokenizer.json` says of itself beyond what the tokenizers library tells: which kind it is, how it spells
//! bytes, and whether it puts a space in front of a text. The tokenizer is put together by `directory`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::TokenizerError;
use super::vocabulary::{SPACE, Style};

/// The kind of model, read before the rest so that another kind is named and not called malformed.
#[derive(Deserialize)]
struct Head {
    model: HeadModel,
}

#[derive(Deserialize)]
struct HeadModel {
    #[serde(rename = "type", default = "bpe")]
    kind: String,
}

/// What of `tokenizer.json` the tokenizers library does not tell.
#[derive(Deserialize)]
pub(super) struct Layout {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    dropout: Option<f64>,
}

/// Two tokens that make a third; older files join them with a space.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Halves(String, String),
    Line(String),
}

impl Layout {
    /// Reads the description and checks what it would make of text.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, TokenizerError> {
        let head: Head = parsed(path, text)?;
        if head.model.kind != "BPE" {
            return Err(unsupported(path, "model.type", head.model.kind, "BPE"));
        }
        let layout: Self = parsed(path, text)?;
        layout.model.check(path)?;
        Ok(layout)
    }

    /// The ids of the model's own tokens.
    pub(super) fn into_vocabulary(self) -> HashMap<String, u32> {
        self.model.vocab
    }

    /// How the vocabulary spells bytes, which the decoder gives away.
    pub(super) fn style(&self, path: &Path) -> Result<Style, TokenizerError> {
        let steps = steps(&self.decoder);
        let replaces = |step: &Value| {
            let pattern = step["pattern"]["String"].as_str();
            is(step, "Replace") && pattern == Some(&SPACE.to_string())
        };
        if steps.iter().any(|step| is(step, "ByteLevel")) {
            Ok(Style::ByteLevel)
        } else if (steps.iter()).any(|step| is(step, "Metaspace") || replaces(step)) {
            Ok(Style::SentencePiece)
        } else {
            let kinds: Vec<&str> = steps.iter().filter_map(|s| s["type"].as_str()).collect();
            let found = if kinds.is_empty() {
                "absent".to_owned()
            } else {
                kinds.join(", ")
            };
            let supported = "ByteLevel, Metaspace, or Replace of `▁`";
            Err(unsupported(path, "decoder", found, supported))
        }
    }

    /// Whether decoding takes a space from the front of a text.
    pub(super) fn strips_leading_space(&self) -> bool {
        let strips = |step: &Value| {
            is(step, "Strip") && step["content"] == " " && step["start"].as_u64() > Some(0)
        };
        let prepends = |step: &Value| is(step, "Metaspace") && without_prefix(step) != *step;
        (steps(&self.decoder).into_iter()).any(|step| strips(step) || prepends(step))
    }

    /// The tokenizer without the space that it puts in front of a text, if it does.
    pub(super) fn continuing(
        &self,
        encoder: &tokenizers::Tokenizer,
    ) -> Result<Option<tokenizers::Tokenizer>, TokenizerError> {
        let normalizer = without_prefix(&self.normalizer);
        let pre_tokenizer = without_prefix(&self.pre_tokenizer);
        if normalizer == self.normalizer && pre_tokenizer == self.pre_tokenizer {
            return Ok(None);
        }
        let unreadable = |error: serde_json::Error| TokenizerError::Build {
            reason: error.to_string(),
        };
        let normalizer: Option<tokenizers::NormalizerWrapper> =
            serde_json::from_value(normalizer).map_err(unreadable)?;
        let pre_tokenizer: Option<tokenizers::PreTokenizerWrapper> =
            serde_json::from_value(pre_tokenizer).map_err(unreadable)?;
        let mut continuing = encoder.clone();
        continuing.with_pre_tokenizer(pre_tokenizer);
        (continuing.with_normalizer(normalizer)).map_err(TokenizerError::build)?;
        Ok(Some(continuing))
    }
}

impl Model {
    /// Refuses what would give other ids or text than the file's author meant, or stop the library short.
    fn check(&self, path: &Path) -> Result<(), TokenizerError> {
        let marks = [
            (
                "model.continuing_subword_prefix",
                &self.continuing_subword_prefix,
            ),
            ("model.end_of_word_suffix", &self.end_of_word_suffix),
        ];
        for (part, mark) in marks {
            if let Some(mark) = mark.as_ref().filter(|mark| !mark.is_empty()) {
                return Err(unsupported(path, part, format!("`{mark}`"), "none"));
            }
        }
        if let Some(dropout) = self.dropout.filter(|&dropout| dropout != 0.0) {
            return Err(unsupported(
                path,
                "model.dropout",
                dropout.to_string(),
                "none",
            ));
        }
        if let Some(unknown) = (self.unk_token.as_ref()).filter(|&u| !self.vocab.contains_key(u)) {
            let found = format!("`{unknown}`");
            return Err(unsupported(
                path,
                "model.unk_token",
                found,
                "a token of `model.vocab`",
            ));
        }
        for (index, merge) in self.merges.iter().enumerate() {
            let halves = match merge {
                Merge::Halves(left, right) => Some((left.as_str(), right.as_str())),
                Merge::Line(line) => line.split_once(' '),
            };
            let whole = halves.filter(|&(left, right)| {
                [left, right, &[left, right].concat()]
                    .iter()
                    .all(|&token| self.vocab.contains_key(token))
            });
            if whole.is_none() {
                let merge = match merge {
                    Merge::Halves(left, right) => format!("{left} {right}"),
                    Merge::Line(line) => line.clone(),
                };
                return Err(TokenizerError::InvalidMerge { index, merge });
            }
        }
        Ok(())
    }
}

/// A normalizer or pre-tokenizer that puts nothing in front of a text.
fn without_prefix(step: &Value) -> Value {
    if is(step, "Prepend") {
        return Value::Null;
    }
    let mut step = step.clone();
    for key in SEQUENCES {
        if let Some(steps) = step.get_mut(key).and_then(Value::as_array_mut) {
            *steps = (steps.iter().map(without_prefix))
                .filter(|step| !step.is_null())
                .collect();
        }
    }
    if is(&step, "Metaspace") && step["add_prefix_space"] != false {
        step["prepend_scheme"] = "never".into();
        step["add_prefix_space"] = Value::Null;
    }
    if is(&step, "ByteLevel") && step["add_prefix_space"] == true {
        step["add_prefix_space"] = false.into();
    }
    step
}

/// Where a sequence of each kind of step keeps its steps.
const SEQUENCES: [&str; 3] = ["normalizers", "pretokenizers", "decoders"];

/// The steps of a sequence, or the one step there is.
fn steps(step: &Value) -> Vec<&Value> {
    let nested = (SEQUENCES.iter()).find_map(|&key| step.get(key)?.as_array());
    match nested {
        Some(nested) => nested.iter().flat_map(steps).collect(),
        None => vec![step],
    }
}

fn is(step: &Value, kind: &str) -> bool {
    step["type"] == kind
}

/// A JSON text as `T`, or an error that names its file.
pub(super) fn parsed<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, TokenizerError> {
    serde_json::from_str(text).map_err(|error| TokenizerError::Read {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

fn unsupported(
    path: &Path,
    part: &'static str,
    found: String,
    supported: &'static str,
) -> TokenizerError {
    TokenizerError::UnsupportedPart {
        path: path.to_path_buf(),
        part,
        found,
        supported,
    }
}

fn bpe() -> String {
    "BPE".to_owned()
}
