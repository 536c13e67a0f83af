//! The client's methods for other servers' interfaces.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::send;
use super::{Client, Reply, Stream};

impl Client {
    pub(crate) async fn sglang_load(&self, body: &Value) -> Reply {
        self.post("/load_lora_adapter", body).await
    }

    pub(crate) async fn sglang_unload(&self, body: &Value) -> Reply {
        self.post("/unload_lora_adapter", body).await
    }

    /// `POST /generate`, SGLang's or text-generation-inference's by the body.
    pub(crate) async fn generate(&self, body: &Value) -> Reply {
        self.post("/generate", body).await
    }

    /// [`Client::generate`] as SGLang streams it.
    pub(crate) async fn stream_generate(&self, body: &Value) -> Stream {
        Stream::parse(&self.generate(&streamed(body)).await)
    }

    /// Text-generation-inference's `POST /`.
    pub(crate) async fn tgi_root(&self, body: &Value) -> Reply {
        self.post("/", body).await
    }

    pub(crate) async fn generate_stream(&self, body: &Value) -> Stream {
        Stream::parse(&self.post("/generate_stream", body).await)
    }

    pub(crate) async fn tgi_info(&self) -> Value {
        self.get("/info").await.expect(200)
    }

    pub(crate) async fn llama_cpp_completion(&self, body: &Value) -> Reply {
        self.post("/completion", body).await
    }

    pub(crate) async fn llama_cpp_completions(&self, body: &Value) -> Reply {
        self.post("/completions", body).await
    }

    pub(crate) async fn stream_llama_cpp(&self, body: &Value) -> Stream {
        Stream::parse(&self.llama_cpp_completion(&streamed(body)).await)
    }

    pub(crate) async fn lora_adapters(&self) -> Value {
        self.get("/lora-adapters").await.expect(200)
    }

    pub(crate) async fn scale_lora_adapters(&self, body: &Value) -> Reply {
        self.post("/lora-adapters", body).await
    }

    /// `GET /v2/models/{model}` and what may follow it.
    pub(crate) async fn open_inference_model(&self, model: &str, rest: &str) -> Reply {
        self.get(&format!("/v2/models/{model}{rest}")).await
    }

    /// `POST /v2/models/{model}/infer`; a version may follow the name.
    pub(crate) async fn infer(&self, model: &str, body: &Value) -> Reply {
        self.post(&format!("/v2/models/{model}/infer"), body).await
    }

    /// [`Client::infer`] with bytes behind the JSON.
    pub(crate) async fn infer_bytes(&self, model: &str, json: &Value, bytes: &[u8]) -> Reply {
        let json = json.to_string();
        let request = self.request(Method::POST, &format!("/v2/models/{model}/infer"));
        let request = request.header("inference-header-content-length", json.len());
        send(request.body([json.as_bytes(), bytes].concat())).await
    }

    pub(crate) async fn repository_index(&self) -> Value {
        send(self.request(Method::POST, "/v2/repository/index"))
            .await
            .expect(200)
    }

    pub(crate) async fn repository_load(&self, model: &str, body: &Value) -> Reply {
        self.post(&format!("/v2/repository/models/{model}/load"), body)
            .await
    }

    pub(crate) async fn repository_unload(&self, model: &str, body: &Value) -> Reply {
        self.post(&format!("/v2/repository/models/{model}/unload"), body)
            .await
    }

    /// A greedy answer of at most this many tokens, as `/v1/completions` gives it: the choice.
    pub(crate) async fn greedy_choice(&self, model: &str, prompt: &str, tokens: usize) -> Value {
        let body =
            json!({"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0});
        self.completions(&body).await.expect(200)["choices"][0].clone()
    }
}

fn streamed(body: &Value) -> Value {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body
}
