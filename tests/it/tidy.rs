//! The rules of ARCHITECTURE.md and CONTRIBUTING.md that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const MOST_LINES: usize = 400;
const MOST_LINES_OF_A_FUNCTION: usize = 60;

/// Where `unsafe` may stand.
const UNSAFE: [&str; 1] = ["engine/src/kernels"];

/// Crates that forbid it; in the engine it is denied outside of the kernels.
const SAFE: [&str; 5] = ["adapters", "evaluation", "server", "tasks", "trainer"];

/// Which crates of the workspace each may use outside its tests.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("adapters", &[]),
    ("tasks", &[]),
    ("engine", &["adapters"]),
    ("server", &["adapters", "engine", "tasks"]),
    ("trainer", &["adapters", "engine", "tasks"]),
    ("tests", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every file of the repository by its path from the root, without what git ignores.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                if !["target", ".git", ".cache", ".quickchange", "__pycache__"]
                    .contains(&name.as_str())
                {
                    folders.push(entry.path());
                }
            } else {
                found.push(entry.path().strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// A Rust source file: its path from the root and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Whether the whole file is test code.
    fn is_test(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or_default();
        let under = |folder: &str| self.path.split('/').any(|part| part == folder);
        file == "tests.rs"
            || file == "testing.rs"
            || file.ends_with("_tests.rs")
            || under("tests")
            || under("testing")
    }

    /// The text before the test module at the end of the file.
    fn product(&self) -> &str {
        self.text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default()
    }

    /// Numbered lines that are not comments.
    fn code<'a>(&self, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }
}

fn sources() -> Vec<Source> {
    let sources: Vec<Source> = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| Source {
            text: fs_err::read_to_string(root().join(&path)).unwrap(),
            path: path.to_str().unwrap().to_owned(),
        })
        .collect();
    assert!(
        sources.len() > 50,
        "the search for sources found next to nothing"
    );
    sources
}

#[track_caller]
fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > MOST_LINES {
            offences.push(format!(
                "{}: {lines} lines, at most {MOST_LINES}: it holds a second subject",
                source.path
            ));
        }
        if !source.text.starts_with("//!") && !source.path.ends_with("tests.rs") {
            offences.push(format!(
                "{}: does not open with a //! that says what belongs there",
                source.path
            ));
        }
        let name = source.path.rsplit('/').next().unwrap_or_default();
        if ["utils.rs", "util.rs", "helpers.rs", "common.rs", "misc.rs"].contains(&name) {
            offences.push(format!("{}: the name hides what is inside", source.path));
        }
    }
    none(offences);
}

#[test]
fn functions_are_short() {
    let mut offences = Vec::new();
    for source in sources() {
        if source.is_test() {
            // A test tells one story from start to end, however long it is.
            continue;
        }
        for (name, lines) in functions(source.product()) {
            if lines > MOST_LINES_OF_A_FUNCTION {
                offences.push(format!(
                    "{}: {name} has {lines} lines, at most {MOST_LINES_OF_A_FUNCTION}",
                    source.path
                ));
            }
        }
    }
    none(offences);
}

/// Functions of formatted code with their lengths: from the line with `fn` to the closing brace in the same column.
fn functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let Some((before, after)) = code.split_once("fn ") else {
            continue;
        };
        let is_item = before.split_whitespace().all(|word| {
            word.starts_with("pub")
                || word.starts_with("in")
                || word.ends_with(')')
                || ["async", "const", "unsafe", "extern", "\"C\""].contains(&word)
        });
        if !is_item || code.ends_with(';') {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[start..].iter().position(|line| {
            *line == closing
                || (line.len() > indent
                    && line.ends_with('}')
                    && line.contains("fn ")
                    && line.contains('{'))
        });
        let name = after
            .split(['(', '<'])
            .next()
            .unwrap_or_default()
            .to_owned();
        found.push((name, end.unwrap_or(0) + 1));
    }
    found
}

#[test]
fn the_measure_of_functions_measures() {
    let text = "impl A {\n    pub(crate) async fn first(\n        x: u8,\n    ) {\n        go();\n    }\n    fn second() -> u8 { 1 }\n}\nfn third() {\n}\n";
    let expected =
        [("first", 5), ("second", 1), ("third", 2)].map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(functions(text), expected);
}

#[test]
fn nothing_outside_tests_gives_up_without_a_reason() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code(source.product()) {
            for forbidden in [".unwrap()", "panic!(", "todo!(", "unimplemented!(", "dbg!("] {
                if line.contains(forbidden) {
                    offences.push(format!("{}:{number}: {forbidden}", source.path));
                }
            }
        }
    }
    none(offences);
}

#[test]
fn lints_are_expected_rather_than_allowed_and_tests_are_neither_ignored_nor_asleep() {
    let mut offences = Vec::new();
    let forbidden = [
        ["#[al", "low("].concat(),
        ["#![al", "low("].concat(),
        ["#[ig", "nore"].concat(),
    ];
    let asleep = [
        ["thread::sl", "eep("].concat(),
        ["time::sl", "eep("].concat(),
    ];
    for source in sources() {
        for (number, line) in source.code(&source.text) {
            let slept =
                source.is_test() && asleep.iter().any(|sleep| line.contains(sleep.as_str()));
            if slept || forbidden.iter().any(|word| line.contains(word.as_str())) {
                offences.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none(offences);
}

#[test]
fn unsafe_is_found_where_speed_is_the_point_and_is_explained() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code(&source.text) {
            let block = ["unsafe", " {"].concat();
            if !line.contains(&block) {
                continue;
            }
            if !UNSAFE.iter().any(|place| source.path.starts_with(place)) {
                offences.push(format!(
                    "{}:{number}: unsafe outside of the places that may have it",
                    source.path
                ));
            }
            let before = &lines[number.saturating_sub(8)..number];
            if !before.iter().any(|line| line.contains("SAFETY:")) {
                offences.push(format!("{}:{number}: no SAFETY comment above", source.path));
            }
        }
    }
    none(offences);
}

#[test]
fn the_compiler_refuses_unsafe_outside_of_the_kernels() {
    let opens_with = |path: &str, attribute: &str| {
        let text = fs_err::read_to_string(root().join(path)).unwrap();
        assert!(
            text.lines().any(|line| line == attribute),
            "{path}: no {attribute}"
        );
    };
    for name in SAFE {
        opens_with(&format!("{name}/src/lib.rs"), "#![forbid(unsafe_code)]");
    }
    opens_with("server/src/main.rs", "#![forbid(unsafe_code)]");
    opens_with("trainer/src/main.rs", "#![forbid(unsafe_code)]");
    opens_with("engine/src/lib.rs", "#![deny(unsafe_code)]");
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let names: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in MAY_USE {
        let manifest = fs_err::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let key = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if section == "[dependencies]" && names.contains(key) {
                assert!(
                    allowed.contains(&key),
                    "{name} must not depend on {key}: see ARCHITECTURE.md"
                );
            }
        }
    }
}

#[test]
fn libraries_know_nothing_of_http_and_the_server_nothing_of_kernels() {
    let forbidden = [
        ("adapters/", ["actix", "engine::"]),
        ("tasks/", ["actix", "candle"]),
        ("engine/", ["actix", "adapter_model.safetensors"]),
        ("server/", ["engine::kernels::", "trainer::"]),
    ];
    let mut offences = Vec::new();
    for source in sources() {
        for (folder, words) in forbidden
            .iter()
            .filter(|(folder, _)| source.path.starts_with(folder))
        {
            for (number, line) in source.code(source.product()) {
                if words.iter().any(|word| line.contains(word)) {
                    offences.push(format!(
                        "{}:{number}: {folder} knows too much: {}",
                        source.path,
                        line.trim()
                    ));
                }
            }
        }
    }
    none(offences);
}

#[test]
fn every_flag_of_the_server_is_reached_through_make_serve() {
    let makefile = fs_err::read_to_string(root().join("Makefile")).unwrap();
    for variable in [
        "QUICKCHANGE_MODEL",
        "QUICKCHANGE_HOST",
        "QUICKCHANGE_PORT",
        "QUICKCHANGE_PRETRAINED",
    ] {
        let kept = format!("{variable}=\"$${{{variable}:-");
        assert!(
            makefile.contains(&kept),
            "make serve overrides {variable} that a user has set"
        );
    }
}

/// Reference material lies beside some checkouts. Neither its files nor its longer lines belong in this repository.
#[test]
fn nothing_was_copied_from_the_reference_material() {
    let shared = root().join("../shared");
    if !shared.is_dir() {
        engine::testing::say_skipped(
            "nothing_was_copied_from_the_reference_material",
            &format!("there is no {}", shared.display()),
        );
        return;
    }
    let mut lines = BTreeMap::new();
    for entry in fs_err::read_dir(&shared).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            for line in fs_err::read_to_string(&path)
                .unwrap()
                .lines()
                .filter(|line| line.len() >= 90 && line.contains(' '))
            {
                lines.insert(line.trim().to_owned(), path.clone());
            }
        }
    }
    let mut offences = Vec::new();
    for path in files() {
        let Ok(text) = fs_err::read_to_string(root().join(&path)) else {
            continue;
        };
        for line in text.lines() {
            if let Some(from) = lines.get(line.trim()) {
                offences.push(format!(
                    "{}: a line of {}: {}",
                    path.display(),
                    from.display(),
                    line.trim()
                ));
            }
        }
    }
    none(offences);
}
