//! Neither keys nor prompts come out anywhere: not in the logs, debug ones included, not in the metrics, not in the audit log.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::running::Running;

/// A word that stands in every prompt, and one for each kind of key.
const PROMPT: &str = "zq-marked-prompt-zq";
const GOOD: &str = "zq-marked-good-key-zq";
const ADMIN: &str = "zq-marked-admin-key-zq";
const BAD: &str = "zq-marked-bad-key-zq";
const MARK: &str = "zq-marked";

async fn ask(running: &Running, key: &str, path: &str, body: &Value) -> u16 {
    let request = Client::new()
        .request(Method::POST, running.url(path))
        .header("authorization", key);
    let answer = request.json(body).send().await.expect("an answer");
    let status = answer.status().as_u16();
    answer.bytes().await.expect("a whole answer");
    status
}

#[tokio::test]
async fn keys_and_prompts_stay_out_of_logs_metrics_and_the_audit_log() {
    let running = Running::start(|_, command| {
        command
            .env("QUICKCHANGE_API_KEY", GOOD)
            .env("QUICKCHANGE_ADMIN_KEY", ADMIN);
    });
    let messages = json!([{"role": "user", "content": PROMPT}]);
    let inference = [
        (
            "/v1/completions",
            json!({"prompt": PROMPT, "max_tokens": 4, "user": PROMPT}),
        ),
        (
            "/v1/completions",
            json!({"prompt": PROMPT, "max_tokens": 4, "stream": true, "stop": [PROMPT]}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 4}),
        ),
        (
            "/v1/classify",
            json!({"task": "sentiment", "inputs": [PROMPT], "labels": [PROMPT, "b"]}),
        ),
        (
            "/v1/score",
            json!({"pairs": [{"context": PROMPT, "continuation": PROMPT}]}),
        ),
        (
            "/generate",
            json!({"inputs": PROMPT, "parameters": {"max_new_tokens": 4}}),
        ),
        ("/completion", json!({"prompt": PROMPT, "n_predict": 4})),
        ("/tokenize", json!({"prompt": PROMPT})),
    ];
    let good = format!("Bearer {GOOD}");
    for (path, body) in &inference {
        assert_eq!(ask(&running, &good, path, body).await, 200, "{path}");
        for key in [
            format!("Bearer {BAD}"),
            format!("Basic {BAD}"),
            BAD.to_owned(),
        ] {
            assert_eq!(ask(&running, &key, path, body).await, 401, "{path}");
        }
    }
    // Prompts in the wrong places, and one that is too long.
    let long = format!("{PROMPT} ").repeat(2000);
    for body in [
        json!({"prompt": {"text": PROMPT}}),
        json!({"prompt": "a", "max_tokens": PROMPT}),
        json!({"prompt": "a", "model": PROMPT}),
        json!({"prompt": "a", "suffix": PROMPT}),
        json!({"prompt": long}),
        json!(PROMPT),
    ] {
        let status = ask(&running, &good, "/v1/completions", &body).await;
        assert!((400..500).contains(&status), "{status}: {body}");
    }
    let load = json!({"name": "x", "path": "nowhere"});
    for (key, status) in [(BAD, 401), (GOOD, 403), (ADMIN, 404)] {
        let key = format!("Bearer {key}");
        assert_eq!(ask(&running, &key, "/v1/adapters", &load).await, status);
    }
    let metrics = Client::new().get(running.url("/metrics"));
    let metrics = metrics.bearer_auth(ADMIN).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    let audit = running.file("store").join("audit.jsonl");
    let audit = fs_err::read_to_string(audit).expect("an audit log");
    let said = running.stop();
    assert!(metrics.contains("quickchange_requests_total"), "{metrics}");
    for id in ["anonymous", "api-key-1", "admin-key-1"] {
        assert!(audit.contains(id), "{audit}");
    }
    assert!(
        said.contains("DEBUG") && said.contains("/v1/classify"),
        "{said}"
    );
    for (place, text) in [("metrics", metrics), ("audit", audit), ("output", said)] {
        let lines = text.lines().filter(|line| line.contains(MARK));
        let found: Vec<&str> = lines.collect();
        assert!(found.is_empty(), "{place}: {}", found.join("\n"));
    }
}
