use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::*;
use crate::fixture::{self, LIMITS};
use crate::{ProjectionShape, Summary};

/// Name, type, shape and bytes of a tensor.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

const VALUE_A: &str = "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight";
const DOWN_B: &str = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight";

/// The fixture with its tensors changed.
fn with_tensors(change: impl FnOnce(&mut Vec<Tensor>)) -> AdapterFiles {
    let mut files = fixture::files();
    let mut tensors: Vec<Tensor> = SafeTensors::deserialize(&files.weights)
        .expect("the fixture is valid")
        .iter()
        .map(|(name, view)| {
            let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), view.dtype(), shape, data)
        })
        .collect();
    tensors.sort_by(|left, right| left.0.cmp(&right.0));
    change(&mut tensors);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data).expect("consistent");
        (name.as_str(), view)
    });
    files.weights = safetensors::serialize(views, None::<HashMap<String, String>>).expect("small");
    files
}

fn named<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors
        .iter_mut()
        .find(|tensor| tensor.0 == name)
        .expect("a tensor of the fixture")
}

fn with_config(fields: &str) -> AdapterFiles {
    let config = format!(
        r#"{{"peft_type":"LORA","r":2,"lora_alpha":3,"target_modules":["v_proj","down_proj"]{fields}}}"#
    );
    AdapterFiles {
        config: config.into_bytes(),
        ..fixture::files()
    }
}

fn parse(files: &AdapterFiles) -> Result<Adapter, AdapterError> {
    Adapter::parse(files, &fixture::base(), &LIMITS)
}

fn refuse(files: &AdapterFiles) -> String {
    parse(files).expect_err("must be refused").to_string()
}

#[test]
fn values_land_in_their_modules() {
    let adapter = parse(&fixture::files()).expect("valid");
    assert_eq!(adapter.modules, fixture::modules());
    assert_eq!(
        adapter.modules[0].a,
        [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    );
    assert_eq!(adapter.modules[0].b, [-0.125, -0.25, -0.375, -0.5]);
    assert_eq!((adapter.tensors_matched, adapter.max_rank()), (8, 2));
    let summary = Summary::of(&adapter, 1_700_000_000);
    assert_eq!(summary.target_modules, ["down_proj", "v_proj"]);
    assert_eq!((summary.rank, summary.alpha), (2, 3.0));
    assert_eq!(summary.base_model, "two-layers");
}

#[test]
fn a_fused_module_changes_each_of_its_projections() {
    let base = BaseModel {
        layers: 1,
        fused: true,
        ..fixture::base()
    };
    let floats = |count: u8| (0..count).map(f32::from);
    let bytes = |count| floats(count).flat_map(f32::to_le_bytes).collect();
    let name =
        |half| format!("base_model.model.model.layers.0.mlp.gate_up_proj.lora_{half}.weight");
    let mut files = with_tensors(|tensors| {
        *tensors = vec![
            (name("A"), Dtype::F32, vec![2, 4], bytes(8)),
            (name("B"), Dtype::F32, vec![12, 2], bytes(24)),
        ];
    });
    let config = |target| {
        format!(r#"{{"peft_type":"LORA","r":2,"lora_alpha":3,"target_modules":["{target}"]}}"#)
    };
    files.config = config("gate_up_proj").into_bytes();
    let adapter = Adapter::parse(&files, &base, &LIMITS).expect("it fits");
    assert_eq!(adapter.tensors_matched, 2);
    let [gate, up] = &adapter.modules[..] else {
        panic!("two projections, not {}", adapter.modules.len());
    };
    let projections = [gate.projection, up.projection];
    assert_eq!(projections, [Projection::Gate, Projection::Up]);
    assert_eq!((gate.scale, up.scale), (1.5, 1.5));
    assert_eq!(gate.a, floats(8).collect::<Vec<_>>());
    assert_eq!(up.a, gate.a);
    assert_eq!(
        [&gate.b[..], &up.b].concat(),
        floats(24).collect::<Vec<_>>()
    );
    assert_eq!(gate.b.len(), 12);

    files.config = config("up_proj").into_bytes();
    let refusal = Adapter::parse(&files, &base, &LIMITS).expect_err("no module is called so");
    insta::assert_snapshot!(refusal, @r#"adapter_config.json: target module "up_proj" matches nothing that can be adapted; the modules are qkv_proj, o_proj, gate_up_proj and down_proj of 1 layers"#);
}

#[test]
fn half_precision_and_other_spellings_give_the_same_values() {
    let convert = |bytes: &[u8], to: fn(f32) -> [u8; 2]| -> Vec<u8> {
        let (values, _) = bytes.as_chunks::<4>();
        let values = values.iter().map(|value| f32::from_le_bytes(*value));
        values.flat_map(to).collect()
    };
    for (dtype, to) in [
        (
            Dtype::F16,
            (|value| f16::from_f32(value).to_le_bytes()) as fn(f32) -> [u8; 2],
        ),
        (Dtype::BF16, |value| bf16::from_f32(value).to_le_bytes()),
    ] {
        let files = with_tensors(|tensors| {
            for tensor in tensors {
                tensor.0 = tensor.0.replace("base_model.model.", "");
                tensor.0 = tensor.0.replace(".weight", ".default.weight");
                tensor.1 = dtype;
                tensor.3 = convert(&tensor.3, to);
            }
        });
        assert_eq!(parse(&files).expect("valid").modules, fixture::modules());
    }
}

#[test]
fn patterns_change_rank_and_scale_of_their_modules() {
    let config = r#","rank_pattern":{"1.self_attn.v_proj":1,"v_proj":2},"alpha_pattern":{"mlp.down_proj":8.5},"use_rslora":true"#;
    let mut files = with_tensors(|tensors| {
        for (half, shape, values) in [("A", vec![1, 4], 4), ("B", vec![2, 1], 2)] {
            let name =
                format!("base_model.model.model.layers.1.self_attn.v_proj.lora_{half}.weight");
            let tensor = named(tensors, &name);
            tensor.2 = shape;
            tensor.3.truncate(4 * values);
        }
    });
    files.config = with_config(config).config;
    let adapter = parse(&files).expect("valid");
    let ranks: Vec<_> = adapter
        .modules
        .iter()
        .map(|module| (module.rank, module.scale))
        .collect();
    let root = 2.0_f64.sqrt();
    let (value, down) = ((3.0 / root) as f32, (8.5 / root) as f32);
    assert_eq!(ranks, [(2, value), (2, down), (1, 3.0), (2, down)]);
}

#[test]
fn tensors_must_be_exactly_those_called_for() {
    let unmatched = refuse(&with_config(r#","exclude_modules":["1.mlp.down_proj"]"#));
    insta::assert_snapshot!(unmatched, @"tensors that match no target module of the configuration (2): base_model.model.model.layers.1.mlp.down_proj.lora_A.weight, base_model.model.model.layers.1.mlp.down_proj.lora_B.weight");
    let missing = refuse(&with_tensors(|tensors| {
        tensors.retain(|tensor| tensor.0 != DOWN_B)
    }));
    insta::assert_snapshot!(missing, @"tensors that the configuration calls for and the file does not have (1): base_model.model.model.layers.1.mlp.down_proj.lora_B.weight");
    let extra = refuse(&with_tensors(|tensors| {
        tensors.push(("lm_head.weight".to_owned(), Dtype::F32, vec![1], vec![0; 4]));
    }));
    assert!(extra.contains("lm_head.weight"));
    let twice = refuse(&with_tensors(|tensors| {
        let mut copy = tensors[0].clone();
        copy.0 = copy.0.replace("base_model.model.", "");
        tensors.push(copy);
    }));
    assert!(twice.contains("are the same matrix"));
}

#[test]
fn shapes_types_and_values_are_checked_by_name() {
    let wrong_shape = refuse(&with_tensors(|tensors| {
        named(tensors, DOWN_B).2 = vec![2, 4]
    }));
    insta::assert_snapshot!(wrong_shape, @"tensor base_model.model.model.layers.1.mlp.down_proj.lora_B.weight has shape [2, 4], expected [4, 2]");
    let not_finite = refuse(&with_tensors(|tensors| {
        named(tensors, VALUE_A).3[20..24].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    }));
    insta::assert_snapshot!(not_finite, @"tensor base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight holds -inf at index 5, every value must be finite");
    let integers = refuse(&with_tensors(|tensors| {
        named(tensors, VALUE_A).1 = Dtype::I32
    }));
    insta::assert_snapshot!(integers, @"tensor base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight has type I32, expected F32, F16 or BF16");
    let nan = refuse(&with_tensors(|tensors| {
        let tensor = named(tensors, DOWN_B);
        tensor.1 = Dtype::F16;
        tensor.3 = f16::NAN.to_le_bytes().repeat(8);
    }));
    assert!(nan.contains("NaN at index 0"));
}

#[test]
fn limits_hold() {
    let limits = Limits {
        max_rank: 1,
        ..LIMITS
    };
    let error = Adapter::parse(&fixture::files(), &fixture::base(), &limits).unwrap_err();
    insta::assert_snapshot!(error, @"module model.layers.0.self_attn.v_proj has rank 2, the limit is 1");
    let limits = Limits {
        max_bytes: 100,
        ..LIMITS
    };
    let error = Adapter::parse(&fixture::files(), &fixture::base(), &limits).unwrap_err();
    assert_eq!(error.code(), "adapter_too_large");
    let huge = refuse(&with_config(r#","alpha_pattern":{"v_proj":1e300}"#));
    assert!(huge.contains("lora_alpha of model.layers.0.self_attn.v_proj"));
}

#[test]
fn damaged_weights_are_refused() {
    let damaged = |change: fn(&mut Vec<u8>)| {
        let mut files = fixture::files();
        change(&mut files.weights);
        let error = parse(&files).expect_err("must be refused");
        assert_eq!(error.code(), "corrupt_weights");
        error.to_string()
    };
    damaged(Vec::clear);
    damaged(|bytes| bytes.truncate(7));
    damaged(|bytes| bytes.truncate(100));
    damaged(|bytes| bytes.truncate(bytes.len() - 1));
    damaged(|bytes| bytes.push(0));
    damaged(|bytes| bytes[9] = b'{');
    damaged(|bytes| bytes[9] = 0xff);
    let hostile = damaged(|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    assert!(hostile.contains("its header claims 18446744073709551615 bytes"));
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let with_digest = |digest: &str| AdapterFiles {
        manifest: Some(format!(r#"{{"base_digest":"{digest}"}}"#).into_bytes()),
        ..fixture::files()
    };
    assert!(parse(&with_digest(&"ab".repeat(32))).is_ok());
    let error = parse(&with_digest(&"cd".repeat(32))).unwrap_err();
    assert_eq!(error.code(), "wrong_base");
    assert!(error.to_string().contains(&"cd".repeat(32)));
}

#[test]
fn a_domain_profile_of_another_width_is_refused() {
    let with_profile = |width: usize| {
        let row = |value: f32| vec![value; width];
        let manifest = crate::Manifest {
            domain: Some(crate::DomainProfile {
                examples: 2,
                mean: row(0.5),
                deviation: row(1.5),
                distances: vec![0.5, 1.0],
            }),
            ..crate::Manifest::default()
        };
        AdapterFiles {
            manifest: Some(serde_json::to_vec(&manifest).expect("plain data")),
            ..fixture::files()
        }
    };
    assert!(parse(&with_profile(4)).is_ok());
    let error = parse(&with_profile(5)).unwrap_err();
    assert_eq!(error.code(), "wrong_base");
    insta::assert_snapshot!(error, @"the adapter was made for the base model 'two-layers' and the one being served is 'two-layers': the domain profile of its manifest is 5 wide and this one's hidden states are 4");
}

#[test]
fn an_adapter_made_by_peft_is_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/parity/adapter0");
    if !dir.exists() {
        // Past the test harness, which keeps what passed tests print to itself.
        let (mut err, dir) = (std::io::stderr(), dir.display());
        let _ = writeln!(
            err,
            "skipped: an_adapter_made_by_peft_is_read: there is no {dir}"
        );
        return;
    }
    let shape = |inputs, outputs| ProjectionShape { inputs, outputs };
    let base = BaseModel {
        name: "SmolLM2-135M-Instruct".to_owned(),
        digest: String::new(),
        layers: 30,
        shapes: [
            shape(576, 576),
            shape(576, 192),
            shape(576, 192),
            shape(576, 576),
            shape(576, 1536),
            shape(576, 1536),
            shape(1536, 576),
        ],
        fused: false,
    };
    let limits = Limits {
        max_rank: 8,
        max_bytes: 10_000_000,
    };
    let files = AdapterFiles::read(&dir, &limits).expect("readable");
    let adapter = Adapter::parse(&files, &base, &limits).expect("valid");
    assert_eq!((adapter.tensors_matched, adapter.modules.len()), (420, 210));
    assert!(
        adapter
            .modules
            .iter()
            .all(|module| module.rank == 8 && module.scale == 2.0)
    );
    assert_eq!(adapter.config.rank(), 8);
    let norm: f32 = adapter.modules[0].a.iter().map(|value| value * value).sum();
    // A is drawn with variance 1/576, so the squares of its 8 rows sum to about 8.
    assert!((7.0..9.0).contains(&norm), "{norm}");
}
