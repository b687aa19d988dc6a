//! Settings as flags.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches};

use crate::config::setting::{SETTINGS, Setting};

/// Every setting as a flag. Values are texts here: they are checked where the environment's and the file's are.
pub(super) fn all() -> Vec<Arg> {
    SETTINGS.iter().map(flag).collect()
}

/// The settings that say where the store is, for commands that work on it.
pub(super) fn of_store() -> Vec<Arg> {
    let chosen = |setting: &&Setting| setting.section == "Store" || setting.key == "config";
    SETTINGS.iter().filter(chosen).map(flag).collect()
}

/// The settings that say where the store and its checkpoints are.
pub(super) fn of_audit() -> Vec<Arg> {
    let chosen = |setting: &&Setting| matches!(setting.section, "Store" | "Audit") || setting.key == "config";
    SETTINGS.iter().filter(chosen).map(flag).collect()
}

fn flag(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.key)
        .long(setting.key)
        .help_heading(setting.section)
        .help(setting.help)
        .long_help(setting.long_help())
        .action(ArgAction::Set);
    match setting.value {
        Some(value) => arg.value_name(value),
        None => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
    }
}

/// The flags that were given.
pub(super) fn given(matches: &ArgMatches) -> BTreeMap<&'static str, String> {
    let value = |setting: &'static Setting| {
        let text = matches.try_get_one::<String>(setting.key).ok().flatten()?;
        Some((setting.key, text.clone()))
    };
    SETTINGS.iter().filter_map(value).collect()
}
