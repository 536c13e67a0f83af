//! `adapter_config.json`: rank, scale and targets of a LoRA adapter as PEFT defines them.

use crate::config_fields::{self, Fields};
use crate::files::CONFIG_FILE;
use crate::json::Json;
use crate::pattern::Pattern;
use crate::{AdapterError, Projection, Targets};

/// A LoRA configuration, every active field of which is implemented.
///
/// An adapted map computes `W x + scale · B (A x)`, with `scale` = alpha / rank (Hu et al. 2021,
/// section 4.1) or alpha / √rank with rank-stabilised LoRA (Kalajdzievski 2023, theorem 3.2).
/// Module paths are those of [`Projection::module_path`].
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    base_model_name: Option<String>,
    rank: usize,
    alpha: f64,
    dropout: f64,
    use_rslora: bool,
    targets: Targets,
    exclude: Option<Targets>,
    rank_pattern: Vec<(Pattern, usize)>,
    alpha_pattern: Vec<(Pattern, f64)>,
}

impl LoraConfig {
    /// Plain LoRA of one rank over the named projections of every layer. `dropout` is a
    /// probability that only training uses.
    pub fn new(
        base_model_name: impl Into<String>,
        rank: usize,
        alpha: f64,
        targets: Vec<Projection>,
        dropout: f64,
    ) -> Self {
        Self {
            base_model_name: Some(base_model_name.into()),
            rank,
            alpha,
            dropout,
            use_rslora: false,
            targets: Targets::of(&targets),
            exclude: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
        }
    }

    /// Reads the bytes of an `adapter_config.json`.
    ///
    /// # Errors
    /// Text that is not JSON, a field of a wrong type, and any active field whose effect is not
    /// implemented, each by its name. Fields this version does not know are refused too, unless
    /// they are null, false or empty.
    pub fn parse(bytes: &[u8]) -> Result<Self, AdapterError> {
        let json = Json::parse(CONFIG_FILE, bytes)?;
        let Json::Object(members) = json else {
            return Err(AdapterError::InvalidJson {
                file: CONFIG_FILE,
                reason: format!("it is {}", json.shown()),
            });
        };
        let mut fields = Fields::default();
        for (name, value) in &members {
            config_fields::read(&mut fields, name, value)?;
        }
        let missing = |field: &str, expected| AdapterError::InvalidField {
            field: field.to_owned(),
            expected,
            got: "missing".to_owned(),
        };
        if !fields.is_lora {
            return Err(missing("peft_type", "\"LORA\""));
        }
        Ok(Self {
            base_model_name: fields.base_model_name,
            rank: fields
                .rank
                .ok_or_else(|| missing("r", config_fields::A_RANK))?,
            alpha: fields
                .alpha
                .ok_or_else(|| missing("lora_alpha", config_fields::A_NUMBER))?,
            dropout: fields.dropout,
            use_rslora: fields.use_rslora,
            targets: fields
                .targets
                .ok_or_else(|| missing("target_modules", "at least one module name"))?,
            exclude: fields.exclude,
            rank_pattern: fields.rank_pattern,
            alpha_pattern: fields.alpha_pattern,
        })
    }

    /// `base_model_name_or_path`.
    pub fn base_model_name(&self) -> Option<&str> {
        self.base_model_name.as_deref()
    }

    /// The configured rank, `r`; [`LoraConfig::rank_for`] has the rank of a module.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The configured `lora_alpha`.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// `lora_dropout`, which only training uses.
    pub fn dropout(&self) -> f64 {
        self.dropout
    }

    /// Whether the scale is alpha / √rank.
    pub fn use_rslora(&self) -> bool {
        self.use_rslora
    }

    /// The same configuration with rank-stabilised scaling on or off.
    #[must_use]
    pub fn with_rslora(mut self, use_rslora: bool) -> Self {
        self.use_rslora = use_rslora;
        self
    }

    /// The same configuration with ranks of their own for some projections of every layer; alpha stays.
    #[must_use]
    pub fn with_ranks(mut self, ranks: impl IntoIterator<Item = (Projection, usize)>) -> Self {
        let pattern =
            |(projection, rank): (Projection, usize)| (Pattern::name(projection.peft_name()), rank);
        self.rank_pattern = ranks.into_iter().map(pattern).collect();
        self
    }

    /// `target_modules`, before exclusions.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Whether the module at this path is adapted.
    pub fn is_target(&self, module: &str) -> bool {
        let excluded = |exclude: &Targets| exclude.matches(module);
        self.targets.matches(module) && !self.exclude.as_ref().is_some_and(excluded)
    }

    /// The rank of the module at this path: the first matching entry of `rank_pattern`, else `r`.
    pub fn rank_for(&self, module: &str) -> usize {
        first_match(&self.rank_pattern, module).unwrap_or(self.rank)
    }

    /// The alpha of the module at this path: the first matching entry of `alpha_pattern`, else
    /// `lora_alpha`.
    pub fn alpha_for(&self, module: &str) -> f64 {
        first_match(&self.alpha_pattern, module).unwrap_or(self.alpha)
    }

    /// What the product `B (A x)` of the module at this path is multiplied by.
    pub fn scale_for(&self, module: &str) -> f32 {
        let rank = self.rank_for(module) as f64;
        let divisor = if self.use_rslora { rank.sqrt() } else { rank };
        (self.alpha_for(module) / divisor) as f32
    }

    /// The file that PEFT reads back as this configuration, indented, keys sorted.
    pub(crate) fn to_file(&self) -> Vec<u8> {
        let text = |value: &str| Json::String(value.to_owned());
        let name = self.base_model_name.as_deref().map_or(Json::Null, text);
        let exclude = self.exclude.as_ref().map_or(Json::Null, Targets::to_json);
        let members = [
            ("alpha_pattern", pattern_json(&self.alpha_pattern, number)),
            ("auto_mapping", Json::Null),
            ("base_model_name_or_path", name),
            ("bias", text("none")),
            ("exclude_modules", exclude),
            ("fan_in_fan_out", Json::Bool(false)),
            ("inference_mode", Json::Bool(true)),
            ("init_lora_weights", Json::Bool(true)),
            ("layer_replication", Json::Null),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("lora_alpha", number(self.alpha)),
            ("lora_bias", Json::Bool(false)),
            ("lora_dropout", number(self.dropout)),
            ("modules_to_save", Json::Null),
            ("peft_type", text("LORA")),
            ("r", Json::Number(self.rank.into())),
            (
                "rank_pattern",
                pattern_json(&self.rank_pattern, |rank| Json::Number(rank.into())),
            ),
            ("revision", Json::Null),
            ("target_modules", self.targets.to_json()),
            ("task_type", text("CAUSAL_LM")),
            ("use_dora", Json::Bool(false)),
            ("use_rslora", Json::Bool(self.use_rslora)),
        ];
        let members = members.map(|(name, value)| (name.to_owned(), value));
        let object = Json::Object(members.to_vec());
        serde_json::to_vec_pretty(&object).expect("JSON values always have a text")
    }
}

fn first_match<T: Copy>(patterns: &[(Pattern, T)], module: &str) -> Option<T> {
    patterns
        .iter()
        .find(|(pattern, _)| pattern.matches(module))
        .map(|(_, value)| *value)
}

fn pattern_json<T: Copy>(patterns: &[(Pattern, T)], value: impl Fn(T) -> Json) -> Json {
    let members = patterns.iter();
    Json::Object(
        members
            .map(|(pattern, entry)| (pattern.source().to_owned(), value(*entry)))
            .collect(),
    )
}

/// PEFT's own type for alpha is a whole number, so whole numbers are written without a fraction.
fn number(value: f64) -> Json {
    let whole = value as i64;
    if whole as f64 == value {
        return Json::Number(whole.into());
    }
    serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
