//! The evaluation routes of the client, and the server that evaluations are asked of.

use ::adapters::{Manifest, Method};
use serde_json::Value;

use super::{AdapterDirectory, App, Client, Random, Reply, Stream};

impl Client {
    pub(crate) async fn evaluate(&self, body: &Value) -> Reply {
        self.post("/v1/evaluations", body).await
    }

    pub(crate) async fn evaluation(&self, id: &str) -> Reply {
        self.get(&format!("/v1/evaluations/{id}")).await
    }

    /// Every progress event of an evaluation; returns once the evaluation has ended.
    pub(crate) async fn evaluation_events(&self, id: &str) -> Stream {
        Stream::parse(&self.get(&format!("/v1/evaluations/{id}/events")).await)
    }

    pub(crate) async fn evaluation_report(&self, id: &str, format: &str) -> Reply {
        self.get(&format!("/v1/evaluations/{id}/report?format={format}"))
            .await
    }

    /// The lines of an evaluation's predictions.
    pub(crate) async fn predictions(&self, id: &str, query: &str) -> Vec<Value> {
        let reply = self
            .get(&format!("/v1/evaluations/{id}/predictions{query}"))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
        let lines = reply.body.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) async fn pause_evaluation(&self, id: &str) -> Reply {
        let body = serde_json::json!({});
        self.post(&format!("/v1/evaluations/{id}/pause"), &body)
            .await
    }

    pub(crate) async fn resume_evaluation(&self, id: &str) -> Reply {
        let body = serde_json::json!({});
        self.post(&format!("/v1/evaluations/{id}/resume"), &body)
            .await
    }

    /// The evaluation once `is` holds of it, asked again and again.
    pub(crate) async fn evaluation_once(&self, id: &str, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            let now = self.evaluation(id).await.expect(200);
            if is(&now) {
                return now;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn cancel_evaluation(&self, id: &str) -> Reply {
        self.delete(&format!("/v1/evaluations/{id}")).await
    }

    /// Starts an evaluation, waits for its end and returns it as it stands then.
    pub(crate) async fn evaluate_to_the_end(&self, body: &Value) -> Value {
        let started = self.evaluate(body).await.expect(202);
        let id = started["id"].as_str().unwrap().to_owned();
        self.evaluation_events(&id).await;
        self.evaluation(&id).await.expect(200)
    }
}

impl App {
    /// A server with `moods`, an adapter whose manifest says it was trained on the sentiment task.
    pub(crate) async fn with_moods() -> Self {
        let app = Self::start().await;
        let files = app.moods(1);
        app.client.upload("moods", &files).await.expect(201);
        app
    }

    /// A random adapter that says of itself that it was trained on reviews.
    pub(crate) fn moods(&self, seed: u64) -> AdapterDirectory {
        let mut adapter = Random::new(&self.base, seed);
        adapter.manifest = Manifest {
            task: Some("sentiment".to_owned()),
            method: Method::Ft,
            base_model: "tiny".to_owned(),
            labels: vec!["positive".to_owned(), "negative".to_owned()],
            trained_on: Some("amazon".to_owned()),
            ..Manifest::default()
        };
        adapter.write()
    }
}
