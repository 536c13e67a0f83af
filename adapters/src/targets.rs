//! Which modules of the base an adapter changes: `target_modules` less `exclude_modules`.

use crate::json::{Json, shorten};
use crate::module::ModuleKind;
use crate::pattern::Pattern;
use crate::{AdapterError, BaseModel, LoraConfig, Projection};

/// Most names in one list.
const MAX_NAMES: usize = 4096;

/// Modules of llama-like models that PEFT can adapt and this project cannot.
const OTHER_MODULES: [&str; 2] = ["lm_head", "model.embed_tokens"];

/// `target_modules` or `exclude_modules` as PEFT reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets(pub(crate) Selection);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Selection {
    /// Whole paths, or ends of paths that begin after a dot; sorted.
    Names(Vec<String>),
    /// Every linear map except the output embedding.
    AllLinear,
    /// A regular expression over the whole path.
    Pattern(Pattern),
}

impl Targets {
    /// Targets every layer's modules of these names.
    pub(crate) fn of(projections: &[Projection]) -> Self {
        let names = projections.iter().map(|name| name.peft_name().to_owned());
        Self(Selection::Names(sorted(names.collect())))
    }

    /// Reads a list of names or a string; `None` when the field is null or empty.
    pub(crate) fn parse(field: &'static str, value: &Json) -> Result<Option<Self>, AdapterError> {
        if matches!(value, Json::Null) || value == &Json::Array(Vec::new()) {
            return Ok(None);
        }
        let invalid = || AdapterError::InvalidField {
            field: field.to_owned(),
            expected: "a list of at most 4096 module names, \"all-linear\", or a regular expression",
            got: value.shown(),
        };
        let selection = match value {
            Json::String(text) if text.is_empty() => return Err(invalid()),
            Json::String(text)
                if field == "target_modules" && text.eq_ignore_ascii_case("all-linear") =>
            {
                Selection::AllLinear
            }
            Json::String(text) => Selection::Pattern(Pattern::whole(field, text)?),
            Json::Array(items) if items.len() <= MAX_NAMES => {
                let names = items.iter().map(|item| match item {
                    Json::String(name) if !name.is_empty() => Ok(name.clone()),
                    _ => Err(invalid()),
                });
                Selection::Names(sorted(names.collect::<Result<_, _>>()?))
            }
            _ => return Err(invalid()),
        };
        Ok(Some(Self(selection)))
    }

    /// Whether the module at `path` is selected.
    pub fn matches(&self, path: &str) -> bool {
        match &self.0 {
            Selection::Names(names) => names.iter().any(|name| name_matches(name, path)),
            Selection::AllLinear => path != "lm_head" && path != "model.embed_tokens",
            Selection::Pattern(pattern) => pattern.matches(path),
        }
    }

    pub(crate) fn to_json(&self) -> Json {
        match &self.0 {
            Selection::Names(names) => {
                Json::Array(names.iter().cloned().map(Json::String).collect())
            }
            Selection::AllLinear => Json::String("all-linear".to_owned()),
            Selection::Pattern(pattern) => Json::String(pattern.source().to_owned()),
        }
    }
}

/// The modules that `config` changes in `base`: the layer and the index into [`ModuleKind::all`], sorted.
///
/// # Errors
/// [`AdapterError::UnknownTarget`] for a name, pattern or module that cannot be adapted here, and
/// when exclusions leave nothing.
pub(crate) fn resolve(
    config: &LoraConfig,
    base: &BaseModel,
) -> Result<Vec<(usize, usize)>, AdapterError> {
    let kinds = ModuleKind::all(base);
    let unknown = |target: &str| AdapterError::UnknownTarget {
        target: shorten(target),
        modules: ModuleKind::list(kinds),
        layers: base.layers,
    };
    let of_layer = |layer| {
        let kinds = kinds.iter().enumerate();
        kinds.map(move |(index, kind)| (layer, index, kind.path(layer)))
    };
    let all: Vec<(usize, usize, String)> = (0..base.layers).flat_map(of_layer).collect();
    if let Some(path) = OTHER_MODULES.iter().find(|path| config.is_target(path)) {
        return Err(unknown(path));
    }
    let unmatched = match &config.targets().0 {
        Selection::Names(names) => names
            .iter()
            .find(|name| !all.iter().any(|(_, _, path)| name_matches(name, path)))
            .map(String::as_str),
        Selection::Pattern(pattern) => all
            .iter()
            .all(|(_, _, path)| !pattern.matches(path))
            .then(|| pattern.source()),
        Selection::AllLinear => None,
    };
    if let Some(target) = unmatched {
        return Err(unknown(target));
    }
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|(_, _, path)| config.is_target(path))
        .map(|(layer, kind, _)| (layer, kind))
        .collect();
    if chosen.is_empty() {
        return Err(AdapterError::InvalidField {
            field: "exclude_modules".to_owned(),
            expected: "to leave at least one target module",
            got: "a selection that covers all of them".to_owned(),
        });
    }
    Ok(chosen)
}

fn name_matches(name: &str, path: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn resolved(fields: &str) -> Result<Vec<String>, AdapterError> {
        let text = format!(r#"{{"peft_type":"LORA","r":2,"lora_alpha":3,{fields}}}"#);
        let config = LoraConfig::parse(text.as_bytes())?;
        let base = fixture::base();
        let kinds = ModuleKind::all(&base);
        let modules = resolve(&config, &base)?.into_iter();
        Ok(modules
            .map(|(layer, kind)| kinds[kind].path(layer))
            .collect())
    }

    #[test]
    fn names_select_every_layer_and_paths_select_one() {
        assert_eq!(
            resolved(r#""target_modules":["v_proj","0.self_attn.q_proj"]"#).expect("valid"),
            [
                "model.layers.0.self_attn.q_proj",
                "model.layers.0.self_attn.v_proj",
                "model.layers.1.self_attn.v_proj",
            ]
        );
    }

    #[test]
    fn all_linear_and_patterns_and_exclusions() {
        let all = resolved(r#""target_modules":"All-Linear""#).expect("valid");
        assert_eq!(all.len(), 14);
        assert_eq!(
            resolved(r#""target_modules":".*\\.1\\..*","exclude_modules":["mlp.up_proj","self_attn.k_proj"]"#)
                .expect("valid"),
            [
                "model.layers.1.self_attn.q_proj",
                "model.layers.1.self_attn.v_proj",
                "model.layers.1.self_attn.o_proj",
                "model.layers.1.mlp.gate_proj",
                "model.layers.1.mlp.down_proj",
            ]
        );
        let some = resolved(r#""target_modules":"all-linear","exclude_modules":".*(q|k|v)_proj""#);
        assert_eq!(some.expect("valid").len(), 8);
    }

    #[test]
    fn what_cannot_be_adapted_is_named() {
        let refuse = |fields: &str| resolved(fields).expect_err("must be refused").to_string();
        insta::assert_snapshot!(refuse(r#""target_modules":["q_proj","c_attn"]"#), @r#"adapter_config.json: target module "c_attn" matches nothing that can be adapted; the modules are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj of 2 layers"#);
        assert!(refuse(r#""target_modules":["lm_head"]"#).contains("\"lm_head\""));
        assert!(refuse(r#""target_modules":["proj"]"#).contains("\"proj\""));
        assert!(refuse(r#""target_modules":["layers.2.mlp.up_proj"]"#).contains("2 layers"));
        assert!(
            refuse(r#""target_modules":".*embed_tokens|.*q_proj""#).contains("model.embed_tokens")
        );
        assert!(refuse(r#""target_modules":"h\\..*""#).contains("h\\\\..*"));
        assert!(
            refuse(r#""target_modules":["q_proj"],"exclude_modules":["q_proj"]"#)
                .contains("exclude_modules")
        );
        assert!(refuse(r#""target_modules":[3]"#).contains("target_modules is [3]"));
        assert!(refuse(r#""target_modules":"""#).contains("target_modules"));
    }
}
