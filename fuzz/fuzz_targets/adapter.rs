//! An adapter as it is uploaded: configuration, manifest and weights, checked against a base at once and piece by piece.
#![no_main]

use adapters::{Adapter, AdapterFiles, Arrival, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_rank: 4,
    max_bytes: 1 << 16,
};

// The first byte chooses; configuration, header, manifest and data follow, a zero byte between them.
fuzz_target!(|data: &[u8]| {
    let (choices, rest) = fuzz::choice(data);
    let [config, header, manifest, values] = fuzz::parts(rest);
    let base = fuzz::base(choices & 1 != 0);
    let files = AdapterFiles {
        config: config.to_vec(),
        weights: fuzz::safetensors(header, values, choices & 2 == 0),
        manifest: (!manifest.is_empty()).then(|| manifest.to_vec()),
    };
    let parsed = Adapter::parse(&files, &base, &LIMITS);
    let piece = 1 + usize::from(choices >> 2);
    let mut arrival = Arrival::new(Some(config), &LIMITS);
    let mut pieces = files.weights.chunks(piece);
    let arrived = pieces
        .try_for_each(|bytes| arrival.push(bytes, &base))
        .and_then(|()| arrival.finish(files.manifest.as_deref()));
    if let Ok(adapter) = parsed {
        let version = arrived.expect("what is accepted at once is accepted in pieces");
        let values = adapter
            .modules
            .iter()
            .flat_map(|module| module.a.iter().chain(&module.b));
        assert!(values.into_iter().all(|value| value.is_finite()));
        assert!(adapter.max_rank() <= LIMITS.max_rank);
        assert_eq!(version, Some(adapter.version));
    }
});
