//! The linear modules of a base model as PEFT names them: one projection each, or several fused into one.

use crate::{BaseModel, Projection};

/// A module that stands once in every layer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModuleKind {
    /// The block of the layer that holds it.
    pub(crate) parent: &'static str,
    /// The last segment of its path.
    pub(crate) name: &'static str,
    /// What its output consists of, one below the other.
    pub(crate) projections: &'static [Projection],
}

const fn kind(
    parent: &'static str,
    name: &'static str,
    projections: &'static [Projection],
) -> ModuleKind {
    ModuleKind {
        parent,
        name,
        projections,
    }
}

/// Llama, Mistral, Qwen, Gemma: a module for each projection, in the order of [`Projection::ALL`].
static SEPARATE: [ModuleKind; 7] = [
    kind("self_attn", "q_proj", &[Projection::Query]),
    kind("self_attn", "k_proj", &[Projection::Key]),
    kind("self_attn", "v_proj", &[Projection::Value]),
    kind("self_attn", "o_proj", &[Projection::Output]),
    kind("mlp", "gate_proj", &[Projection::Gate]),
    kind("mlp", "up_proj", &[Projection::Up]),
    kind("mlp", "down_proj", &[Projection::Down]),
];

/// Phi-3: what shares an input is one module.
static FUSED: [ModuleKind; 4] = [
    kind(
        "self_attn",
        "qkv_proj",
        &[Projection::Query, Projection::Key, Projection::Value],
    ),
    kind("self_attn", "o_proj", &[Projection::Output]),
    kind("mlp", "gate_up_proj", &[Projection::Gate, Projection::Up]),
    kind("mlp", "down_proj", &[Projection::Down]),
];

impl ModuleKind {
    /// The modules of every layer of `base`, in the order of the forward pass.
    pub(crate) fn all(base: &BaseModel) -> &'static [Self] {
        if base.fused { &FUSED } else { &SEPARATE }
    }

    /// The full path of the module inside the base model, what PEFT matches targets and patterns against.
    pub(crate) fn path(&self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.{}", self.parent, self.name)
    }

    /// Length of the module's input.
    pub(crate) fn inputs(&self, base: &BaseModel) -> usize {
        base.shape(self.projections[0]).inputs
    }

    /// Length of the module's output.
    pub(crate) fn outputs(&self, base: &BaseModel) -> usize {
        let outputs = self.projections.iter().map(|one| base.shape(*one).outputs);
        outputs.sum()
    }

    /// The names of several modules as an enumeration, for errors.
    pub(crate) fn list(kinds: &[Self]) -> String {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        match names.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} and {last}", others.join(", "))
            }
            _ => names.concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn separate_modules_are_the_projections() {
        for (kind, projection) in SEPARATE.iter().zip(Projection::ALL) {
            assert_eq!(kind.projections, [projection]);
            assert_eq!(kind.path(3), projection.module_path(3));
        }
    }

    #[test]
    fn fused_modules_cover_every_projection_once_in_order() {
        let covered: Vec<Projection> = FUSED
            .iter()
            .flat_map(|kind| kind.projections)
            .copied()
            .collect();
        assert_eq!(covered, Projection::ALL);
        let base = BaseModel {
            fused: true,
            ..fixture::base()
        };
        let sizes = ModuleKind::all(&base).iter();
        let sizes: Vec<_> = sizes
            .map(|kind| (kind.inputs(&base), kind.outputs(&base)))
            .collect();
        assert_eq!(sizes, [(4, 8), (4, 4), (4, 12), (6, 4)]);
    }
}
