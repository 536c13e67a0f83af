//! TLS: both versions of HTTP over it, the limits that hold over plain connections too, and certificates that change while it runs.

use std::path::PathBuf;
use std::sync::Arc;

use actix_web::web::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use http::Request;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{App, Options};

/// A certificate for localhost in two files, which can be replaced.
struct Pair {
    folder: TempDir,
    certificate: CertificateDer<'static>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            folder: tempfile::tempdir().unwrap(),
            certificate: Vec::new().into(),
        };
        pair.replace();
        pair
    }

    fn files(&self) -> [PathBuf; 2] {
        ["certificate.pem", "key.pem"].map(|name| self.folder.path().join(name))
    }

    fn replace(&mut self) {
        let CertifiedKey { cert, signing_key } = self_signed();
        let [chain, key] = self.files();
        fs_err::write(chain, cert.pem()).unwrap();
        fs_err::write(key, signing_key.serialize_pem()).unwrap();
        self.certificate = cert.der().clone();
    }

    async fn serving(&self) -> App {
        App::start_with(Options {
            certificate: Some(self.files()),
            ..Options::default()
        })
        .await
    }

    /// A connection that trusts this certificate alone and offers one protocol.
    async fn connect(&self, app: &App, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", app.client.port())).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    async fn http_2(&self, app: &App) -> SendRequest<Bytes> {
        let stream = self.connect(app, b"h2").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

fn self_signed() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// Status and body of one request over HTTP/2.
async fn send(client: &SendRequest<Bytes>, request: Request<()>, body: Vec<u8>) -> (u16, String) {
    let mut client = client.clone().ready().await.unwrap();
    let (response, mut sending) = client.send_request(request, false).unwrap();
    // A server that has refused what it has read so far need not take the rest.
    let _ = sending.send_data(body.into(), true);
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        text.extend_from_slice(&chunk);
    }
    (status, String::from_utf8(text).unwrap())
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/json")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn http_1_and_2_are_spoken_over_tls_and_nothing_without_it() {
    let pair = Pair::new();
    let app = pair.serving().await;
    let mut stream = pair.connect(&app, b"http/1.1").await.unwrap();
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with(r#"{"status":"ok"}"#), "{answer}");

    let client = pair.http_2(&app).await;
    let body = json!({"prompt": "a", "max_tokens": 8, "temperature": 0, "stream": true, "ignore_eos": true});
    let (status, events) = send(&client, post("/v1/completions"), body.to_string().into()).await;
    assert_eq!(status, 200, "{events}");
    let chunks = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"));
    assert_eq!(chunks.count(), 8, "{events}");
    assert!(events.ends_with("data: [DONE]\n\n"), "{events}");

    let plain = reqwest::Client::new().get(app.client.url("/health"));
    assert!(plain.send().await.is_err());
    let stranger = Pair::new().connect(&app, b"h2").await;
    assert!(stranger.is_err(), "another certificate would do");
}

#[tokio::test]
async fn the_limits_of_plain_connections_hold_over_http_2() {
    let pair = Pair::new();
    let app = pair.serving().await;
    let client = pair.http_2(&app).await;
    let mut body = b"{\"prompt\": \"".to_vec();
    body.resize(9 << 20, b'a');
    body.extend_from_slice(b"\"}");
    let (status, text) = send(&client, post("/v1/completions"), body).await;
    assert_eq!(status, 413, "{text}");
    assert!(text.contains("body_too_large"), "{text}");
    // The connection is still good for others.
    let (status, _) = send(&client, post("/v1/completions"), b"{".to_vec()).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_connection_has_no_more_requests_under_way_than_it_may_and_a_reset_one_is_cancelled() {
    const MOST: usize = 128;
    let pair = Pair::new();
    let app = pair.serving().await;
    let client = pair.http_2(&app).await;
    // Requests whose bodies do not come.
    let begin = || async {
        let mut client = client.clone().ready().await.unwrap();
        client.send_request(post("/v1/completions"), false).unwrap()
    };
    let begun = join_all((0..MOST).map(|_| begin())).await;
    let refused = send(&client, post("/v1/completions"), b"{}".to_vec()).await;
    assert_eq!(refused.0, 429, "{}", refused.1);
    let error: Value = serde_json::from_str(&refused.1).unwrap();
    assert_eq!(error["error"]["code"], "too_many_streams");
    // Dropped, a request is reset.
    drop(begun);
    for attempt in 0.. {
        let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
        let (status, text) = send(&client, post("/v1/completions"), body.into()).await;
        if status == 200 {
            break;
        }
        assert!(attempt < 20_000, "{status}: {text}");
    }
}

#[tokio::test]
async fn the_work_of_a_request_that_was_reset_ends() {
    let pair = Pair::new();
    let app = pair.serving().await;
    let client = pair.http_2(&app).await;
    // Not streamed: nothing is written that could fail. The whole context, in as many choices as there may be.
    let body =
        json!({"prompt": "a", "max_tokens": 4000, "n": 16, "ignore_eos": true, "logprobs": 20});
    let running = async || {
        let request = Request::get("https://localhost/metrics").body(()).unwrap();
        let (_, text) = send(&client, request, Vec::new()).await;
        crate::metrics::sum(&text, "quickchange_requests_running")
    };
    let mut sending = client.clone().ready().await.unwrap();
    let (response, mut stream) = sending
        .send_request(post("/v1/completions"), false)
        .unwrap();
    stream.send_data(body.to_string().into(), true).unwrap();
    let until = async |wanted: bool| {
        for _ in 0..20_000 {
            if (running().await > 0.0) == wanted {
                return;
            }
        }
        panic!("the engine's work did not change");
    };
    until(true).await;
    drop((response, stream));
    until(false).await;
    let made = "quickchange_generation_tokens_total";
    let request = Request::get("https://localhost/metrics").body(()).unwrap();
    let (_, text) = send(&client, request, Vec::new()).await;
    assert!(
        crate::metrics::sum(&text, made) < 64_000.0,
        "it was done to the end"
    );
}

#[tokio::test]
async fn a_certificate_is_read_again_and_a_broken_one_keeps_the_old() {
    let mut pair = Pair::new();
    let app = pair.serving().await;
    let old = Pair {
        folder: tempfile::tempdir().unwrap(),
        certificate: pair.certificate.clone(),
    };
    let [chain, key] = pair.files();
    // The key of one and the certificate of another.
    fs_err::write(&key, self_signed().signing_key.serialize_pem()).unwrap();
    app.reload().await;
    old.connect(&app, b"h2").await.unwrap();
    fs_err::write(&chain, "no certificate").unwrap();
    app.reload().await;
    old.connect(&app, b"h2").await.unwrap();
    pair.replace();
    let before = old.http_2(&app).await;
    app.reload().await;
    pair.connect(&app, b"h2").await.unwrap();
    assert!(old.connect(&app, b"h2").await.is_err());
    // A connection that is there goes on.
    let (status, _) = send(&before, post("/tokenize"), br#"{"prompt": "a"}"#.to_vec()).await;
    assert_eq!(status, 200);
    let lines = app.audited();
    let reloads = lines
        .iter()
        .filter(|line| line["action"] == "certificate.reload");
    let errors: Vec<&Value> = reloads.map(|line| &line["error"]).collect();
    let failed = json!("reload_failed");
    assert_eq!(errors, [&failed, &failed, &Value::Null]);
}
