//! Every setting, typed and checked before anything starts.
//!
//! A setting is a flag, an environment variable and a TOML key ([`setting::SETTINGS`]); the first given in that
//! order counts, then the default. A wrong value names the setting, the value and what is allowed.

mod layers;
mod network;
pub mod setting;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

pub use layers::{ConfigError, Given, Layers, Origin, nearest};
pub use network::{Network, PublicUrl};
use setting::Setting;

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub public_url: PublicUrl,
    pub trusted_proxies: Vec<Network>,
    pub data_dir: PathBuf,
    pub store: StoreConfig,
    pub master_secret: Option<SecretString>,
    pub first_admin: FirstAdmin,
    pub command_timeout: Duration,
    pub page_size_default: usize,
    pub bulk_limit_per_minute: u32,
    pub login_limit_per_minute: u32,
    pub connect_limit_per_minute: u32,
    pub heartbeat: Duration,
    pub lost_after: Duration,
    pub retention_days: u32,
    pub checkpoints: CheckpointConfig,
    pub metrics_token: Option<SecretString>,
    pub log: LogConfig,
}

#[derive(Clone, Debug)]
pub enum StoreConfig {
    Embedded,
    Cql(CqlConfig),
}

#[derive(Clone, Debug)]
pub struct CqlConfig {
    pub nodes: Vec<String>,
    pub keyspace: String,
    pub user: Option<String>,
    pub password: Option<SecretString>,
}

/// The account made when there is no user yet.
#[derive(Clone, Debug)]
pub struct FirstAdmin {
    pub email: String,
    pub password: Option<SecretString>,
}

/// Signed checkpoints of the ledgers.
#[derive(Clone, Debug)]
pub struct CheckpointConfig {
    pub file: PathBuf,
    pub key: PathBuf,
    pub every: Duration,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub filter: String,
    pub json: bool,
}

/// Reads typed values out of the layers and keeps every complaint.
struct Reader<'a> {
    layers: &'a Layers<'a>,
    complaints: Vec<ConfigError>,
}

impl Reader<'_> {
    fn optional<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let given = self.layers.given(key)?;
        let value = parse(given.value.trim());
        if value.is_none() {
            let setting = Setting::find(key).expect("only listed settings are read");
            self.complaints.push(ConfigError::Wrong { setting, given });
        }
        value
    }

    fn whole(&mut self, key: &'static str, allowed: std::ops::RangeInclusive<u32>) -> u32 {
        let lowest = *allowed.start();
        self.optional(key, |text| text.parse().ok().filter(|number| allowed.contains(number))).unwrap_or(lowest)
    }

    fn seconds(&mut self, key: &'static str, allowed: std::ops::RangeInclusive<u32>) -> Duration {
        Duration::from_secs(self.whole(key, allowed).into())
    }

    fn secret(&mut self, key: &'static str, lengths: std::ops::RangeInclusive<usize>) -> Option<SecretString> {
        self.optional(key, |text| lengths.contains(&text.chars().count()).then(|| SecretString::from(text)))
    }

    fn rule(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.complaints.push(ConfigError::Rule(message()));
        }
    }
}

impl Config {
    /// Resolves every setting, or says everything that is wrong.
    pub fn resolve(layers: &Layers<'_>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader { layers, complaints: Vec::new() };
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 7700));
        let listen: SocketAddr = read.optional("listen", |text| text.parse().ok()).unwrap_or(loopback);
        let public_url = read.optional("public-url", PublicUrl::parse);
        let allow_plain = read.optional("allow-plain-http", |text| text.parse().ok()).unwrap_or(false);
        let trusted_proxies = read.optional("trusted-proxies", network::parse_list).unwrap_or_default();
        let data_dir = read.optional("data-dir", path).unwrap_or_default();
        let checkpoints = CheckpointConfig {
            file: read.optional("checkpoint-file", path).unwrap_or_else(|| beside(&data_dir)),
            key: read.optional("checkpoint-key", path).unwrap_or_else(|| data_dir.join("checkpoint-key")),
            every: read.seconds("checkpoint-seconds", 1..=3600),
        };
        let first_admin = FirstAdmin {
            email: read.optional("admin-email", email).unwrap_or_default(),
            password: read.secret("admin-password", 12..=256),
        };
        let master_secret = read.secret("master-secret", 32..=1024);
        let store = store(&mut read, master_secret.is_some());
        let behind_tls = public_url.as_ref().is_some_and(PublicUrl::is_https);
        read.rule(listen.ip().is_loopback() || allow_plain || behind_tls, || {
            format!(
                "`listen` is {listen}, which other machines can reach, and this server speaks plain HTTP there: passwords and \
                 tokens would cross the network in clear. Put a proxy with TLS in front and set `public-url` to its https:// \
                 address, or set `allow-plain-http` if the network itself is trusted"
            )
        });
        let config = Self {
            public_url: public_url.unwrap_or_else(|| PublicUrl::plain(reachable(listen))),
            listen,
            trusted_proxies,
            data_dir,
            store,
            master_secret,
            first_admin,
            command_timeout: read.seconds("command-timeout-seconds", 1..=86_400),
            page_size_default: read.whole("page-size-default", 1..=5000) as usize,
            bulk_limit_per_minute: read.whole("bulk-limit-per-minute", 1..=100_000),
            login_limit_per_minute: read.whole("login-limit-per-minute", 1..=100_000),
            connect_limit_per_minute: read.whole("connect-limit-per-minute", 1..=1_000_000),
            heartbeat: read.seconds("heartbeat-seconds", 1..=60),
            lost_after: read.seconds("lost-after-seconds", 10..=604_800),
            retention_days: read.whole("retention-days", 1..=3650),
            checkpoints,
            metrics_token: read.secret("metrics-token", 16..=1024),
            log: LogConfig {
                filter: read.optional("log", filter).unwrap_or_default(),
                json: read.optional("log-format", log_format).unwrap_or(false),
            },
        };
        if read.complaints.is_empty() { Ok(config) } else { Err(read.complaints) }
    }

    /// Resolves from flags, the process environment and the settings file.
    pub fn from_process(flags: std::collections::BTreeMap<&'static str, String>) -> Result<Self, Vec<ConfigError>> {
        let environment = |name: &str| std::env::var(name).ok();
        let layers = Layers::collect(flags, &environment).map_err(|error| vec![error])?;
        Self::resolve(&layers)
    }

    /// Takes the address that the listener really has, which differs when port 0 was asked for.
    pub fn listens_on(&mut self, address: SocketAddr) {
        if self.public_url == PublicUrl::plain(reachable(self.listen)) {
            self.public_url = PublicUrl::plain(reachable(address));
        }
        self.listen = address;
    }

    /// Environment variables that look like settings and are none, with the nearest known name.
    pub fn strangers() -> Vec<(String, Option<String>)> {
        let mut strangers: Vec<_> = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter_map(|name| name.strip_prefix("THALAMUS_").map(|rest| rest.replace('_', "-").to_lowercase()))
            .filter(|key| Setting::find(key).is_none())
            .map(|key| (setting::env_name(&key), nearest(&key).map(setting::env_name)))
            .collect();
        strangers.sort();
        strangers
    }
}

fn store(read: &mut Reader<'_>, has_secret: bool) -> StoreConfig {
    let keyspace = read.optional("cql-keyspace", keyspace).unwrap_or_default();
    let nodes = read.optional("cql-nodes", node_list);
    let user = read.optional("cql-user", |text| Some(text.to_owned()));
    let password = read.secret("cql-password", 1..=1024);
    let is_cql = read.optional("store", |text| match text {
        "embedded" => Some(false),
        "cql" => Some(true),
        _ => None,
    });
    if is_cql != Some(true) {
        return StoreConfig::Embedded;
    }
    let nodes = nodes.unwrap_or_default();
    read.rule(!nodes.is_empty(), || {
        "`store` is cql, so `cql-nodes` is needed: a comma-separated list of hosts, each with an optional port"
            .to_owned()
    });
    read.rule(has_secret, || {
        "`store` is cql, so `master-secret` is needed: at least 32 characters, the same on every node".to_owned()
    });
    StoreConfig::Cql(CqlConfig { nodes, keyspace, user, password })
}

/// An address that this machine can connect to, for a listener on every interface.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// The file of checkpoints when none is named: beside the data folder, so that a folder put back from a backup does
/// not take the checkpoints back with it.
fn beside(data_dir: &Path) -> PathBuf {
    match data_dir.file_name() {
        Some(name) => {
            let mut name = name.to_owned();
            name.push("-checkpoints.ndjson");
            data_dir.with_file_name(name)
        }
        // `.`, `..` and `/` have nothing beside them that could be named after them.
        None => data_dir.join("checkpoints.ndjson"),
    }
}

pub fn email(text: &str) -> Option<String> {
    let (local, domain) = text.split_once('@')?;
    let plain = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
    let fits = (3..=320).contains(&text.chars().count());
    (plain && fits && !local.is_empty() && !domain.is_empty() && !domain.contains('@')).then(|| text.to_owned())
}

fn keyspace(text: &str) -> Option<String> {
    let named = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (named && plain && text.len() <= 48).then(|| text.to_owned())
}

fn node_list(text: &str) -> Option<Vec<String>> {
    let node = |node: &str| (!node.is_empty() && !node.contains(char::is_whitespace)).then(|| node.to_owned());
    text.split(',').map(|part| node(part.trim())).collect()
}

fn filter(text: &str) -> Option<String> {
    text.parse::<tracing_subscriber::filter::Targets>().ok().map(|_| text.to_owned())
}

fn log_format(text: &str) -> Option<bool> {
    match text {
        "text" => Some(false),
        "json" => Some(true),
        _ => None,
    }
}
