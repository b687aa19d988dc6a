//! The one list of settings: a flag, an environment variable and a TOML key each.

/// One setting. Its environment variable is `THALAMUS_` and the key in upper snake case.
#[derive(Debug)]
pub struct Setting {
    pub key: &'static str,
    /// Placeholder in the help text; a switch has none.
    pub value: Option<&'static str>,
    pub default: Option<&'static str>,
    /// What may be given, completing "allowed is ...".
    pub allowed: &'static str,
    pub help: &'static str,
    pub section: &'static str,
    /// Never shown in messages.
    pub secret: bool,
}

impl Setting {
    pub fn env(&self) -> String {
        env_name(self.key)
    }

    /// The help text with the ways to set it.
    pub fn long_help(&self) -> String {
        let default = self.default.map(|default| format!("\n[default: {default}]")).unwrap_or_default();
        format!("{}\n[allowed: {}] [env: {}]{default}", self.help, self.allowed, self.env())
    }

    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

pub fn env_name(key: &str) -> String {
    format!("THALAMUS_{}", key.to_uppercase().replace('-', "_"))
}

const SERVER: &str = "Server";
const ACCOUNTS: &str = "First start";
const STORE: &str = "Store";
const LIMITS: &str = "Behaviour and limits";
const AUDIT: &str = "Audit";
const WATCH: &str = "Observation";

const fn setting(section: &'static str, key: &'static str, value: &'static str) -> Setting {
    Setting { key, value: Some(value), default: None, allowed: "any text", help: "", section, secret: false }
}

impl Setting {
    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn allow(mut self, allowed: &'static str) -> Self {
        self.allowed = allowed;
        self
    }

    const fn says(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    const fn hidden(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn switch(mut self) -> Self {
        self.value = None;
        self
    }
}

pub const SETTINGS: &[Setting] = &[
    setting(SERVER, "listen", "ADDRESS:PORT")
        .or("127.0.0.1:7700")
        .allow("an IP address and a port, such as 127.0.0.1:7700 or [::1]:7700")
        .says("Where REST and the agents' sockets are served."),
    setting(SERVER, "public-url", "URL")
        .allow("http:// or https:// with a host and no path, such as https://thalamus.example.org")
        .says("The URL that people and agents use, when it is not the listen address. With https, cookies are Secure."),
    setting(SERVER, "allow-plain-http", "")
        .switch()
        .or("false")
        .allow("true or false")
        .says("Serve without TLS on an address other machines can reach. Passwords and tokens then cross the network in clear."),
    setting(SERVER, "trusted-proxies", "CIDR,...")
        .allow("a comma-separated list of addresses or networks, such as 127.0.0.1,10.0.0.0/8")
        .says("Proxies whose X-Forwarded-For header is believed when the client's address is needed."),
    setting(SERVER, "config", "FILE")
        .allow("the path of a TOML file")
        .says("A file with any of these settings, one `key = value` a line."),
    setting(ACCOUNTS, "admin-email", "EMAIL")
        .or("admin@localhost")
        .allow("an e-mail address of 3 to 320 characters")
        .says("The administrator that is created when there is no user yet."),
    setting(ACCOUNTS, "admin-password", "PASSWORD")
        .hidden()
        .allow("12 to 256 characters")
        .says("That administrator's password. Without it a random one is made and printed once."),
    setting(STORE, "store", "ENGINE")
        .or("embedded")
        .allow("embedded (one machine, in the data folder) or cql (ScyllaDB or Cassandra)")
        .says("Where everything is kept."),
    setting(STORE, "data-dir", "DIR")
        .or("thalamus-data")
        .allow("the path of a folder that this server may create and write")
        .says("The data folder: the embedded store and the master secret."),
    setting(STORE, "cql-nodes", "HOST[:PORT],...")
        .allow("a comma-separated list of hosts, each with an optional port")
        .says("Contact points of the cluster; needed with `--store cql`."),
    setting(STORE, "cql-keyspace", "NAME")
        .or("thalamus")
        .allow("1 to 48 letters, digits and underscores, a letter first")
        .says("The keyspace; created when it does not exist."),
    setting(STORE, "cql-user", "NAME").says("User name for the cluster, when it asks for one."),
    setting(STORE, "cql-password", "PASSWORD").hidden().says("Password for the cluster, when it asks for one."),
    setting(STORE, "master-secret", "SECRET")
        .hidden()
        .allow("at least 32 characters, the same on every node")
        .says("What tokens, agents' secrets and every other key are derived from. Embedded: made at the first start and kept in the data folder. cql: required."),
    setting(LIMITS, "command-timeout-seconds", "SECONDS")
        .or("60")
        .allow("a whole number from 1 to 86400")
        .says("How long a command may take until it ends `timed_out`."),
    setting(LIMITS, "page-size-default", "ROWS")
        .or("50")
        .allow("a whole number from 1 to 5000")
        .says("Rows per page when a request names no limit."),
    setting(LIMITS, "bulk-limit-per-minute", "CALLS")
        .or("10")
        .allow("a whole number from 1 to 100000")
        .says("Bulk deletes, bulk retries and purges per minute, each per project and caller."),
    setting(LIMITS, "login-limit-per-minute", "ATTEMPTS")
        .or("20")
        .allow("a whole number from 1 to 100000")
        .says("Login attempts per minute and client address."),
    setting(LIMITS, "connect-limit-per-minute", "CONNECTS")
        .or("600")
        .allow("a whole number from 1 to 1000000")
        .says("Connects of agents per minute and client address."),
    setting(LIMITS, "heartbeat-seconds", "SECONDS")
        .or("10")
        .allow("a whole number from 1 to 60")
        .says("How often agents are told to send a heartbeat."),
    setting(LIMITS, "lost-after-seconds", "SECONDS")
        .or("900")
        .allow("a whole number from 10 to 604800")
        .says("A started task is `lost` when its worker has been offline for this long."),
    setting(LIMITS, "retention-days", "DAYS")
        .or("35")
        .allow("a whole number from 1 to 3650")
        .says("How long tasks are kept. A higher value holds for tasks received from then on: what was received before ends when it would have."),
    setting(AUDIT, "checkpoint-file", "FILE")
        .allow("the path of a file that this server may create and append to")
        .says("Where signed checkpoints of the ledgers are appended. Without it: beside the data folder, named like it with `-checkpoints.ndjson` behind."),
    setting(AUDIT, "checkpoint-key", "FILE")
        .allow("the path of a file that only this server can read")
        .says("The key that signs checkpoints, made at the first start. Without it: `checkpoint-key` in the data folder."),
    setting(AUDIT, "checkpoint-seconds", "SECONDS")
        .or("10")
        .allow("a whole number from 1 to 3600")
        .says("How often checkpoints of ledgers that grew are signed; each thousandth entry has one of its own."),
    setting(WATCH, "metrics-token", "TOKEN")
        .hidden()
        .allow("at least 16 characters")
        .says("The bearer token for /metrics. Without it /metrics answers on loopback listeners only."),
    setting(WATCH, "log", "FILTER")
        .or("info,fjall=warn,lsm_tree=warn,scylla=warn")
        .allow("error, warn, info, debug, trace, or directives such as info,actors=debug")
        .says("What is logged, to standard error."),
    setting(WATCH, "log-format", "FORMAT").or("text").allow("text or json").says("How it is logged."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_named_once_and_says_what_it_does() {
        for (n, setting) in SETTINGS.iter().enumerate() {
            assert!(!SETTINGS[..n].iter().any(|other| other.key == setting.key), "{} stands twice", setting.key);
            assert!(setting.help.ends_with('.'), "{} has no sentence", setting.key);
            assert!(setting.key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
        assert_eq!(env_name("cql-nodes"), "THALAMUS_CQL_NODES");
    }
}
