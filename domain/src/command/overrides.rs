//! What a retry may replace, engine by engine (contract D20).

use serde_json::value::RawValue;

use super::field::Fields;
use crate::engine::Engine;
use crate::wire::canonical;

/// Largest size of one half, in bytes of compact JSON.
pub const BYTES_MAX: usize = 65_536;

/// New arguments for a retried task, as canonical JSON text. They may hold secrets: stored encrypted only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// A JSON array.
    pub args: Option<String>,
    /// A JSON object.
    pub kwargs: Option<String>,
}

/// Never prints the values.
impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = |half: &Option<String>| half.as_ref().map(String::len);
        f.debug_struct("Overrides")
            .field("args_bytes", &size(&self.args))
            .field("kwargs_bytes", &size(&self.kwargs))
            .finish()
    }
}

impl Overrides {
    pub fn is_empty(&self) -> bool {
        self.args.is_none() && self.kwargs.is_none()
    }

    /// Takes both halves from a body, each checked alone.
    pub fn take(fields: &mut Fields<'_>) -> Self {
        let args = half(fields, "override_args", '[', "must be an array", "list_type");
        let kwargs = half(fields, "override_kwargs", '{', "must be an object", "dict_type");
        if let Some(kwargs) = &kwargs {
            refuse_reserved(fields, kwargs);
        }
        Self { args, kwargs }
    }

    /// Refuses what the engine's agent cannot do with these halves, and names what is missing.
    pub fn check(&self, engine: Engine, fields: &mut Fields<'_>) {
        match (engine, &self.args, &self.kwargs) {
            (_, Some(_), Some(_)) | (Engine::Celery, _, _) | (Engine::Rq, None, None) => {}
            (Engine::Rq | Engine::Dramatiq | Engine::Huey | Engine::Arq | Engine::Taskiq, args, kwargs) => {
                for (name, half) in [("override_args", args), ("override_kwargs", kwargs)] {
                    if half.is_none() {
                        let why = "cannot look up a task's arguments: give override_args and override_kwargs";
                        fields.fail(name, format!("{engine} {why}"), "missing");
                    }
                }
            }
        }
    }
}

fn half(fields: &mut Fields<'_>, name: &str, open: char, msg: &str, kind: &'static str) -> Option<String> {
    let raw: &RawValue = fields.take(name)?;
    if !raw.get().starts_with(open) {
        fields.fail(name, msg, kind);
        return None;
    }
    // Within a frame it stands a few levels deeper, and must be signable there.
    let nested = format!("[[[[[[[[{}]]]]]]]]", raw.get());
    let text = canonical::canonical(nested.as_bytes()).ok().and_then(|text| String::from_utf8(text).ok());
    let Some(text) = text.map(|text| text[8..text.len() - 8].to_owned()) else {
        fields.fail(name, "holds a number or a text that no agent can read", "json_invalid");
        return None;
    };
    if text.len() > BYTES_MAX {
        fields.fail(name, format!("must have at most {BYTES_MAX} bytes of compact JSON"), "too_long");
        return None;
    }
    Some(text)
}

/// Agents keep `__z4j_` names for themselves.
fn refuse_reserved(fields: &mut Fields<'_>, kwargs: &str) {
    let members: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(kwargs).unwrap_or_default();
    for name in members.keys().filter(|name| name.starts_with("__z4j_")) {
        fields.fail("override_kwargs", format!("name {name:?} is reserved"), "value_error");
    }
}
