//! Clients that take their time: with a request's head, with its body, with its answer.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{App, Options};

async fn impatient() -> App {
    App::start_with(Options {
        stall_seconds: 1,
        ..Options::default()
    })
    .await
}

async fn connect(app: &App) -> TcpStream {
    let address = app.client.address().trim_start_matches("http://");
    TcpStream::connect(address).await.unwrap()
}

/// What a server says before it closes.
async fn rest(connection: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // An end by a reset is an end.
    let _ = connection.read_to_end(&mut said).await;
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_408() {
    let app = impatient().await;
    for (path, kind) in [
        ("/v1/completions", "application/json"),
        ("/v1/adapters", "multipart/form-data; boundary=x"),
        ("/v1/datasets", "multipart/form-data; boundary=x"),
    ] {
        let mut connection = connect(&app).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: 100000\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection
            .write_all(b"--x\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\na")
            .await
            .unwrap();
        let said = rest(&mut connection).await;
        assert!(said.starts_with("HTTP/1.1 408"), "{path}: {said}");
        assert!(said.contains("body_too_slow"), "{path}: {said}");
    }
    assert_eq!(app.stored_weights(), 0);
    assert!(app.client.adapter_names().await.is_empty());
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let app = impatient().await;
    let mut connection = connect(&app).await;
    connection
        .write_all(b"POST /v1/completions HTTP/1.1\r\nhost: lo")
        .await
        .unwrap();
    let said = rest(&mut connection).await;
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 408"),
        "{said}"
    );
}

/// The system ends it: see `server::sockets`.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection_and_holds_up_nobody() {
    let app = impatient().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // Little room, so that the answer soon has to wait.
    socket.set_recv_buffer_size(2048).unwrap();
    let address = app
        .client
        .address()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let mut connection = socket.connect(address).await.unwrap();
    let body = json!({"prompt": "a", "max_tokens": 4000, "ignore_eos": true, "stream": true, "n": 16, "logprobs": 20}).to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    connection.readable().await.unwrap();
    app.client.greedy("tiny", "somebody else").await;
    app.engine_is_idle().await;
    app.connection_is_gone(connection.local_addr().unwrap().port())
        .await;
}
