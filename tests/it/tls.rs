//! TLS: HTTP over it, and certificates that change while it runs.

use std::path::PathBuf;
use std::sync::Arc;

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

    /// A connection that trusts this certificate alone.
    async fn connect(&self, app: &App) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", app.client.port())).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    async fn trusted(&self, app: &App) -> TlsStream<TcpStream> {
        self.connect(app).await.unwrap()
    }
}

fn self_signed() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// What comes back on a connection for one request, which is the last one.
async fn send(stream: &mut TlsStream<TcpStream>, request: &str, body: &[u8]) -> String {
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn http_1_is_spoken_over_tls_and_nothing_without_it() {
    let pair = Pair::new();
    let app = pair.serving().await;
    let mut stream = pair.trusted(&app).await;
    // HTTP/2 was offered too.
    let chosen = stream.get_ref().1.alpn_protocol();
    assert_eq!(chosen, Some(&b"http/1.1"[..]));
    let answer = send(&mut stream, "GET /health", b"").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with(r#"{"status":"ok"}"#), "{answer}");

    let body = json!({"prompt": "a", "max_tokens": 8, "temperature": 0, "stream": true, "ignore_eos": true});
    let mut stream = pair.trusted(&app).await;
    let body = body.to_string();
    let events = send(&mut stream, "POST /v1/completions", body.as_bytes()).await;
    let chunks = events.lines().filter(|line| line.starts_with("data: {"));
    assert_eq!(chunks.count(), 8, "{events}");
    assert!(events.contains("data: [DONE]"), "{events}");

    let plain = reqwest::Client::new().get(app.client.url("/health"));
    assert!(plain.send().await.is_err());
    let stranger = Pair::new().connect(&app).await;
    assert!(stranger.is_err(), "another certificate would do");
}

#[tokio::test]
async fn limits_of_bodies_hold_over_tls() {
    let pair = Pair::new();
    let app = pair.serving().await;
    let mut body = b"{\"prompt\": \"".to_vec();
    body.resize(9 << 20, b'a');
    body.extend_from_slice(b"\"}");
    let mut stream = pair.trusted(&app).await;
    let answer = send(&mut stream, "POST /v1/completions", &body).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("body_too_large"), "{answer}");
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
    old.connect(&app).await.unwrap();
    fs_err::write(&chain, "no certificate").unwrap();
    app.reload().await;
    old.connect(&app).await.unwrap();
    pair.replace();
    let mut before = old.trusted(&app).await;
    app.reload().await;
    pair.connect(&app).await.unwrap();
    assert!(old.connect(&app).await.is_err());
    // A connection that is there goes on.
    let answer = send(&mut before, "GET /health", b"").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let lines = app.audited();
    let reloads = lines
        .iter()
        .filter(|line| line["action"] == "certificate.reload");
    let errors: Vec<&Value> = reloads.map(|line| &line["error"]).collect();
    let failed = json!("reload_failed");
    assert_eq!(errors, [&failed, &failed, &Value::Null]);
}
