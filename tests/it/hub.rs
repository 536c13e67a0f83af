//! `--model org/name`: fetching from a hub, here a server of the test's own that knows as much of its interface as a
//! download takes. Which names and files are meant is asked in the server's own tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use actix_web::body::SizedStream;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use futures_util::{StreamExt, stream};
use serde_json::json;
use server::hub::{HubError, HubModel, HubSettings, fetch};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub serves, and what it saw.
#[derive(Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
    /// Transfers still to be broken off half way.
    breaks: usize,
    /// The token that must be shown, if any.
    token: Option<String>,
    /// Status of every answer, if not what it should be.
    status: Option<u16>,
    /// Files and the bytes asked for, single bytes left out.
    transfers: Vec<(String, u64)>,
}

/// A hub, and a cache to fetch into.
struct Hub {
    shelf: Arc<Mutex<Shelf>>,
    settings: HubSettings,
    cache: TempDir,
}

impl Hub {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let files = (files.iter())
            .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
            .collect();
        let shelf = Arc::new(Mutex::new(Shelf {
            files,
            ..Shelf::default()
        }));
        let data = Data::from(shelf.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .default_service(web::to(answer))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
        let address = server.addrs()[0];
        tokio::spawn(server.run());
        let cache = tempfile::tempdir().unwrap();
        let settings = HubSettings {
            cache: cache.path().to_owned(),
            endpoint: format!("http://{address}"),
            token: None,
            offline: false,
            progress: false,
        };
        Self {
            shelf,
            settings,
            cache,
        }
    }

    async fn fetch(&self, model: &str) -> Result<PathBuf, HubError> {
        let model = HubModel::parse(model).unwrap();
        let settings = self.settings.clone();
        tokio::task::spawn_blocking(move || fetch(&model, &settings))
            .await
            .unwrap()
    }

    async fn refusal(&self, model: &str) -> String {
        let error = self.fetch(model).await.unwrap_err().to_string();
        error
            .replace(&self.settings.endpoint, "HUB")
            .replace(self.cache.path().to_str().unwrap(), "CACHE")
    }

    fn change(&self, change: impl FnOnce(&mut Shelf)) {
        change(&mut self.shelf.lock().unwrap());
    }

    fn transfers(&self) -> Vec<(String, u64)> {
        self.shelf.lock().unwrap().transfers.clone()
    }
}

async fn answer(request: HttpRequest, shelf: Data<Mutex<Shelf>>) -> HttpResponse {
    let mut shelf = shelf.lock().unwrap();
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    if let Some(status) = shelf.status {
        return HttpResponse::build(status.try_into().unwrap()).finish();
    }
    let shown = header("authorization").map(|value| value.replace("Bearer ", ""));
    if shelf.token.is_some() && shown != shelf.token {
        return HttpResponse::Unauthorized().finish();
    }
    let path = request.path();
    if path == "/api/models/org/name/revision/main" {
        let names = shelf.files.keys().map(|name| json!({"rfilename": name}));
        return HttpResponse::Ok()
            .json(json!({"sha": COMMIT, "siblings": names.collect::<Vec<_>>()}));
    }
    let file = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/"));
    let Some((name, bytes)) = file.and_then(|file| shelf.files.get_key_value(file)) else {
        return HttpResponse::NotFound().finish();
    };
    let (name, bytes) = (name.clone(), bytes.clone());
    let range = header("range").unwrap().replace("bytes=", "");
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last: usize = last.parse().unwrap_or(bytes.len() - 1);
    if first >= bytes.len() {
        return HttpResponse::RangeNotSatisfiable().finish();
    }
    let part = Bytes::copy_from_slice(&bytes[first..=last]);
    let mut response = HttpResponse::PartialContent();
    response
        .insert_header(("x-repo-commit", COMMIT))
        .insert_header(("etag", format!("\"{}\"", checksum(&bytes))))
        .insert_header((
            "content-range",
            format!("bytes {first}-{last}/{}", bytes.len()),
        ));
    if range == "0-0" {
        return response.body(part);
    }
    shelf.transfers.push((name, first as u64));
    if shelf.breaks == 0 {
        return response.body(part);
    }
    shelf.breaks -= 1;
    let half = part.slice(..part.len() / 2);
    let broken = std::io::Error::other("the line goes dead");
    // The half is sent while the end of the line is not ready.
    let dead = stream::once(async {
        tokio::task::yield_now().await;
        Err(broken)
    });
    let pieces = stream::iter([Ok(half)]).chain(dead);
    response.body(SizedStream::new(part.len() as u64, pieces))
}

fn checksum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tiny_model() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs_err::read(engine::testing::TinyModel::write(folder.path(), 3)).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_gguf_file_is_fetched_once_and_found_without_the_hub_from_then_on() {
    let model = tiny_model();
    let mut hub = Hub::start(&[
        ("README.md", b"read me"),
        ("tiny.Q4_K_M.gguf", &model),
        ("tiny.Q8_0.gguf", b"another"),
    ]);
    let path = hub.fetch("org/name").await.unwrap();
    let snapshot = hub
        .cache
        .path()
        .join("models--org--name/snapshots")
        .join(COMMIT);
    assert_eq!(path, snapshot.join("tiny.Q4_K_M.gguf"));
    assert_eq!(fs_err::read(&path).unwrap(), model);
    assert!(engine::Tokenizer::load(&path).is_ok());
    assert_eq!(hub.transfers(), [("tiny.Q4_K_M.gguf".to_owned(), 0)]);

    hub.settings.offline = true;
    assert_eq!(hub.fetch("org/name").await.unwrap(), path);
    assert_eq!(
        hub.fetch(&format!("org/name@{COMMIT}")).await.unwrap(),
        path
    );
    insta::assert_snapshot!(hub.refusal("org/name:tiny.Q8_0.gguf").await, @"`org/name:tiny.Q8_0.gguf` is not in CACHE and HF_HUB_OFFLINE is set; unset it, or download the model elsewhere and give --model its path");
    hub.settings.offline = false;
    let other = hub.fetch("org/name:tiny.Q8_0.gguf").await.unwrap();
    assert_eq!(fs_err::read(other).unwrap(), b"another");
}

#[tokio::test]
async fn of_a_directory_comes_what_is_read_of_it() {
    let index = json!({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}});
    let hub = Hub::start(&[
        ("config.json", b"{}"),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
        ("model.safetensors.index.json", index.to_string().as_bytes()),
        ("pytorch_model.bin", b"not this"),
        ("tokenizer.json", b"{\"a\": 1}"),
    ]);
    let folder = hub.fetch("org/name").await.unwrap();
    let expected = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&folder), expected);
    assert_eq!(
        fs_err::read(folder.join("model-2.safetensors")).unwrap(),
        b"two"
    );

    // A weight file that goes missing makes the model one to be fetched again.
    fs_err::remove_file(folder.join("model-1.safetensors")).unwrap();
    assert_eq!(hub.fetch("org/name").await.unwrap(), folder);
    assert_eq!(names(&folder), expected);
    let last = hub.transfers().pop().unwrap();
    assert_eq!(last.0, "model-1.safetensors");
}

#[tokio::test]
async fn an_interrupted_download_goes_on_where_it_stopped() {
    let model = tiny_model();
    let hub = Hub::start(&[("tiny.gguf", &model)]);
    hub.change(|shelf| shelf.breaks = usize::MAX);
    let error = hub.fetch("org/name").await.unwrap_err();
    assert!(matches!(error, HubError::Interrupted { .. }), "{error}");
    let tried = hub.transfers();
    assert!(
        tried.windows(2).all(|pair| pair[0].1 < pair[1].1),
        "{tried:?}"
    );

    hub.change(|shelf| shelf.breaks = 1);
    let path = hub.fetch("org/name").await.unwrap();
    let all = hub.transfers();
    assert_eq!(all.len(), tried.len() + 2);
    assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].1), "{all:?}");
    assert_eq!(fs_err::read(path).unwrap(), model);
}

#[tokio::test]
async fn what_an_earlier_attempt_left_too_long_is_fetched_anew_and_wrong_bytes_are_refused() {
    let hub = Hub::start(&[("a.gguf", b"abcdef")]);
    let blobs = hub.cache.path().join("models--org--name/blobs");
    fs_err::create_dir_all(&blobs).unwrap();
    let part = blobs.join(checksum(b"abcdef")).with_extension("part");
    for left in ["abcdef", "abcdefgh"] {
        fs_err::write(&part, left).unwrap();
        let path = hub.fetch("org/name").await.unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"abcdef");
        fs_err::remove_file(path).unwrap();
    }
    fs_err::write(&part, "xyz").unwrap();
    insta::assert_snapshot!(hub.refusal("org/name").await, @"a.gguf of `org/name` does not have the checksum the hub gives for it and was removed; start again to download it anew");
    assert_eq!(
        fs_err::read(hub.fetch("org/name").await.unwrap()).unwrap(),
        b"abcdef"
    );
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let mut hub = Hub::start(&[("a.Q8_0.gguf", b"a"), ("b.f16.gguf", b"b")]);
    insta::assert_snapshot!(hub.refusal("org/name").await, @"`org/name` has several GGUF files and none in Q4_K_M; name one as `org/name:FILE` of a.Q8_0.gguf, b.f16.gguf");
    insta::assert_snapshot!(hub.refusal("org/name:c.gguf").await, @"`org/name` has no GGUF file `c.gguf`; it has a.Q8_0.gguf, b.f16.gguf");
    insta::assert_snapshot!(hub.refusal("org/other").await, @"`org/other` is no file or directory here, and HUB has no such model or keeps it private (status 404); check the spelling, set HF_TOKEN if it is private, or give --model a path");
    hub.change(|shelf| shelf.token = Some("secret".into()));
    insta::assert_snapshot!(hub.refusal("org/name").await, @"`org/name` is no file or directory here, and HUB has no such model or keeps it private (status 401); check the spelling, set HF_TOKEN if it is private, or give --model a path");
    hub.settings.token = Some("secret".into());
    assert!(hub.fetch("org/name:b.f16.gguf").await.is_ok());
    hub.change(|shelf| shelf.status = Some(403));
    insta::assert_snapshot!(hub.refusal("org/name:a.Q8_0.gguf").await, @"HUB does not give `org/name:a.Q8_0.gguf` to this user (status 403); accept its terms on its page and set HF_TOKEN, or download it by hand and give --model its path");
    hub.change(|shelf| shelf.status = Some(500));
    insta::assert_snapshot!(hub.refusal("org/name:a.Q8_0.gguf").await, @"HUB answered for `org/name:a.Q8_0.gguf` with what is no hub's answer: request error: http status: 500; check HF_ENDPOINT");
    hub.settings.offline = true;
    insta::assert_snapshot!(hub.refusal("org/elsewhere").await, @"`org/elsewhere` is not in CACHE and HF_HUB_OFFLINE is set; unset it, or download the model elsewhere and give --model its path");
    let bare = Hub::start(&[("README.md", b"read me")]);
    insta::assert_snapshot!(bare.refusal("org/name").await, @"`org/name` has neither a GGUF file nor safetensors with config.json and tokenizer.json; it has README.md");
}

#[tokio::test]
async fn without_a_network_the_message_says_how_to_go_on() {
    let mut hub = Hub::start(&[]);
    // A port that was free a moment ago and that nobody listens on.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    hub.settings.endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    insta::assert_snapshot!(hub.refusal("org/name").await, @"`org/name` is no file or directory here, and HUB cannot be reached for it (request error: io: Connection refused (os error 111)); download the model by hand and give --model its path, or check the network and HF_ENDPOINT");
}
