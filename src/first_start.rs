//! The first start: an administrator, the project `default`, and what a newcomer needs to know.

use std::fmt::Write as _;

use actors::Clock;
use cql::Store;
use cql::accounts::{AccountError, Project, User, project, user};
use domain::id::{ProjectId, UserId};
use secrecy::ExposeSecret;

use crate::config::{Config, StoreConfig};
use crate::edge::auth::password::{self, Passwords};

/// The slug of the project that exists from the start.
pub const DEFAULT_PROJECT: &str = "default";

/// What a start found or made.
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    /// There were users already.
    Again,
    /// The administrator was made; the password only if it was generated.
    First { email: String, generated: Option<String> },
}

/// Makes what is missing. Several nodes may do this at once: names are claimed, so one of them wins.
pub async fn prepare(store: &dyn Store, clock: &Clock, config: &Config) -> anyhow::Result<Start> {
    default_project(store, clock).await?;
    if !user::list(store).await?.is_empty() {
        return Ok(Start::Again);
    }
    let given = config.first_admin.password.as_ref().map(|password| password.expose_secret().to_owned());
    let generated = given.is_none().then(password::generate);
    let password = given.or_else(|| generated.clone()).unwrap_or_default();
    let now = clock.now();
    let admin = User {
        id: UserId::mint(now),
        email: config.first_admin.email.clone(),
        password_hash: Passwords::new().hash(&password).await?,
        first_name: None,
        last_name: None,
        display_name: None,
        timezone: "UTC".to_owned(),
        is_admin: true,
        is_active: true,
        created_at: now,
        updated_at: now,
    };
    match user::create(store, &admin).await {
        Ok(()) => Ok(Start::First { email: admin.email, generated }),
        Err(AccountError::Taken(_)) => Ok(Start::Again),
        Err(AccountError::Store(error)) => Err(error.into()),
    }
}

async fn default_project(store: &dyn Store, clock: &Clock) -> anyhow::Result<()> {
    if project::by_slug(store, DEFAULT_PROJECT).await?.is_some() {
        return Ok(());
    }
    let now = clock.now();
    let made = Project {
        id: ProjectId::mint(now),
        slug: DEFAULT_PROJECT.to_owned(),
        name: "Default".to_owned(),
        description: None,
        environment: None,
        timezone: "UTC".to_owned(),
        is_active: true,
        default_scheduler_owner: None,
        allowed_schedulers: None,
        created_at: now,
        updated_at: now,
    };
    match project::create(store, &made).await {
        Ok(()) | Err(AccountError::Taken(_)) => Ok(()),
        Err(AccountError::Store(error)) => Err(error.into()),
    }
}

/// What the server prints when it is ready.
pub fn greeting(start: &Start, config: &Config, durability: &str) -> String {
    let url = &config.public_url;
    let mut text = format!("Thalamus is ready at {url}\n");
    // Writing to a string cannot fail.
    let _ = match &config.store {
        StoreConfig::Embedded => writeln!(text, "  data folder  {}", config.data_dir.display()),
        StoreConfig::Cql(cql) => writeln!(text, "  store        keyspace {} on {}", cql.keyspace, cql.nodes.join(", ")),
    };
    let _ = writeln!(text, "  durability   {durability}");
    let Start::First { email, generated } = start else { return text };
    let _ = match generated {
        Some(password) => {
            writeln!(text, "  admin        {email}\n  password     {password}   (shown this once; change it)")
        }
        None => writeln!(text, "  admin        {email}, with the password of the settings"),
    };
    let _ = write!(
        text,
        "
Next: attach a worker. Log in, mint an agent in the project `{DEFAULT_PROJECT}`:

  curl -sc jar -H 'content-type: application/json' -d '{{\"email\":\"{email}\",\"password\":\"...\"}}' \\
       {url}/api/v1/auth/login
  curl -sb jar -H 'content-type: application/json' -H \"x-csrf-token: $(awk '/csrf/{{print $7}}' jar)\" \\
       -d '{{\"name\":\"worker-1\"}}' {url}/api/v1/projects/{DEFAULT_PROJECT}/agents

put four lines into the environment of the worker, with the `token` and `hmac_secret` of that answer:

  export Z4J_BRAIN_URL={url}
  export Z4J_PROJECT_ID={DEFAULT_PROJECT}
  export Z4J_TOKEN=...
  export Z4J_HMAC_SECRET=...

install the agent beside your app (`pip install z4j-celery`), write `import z4j_celery` where the app is made,
and start the worker with events switched on:

  celery -A app worker -E
"
    );
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cql::engine::memory::Memory;

    use super::*;
    use crate::config::Layers;

    fn config(flags: &[(&'static str, &str)]) -> Config {
        let flags: BTreeMap<_, _> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Config::resolve(&Layers::collect(flags, &|_| None).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_first_start_makes_an_administrator_and_a_project_and_the_next_makes_nothing() {
        let (store, clock, config) = (Memory::new(), Clock::machine(), config(&[]));
        let first = prepare(&store, &clock, &config).await.unwrap();
        let Start::First { email, generated: Some(password) } = &first else { panic!("{first:?}") };
        let admin = user::by_email(&store, email).await.unwrap().unwrap();
        assert!(admin.is_admin);
        assert!(Passwords::new().verify(password, Some(&admin.password_hash)).await.unwrap());
        assert!(project::by_slug(&store, DEFAULT_PROJECT).await.unwrap().is_some());
        let greeting = greeting(&first, &config, "synced");
        for word in [password, email, "Z4J_TOKEN", "celery -A app worker -E", "http://127.0.0.1:7700", "thalamus-data"]
        {
            assert!(greeting.contains(word), "{word}");
        }
        assert_eq!(prepare(&store, &clock, &config).await.unwrap(), Start::Again);
        assert!(!super::greeting(&Start::Again, &config, "synced").contains("password"));
    }

    #[tokio::test]
    async fn a_given_password_is_used_and_not_printed() {
        let config = config(&[("admin-email", "ann@example.org"), ("admin-password", "Correct-Horse-7")]);
        let store = Memory::new();
        let start = prepare(&store, &Clock::machine(), &config).await.unwrap();
        assert_eq!(start, Start::First { email: "ann@example.org".to_owned(), generated: None });
        assert!(!greeting(&start, &config, "synced").contains("Correct-Horse-7"));
    }
}
