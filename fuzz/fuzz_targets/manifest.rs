//! `manifest.json`: what is read is written and read again as the same.
#![no_main]

use adapters::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::parse(data) else {
        return;
    };
    let written = serde_json::to_vec(&manifest).expect("plain data");
    let again = Manifest::parse(&written).expect("own output");
    assert_eq!(again, manifest);
    if let Some(domain) = &manifest.domain {
        let share = domain.in_domain(domain.distance(&domain.mean));
        assert!((0.0..=1.0).contains(&share), "{share}");
    }
});
