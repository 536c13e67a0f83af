use std::collections::HashMap;

use super::choice::Problem;
use super::*;

#[test]
fn names_of_the_hub_are_told_from_paths() {
    let parsed = |text: &str| {
        let model = HubModel::parse(text)?;
        assert_eq!(model.to_string(), text.replace("@main", ""));
        Some((model.repository, model.revision, model.file))
    };
    let expected = |repository: &str, revision: &str, file: Option<&str>| {
        Some((repository.into(), revision.into(), file.map(str::to_owned)))
    };
    assert_eq!(parsed("org/a.b-1"), expected("org/a.b-1", "main", None));
    assert_eq!(parsed("org/a@v1"), expected("org/a", "v1", None));
    assert_eq!(
        parsed("org/a@main:q/x.gguf"),
        expected("org/a", "main", Some("q/x.gguf"))
    );
    for path in [
        "model.gguf",
        "models/tiny.gguf",
        "./org",
        "../a",
        "/org/a",
        "a/b/c",
        "org/",
        "org/a b",
        "org/a@../x",
        "org/a:../x.gguf",
        "org/a:",
        "-o/a",
    ] {
        assert_eq!(parsed(path), None, "{path}");
    }
}

#[test]
fn what_is_there_under_a_path_is_not_looked_for_elsewhere() {
    assert_eq!(named(Path::new("src/hub")), None);
    assert!(named(Path::new("src/nothing-here")).is_some());
}

#[test]
fn the_environment_is_read_as_hugging_face_reads_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let settings = |variables: &[(&str, &str)]| {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(|&value| value.to_owned());
        HubSettings::from_variables(variable, home.path())
    };
    let plain = settings(&[("HF_TOKEN", ""), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!(plain.cache, home.path().join(".cache/huggingface/hub"));
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!((plain.token, plain.offline), (None, false));

    let token = home.path().join("elsewhere/token");
    fs_err::create_dir(home.path().join("elsewhere")).expect("a writable folder");
    fs_err::write(&token, "kept\n").expect("a writable folder");
    let elsewhere = home.path().join("elsewhere");
    let elsewhere = elsewhere.to_str().expect("a path in UTF-8");
    let moved = settings(&[
        ("HF_HOME", elsewhere),
        ("HF_ENDPOINT", "http://mirror/"),
        ("HF_HUB_OFFLINE", "1"),
    ]);
    assert_eq!(moved.cache, home.path().join("elsewhere/hub"));
    assert_eq!(moved.endpoint, "http://mirror");
    assert_eq!(
        (moved.token.as_deref(), moved.offline),
        (Some("kept"), true)
    );

    let named = settings(&[
        ("HF_HOME", elsewhere),
        ("HF_HUB_CACHE", "/cache"),
        ("HF_TOKEN", "given"),
    ]);
    assert_eq!(named.cache, Path::new("/cache"));
    assert_eq!(named.token.as_deref(), Some("given"));
}

#[test]
fn a_directory_comes_before_gguf_files_and_q4_k_m_before_others() {
    let choose = |files: &[&str], wanted: Option<&str>| {
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        choose(&files, wanted).map(|choice| choice.files().to_vec())
    };
    let directory = [
        "README.md",
        "model.safetensors",
        "pytorch_model.bin",
        "tokenizer.json",
        "config.json",
        "a-Q4_K_M.gguf",
        "tokenizer_config.json",
    ];
    let expected = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ];
    assert_eq!(choose(&directory, None).expect("a choice"), expected);
    let one = |file: &str| Ok(vec![file.to_owned()]);
    assert_eq!(
        choose(&directory, Some("a-Q4_K_M.gguf")),
        one("a-Q4_K_M.gguf")
    );
    let several = [
        "a.Q8_0.gguf",
        "a.q4_k_m.gguf",
        "mmproj.gguf",
        "b-00001-of-00002.gguf",
    ];
    assert_eq!(choose(&several, None), one("a.q4_k_m.gguf"));
    assert_eq!(choose(&several[..1], None), one("a.Q8_0.gguf"));
    assert_eq!(
        choose(&["a.f16.gguf", "a.Q8_0.gguf"], None),
        Err(Problem::Several)
    );
    assert_eq!(choose(&directory[..3], None), Err(Problem::Nothing));
    assert_eq!(
        choose(&several, Some("c.gguf")),
        Err(Problem::Absent("c.gguf".into()))
    );
}
