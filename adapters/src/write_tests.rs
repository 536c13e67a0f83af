use super::*;
use crate::{Adapter, Method, fixture};

fn manifest() -> Manifest {
    Manifest {
        task: Some("sentiment".to_owned()),
        method: Method::Ft,
        base_digest: Some("ab".repeat(32)),
        ..Manifest::default()
    }
}

fn write(dir: &Path, modules: &[LoraModule]) -> Result<Version, AdapterError> {
    write_adapter(
        dir,
        &fixture::config(),
        modules,
        &manifest(),
        Precision::F32,
    )
}

#[test]
fn half_precision_keeps_eleven_bits_and_refuses_what_does_not_fit() {
    let top = tempfile::tempdir().expect("temporary folder");
    let dir = top.path().join("adapter");
    let mut modules = fixture::modules();
    modules[0].a[0] = 1.0 / 3.0;
    let (config, precision) = (fixture::config(), Precision::F16);
    write_adapter(&dir, &config, &modules, &manifest(), precision).expect("consistent");
    let files = AdapterFiles::read(&dir, &fixture::LIMITS).expect("just written");
    let adapter = Adapter::parse(&files, &fixture::base(), &fixture::LIMITS).expect("valid");
    assert_eq!(adapter.modules[0].a[0], 0.333_251_95);
    modules[1].b[3] = 70_000.0;
    let error = write_adapter(&dir, &config, &modules, &manifest(), precision).err();
    let message = error.expect("70,000 does not fit f16").to_string();
    assert!(message.contains("B holds 70000 at index 3"), "{message}");
}

#[test]
fn what_is_written_is_read_back_with_the_same_version() {
    let top = tempfile::tempdir().expect("temporary folder");
    let dir = top.path().join("new/adapter");
    let version = write(&dir, &fixture::modules()).expect("consistent");
    let files = AdapterFiles::read(&dir, &fixture::LIMITS).expect("just written");
    let adapter = Adapter::parse(&files, &fixture::base(), &fixture::LIMITS).expect("valid");
    assert_eq!(adapter.version, version);
    assert_eq!(adapter.modules, fixture::modules());
    assert_eq!(adapter.config, fixture::config());
    assert_eq!(adapter.manifest, manifest());
    let left: Vec<_> = fs_err::read_dir(top.path().join("new"))
        .expect("exists")
        .collect();
    assert_eq!(left.len(), 1, "nothing is left aside");
}

#[test]
fn rewriting_keeps_other_files_and_replaces_its_own() {
    let top = tempfile::tempdir().expect("temporary folder");
    let dir = top.path().join("adapter");
    fs_err::create_dir(&dir).expect("writable");
    fs_err::write(dir.join("README.md"), "card").expect("writable");
    let first = write(&dir, &fixture::modules()).expect("consistent");
    let mut modules = fixture::modules();
    modules[1].b[3] = 7.5;
    let second = write(&dir, &modules).expect("consistent");
    assert_ne!(first, second);
    let files = AdapterFiles::read(&dir, &fixture::LIMITS).expect("just written");
    assert_eq!(files.version().expect("valid"), second);
    assert_eq!(
        fs_err::read_to_string(dir.join("README.md")).expect("kept"),
        "card"
    );
}

#[test]
fn the_configuration_is_one_that_peft_reads() {
    let files = fixture::files();
    insta::assert_snapshot!(String::from_utf8(files.config).expect("text"), @r#"
    {
      "alpha_pattern": {},
      "auto_mapping": null,
      "base_model_name_or_path": "two-layers",
      "bias": "none",
      "exclude_modules": null,
      "fan_in_fan_out": false,
      "inference_mode": true,
      "init_lora_weights": true,
      "layer_replication": null,
      "layers_pattern": null,
      "layers_to_transform": null,
      "lora_alpha": 3,
      "lora_bias": false,
      "lora_dropout": 0.05,
      "modules_to_save": null,
      "peft_type": "LORA",
      "r": 2,
      "rank_pattern": {},
      "revision": null,
      "target_modules": [
        "down_proj",
        "v_proj"
      ],
      "task_type": "CAUSAL_LM",
      "use_dora": false,
      "use_rslora": false
    }
    "#);
    let tensors = safetensors::SafeTensors::deserialize(&files.weights).expect("valid");
    let tensor = tensors
        .tensor("base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight")
        .expect("PEFT's name");
    assert_eq!(tensor.shape(), [2, 2]);
    assert_eq!(tensor.data()[..4], 0.375_f32.to_le_bytes());
}

#[test]
fn modules_that_disagree_with_the_configuration_are_refused() {
    let refuse = |change: fn(&mut Vec<LoraModule>)| {
        let mut modules = fixture::modules();
        change(&mut modules);
        to_files(
            &fixture::config(),
            &modules,
            &Manifest::default(),
            Precision::F32,
        )
        .expect_err("must be refused")
        .to_string()
    };
    insta::assert_snapshot!(refuse(|modules| modules[0].scale = 1.0), @"module model.layers.0.self_attn.v_proj cannot be written: its scale is 1, configured is 1.5");
    insta::assert_snapshot!(refuse(|modules| modules[1].b[2] = f32::NAN), @"module model.layers.0.mlp.down_proj cannot be written: B holds NaN at index 2");
    assert!(refuse(|modules| modules[2].rank = 3).contains("its rank is 3"));
    assert!(refuse(|modules| modules[2].a.truncate(7)).contains("A has 7 values"));
    assert!(refuse(|modules| drop(modules.remove(0))).contains("given 0 times"));
    assert!(refuse(|modules| modules.push(modules[0].clone())).contains("given 2 times"));
    assert!(refuse(|modules| modules[0].projection = Projection::Key).contains("k_proj"));
    assert!(refuse(Vec::clear).contains("given 0 times"));
}

#[test]
fn a_manifest_is_replaced_alone() {
    let top = tempfile::tempdir().expect("temporary folder");
    let dir = top.path().join("adapter");
    let first = write(&dir, &fixture::modules()).expect("consistent");
    let changed = Manifest {
        prompt: 1,
        ..manifest()
    };
    write_manifest(&dir, &changed).expect("writable");
    let files = AdapterFiles::read(&dir, &fixture::LIMITS).expect("complete");
    let adapter = Adapter::parse(&files, &fixture::base(), &fixture::LIMITS).expect("valid");
    assert_eq!(adapter.manifest, changed);
    assert_ne!(adapter.version, first);
    write_manifest(&dir, &manifest()).expect("writable");
    let files = AdapterFiles::read(&dir, &fixture::LIMITS).expect("complete");
    assert_eq!(files.version().expect("valid"), first);
    let left = fs_err::read_dir(&dir).expect("exists").count();
    assert_eq!(left, 3, "nothing is left aside");
}
