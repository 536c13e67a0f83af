//! The seven linear projections of a llama-like layer that an adapter may change.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the linear maps of a decoder layer. The order is the order of [`Projection::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Projection {
    /// Queries of the attention.
    #[serde(rename = "q_proj")]
    Query,
    /// Keys of the attention.
    #[serde(rename = "k_proj")]
    Key,
    /// Values of the attention.
    #[serde(rename = "v_proj")]
    Value,
    /// Output of the attention.
    #[serde(rename = "o_proj")]
    Output,
    /// Gate of the feed-forward block.
    #[serde(rename = "gate_proj")]
    Gate,
    /// Widening map of the feed-forward block.
    #[serde(rename = "up_proj")]
    Up,
    /// Narrowing map of the feed-forward block.
    #[serde(rename = "down_proj")]
    Down,
}

impl Projection {
    /// Every projection, attention first, in the order of the forward pass.
    pub const ALL: [Projection; 7] = [
        Projection::Query,
        Projection::Key,
        Projection::Value,
        Projection::Output,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// The last segment of the module's path in PEFT and transformers, such as `q_proj`.
    pub fn peft_name(self) -> &'static str {
        match self {
            Projection::Query => "q_proj",
            Projection::Key => "k_proj",
            Projection::Value => "v_proj",
            Projection::Output => "o_proj",
            Projection::Gate => "gate_proj",
            Projection::Up => "up_proj",
            Projection::Down => "down_proj",
        }
    }

    /// The inverse of [`Projection::peft_name`].
    pub fn from_peft_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|projection| projection.peft_name() == name)
    }

    /// The block of the layer that holds the projection: `self_attn` or `mlp`.
    pub fn parent(self) -> &'static str {
        match self {
            Projection::Query | Projection::Key | Projection::Value | Projection::Output => {
                "self_attn"
            }
            Projection::Gate | Projection::Up | Projection::Down => "mlp",
        }
    }

    /// The full path of the module inside the base model, such as `model.layers.3.mlp.up_proj`:
    /// what PEFT matches targets and patterns against.
    pub fn module_path(self, layer: usize) -> String {
        format!(
            "model.layers.{layer}.{}.{}",
            self.parent(),
            self.peft_name()
        )
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.peft_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_paths_are_those_of_transformers() {
        for (index, projection) in Projection::ALL.into_iter().enumerate() {
            assert_eq!(projection.index(), index);
            assert_eq!(
                Projection::from_peft_name(projection.peft_name()),
                Some(projection)
            );
        }
        assert_eq!(Projection::from_peft_name("lm_head"), None);
        assert_eq!(
            Projection::Output.module_path(3),
            "model.layers.3.self_attn.o_proj"
        );
        assert_eq!(
            Projection::Down.module_path(11),
            "model.layers.11.mlp.down_proj"
        );
    }
}
