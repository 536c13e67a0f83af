//! Spellings of keys, and files that are none.

use super::*;
use crate::fixture;
use proptest::prelude::*;

fn nothing(base: &BaseModel) -> Calls<'_> {
    Calls {
        wanted: &[],
        base,
        made_for: "",
    }
}

#[test]
fn keys_are_read_in_every_spelling() {
    let base = fixture::base();
    let kinds = ModuleKind::all(&base);
    let slot = Some((1, Projection::Up.index(), Half::B));
    assert_eq!(
        peft_key(1, Projection::Up, Half::B),
        "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    );
    for name in [
        "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight",
        "model.layers.1.mlp.up_proj.lora_B.weight",
        "base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight",
    ] {
        assert_eq!(parse_key(name, kinds), slot, "{name}");
    }
    for name in [
        "model.layers.01.mlp.up_proj.lora_B.weight",
        "model.layers.+1.mlp.up_proj.lora_B.weight",
        "model.layers.1.self_attn.up_proj.lora_B.weight",
        "model.layers.1.mlp.up_proj.lora_B.bias",
        "model.layers.1.mlp.up_proj.lora_B.weight.weight",
        "model.layers.1.mlp.up_proj.lora_B.other.weight",
        "model.layers.1.mlp.up_proj.lora_magnitude_vector",
        "model.layers.99999999999999999999.mlp.up_proj.lora_B.weight",
        "model.layers.1.mlp.up_proj.weight",
    ] {
        assert_eq!(parse_key(name, kinds), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let base = fixture::base();
        prop_assert!(read(&bytes, &nothing(&base)).is_err() || bytes.len() >= 8);
    }

    #[test]
    fn any_header_is_read_or_refused(header in r#"\{("[a-z]":\{"dtype":"(F32|F16|I64)","shape":\[[0-9]{0,20}(,[0-9])?\],"data_offsets":\[[0-9]{1,3},[0-9]{1,20}\]\},?){0,2}\}"#) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([7; 16]);
        let base = fixture::base();
        let _ = read(&bytes, &nothing(&base));
        let _ = Header::read(&bytes).map(|header| header.map(|header| header.check(&nothing(&base))));
    }

    #[test]
    fn a_damaged_byte_never_panics(position in any::<proptest::sample::Index>(), value in any::<u8>()) {
        let mut files = fixture::files();
        let index = position.index(files.weights.len());
        files.weights[index] = value;
        let _ = crate::Adapter::parse(&files, &fixture::base(), &fixture::LIMITS);
    }

    #[test]
    fn any_key_is_read_or_refused(name in "\\PC{0,60}") {
        prop_assert_eq!(parse_key(&name, ModuleKind::all(&fixture::base())), None);
    }
}
