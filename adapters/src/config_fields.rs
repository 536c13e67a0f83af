//! The fields of adapter_config.json one by one: which are read, which do not matter once the
//! adapter is trained, and which are refused while they are active.

use crate::json::{Json, shorten};
use crate::pattern::Pattern;
use crate::{AdapterError, Targets};

pub(crate) const A_NUMBER: &str = "a number";
pub(crate) const A_RANK: &str = "a whole number from 1 to 65536";
const A_BOOLEAN: &str = "true or false";

/// Largest rank that is read at all; the limit of a server is far below.
const MAX_RANK: u64 = 65_536;
/// Most entries of a pattern field.
const MAX_PATTERNS: usize = 1024;

/// Bookkeeping, initialisation from data, and settings of features that have their own switch.
const WITHOUT_EFFECT: [&str; 10] = [
    "auto_mapping",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Initialisations that leave the base model's weights as they are; the others subtract the first
/// A and B from them, so that their adapters fit only that changed base.
const PLAIN_INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) is_lora: bool,
    pub(crate) base_model_name: Option<String>,
    pub(crate) rank: Option<usize>,
    pub(crate) alpha: Option<f64>,
    pub(crate) dropout: f64,
    pub(crate) use_rslora: bool,
    pub(crate) targets: Option<Targets>,
    pub(crate) exclude: Option<Targets>,
    pub(crate) rank_pattern: Vec<(Pattern, usize)>,
    pub(crate) alpha_pattern: Vec<(Pattern, f64)>,
}

/// Takes one field into `fields`, or says why it is refused.
pub(crate) fn read(fields: &mut Fields, name: &str, value: &Json) -> Result<(), AdapterError> {
    match name {
        "peft_type" => {
            accept_text(name, value, &["LORA"], "only LORA adapters are served")?;
            fields.is_lora = true;
        }
        "r" => fields.rank = Some(rank(name, value)?),
        "lora_alpha" => fields.alpha = Some(number(name, value)?),
        "lora_dropout" => fields.dropout = dropout(value)?,
        "use_rslora" => fields.use_rslora = boolean(name, value)?,
        "target_modules" => fields.targets = Targets::parse("target_modules", value)?,
        "exclude_modules" => fields.exclude = Targets::parse("exclude_modules", value)?,
        "rank_pattern" => fields.rank_pattern = patterns("rank_pattern", value, rank)?,
        "alpha_pattern" => fields.alpha_pattern = patterns("alpha_pattern", value, number)?,
        "base_model_name_or_path" => fields.base_model_name = optional_text(name, value)?,
        "task_type" if value != &Json::Null => {
            accept_text(
                name,
                value,
                &["CAUSAL_LM"],
                "only CAUSAL_LM adapters are served",
            )?;
        }
        "bias" if !value.is_inactive() => {
            accept_text(name, value, &["none"], "the only bias setting is \"none\"")?;
        }
        "init_lora_weights" if !matches!(value, Json::Null | Json::Bool(_)) => {
            let accepted = "convert the adapter to plain LoRA first \
                            (save_pretrained with path_initial_model_for_weight_conversion)";
            accept_text(name, value, &PLAIN_INITIALISATIONS, accepted)?;
        }
        _ if WITHOUT_EFFECT.contains(&name) || value.is_inactive() => {}
        "init_lora_weights" => {}
        _ => {
            let accepted = "only plain LoRA with rsLoRA, rank_pattern and alpha_pattern is served";
            return Err(unsupported(name, value, accepted));
        }
    }
    Ok(())
}

fn unsupported(field: &str, value: &Json, accepted: &'static str) -> AdapterError {
    AdapterError::Unsupported {
        field: shorten(field),
        got: value.shown(),
        accepted,
    }
}

fn wrong(field: &str, value: &Json, expected: &'static str) -> AdapterError {
    AdapterError::InvalidField {
        field: field.to_owned(),
        expected,
        got: value.shown(),
    }
}

fn accept_text(
    field: &str,
    value: &Json,
    accepted: &[&str],
    otherwise: &'static str,
) -> Result<(), AdapterError> {
    match value {
        Json::String(text) if accepted.contains(&text.as_str()) => Ok(()),
        _ => Err(unsupported(field, value, otherwise)),
    }
}

fn optional_text(field: &str, value: &Json) -> Result<Option<String>, AdapterError> {
    match value {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(text.clone())),
        _ => Err(wrong(field, value, "a string or null")),
    }
}

fn boolean(field: &str, value: &Json) -> Result<bool, AdapterError> {
    match value {
        Json::Bool(flag) => Ok(*flag),
        Json::Null => Ok(false),
        _ => Err(wrong(field, value, A_BOOLEAN)),
    }
}

fn rank(field: &str, value: &Json) -> Result<usize, AdapterError> {
    match value {
        Json::Number(number) => number.as_u64(),
        _ => None,
    }
    .filter(|rank| (1..=MAX_RANK).contains(rank))
    .and_then(|rank| usize::try_from(rank).ok())
    .ok_or_else(|| wrong(field, value, A_RANK))
}

fn number(field: &str, value: &Json) -> Result<f64, AdapterError> {
    match value {
        Json::Number(number) => number.as_f64(),
        _ => None,
    }
    .ok_or_else(|| wrong(field, value, A_NUMBER))
}

fn dropout(value: &Json) -> Result<f64, AdapterError> {
    if matches!(value, Json::Null) {
        return Ok(0.0);
    }
    number("lora_dropout", value)
        .ok()
        .filter(|dropout| (0.0..=1.0).contains(dropout))
        .ok_or_else(|| wrong("lora_dropout", value, "a probability from 0 to 1"))
}

fn patterns<T>(
    field: &'static str,
    value: &Json,
    entry: impl Fn(&str, &Json) -> Result<T, AdapterError>,
) -> Result<Vec<(Pattern, T)>, AdapterError> {
    match value {
        Json::Null => Ok(Vec::new()),
        Json::Object(members) if members.len() <= MAX_PATTERNS => members
            .iter()
            .map(|(key, value)| {
                let name = format!("{field}[{key:?}]");
                Ok((Pattern::suffix(field, key)?, entry(&name, value)?))
            })
            .collect(),
        _ => Err(wrong(field, value, "an object of at most 1024 patterns")),
    }
}
