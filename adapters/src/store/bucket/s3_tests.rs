//! The same against a server that speaks S3: `moto_server` from PyPI's `moto[server]`, when `QUICKCHANGE_MOTO_SERVER` names it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::super::AdapterStore as _;
use super::location;
use super::testing::Server;
use super::tests::TESTS;
use super::*;

const VARIABLE: &str = "QUICKCHANGE_MOTO_SERVER";

/// moto compares a tag and stores the object in two steps, between which it may answer another request. S3 does not.
const ONE_REQUEST_AT_A_TIME: &str = "
import threading, werkzeug.serving
run_simple, lock = werkzeug.serving.run_simple, threading.Lock()
def run_locked(host, port, application, **options):
    def locked(environment, start_response):
        with lock:
            return list(application(environment, start_response))
    run_simple(host, port, locked, **options)
werkzeug.serving.run_simple = run_locked
";

/// A moto that dies with this.
struct Moto {
    process: Child,
    address: String,
    _site: TempDir,
}

impl Moto {
    /// `None` when there is none, which it says on standard error.
    fn start(test: &str) -> Option<Self> {
        let Some(program) = std::env::var_os(VARIABLE) else {
            let reason =
                format!("{VARIABLE} names no moto_server; run `pip install 'moto[server]'`");
            // Nobody reads a standard error that cannot be written to.
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
            return None;
        };
        let site = tempfile::tempdir().expect("a temporary directory");
        fs_err::write(site.path().join("sitecustomize.py"), ONE_REQUEST_AT_A_TIME)
            .expect("writable");
        let mut process = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .env("PYTHONPATH", site.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the variable names a program");
        let mut log = BufReader::new(process.stderr.take().expect("piped"));
        let mut said = String::new();
        let address = loop {
            let from = said.len();
            let read = log.read_line(&mut said).expect("text");
            assert_ne!(read, 0, "moto ended before it listened:\n{said}");
            if let Some((_, address)) = said[from..].split_once("Running on http://") {
                break address.trim().to_owned();
            }
        };
        // It stops when nobody reads what it says.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Self {
            process,
            address,
            _site: site,
        })
    }

    fn create_bucket(&self, bucket: &str) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let request = format!(
            "PUT /{bucket} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(
            answer
                .lines()
                .next()
                .is_some_and(|line| line.contains(" 200 ")),
            "{answer}"
        );
    }

    /// A client of its own, as another process would have it.
    fn open(&self, location: &str) -> Server {
        let place = location::parse(location).expect("a location");
        let variables = [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let client = location::connect(&place, variables.into_iter()).expect("a client");
        Server::over(Arc::new(client), place.prefix.as_ref())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn any_bucket_behind_s3() {
    let Some(moto) = Moto::start("any_bucket_behind_s3") else {
        return;
    };
    moto.create_bucket("models");
    for (name, test) in TESTS {
        eprintln!("{name}");
        test(&|| moto.open(&format!("s3://models/lora/{name}")));
    }
}

#[test]
fn a_bucket_that_is_not_there_is_an_error() {
    let Some(moto) = Moto::start("a_bucket_that_is_not_there_is_an_error") else {
        return;
    };
    let store = moto.open("s3://missing/lora");
    for result in [store.contents().map(drop), store.pointer_tags().map(drop)] {
        let error = result.expect_err("there is no such bucket");
        assert_eq!(error.code(), "store_remote");
        assert!(error.to_string().contains("NoSuchBucket"), "{error}");
    }
}
