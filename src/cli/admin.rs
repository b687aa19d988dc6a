//! `thalamus admin`: accounts when nobody can log in.

use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

use actors::Clock;
use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use cql::Store;
use cql::accounts::{User, login, user};
use cql::ledger::note::{Noted, note};
use domain::command::{Actor, Source};
use domain::id::UserId;
use domain::ledger::{LedgerKey, Proposal};
use domain::secret::KeyUse;

use super::flags;
use crate::config::{self, Config};
use crate::edge::audit::{self, SYSTEM};
use crate::edge::auth::password::{self, Passwords};
use crate::edge::users;
use crate::master;
use crate::store::{self, Opened};

const HELP: &str = "\
The embedded store belongs to one process: stop the server first. With `--store cql` it may run on.

Examples:
  thalamus admin reset-password --email ann@example.org --data-dir thalamus-data
  thalamus admin create-user --email bob@example.org --global-admin
  thalamus admin list-users --store cql --cql-nodes db1 --master-secret \"$SECRET\"";

pub(super) fn command() -> Command {
    let email = || Arg::new("email").long("email").value_name("EMAIL").required(true).help("The user's address");
    let password = || {
        Arg::new("password-stdin")
            .long("password-stdin")
            .action(ArgAction::SetTrue)
            .help("Read the password from standard input; without this one is made and printed")
    };
    Command::new("admin")
        .about("Create users and reset passwords when nobody can log in")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(HELP)
        .subcommand(
            Command::new("reset-password")
                .about("Give a user a new password, lift the lock, end the user's sessions")
                .arg(email())
                .arg(password())
                .args(flags::of_store())
                .after_help(HELP),
        )
        .subcommand(
            Command::new("create-user")
                .about("Create a user")
                .arg(email())
                .arg(password())
                .arg(
                    Arg::new("global-admin")
                        .long("global-admin")
                        .action(ArgAction::SetTrue)
                        .help("Let the user manage users and act as admin in every project"),
                )
                .args(flags::of_store())
                .after_help(HELP),
        )
        .subcommand(Command::new("list-users").about("List the users").args(flags::of_store()).after_help(HELP))
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some((verb, matches)) = matches.subcommand() else { bail!("name what to do; see `thalamus admin --help`") };
    let Some(config) = super::settle(matches) else { return Ok(ExitCode::from(2)) };
    let opened = open(&config).await?;
    let (store, clock) = (opened.store.as_ref(), Clock::machine());
    let master = master::load(&config)?;
    master::check(store, &master, clock.now()).await?;
    let desk = Desk { store, key: LedgerKey::new(master.site_key(KeyUse::Ledger, SYSTEM).as_bytes()), clock };
    let text = match verb {
        "reset-password" => reset_password(&desk, matches).await?,
        "create-user" => create_user(&desk, matches).await?,
        "list-users" => list_users(store).await?,
        other => bail!("unknown command {other}"),
    };
    opened.close().await;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn open(config: &Config) -> anyhow::Result<Opened> {
    if matches!(config.store, config::StoreConfig::Embedded) && !config.data_dir.is_dir() {
        bail!("there is no data folder {} (setting `data-dir`)", config.data_dir.display());
    }
    store::open_briefly(config)
        .await
        .context("the store is not available to this command; stop the server if one runs on it")
}

/// Where accounts are changed, and what it takes to note that in the system's chain.
struct Desk<'a> {
    store: &'a dyn Store,
    key: LedgerKey,
    clock: Clock,
}

impl Desk<'_> {
    /// Notes that somebody at the machine gave a user a standing (contract D25). The change itself is done by now, and
    /// a password that was made has to be shown: a note that is not written is only complained about.
    async fn note(&self, user: &User, before: Option<&str>) {
        let proposal = Proposal {
            actor: Actor::System,
            source: Source { ip: None, user_agent: Some("thalamus admin".to_owned()) },
            kind: audit::role_changed(user.id, before, users::standing(user)),
        };
        let noted = note(self.store, SYSTEM, &self.key, &proposal, self.clock.now()).await;
        match noted {
            Ok(Noted::Done) => {}
            Ok(Noted::Unknown) => super::complain("nobody can say whether this stands in the system's ledger"),
            Err(error) => super::complain(&format!("this does not stand in the system's ledger: {error}")),
        }
    }
}

/// The password for a user, and whether it was made here.
fn new_password(matches: &ArgMatches) -> anyhow::Result<(String, bool)> {
    if !matches.get_flag("password-stdin") {
        return Ok((password::generate(), true));
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    match password::weakness(&password) {
        Some(weakness) => bail!("{weakness}"),
        None => Ok((password, false)),
    }
}

fn email(matches: &ArgMatches) -> anyhow::Result<String> {
    let email = matches.get_one::<String>("email").map(String::as_str).unwrap_or_default();
    config::email(email).with_context(|| format!("`{email}` is no e-mail address"))
}

fn told(what: &str, email: &str, password: &str, made: bool) -> String {
    if made { format!("{what} {email}\npassword {password}\n") } else { format!("{what} {email}\n") }
}

async fn reset_password(desk: &Desk<'_>, matches: &ArgMatches) -> anyhow::Result<String> {
    let (store, clock) = (desk.store, &desk.clock);
    let email = email(matches)?;
    let mut found = user::by_email(store, &email).await?.with_context(|| format!("there is no user {email}"))?;
    let (password, made) = new_password(matches)?;
    let before = users::standing(&found);
    found.password_hash = Passwords::new().hash(&password).await?;
    found.is_active = true;
    found.updated_at = clock.now();
    user::put(store, &found).await?;
    user::clear_failures(store, found.id).await?;
    for (hash, session) in login::of_user(store, found.id, clock.now()).await? {
        login::remove(store, &hash, &session).await?;
    }
    desk.note(&found, before).await;
    Ok(told("new password for", &email, &password, made))
}

async fn create_user(desk: &Desk<'_>, matches: &ArgMatches) -> anyhow::Result<String> {
    let email = email(matches)?;
    let (password, made) = new_password(matches)?;
    let now = desk.clock.now();
    let new = User {
        id: UserId::mint(now),
        email: email.clone(),
        password_hash: Passwords::new().hash(&password).await?,
        first_name: None,
        last_name: None,
        display_name: None,
        timezone: "UTC".to_owned(),
        is_admin: matches.get_flag("global-admin"),
        is_active: true,
        created_at: now,
        updated_at: now,
    };
    user::create(desk.store, &new).await?;
    desk.note(&new, None).await;
    Ok(told("created", &email, &password, made))
}

async fn list_users(store: &dyn Store) -> anyhow::Result<String> {
    let line = |user: &User| {
        let kind = if user.is_admin { "global admin" } else { "user" };
        let state = if user.is_active { "" } else { ", inactive" };
        format!("{}  {}  {kind}{state}\n", user.id, user.email)
    };
    Ok(user::list(store).await?.iter().map(line).collect())
}
