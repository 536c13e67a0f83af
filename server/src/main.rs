//! The command line of the server: serve, print the OpenAPI document, or change the file of keys.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Args, CommandFactory, FromArgMatches, Subcommand};
use server::access::commands::KeysCommand;
use server::application::Application;
use server::configuration::Configuration;
use server::logging;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a server that did not finish what it had.
const STOPPED_AT_ONCE: i32 = 3;

/// What else than serving the binary can do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Print the OpenAPI document
    Openapi,
    /// Make, list and revoke keys
    #[command(subcommand)]
    Keys(KeysCommand),
}

/// The command in front of, or in place of, the server's own flags.
#[derive(Debug, Args)]
struct Choice {
    #[command(subcommand)]
    command: Option<Command>,
}

#[actix_web::main]
async fn main() -> Result<()> {
    let matches = Choice::augment_args(Configuration::command()).get_matches();
    let choice = Choice::from_arg_matches(&matches)?;
    match choice.command {
        Some(Command::Openapi) => print_openapi(),
        Some(Command::Keys(command)) => command.run(),
        None => serve(Configuration::from_arg_matches(&matches)?).await,
    }
}

async fn serve(configuration: Configuration) -> Result<()> {
    logging::start(&configuration)?;
    let application = Application::build(configuration).await?;
    let handle = application.handle();
    application.reload_handle().on_hangup()?;
    let mut signals = StopSignals::new()?;
    tokio::spawn(async move {
        signals.next().await;
        tokio::spawn(async move { handle.stop().await });
        signals.next().await;
        tracing::warn!("told to stop a second time; stopping at once");
        std::process::exit(STOPPED_AT_ONCE);
    });
    application.run_until_stopped().await
}

/// What asks a server to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn print_openapi() -> Result<()> {
    use std::io::Write;

    let document = server::openapi::document()?;
    Ok(std::io::stdout().write_all(document.as_bytes())?)
}
