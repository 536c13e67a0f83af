//! Many tenants at once: each with a key, an adapter and a prompt of its own, and none gets anything of another's.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use server::access::Scope;

use crate::harness::{AdapterDirectory, App, Client, Keys, Made, Options, Reply, Stream};

const TENANTS: usize = 16;
const ROUNDS: usize = 4;

/// One of them.
struct Tenant {
    number: usize,
    made: Made,
    client: Client,
    version: String,
    expected: Vec<String>,
}

/// The tenants and their server, each tenant's answers got with nobody else about.
async fn tenants() -> (Keys, App, Vec<Tenant>) {
    let keys = Keys::new();
    let admin = keys.add(Scope::Admin);
    let made: Vec<Made> = (0..TENANTS).map(|_| keys.add(Scope::Inference)).collect();
    let app = App::start_with(Options {
        threads: 2,
        keys: Some(keys.path()),
        ..Options::default()
    })
    .await;
    let admin = app.client.with_key(&admin.key);
    let mut tenants = Vec::new();
    for (number, made) in made.into_iter().enumerate() {
        let files = AdapterDirectory::random(&app.base, 300 + number as u64);
        admin.upload(&model(number), &files).await.expect(201);
        tenants.push(Tenant {
            number,
            client: app.client.with_key(&made.key),
            made,
            version: files.version(),
            expected: Vec::new(),
        });
    }
    for tenant in &mut tenants {
        let mut expected = Vec::new();
        for answer in join_all(KINDS.map(|kind| tenant.ask(kind, 0))).await {
            expected.push(answer.expect("let in").0);
        }
        tenant.expected = expected;
    }
    let all: BTreeSet<&String> = tenants.iter().flat_map(|tenant| &tenant.expected).collect();
    assert_eq!(all.len(), TENANTS * KINDS.len(), "two answers are alike");
    (keys, app, tenants)
}

/// What a tenant asks for.
#[derive(Clone, Copy)]
enum Kind {
    Completion,
    Chat,
    Classify,
}

const KINDS: [Kind; 3] = [Kind::Completion, Kind::Chat, Kind::Classify];

fn model(number: usize) -> String {
    format!("tenant-{number}")
}

/// The answer's own words, without its id and its moment, and the ids of all its parts.
type Answer = (String, BTreeSet<String>);

impl Tenant {
    /// One request; `Err` is a refusal.
    async fn ask(&self, kind: Kind, round: usize) -> Result<Answer, Reply> {
        let prompt = format!(
            "Tenant {} asks about the {}th wind",
            self.number, self.number
        );
        let model = model(self.number);
        let id = format!("tenant-{}-round-{round}", self.number);
        let fields = json!({"model": model, "max_tokens": 24, "temperature": 0.7, "seed": self.number, "stream": true, "ignore_eos": true});
        let (path, body) = match kind {
            Kind::Completion => ("/v1/completions", with(&fields, "prompt", json!(prompt))),
            Kind::Chat => {
                let messages = json!([{"role": "user", "content": prompt}]);
                ("/v1/chat/completions", with(&fields, "messages", messages))
            }
            Kind::Classify => (
                "/v1/classify",
                json!({"model": model, "task": "sentiment", "inputs": [prompt]}),
            ),
        };
        let request = self.client.request(reqwest::Method::POST, path);
        let request = request.header("x-request-id", &id).json(&body);
        let reply = crate::harness::client::send(request).await;
        if reply.status != 200 {
            return Err(reply);
        }
        assert_eq!(reply.header("x-request-id"), Some(id.as_str()));
        let adapter = json!({"name": model, "version": self.version});
        if let Kind::Classify = kind {
            let mut answer = reply.json();
            assert_eq!(answer["adapter"], adapter);
            // How much of the prompt was remembered is no part of the answer.
            answer["usage"].take();
            return Ok((answer.to_string(), BTreeSet::new()));
        }
        let stream = Stream::parse(&reply);
        assert!(stream.done, "the stream broke off");
        assert_eq!(stream.chunks[0]["adapter"], adapter);
        assert!(stream.chunks.iter().all(|chunk| chunk["model"] == model));
        let ids = stream.chunks.iter().map(|chunk| chunk["id"].to_string());
        let choices: Vec<&Value> = stream
            .chunks
            .iter()
            .map(|chunk| &chunk["choices"])
            .collect();
        Ok((json!(choices).to_string(), ids.collect()))
    }

    /// All kinds, over and over; the ids that the answers had.
    async fn ask_on(&self, rounds: usize) -> Vec<String> {
        let mut seen = Vec::new();
        for round in 0..rounds {
            let answers = join_all(KINDS.map(|kind| self.ask(kind, round))).await;
            for (answer, expected) in answers.into_iter().zip(&self.expected) {
                let (answer, ids) = answer.expect("let in");
                assert_eq!(&answer, expected, "tenant {} in round {round}", self.number);
                assert!(ids.len() <= 1, "one answer has several ids: {ids:?}");
                seen.extend(ids);
            }
        }
        seen
    }
}

fn with(fields: &Value, name: &str, value: Value) -> Value {
    let mut body = fields.clone();
    body[name] = value;
    body
}

#[tokio::test]
async fn sixteen_tenants_at_once_get_the_bytes_that_each_gets_alone() {
    let (_keys, _app, tenants) = tenants().await;
    let ids = join_all(tenants.iter().map(|tenant| tenant.ask_on(ROUNDS))).await;
    let ids: Vec<String> = ids.into_iter().flatten().collect();
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(ids.len(), TENANTS * ROUNDS * 2);
    assert_eq!(distinct.len(), ids.len(), "two answers have one id");
}

#[tokio::test]
async fn a_key_that_is_revoked_among_others_stops_and_the_others_do_not_notice() {
    let (keys, app, tenants) = tenants().await;
    let (revoked, others) = tenants.split_first().unwrap();
    let stopping = async {
        revoked.ask_on(1).await;
        // What was let in is answered to its end, as it would have been.
        let asking = async {
            let answers = (0..ROUNDS).flat_map(|round| KINDS.map(|kind| revoked.ask(kind, round)));
            for (answer, expected) in join_all(answers)
                .await
                .into_iter()
                .zip(revoked.expected.iter().cycle())
            {
                match answer {
                    Ok((answer, _)) => assert_eq!(&answer, expected),
                    Err(refused) => refused.expect_error(401, "invalid_api_key", &[]),
                }
            }
        };
        let revoking = async {
            keys.revoke(&revoked.made);
            app.reload().await;
        };
        join(asking, revoking).await;
        for kind in KINDS {
            let refused = revoked.ask(kind, ROUNDS).await;
            let refused = refused.expect_err("a revoked key");
            refused.expect_error(401, "invalid_api_key", &[]);
        }
    };
    let going_on = join_all(others.iter().map(|tenant| tenant.ask_on(ROUNDS)));
    join(stopping, going_on).await;
    join_all(others.iter().map(|tenant| tenant.ask_on(1))).await;
}
