//! The command line: `serve`, `admin`, `audit verify`.

pub mod admin;
pub mod audit;
mod flags;

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use std::io::Write as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError};
use crate::{first_start, serve, telemetry};

const ABOUT: &str = "Control plane for task queues: every task seen, every command run once";

const SERVE_HELP: &str = "\
Examples:
  thalamus serve
      Everything on one machine, data in ./thalamus-data, http://127.0.0.1:7700.
      The first start prints the administrator's password and how to attach a worker.

  thalamus serve --listen 0.0.0.0:7700 --public-url https://thalamus.example.org
      Behind a proxy that terminates TLS.

  thalamus serve --store cql --cql-nodes db1,db2,db3 --master-secret \"$SECRET\"
      One of several nodes on a ScyllaDB or Cassandra cluster.

  THALAMUS_PAGE_SIZE_DEFAULT=100 thalamus serve --config thalamus.toml
      Every flag is also an environment variable and a key of the TOML file:
      listen = \"127.0.0.1:7700\". A flag beats the environment, which beats the file.";

/// The command line as clap sees it.
pub fn command() -> Command {
    Command::new("thalamus")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help("Start with `thalamus serve`; `thalamus serve --help` shows every setting with examples.")
        .subcommand(Command::new("serve").about("Run the server").args(flags::all()).after_help(SERVE_HELP))
        .subcommand(admin::command())
        .subcommand(audit::command())
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    match dispatch(&matches) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match matches.subcommand() {
        Some(("serve", matches)) => match settle(matches) {
            Some(config) => runtime()?.block_on(run_server(config)).map(|()| ExitCode::SUCCESS),
            None => Ok(ExitCode::from(2)),
        },
        Some(("admin", matches)) => runtime()?.block_on(admin::run(matches)),
        Some(("audit", matches)) => runtime()?.block_on(audit::run(matches)),
        Some(_) | None => anyhow::bail!("unknown command"),
    }
}

/// The settings, or every complaint about them on standard error.
fn settle(matches: &ArgMatches) -> Option<Config> {
    for (name, near) in Config::strangers() {
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        complain(&format!("warning: the environment variable {name} is no setting{near}"));
    }
    match Config::from_process(flags::given(matches)) {
        Ok(config) => Some(config),
        Err(errors) => {
            for error in &errors {
                complain(&with_sources(error));
            }
            complain("nothing was started; `thalamus serve --help` lists every setting");
            None
        }
    }
}

fn with_sources(error: &ConfigError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn complain(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "thalamus: {text}");
}

async fn run_server(mut config: Config) -> anyhow::Result<()> {
    telemetry::start(&config.log);
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {} (setting `listen`): {error}", config.listen))?;
    // Port 0 asks the system for a free port; from here on the real one counts.
    config.listens_on(listener.local_addr()?);
    let ready = serve::prepare(&config).await?;
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        asked.cancel();
        // A second signal does not wait.
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        std::process::exit(130);
    });
    let greeting = first_start::greeting(&ready.start, &config, ready.opened.store.durability().as_str());
    let mut out = std::io::stdout();
    // A closed standard output does not keep the server from serving.
    let _ = out.write_all(greeting.as_bytes()).and_then(|()| out.flush());
    serve::serve(config, ready, listener, shutdown).await
}
