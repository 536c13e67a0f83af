//! The `config.json` and the weights' header of a Hugging Face directory, loaded as the server loads it.
#![no_main]

use engine::{Model, ModelDirectory};
use fuzz::models;
use libfuzzer_sys::fuzz_target;

// The first byte chooses; configuration, index, header and data follow, a zero byte between them. Without a header the good weights
// of an architecture stand there.
fuzz_target!(|data: &[u8]| {
    let (choices, rest) = fuzz::choice(data);
    let [config, index, header, values] = fuzz::parts(rest);
    let directories = models::directories();
    let good = &directories[usize::from(choices & 7) % directories.len()];
    let folder = if header.is_empty() {
        good.clone()
    } else {
        fuzz::scratch().join("hostile")
    };
    fs_err::create_dir_all(&folder).expect("a writable folder");
    fs_err::write(folder.join("config.json"), config).expect("a writable folder");
    let place = folder.join("model.safetensors.index.json");
    if index.is_empty() {
        let _ = fs_err::remove_file(&place);
    } else {
        fs_err::write(&place, index).expect("a writable folder");
    }
    if !header.is_empty() {
        let weights = fuzz::safetensors(header, values, choices & 8 == 0);
        fs_err::write(folder.join("model.safetensors"), weights).expect("a writable folder");
    }
    if let Ok(directory) = ModelDirectory::open(&folder) {
        let _ = directory.config();
        let _ = directory.digest();
    }
    if let Err(error) = Model::load(&folder, &models::load_options()) {
        assert!(!error.to_string().is_empty());
    }
});
