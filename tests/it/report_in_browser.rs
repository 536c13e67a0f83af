//! The page of a report in a real browser: it is fetched from the server, so that its content security policy is in force, and looked at as a picture.
//! Skipped by name where no chromium is installed (`apt-get install chromium`).

use std::collections::HashSet;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err::File;
use serde_json::json;

use crate::harness::App;

/// Longest time that a browser may take; it needs a few seconds, more where all cores are busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// A picture without a window, by a browser that knows nobody and asks nobody, with its console on standard error.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--window-size=1000,1400",
];

#[tokio::test]
async fn a_report_is_a_page_that_a_browser_shows_without_complaint() {
    let Some(browser) = browser("a_report_is_a_page_that_a_browser_shows_without_complaint") else {
        return;
    };
    let app = App::with_moods().await;
    let body = json!({"kind": "matrix", "adapters": ["base", "moods"], "tasks": ["sentiment", "question"], "shots": [0, 1], "limit": 4});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    let id = evaluation["id"].as_str().unwrap();
    let page = app
        .client
        .url(&format!("/v1/evaluations/{id}/report?format=html"));
    let folder = tempfile::tempdir().unwrap();
    let complaints = screenshot(&browser, &page, folder.path()).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    assert_shows_something(&folder.path().join("page.png"));
}

/// A page that breaks its policy, to see that the browser's complaints are heard.
#[tokio::test]
async fn complaints_of_the_browser_are_heard() {
    let Some(browser) = browser("complaints_of_the_browser_are_heard") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let policy = "<meta http-equiv=content-security-policy content=\"default-src 'none'\">";
    fs_err::write(
        &page,
        format!("{policy}<style>p {{ color: red }}</style><p>text"),
    )
    .unwrap();
    let page = format!("file://{}", page.display());
    let complaints = screenshot(&browser, &page, folder.path()).await;
    assert!(
        complaints
            .iter()
            .any(|line| line.contains("Content Security Policy")),
        "{complaints:?}"
    );
}

/// The first browser that starts; none says that the test is skipped.
fn browser(test: &str) -> Option<String> {
    let starts = |name: &&str| {
        let version = Command::new(name).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    };
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(starts);
    if found.is_none() {
        engine::testing::say_skipped(
            test,
            "there is no chromium; `apt-get install chromium` brings it",
        );
    }
    found.map(str::to_owned)
}

/// Takes a picture of a page, `page.png` in `folder`, and returns what the page wrote to the browser's console.
async fn screenshot(browser: &str, page: &str, folder: &Path) -> Vec<String> {
    let picture = folder.join("page.png");
    let log = folder.join("log");
    let mut child = Command::new(browser)
        .args(FLAGS)
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap().into_file())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    if ended.is_err() {
        // Otherwise the browser would outlive the test, and the test would wait for it.
        Command::new("kill").args(["-KILL", &id]).status().unwrap();
    }
    let log = String::from_utf8_lossy(&fs_err::read(&log).unwrap()).into_owned();
    let status = ended.unwrap_or_else(|_| panic!("the browser does not end: {log}"));
    let status = status.unwrap().unwrap();
    assert!(status.success() && picture.is_file(), "{log}");
    let console = log.lines().filter(|line| line.contains("CONSOLE"));
    console.map(ToOwned::to_owned).collect()
}

/// A picture is not blank if it has text in many shades and the colours of charts beside them.
#[track_caller]
fn assert_shows_something(picture: &Path) {
    let file = BufReader::new(File::open(picture).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    let samples = frame.color_type.samples();
    assert!(samples >= 3, "{:?}", frame.color_type);
    let pixels: Vec<&[u8]> = pixels[..frame.buffer_size()]
        .chunks_exact(samples)
        .map(|pixel| &pixel[..3])
        .collect();
    let colours: HashSet<&[u8]> = pixels.iter().copied().collect();
    let background = pixels[0];
    let drawn = pixels.iter().filter(|pixel| **pixel != background).count();
    assert!(colours.len() > 100, "{} colours", colours.len());
    assert!(
        drawn > pixels.len() / 50,
        "{drawn} of {} pixels are not background",
        pixels.len()
    );
}
