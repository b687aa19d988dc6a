//! What is read, in which order, and what is refused with which words.

use std::collections::BTreeMap;
use std::path::Path;

use super::layers::parse_file;
use super::*;

fn resolve(flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str) -> Result<Config, Vec<ConfigError>> {
    let flags: BTreeMap<_, _> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let env: BTreeMap<_, _> = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let environment = |name: &str| env.get(name).cloned();
    let mut layers = Layers::collect(flags, &environment).map_err(|error| vec![error])?;
    layers.file = parse_file(Path::new("thalamus.toml"), file).map_err(|error| vec![error])?;
    Config::resolve(&layers)
}

fn refused(flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str) -> String {
    let errors = resolve(flags, env, file).expect_err("refused");
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let page = |flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str| {
        resolve(flags, env, file).expect("settings").page_size_default
    };
    assert_eq!(page(&[], &[], ""), 50);
    let file = "page-size-default = 3";
    assert_eq!(page(&[], &[], file), 3);
    let env = [("THALAMUS_PAGE_SIZE_DEFAULT", "4")];
    assert_eq!(page(&[], &env, file), 4);
    assert_eq!(page(&[("page-size-default", "5")], &env, file), 5);
    assert_eq!(page(&[], &[("THALAMUS_PAGE_SIZE_DEFAULT", "")], file), 3, "an empty variable is not set");
}

#[test]
fn every_default_is_allowed() {
    let config = resolve(&[], &[], "").expect("settings");
    assert_eq!(config.public_url.to_string(), "http://127.0.0.1:7700");
    assert_eq!(config.first_admin.email, "admin@localhost");
}

#[test]
fn a_wrong_setting_names_its_place_its_value_and_what_is_allowed() {
    assert_eq!(
        refused(&[("page-size-default", "0")], &[], ""),
        "the flag --page-size-default is `0`; allowed is a whole number from 1 to 5000"
    );
    assert_eq!(
        refused(&[], &[("THALAMUS_STORE", "tape")], ""),
        "the environment variable THALAMUS_STORE (setting `store`) is `tape`; allowed is embedded (one machine, in the \
         data folder) or cql (ScyllaDB or Cassandra)"
    );
    assert_eq!(
        refused(&[], &[], "listen = 7"),
        "the key `listen` in thalamus.toml is `7`; allowed is an IP address and a port, such as 127.0.0.1:7700 or \
         [::1]:7700"
    );
    assert_eq!(
        refused(&[], &[], "page-size-defualt = 7"),
        "the settings file thalamus.toml has an unknown key `page-size-defualt`; did you mean `page-size-default`?"
    );
    let both = refused(&[("retention-days", "-1"), ("log-format", "xml")], &[], "");
    assert!(both.contains("retention-days") && both.contains("log-format"), "{both}");
}

#[test]
fn a_wrong_secret_is_not_shown() {
    let text = refused(&[("admin-password", "hunter2")], &[("THALAMUS_METRICS_TOKEN", "hunter3")], "");
    assert!(text.contains("--admin-password is (not shown); allowed is 12 to 256 characters"), "{text}");
    assert!(!text.contains("hunter"), "{text}");
}

#[test]
fn plain_http_for_other_machines_has_to_be_asked_for() {
    let text = refused(&[("listen", "0.0.0.0:7700")], &[], "");
    assert!(text.contains("allow-plain-http") && text.contains("public-url"), "{text}");
    assert!(resolve(&[("listen", "0.0.0.0:7700"), ("allow-plain-http", "true")], &[], "").is_ok());
    let behind = [("listen", "0.0.0.0:7700"), ("public-url", "https://t.example.org/")];
    assert_eq!(resolve(&behind, &[], "").expect("settings").public_url.to_string(), "https://t.example.org");
    assert!(resolve(&[("listen", "[::1]:0")], &[], "").is_ok());
}

#[test]
fn a_cluster_needs_its_nodes_and_the_master_secret() {
    let text = refused(&[("store", "cql")], &[], "");
    assert!(text.contains("`cql-nodes` is needed") && text.contains("`master-secret` is needed"), "{text}");
    let secret = "x".repeat(32);
    let flags = [("store", "cql"), ("master-secret", secret.as_str())];
    let config = resolve(&flags, &[], "cql-nodes = [\"db1\", \"db2:9043\"]").expect("settings");
    match config.store {
        StoreConfig::Cql(cql) => assert_eq!(cql.nodes, ["db1", "db2:9043"]),
        StoreConfig::Embedded => panic!("the store is the cluster"),
    }
}

#[test]
fn the_help_names_every_setting_with_its_variable() {
    let mut serve = crate::cli::command().find_subcommand("serve").expect("serve").clone();
    let help = serve.render_long_help().to_string();
    for setting in setting::SETTINGS {
        assert!(help.contains(&format!("--{}", setting.key)), "{}", setting.key);
        assert!(help.contains(&setting.env()), "{}", setting.key);
    }
    assert!(help.contains("Examples:"));
}

#[test]
fn checkpoints_stand_beside_the_data_folder_unless_they_are_put_elsewhere() {
    let paths = |flags: &[(&'static str, &str)]| {
        let CheckpointConfig { file, key, every: _ } = resolve(flags, &[], "").expect("settings").checkpoints;
        (file.display().to_string(), key.display().to_string())
    };
    let pair = |file: &str, key: &str| (file.to_owned(), key.to_owned());
    assert_eq!(paths(&[]), pair("thalamus-data-checkpoints.ndjson", "thalamus-data/checkpoint-key"));
    assert_eq!(paths(&[("data-dir", "/var/t/")]), pair("/var/t-checkpoints.ndjson", "/var/t/checkpoint-key"));
    assert_eq!(paths(&[("data-dir", ".")]), pair("./checkpoints.ndjson", "./checkpoint-key"));
    let elsewhere = [("checkpoint-file", "/worm/c.ndjson"), ("checkpoint-key", "/keys/c")];
    assert_eq!(paths(&elsewhere), pair("/worm/c.ndjson", "/keys/c"));
}
