//! A client of the server with one method per route, so that a changed route changes one line here.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{AdapterDirectory, Reply, Stream};

/// Talks to one server.
#[derive(Clone)]
pub(crate) struct Client {
    address: String,
    http: reqwest::Client,
    key: Option<String>,
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        Self {
            address: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::new(),
            key: None,
        }
    }

    /// The port of the server.
    pub(crate) fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The same client with a key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// The address of a path, for another client.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, self.url(path));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Where the server listens, as clients of others are told.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        send(self.request(Method::PUT, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post_form(&self, path: &str, form: Form) -> Reply {
        send(self.request(Method::POST, path).multipart(form)).await
    }

    /// Any bytes under the name of JSON.
    pub(crate) async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Reply {
        let request = self.request(Method::POST, path);
        send(
            request
                .header("content-type", "application/json")
                .body(body),
        )
        .await
    }

    pub(crate) async fn completions(&self, body: &Value) -> Reply {
        self.post("/v1/completions", body).await
    }

    pub(crate) async fn stream_completions(&self, body: &Value) -> Stream {
        let mut body = body.clone();
        body["stream"] = json!(true);
        Stream::parse(&self.completions(&body).await)
    }

    pub(crate) async fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", body).await
    }

    pub(crate) async fn stream_chat(&self, body: &Value) -> Stream {
        let mut body = body.clone();
        body["stream"] = json!(true);
        Stream::parse(&self.chat(&body).await)
    }

    pub(crate) async fn classify(&self, body: &Value) -> Reply {
        self.post("/v1/classify", body).await
    }

    pub(crate) async fn score(&self, body: &Value) -> Reply {
        self.post("/v1/score", body).await
    }

    pub(crate) async fn tokenize(&self, prompt: &str) -> Vec<u64> {
        let reply = self
            .post("/tokenize", &json!({"prompt": prompt}))
            .await
            .expect(200);
        reply["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap())
            .collect()
    }

    pub(crate) async fn detokenize(&self, tokens: &[u64]) -> Reply {
        self.post("/detokenize", &json!({"tokens": tokens})).await
    }

    pub(crate) async fn models(&self) -> Vec<Value> {
        self.get("/v1/models").await.expect(200)["data"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// Ids of the loaded adapters.
    pub(crate) async fn adapter_names(&self) -> Vec<String> {
        let list = self.get("/v1/adapters").await.expect(200);
        assert_eq!(list["object"], "list");
        let entries = list["data"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| entry["id"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) async fn adapter(&self, name: &str) -> Reply {
        self.get(&format!("/v1/adapters/{name}")).await
    }

    /// `POST /v1/adapters` with the files of a directory.
    pub(crate) async fn upload(&self, name: &str, files: &AdapterDirectory) -> Reply {
        let form = form(files).text("name", name.to_owned());
        send(self.request(Method::POST, "/v1/adapters").multipart(form)).await
    }

    /// `PUT /v1/adapters/{name}` with the files of a directory.
    pub(crate) async fn replace(&self, name: &str, files: &AdapterDirectory) -> Reply {
        send(
            self.request(Method::PUT, &format!("/v1/adapters/{name}"))
                .multipart(form(files)),
        )
        .await
    }

    /// [`Client::replace`] if `tag` is the adapter's entity tag.
    pub(crate) async fn replace_if(
        &self,
        tag: &str,
        name: &str,
        files: &AdapterDirectory,
    ) -> Reply {
        let request = self.request(Method::PUT, &format!("/v1/adapters/{name}"));
        send(request.header("if-match", tag).multipart(form(files))).await
    }

    /// [`Client::upload`] that only says what it would do.
    pub(crate) async fn examine(&self, name: &str, files: &AdapterDirectory) -> Reply {
        let form = form(files).text("name", name.to_owned());
        let request = self.request(Method::POST, "/v1/adapters?dry_run=true");
        send(request.multipart(form)).await
    }

    pub(crate) async fn promote(&self, name: &str, body: &Value) -> Reply {
        self.post(&format!("/v1/adapters/{name}/promote"), body)
            .await
    }

    pub(crate) async fn load_path(&self, name: &str, path: &str) -> Reply {
        self.post("/v1/adapters", &json!({"name": name, "path": path}))
            .await
    }

    pub(crate) async fn activate(&self, name: &str, body: &Value) -> Reply {
        self.post(&format!("/v1/adapters/{name}/activate"), body)
            .await
    }

    pub(crate) async fn rollback(&self, name: &str) -> Reply {
        send(self.request(Method::POST, &format!("/v1/adapters/{name}/rollback"))).await
    }

    pub(crate) async fn rollback_to(&self, name: &str, version: &str) -> Reply {
        self.post(
            &format!("/v1/adapters/{name}/rollback"),
            &json!({"version": version}),
        )
        .await
    }

    pub(crate) async fn history(&self, name: &str) -> Reply {
        self.get(&format!("/v1/adapters/{name}/history")).await
    }

    pub(crate) async fn canary(&self, name: &str, version: &str, percent: f64) -> Reply {
        let body = json!({"version": version, "percent": percent});
        self.post(&format!("/v1/adapters/{name}/canary"), &body)
            .await
    }

    pub(crate) async fn end_canary(&self, name: &str) -> Reply {
        self.delete(&format!("/v1/adapters/{name}/canary")).await
    }

    pub(crate) async fn pin(&self, name: &str) -> Reply {
        send(self.request(Method::PUT, &format!("/v1/adapters/{name}/pin"))).await
    }

    pub(crate) async fn unpin(&self, name: &str) -> Reply {
        self.delete(&format!("/v1/adapters/{name}/pin")).await
    }

    pub(crate) async fn compare(&self, body: &Value) -> Reply {
        self.post("/v1/compare", body).await
    }

    /// `POST /v1/replay` of a request and the receipt on its reply.
    pub(crate) async fn replay(&self, request: &Value, receipt: &Value) -> Reply {
        let body = json!({"request": request, "receipt": receipt});
        self.post("/v1/replay", &body).await
    }

    pub(crate) async fn unload(&self, name: &str) -> Reply {
        self.delete(&format!("/v1/adapters/{name}")).await
    }

    pub(crate) async fn unload_version(&self, name: &str, version: &str) -> Reply {
        self.delete(&format!("/v1/adapters/{name}?version={version}"))
            .await
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}"))
            .parse()
            .unwrap()
    }

    /// The Prometheus text.
    pub(crate) async fn metrics(&self) -> String {
        let reply = self.get("/metrics").await;
        assert_eq!(reply.status, 200);
        reply.body
    }

    /// The text of a greedy completion of 16 tokens, end-of-turn tokens or not.
    pub(crate) async fn greedy(&self, model: &str, prompt: &str) -> String {
        let body = json!({"model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0, "ignore_eos": true});
        let reply = self.completions(&body).await.expect(200);
        reply["choices"][0]["text"].as_str().unwrap().to_owned()
    }
}

/// The parts of an upload: config, weights and, when there is one, the manifest.
pub(crate) fn form(files: &AdapterDirectory) -> Form {
    let form = Form::new()
        .part(
            "config",
            Part::bytes(files.config()).file_name("adapter_config.json"),
        )
        .part(
            "weights",
            Part::bytes(files.weights()).file_name("adapter_model.safetensors"),
        );
    match files.manifest() {
        Some(manifest) => form.part("manifest", Part::bytes(manifest).file_name("manifest.json")),
        None => form,
    }
}

/// Sends a request and reads the reply to its end.
pub(crate) async fn send(request: RequestBuilder) -> Reply {
    try_send(request).await.unwrap()
}

/// [`send`] to a server that may be gone before the end.
pub(crate) async fn try_send(request: RequestBuilder) -> reqwest::Result<Reply> {
    Reply::try_read(request.send().await?).await
}
