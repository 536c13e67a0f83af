//! A server killed at random moments of uploads, activations, rollbacks and deletions, and started again on what it left. What it
//! had answered is there; what it had not answered is there whole or not at all.
//!
//! `QUICKCHANGE_KILLS` says how often (`make crash-loop`), `QUICKCHANGE_SEED` with which choices. The moment of a kill is the
//! subject here, so this file alone waits for a time, drawn anew for each kill.

mod model;

use std::collections::BTreeMap;
use std::pin::pin;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use self::model::{Adapter, Change, FILES, KINDS, Kind, NAMES, Names};
use crate::harness::client::{send, try_send};
use crate::harness::{AdapterDirectory, Process, serve_as_told};

const PROMPT: &str = "The weather in the north";
/// Changes before each kill, at most; they are answered.
const MOST_ANSWERED: usize = 2;
/// How often the usual duration of a change is measured.
const MEASUREMENTS: usize = 3;

/// No test: the process that is killed runs this.
#[test]
fn serve() {
    serve_as_told();
}

/// How the changes that a kill met had ended.
#[derive(Debug, Default)]
struct Ends {
    answered: usize,
    /// Not answered, and nothing of it there.
    absent: usize,
    /// Not answered: a version is there and not active, or left and not the one to roll back to.
    between: usize,
    /// Not answered, and there.
    whole: usize,
}

/// The server, what it must hold, and how it went so far.
struct CrashLoop {
    random: ChaCha8Rng,
    files: Vec<AdapterDirectory>,
    /// What each of the files answers to the prompt.
    texts: Vec<String>,
    process: Process,
    names: Names,
    usual: BTreeMap<Kind, Duration>,
    ends: BTreeMap<Kind, Ends>,
    /// Said when an assertion fails.
    story: Story,
}

struct Story {
    seed: u64,
    kill: usize,
    now: String,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "QUICKCHANGE_SEED={} kill {}: {}",
                self.seed, self.kill, self.now
            );
        }
    }
}

impl CrashLoop {
    async fn start(seed: u64) -> Self {
        let process = Process::start("crash_loop::serve");
        let mut this = Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            files: (1..=FILES as u64)
                .map(|seed| AdapterDirectory::random(&process.base, seed))
                .collect(),
            texts: Vec::new(),
            process,
            names: Names::new(),
            usual: BTreeMap::new(),
            ends: BTreeMap::new(),
            story: Story {
                seed,
                kill: 0,
                now: "before the first kill".to_owned(),
            },
        };
        this.record_texts().await;
        this.measure().await;
        this
    }

    /// What each version answers, from a server that has nothing else.
    async fn record_texts(&mut self) {
        for files in &self.files {
            let client = &self.process.client;
            client.upload("alone", files).await.expect(201);
            let text = client.greedy("alone", PROMPT).await;
            client.unload("alone").await.expect(204);
            assert!(!self.texts.contains(&text), "two versions answer {text:?}");
            self.texts.push(text);
        }
    }

    /// The usual duration of each kind of change, the median of some.
    async fn measure(&mut self) {
        let course = [
            (Kind::Create, 0),
            (Kind::Replace, 1),
            (Kind::Add, 2),
            (Kind::Activate, 2),
            (Kind::RollBack, 1),
            (Kind::RemoveVersion, 2),
            (Kind::Remove, 0),
        ];
        let mut durations: BTreeMap<Kind, Vec<Duration>> = BTreeMap::new();
        for _ in 0..MEASUREMENTS {
            for (kind, file) in course {
                let name = NAMES[0];
                let began = Instant::now();
                self.carry_out(Change { kind, name, file }).await;
                durations.entry(kind).or_default().push(began.elapsed());
            }
        }
        for (kind, mut durations) in durations {
            durations.sort();
            self.usual.insert(kind, durations[MEASUREMENTS / 2]);
        }
    }

    /// A change that is answered.
    async fn carry_out(&mut self, change: Change) {
        let reply = send(change.request(&self.process.client, &self.files)).await;
        assert_eq!(reply.status / 100, 2, "{change:?}: {}", reply.body);
        let steps = change.steps(self.names.get(change.name));
        self.note(change.name, steps.last().unwrap().clone());
    }

    fn note(&mut self, name: &'static str, adapter: Option<Adapter>) {
        match adapter {
            Some(adapter) => self.names.insert(name, adapter),
            None => self.names.remove(name),
        };
    }

    fn draw(&mut self) -> Change {
        let all = |kind| {
            let of = move |name| (0..FILES).map(move |file| Change { kind, name, file });
            let changes = NAMES.into_iter().flat_map(of);
            changes.filter(|change| change.makes_sense(&self.names))
        };
        let possible: Vec<(Vec<Change>, u32)> = KINDS
            .iter()
            .map(|(kind, weight)| (all(*kind).collect(), *weight))
            .filter(|(changes, _): &(Vec<Change>, _)| !changes.is_empty())
            .collect();
        let (changes, _) = possible
            .choose_weighted(&mut self.random, |(_, weight)| *weight)
            .expect("a name can always be created or removed");
        *changes.choose(&mut self.random).unwrap()
    }

    /// Some changes that are answered, one that is cut off by a kill, and what is there afterwards.
    async fn kill_once(&mut self) {
        self.story.kill += 1;
        for _ in 0..self.random.random_range(0..=MOST_ANSWERED) {
            let change = self.draw();
            self.story.now = format!("{change:?} of {:?}", self.names);
            self.carry_out(change).await;
        }
        let change = self.draw();
        let moment = self.usual[&change.kind].mul_f64(self.random.random());
        let mut reply = pin!(try_send(change.request(&self.process.client, &self.files)));
        let early = tokio::time::timeout(moment, &mut reply).await;
        self.process.kill();
        let reply = match early {
            Ok(reply) => reply,
            // What had been sent before the kill can still be read.
            Err(_) => reply.await,
        };
        let answered = reply.ok();
        self.story.now = format!(
            "{change:?} of {:?}, killed after {moment:?}, answer {answered:?}",
            self.names
        );
        if let Some(reply) = &answered {
            assert_eq!(reply.status / 100, 2, "{}", reply.body);
        }
        self.process.start_again();
        self.compare(change, answered.is_some()).await;
    }

    /// What is there against what must be, and takes over what may be.
    async fn compare(&mut self, change: Change, answered: bool) {
        let found = self.found().await;
        let steps = change.steps(self.names.get(change.name));
        let now = found.get(change.name).cloned();
        let last = steps.len() - 1;
        let ends = self.ends.entry(change.kind).or_default();
        let end = match steps.iter().position(|step| *step == now) {
            Some(step) if answered && step == last => &mut ends.answered,
            Some(0) if !answered => &mut ends.absent,
            Some(step) if !answered && step == last => &mut ends.whole,
            Some(_) if !answered => &mut ends.between,
            _ => panic!("found {now:?}, which is none of {steps:?}, or not the last, answered"),
        };
        *end += 1;
        self.note(change.name, now);
        assert_eq!(found, self.names, "another name changed");
        self.check_texts().await;

        let metrics = self.process.client.metrics().await;
        let refused: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("quickchange_adapter_load_failures_total"))
            .collect();
        assert!(
            refused.is_empty(),
            "not all of the store is served: {refused:?}"
        );
        let stored: usize = found.values().map(|adapter| adapter.versions.len()).sum();
        assert_eq!(
            self.process.stored_weights(),
            stored,
            "the store has debris"
        );
        assert_eq!(self.process.staged(), Vec::<std::path::PathBuf>::new());
    }

    /// The names as the server describes them.
    async fn found(&self) -> Names {
        let list = self.process.client.get("/v1/adapters").await.expect(200);
        let file = |version: &Value| {
            let version = version.as_str().unwrap();
            let found = self
                .files
                .iter()
                .position(|files| files.version() == version);
            found.unwrap_or_else(|| panic!("version {version} was never sent"))
        };
        let entries = list["data"].as_array().unwrap().iter();
        entries
            .map(|entry| {
                let name = NAMES.into_iter().find(|name| entry["id"] == **name);
                let versions = entry["versions"].as_array().unwrap().iter();
                let adapter = Adapter {
                    versions: versions.map(|version| file(&version["version"])).collect(),
                    active: file(&entry["active_version"]),
                    previous: Some(&entry["previous_version"])
                        .filter(|version| !version.is_null())
                        .map(file),
                };
                (name.unwrap(), adapter)
            })
            .collect()
    }

    /// Every version, and every name, answers as its content did when it was first loaded.
    async fn check_texts(&self) {
        for (name, adapter) in &self.names {
            for file in &adapter.versions {
                let model = format!("{name}@{}", self.files[*file].version());
                let text = self.process.client.greedy(&model, PROMPT).await;
                assert_eq!(text, self.texts[*file], "{model}");
            }
            let text = self.process.client.greedy(name, PROMPT).await;
            assert_eq!(text, self.texts[adapter.active], "{name}");
        }
    }

    fn summary(&self) -> String {
        let mut lines = vec![format!(
            "{} kills, seed {}; of the changes that a kill met:\n{:14} {:>9} {:>9} {:>9} {:>9} {:>9}",
            self.story.kill,
            self.story.seed,
            "",
            "usual ms",
            "answered",
            "absent",
            "between",
            "whole"
        )];
        for (kind, ends) in &self.ends {
            lines.push(format!(
                "{:14} {:9.1} {:9} {:9} {:9} {:9}",
                format!("{kind:?}"),
                1e3 * self.usual[kind].as_secs_f64(),
                ends.answered,
                ends.absent,
                ends.between,
                ends.whole
            ));
        }
        lines.join("\n")
    }
}

fn setting<T: FromStr>(variable: &str, usual: T) -> T {
    match std::env::var(variable) {
        Ok(text) => (text.parse().ok()).unwrap_or_else(|| panic!("{variable} is {text:?}")),
        Err(_) => usual,
    }
}

#[tokio::test]
async fn what_was_answered_outlives_a_kill_and_the_rest_is_whole_or_absent() {
    let mut crash_loop = CrashLoop::start(setting("QUICKCHANGE_SEED", 1)).await;
    let kills = setting("QUICKCHANGE_KILLS", 25);
    for _ in 0..kills {
        crash_loop.kill_once().await;
    }
    println!("{}", crash_loop.summary());
}
