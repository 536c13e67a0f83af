use proptest::prelude::*;

use super::*;

fn parse(fields: &str) -> Result<LoraConfig, AdapterError> {
    let text = format!(
        r#"{{"peft_type":"LORA","r":2,"lora_alpha":3,"target_modules":["q_proj"]{fields}}}"#
    );
    LoraConfig::parse(text.as_bytes())
}

fn refuse(fields: &str) -> String {
    parse(fields).expect_err("must be refused").to_string()
}

#[test]
fn the_scale_is_alpha_over_rank_or_over_its_root() {
    let config = LoraConfig::new("b", 4, 6.0, vec![Projection::Query], 0.0);
    let module = "model.layers.0.self_attn.q_proj";
    assert_eq!(config.scale_for(module), 1.5);
    assert_eq!(config.with_rslora(true).scale_for(module), 3.0);
}

#[test]
fn the_first_pattern_that_matches_wins_and_the_rest_falls_back() {
    let config = parse(
        r#","rank_pattern":{"q_proj":16,"1.self_attn.q_proj":32},"alpha_pattern":{"layers\\.[01]\\..*":8}"#,
    )
    .expect("valid");
    let ranks = [
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.k_proj",
    ]
    .map(|module| config.rank_for(module));
    assert_eq!(ranks, [16, 2]);
    assert_eq!(config.alpha_for("model.layers.1.mlp.up_proj"), 8.0);
    assert_eq!(config.alpha_for("model.layers.2.mlp.up_proj"), 3.0);
    assert_eq!(config.scale_for("model.layers.1.self_attn.q_proj"), 0.5);
}

#[test]
fn what_is_written_is_read_back() {
    let config = parse(
        r#","rank_pattern":{"q_proj":16,"1.q_proj":32},"alpha_pattern":{"k":2.5},"exclude_modules":".*2.*","use_rslora":true,"lora_dropout":0.1,"base_model_name_or_path":"b""#,
    )
    .expect("valid");
    assert_eq!(
        LoraConfig::parse(&config.to_file()).expect("own output"),
        config
    );
}

#[test]
fn inactive_features_do_not_matter() {
    parse(
        r#","alora_invocation_tokens":null,"alpha_pattern":{},"arrow_config":null,"auto_mapping":null,"bias":"none",
        "ensure_weight_tying":false,"fan_in_fan_out":false,"inference_mode":true,"init_lora_weights":true,
        "layer_replication":null,"layers_to_transform":null,"loftq_config":{},"lora_bias":false,"megatron_core":"megatron.core",
        "modules_to_save":[],"peft_version":"0.21.2","qalora_group_size":16,"rank_pattern":null,"target_parameters":null,
        "task_type":"CAUSAL_LM","use_dora":false,"use_qalora":false,"added_in_some_later_version":null"#,
    )
    .expect("nothing here is active");
    parse(r#","init_lora_weights":"gaussian","task_type":null"#).expect("plain weights");
}

#[test]
fn every_active_feature_is_refused_by_name() {
    for field in [
        r#""use_dora":true"#,
        r#""bias":"lora_only""#,
        r#""modules_to_save":["lm_head"]"#,
        r#""fan_in_fan_out":true"#,
        r#""layer_replication":[[0,4],[2,5]]"#,
        r#""layers_to_transform":0"#,
        r#""layers_to_transform":[1]"#,
        r#""target_parameters":["mlp.experts"]"#,
        r#""trainable_token_indices":[3]"#,
        r#""use_qalora":true"#,
        r#""lora_bias":true"#,
        r#""megatron_config":{"a":1}"#,
        r#""alora_invocation_tokens":[1]"#,
        r#""arrow_config":{"top_k":2}"#,
        r#""kasa_config":{"a":1}"#,
        r#""monteclora_config":{"a":1}"#,
        r#""velora_config":{"a":1}"#,
        r#""use_bdlora":{"nblocks":2}"#,
        r#""loftq_config":{"loftq_bits":4}"#,
        r#""init_lora_weights":"pissa_niter_4""#,
        r#""task_type":"SEQ_CLS""#,
        r#""added_in_some_later_version":1"#,
    ] {
        let error = parse(&format!(",{field}")).expect_err(field);
        let name = field.split('"').nth(1).expect("quoted");
        assert_eq!(error.code(), "unsupported_adapter", "{field}");
        assert!(error.to_string().contains(name), "{error}");
    }
    insta::assert_snapshot!(refuse(r#","use_dora":true"#), @"adapter_config.json: use_dora = true is not supported; only plain LoRA with rsLoRA, rank_pattern and alpha_pattern is served");
}

#[test]
fn wrong_values_say_what_would_be_right() {
    insta::assert_snapshot!(refuse(r#","rank_pattern":{"q_proj":0}"#), @r#"adapter_config.json: rank_pattern["q_proj"] is 0, expected a whole number from 1 to 65536"#);
    insta::assert_snapshot!(refuse(r#","use_rslora":1"#), @"adapter_config.json: use_rslora is 1, expected true or false");
    assert!(refuse(r#","lora_dropout":1.5"#).contains("a probability"));
    assert!(refuse(r#","alpha_pattern":[1]"#).contains("alpha_pattern is [1]"));
    assert!(refuse(r#","r":4"#).contains("\"r\" comes twice"));
    let refuse = |text: &str| {
        LoraConfig::parse(text.as_bytes())
            .expect_err("must be refused")
            .to_string()
    };
    insta::assert_snapshot!(refuse(r#"{"peft_type":"LORA","lora_alpha":3,"target_modules":["q_proj"]}"#), @"adapter_config.json: r is missing, expected a whole number from 1 to 65536");
    insta::assert_snapshot!(refuse(r#"{"peft_type":"IA3"}"#), @r#"adapter_config.json: peft_type = "IA3" is not supported; only LORA adapters are served"#);
    assert!(refuse("{}").contains("peft_type is missing"));
    assert!(
        refuse(r#"{"peft_type":"LORA","r":2,"lora_alpha":3,"target_modules":null}"#)
            .contains("target_modules is missing")
    );
    assert!(refuse(r#"{"lora_alpha":NaN}"#).contains("adapter_config.json"));
    assert!(refuse("[1]").contains("it is [1]"));
}

proptest! {
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = LoraConfig::parse(&bytes);
    }

    #[test]
    fn any_pattern_parses_or_is_refused(pattern in "\\PC{0,20}|[a-z.*+?()|\\[\\]{}0-9^$]{0,20}") {
        let key = serde_json::to_string(&pattern).expect("a string");
        if let Ok(config) = parse(&format!(r#","rank_pattern":{{{key}:5}}"#)) {
            prop_assert!([2, 5].contains(&config.rank_for("model.layers.0.self_attn.q_proj")));
        }
    }
}
