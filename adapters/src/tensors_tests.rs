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

#[test]
fn a_header_whose_sizes_add_up_to_more_than_can_be_counted_is_refused() {
    let side = (1_u64 << 61) - 1;
    let tensors = (0..8).map(|index| {
        let (start, end) = (index * side, (index + 1) * side);
        format!(r#""{index}":{{"dtype":"U8","shape":[{side}],"data_offsets":[{start},{end}]}}"#)
    });
    let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let error = read(&bytes, &nothing(&fixture::base())).expect_err("2^64 bytes");
    assert!(
        error.to_string().contains("more bytes than can be counted"),
        "{error}"
    );
}

#[test]
fn a_file_that_ends_early_or_late_is_refused_with_both_sizes() {
    let whole = fixture::files().weights;
    let refuse = |bytes: &[u8]| {
        let error = read(bytes, &nothing(&fixture::base())).expect_err("not as its header says");
        error.to_string()
    };
    let claimed = format!("its header says {}", whole.len());
    let longer = [&whole[..], &[0]].concat();
    for bytes in [&whole[..whole.len() - 1], &longer] {
        let error = refuse(bytes);
        assert!(
            error.contains(&format!("it has {} bytes", bytes.len())),
            "{error}"
        );
        assert!(error.contains(&claimed), "{error}");
    }
    assert!(refuse(&whole[..20]).contains("within its header"));
    assert!(refuse(&whole[..5]).contains("within its header"));
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
