//! The command line of the server: serve, print the OpenAPI document, or change the file of keys.

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, FromArgMatches, Subcommand};
use server::access::commands::KeysCommand;
use server::application::Application;
use server::configuration::Configuration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

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
    let filter = EnvFilter::try_new(&configuration.log_level)
        .with_context(|| format!("--log-level {:?} is no filter", configuration.log_level))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let application = Application::build(configuration).await?;
    let handle = application.handle();
    application.reload_handle().on_hangup()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        handle.stop().await;
    });
    application.run_until_stopped().await
}

fn print_openapi() -> Result<()> {
    use std::io::Write;

    let document = server::openapi::document()?;
    Ok(std::io::stdout().write_all(document.as_bytes())?)
}
