//! Flag, environment, file, default: the first that is given counts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::setting::{SETTINGS, Setting, env_name};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Environment,
    File(PathBuf),
    Default,
}

/// A value as text, with where it came from.
#[derive(Clone, Debug)]
pub struct Given {
    pub value: String,
    pub origin: Origin,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings file {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the settings file {} is not TOML: {reason}", path.display())]
    NotToml { path: PathBuf, reason: String },
    #[error("the settings file {} has an unknown key `{key}`{}", path.display(), suggestion(key))]
    UnknownKey { path: PathBuf, key: String },
    #[error("{}", wrong(setting, given))]
    Wrong { setting: &'static Setting, given: Given },
    #[error("{0}")]
    Rule(String),
}

fn suggestion(key: &str) -> String {
    nearest(key).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

fn wrong(setting: &Setting, given: &Given) -> String {
    let shown = if setting.secret { "(not shown)".to_owned() } else { format!("`{}`", given.value) };
    format!("{} is {shown}; allowed is {}", Named(setting, &given.origin), setting.allowed)
}

/// A setting as its user wrote it.
struct Named<'a>(&'a Setting, &'a Origin);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.0.key;
        match self.1 {
            Origin::Flag => write!(f, "the flag --{key}"),
            Origin::Environment => write!(f, "the environment variable {} (setting `{key}`)", self.0.env()),
            Origin::File(path) => write!(f, "the key `{key}` in {}", path.display()),
            Origin::Default => write!(f, "the default of `{key}`"),
        }
    }
}

/// The known key closest to a mistyped one, if any is close.
pub fn nearest(key: &str) -> Option<&'static str> {
    let key = key.replace('_', "-").to_lowercase();
    SETTINGS
        .iter()
        .map(|setting| (distance(&key, setting.key), setting.key))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The three places a setting can be given in.
pub struct Layers<'a> {
    pub flags: BTreeMap<&'static str, String>,
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    pub file: BTreeMap<&'static str, Given>,
}

impl<'a> Layers<'a> {
    /// Collects the layers, reading the settings file if one is named.
    pub fn collect(
        flags: BTreeMap<&'static str, String>,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Self { flags, environment, file: BTreeMap::new() };
        if let Some(path) = layers.given("config") {
            layers.file = read_file(Path::new(&path.value))?;
        }
        Ok(layers)
    }

    /// The value of a setting. An empty environment variable counts as not set.
    pub fn given(&self, key: &'static str) -> Option<Given> {
        if let Some(value) = self.flags.get(key) {
            return Some(Given { value: value.clone(), origin: Origin::Flag });
        }
        if let Some(value) = (self.environment)(&env_name(key)).filter(|value| !value.is_empty()) {
            return Some(Given { value, origin: Origin::Environment });
        }
        if let Some(given) = self.file.get(key) {
            return Some(given.clone());
        }
        let default = Setting::find(key).and_then(|setting| setting.default)?;
        Some(Given { value: default.to_owned(), origin: Origin::Default })
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<&'static str, Given>, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse_file(path, &text)
}

pub(super) fn parse_file(path: &Path, text: &str) -> Result<BTreeMap<&'static str, Given>, ConfigError> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::NotToml { path: path.to_owned(), reason: error.to_string() })?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let known = Setting::find(&key).filter(|setting| setting.key != "config");
        let Some(setting) = known else { return Err(ConfigError::UnknownKey { path: path.to_owned(), key }) };
        let origin = Origin::File(path.to_owned());
        let text = plain(&value).ok_or_else(|| ConfigError::Wrong {
            setting,
            given: Given { value: value.to_string(), origin: origin.clone() },
        })?;
        values.insert(setting.key, Given { value: text, origin });
    }
    Ok(values)
}

/// A TOML value as a flag would give it; a list is joined with commas.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>().map(|v| v.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
