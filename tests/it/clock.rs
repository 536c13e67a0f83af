//! A wall clock that is set: what is measured in durations goes on. The server is a process of its own whose calls for the wall clock
//! are answered by a library made here, as the machine's own clock is not the tests' to set.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, Process, serve_as_told};

/// No test: the process that this test starts runs this.
#[test]
fn serve() {
    serve_as_told();
}

/// Answers for the wall clock with what the system says and the seconds that a file holds.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = (int) syscall(SYS_clock_gettime, clock, time);
    FILE *file = clock == CLOCK_REALTIME && !failed ? fopen(getenv("CLOCK_OFFSET_FILE"), "r") : NULL;
    long seconds = 0;
    if (file != NULL) {
        if (fscanf(file, "%ld", &seconds) == 1) {
            time->tv_sec += seconds;
        }
        fclose(file);
    }
    return failed;
}
"#;

/// Builds the library; `false` where there is no C compiler.
fn build(folder: &Path) -> bool {
    let source = folder.join("clock.c");
    fs_err::write(&source, LIBRARY).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(folder.join("clock.so"))
        .arg(source)
        .status();
    built.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_clock_that_is_set_changes_no_answer_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    if !build(folder.path()) {
        engine::testing::say_skipped(
            "a_clock_that_is_set_changes_no_answer_and_ends_nothing",
            "there is no C compiler, cc",
        );
        return;
    }
    let offset = folder.path().join("offset");
    let set = |seconds: i64| {
        // In one step, as the process reads it at any moment.
        let new = folder.path().join("new");
        fs_err::write(&new, seconds.to_string()).unwrap();
        fs_err::rename(&new, &offset).unwrap();
    };
    set(0);
    let process = Process::start_after("clock::serve", |_| {
        let folder = folder.path().display();
        format!("export LD_PRELOAD='{folder}/clock.so' CLOCK_OFFSET_FILE='{folder}/offset'")
    });
    let client = &process.client;
    let files = AdapterDirectory::random(&process.base, 1);
    client.upload("kept", &files).await.expect(201);
    let text = client.greedy("kept", "The weather").await;
    let started = wall_clock(client.metrics().await.as_str());
    let body = json!({"kind": "in_domain", "adapters": ["base", "kept"], "tasks": ["sentiment"], "limit": 20});
    let evaluation = client.post("/v1/evaluations", &body).await.expect(202);
    let long = json!({"model": "kept", "prompt": "a", "max_tokens": 400, "temperature": 0, "ignore_eos": true});
    let expected = client.completions(&long).await.expect(200);
    for seconds in [86_400, -86_400, 40_000_000, -1_000_000] {
        let (answer, ()) = tokio::join!(client.completions(&long), async { set(seconds) });
        assert_eq!(answer.expect(200)["choices"], expected["choices"]);
        let shown = wall_clock(client.metrics().await.as_str());
        let off = shown - started - seconds as f64;
        assert!((-1.0..600.0).contains(&off), "the clock was not set: {off}");
        assert_eq!(client.greedy("kept", "The weather").await, text);
        assert_eq!(client.get("/ready").await.status, 200);
    }
    let path = format!("/v1/evaluations/{}", evaluation["id"].as_str().unwrap());
    assert_eq!(client.get(&format!("{path}/events")).await.status, 200);
    let ended: Value = client.get(&path).await.expect(200);
    assert_eq!(ended["status"], "completed", "{ended}");
    client.unload("kept").await.expect(204);
}

/// The time that a server shows the gateway, seconds since 1970.
fn wall_clock(metrics: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| line.starts_with("vllm:lora_requests_info{"));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}
