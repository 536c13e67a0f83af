//! `adapter_config.json` by itself: its fields, its patterns, and which modules of a large base they reach.
#![no_main]

use adapters::LoraConfig;
use libfuzzer_sys::fuzz_target;

const MODULES: [&str; 4] = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.79.mlp.down_proj",
    "model.layers.11.self_attn.qkv_proj",
    "lm_head",
];

fuzz_target!(|data: &[u8]| {
    match LoraConfig::parse(data) {
        Err(error) => assert!(error.to_string().len() < 4096, "{error}"),
        Ok(config) => {
            for module in MODULES {
                let _ = config.is_target(module);
                assert!(config.rank_for(module) >= 1);
                let _ = config.scale_for(module);
            }
        }
    }
});
