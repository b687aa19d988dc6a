//! What is scrubbed before anything is stored or shown (contract D29, M49).
//!
//! Agents scrub before they send; this is the second pass, for those that do not and for what reaches us
//! another way. It runs on every event, so a text in which nothing looks suspicious comes back borrowed after
//! one look at its bytes, without being parsed.
//!
//! - A value under a secret-looking key becomes `<redacted>` as a whole.
//! - In texts an e-mail address becomes `<email>`; tokens, keys, credentials in URLs and `password=..` become
//!   `<redacted>`.
//! - Markers, the agents' `[REDACTED]` and ours, stay as they are, so scrubbing twice changes nothing.

mod keys;
mod pattern;
mod walk;

use std::borrow::Cow;

pub use keys::is_secret_key;

/// What stands in place of a secret.
pub const REDACTED: &str = "<redacted>";
/// What stands in place of an e-mail address.
pub const EMAIL: &str = "<email>";

/// Scrubs the `data` of an event. Its member `worker` is a name of the form `worker@host`, which a user copies
/// into commands (contract M133), so it is not taken for an e-mail address.
pub fn event_data(json: &str) -> Cow<'_, str> {
    if pattern::is_suspicious(json.as_bytes(), true) { walk::scrub(json, Shape::Event) } else { Cow::Borrowed(json) }
}

/// Scrubs an object with a member for each worker, whose name is kept like that of an event.
pub fn by_worker(json: &str) -> Cow<'_, str> {
    if pattern::is_suspicious(json.as_bytes(), false) {
        walk::scrub(json, Shape::ByWorker)
    } else {
        Cow::Borrowed(json)
    }
}

/// Scrubs a JSON text.
pub fn json(json: &str) -> Cow<'_, str> {
    if pattern::is_suspicious(json.as_bytes(), false) { walk::scrub(json, Shape::Any) } else { Cow::Borrowed(json) }
}

/// Scrubs plain text.
pub fn text(text: &str) -> Cow<'_, str> {
    pattern::scrub(text, pattern::Emails::Scrubbed)
}

/// Scrubs a name of the form `process@host`, which is not taken for an e-mail address.
pub fn name(text: &str) -> Cow<'_, str> {
    pattern::scrub(text, pattern::Emails::Kept)
}

/// Where a JSON text has names of workers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Any,
    /// The outermost member `worker` holds one.
    Event,
    /// The names of the outermost members.
    ByWorker,
}

/// Whether a text is a marker that some scrubbing left.
fn is_marker(text: &str) -> bool {
    matches!(text, REDACTED | EMAIL | "[REDACTED]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_under_secret_keys_go_as_a_whole() {
        for (dirty, clean) in [
            (r#"{"password":"hunter2","a":1.50}"#, r#"{"password":"<redacted>","a":1.50}"#),
            (r#"{"kwargs":{"apiKey":{"x":[1,"}"]}},"z":"y"}"#, r#"{"kwargs":{"apiKey":"<redacted>"},"z":"y"}"#),
            (r#"[{"X-API-Key": 7}]"#, r#"[{"X-API-Key": "<redacted>"}]"#),
            (r#"{"pass\u0077ord":"x"}"#, r#"{"pass\u0077ord":"<redacted>"}"#),
            (
                r#"{"db_password":true,"Authorization":"Basic x"}"#,
                r#"{"db_password":"<redacted>","Authorization":"<redacted>"}"#,
            ),
        ] {
            assert_eq!(json(dirty), clean);
            assert_eq!(json(clean), clean, "scrubbing twice changes nothing");
        }
    }

    #[test]
    fn harmless_texts_come_back_borrowed() {
        for harmless in [
            r#"{"task_name":"email.send","queue":"celery","worker":"w1@vm","args":["[REDACTED]"],"kwargs":{"password":"[REDACTED]"}}"#,
            r#"{"task_name":"<unknown:76c28715>","worker":"celery@ip-10-0-0-1.ec2.internal","root_task_id":"76c28715-0f23-4074-9702-69f16d7404fe"}"#,
            r#"{"password":null,"token":"","last_password_reset":"2026-11-23","author":"me","monkey":1,"n":1180591620717411303424}"#,
            r#"{"traceback":"File \"/srv/app.py\", line 12\n    raise ValueError(x)\nValueError: bad"}"#,
        ] {
            assert!(matches!(event_data(harmless), Cow::Borrowed(same) if same == harmless), "{harmless}");
        }
    }

    #[test]
    fn secrets_and_addresses_in_texts_are_replaced_in_place() {
        let key = "k".repeat(36);
        for (dirty, clean) in [
            ("mail bob.smith+x@example.co.uk now", "mail <email> now".to_owned()),
            ("<a@b.io>, c@d.org.", "<<email>>, <email>.".to_owned()),
            ("postgres://u:p%40ss@db:5432/x", "postgres://<redacted>@db:5432/x".to_owned()),
            ("amqp://u:p/a@h", "amqp://<redacted>@h".to_owned()),
            ("Authorization: Bearer abcdefghijklmnopqr.x", "Authorization: <redacted>".to_owned()),
            ("sent Bearer abcdefghijklmnopqr.x!", "sent Bearer <redacted>!".to_owned()),
            ("jwt eyJhbGciOi.eyJzdWIi.sig-_1 end", "jwt <redacted> end".to_owned()),
            ("id AKIAABCDEFGHIJKLMNOP.", "id <redacted>.".to_owned()),
            ("login('bob', password='hunter2', x=1)", "login('bob', password='<redacted>', x=1)".to_owned()),
            ("{'secret': \"a 'b'\", 'k': 1}", "{'secret': \"<redacted>\", 'k': 1}".to_owned()),
            ("GET /?token=abc&x=1", "GET /?token=<redacted>&x=1".to_owned()),
            ("ssn 123-45-6789, date 2026-11-23", "ssn <redacted>, date 2026-11-23".to_owned()),
            (&format!("ghp_{key} x"), "<redacted> x".to_owned()),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nafter",
                "<redacted>\nafter".to_owned(),
            ),
            ("é@x.org ü bob@x.org", "<email> ü <email>".to_owned()),
        ] {
            assert_eq!(text(dirty), clean);
            assert_eq!(text(&clean), clean, "scrubbing twice changes nothing");
            let quoted = serde_json::json!({ "exception": dirty }).to_string();
            let scrubbed: serde_json::Value = serde_json::from_str(&json(&quoted)).unwrap();
            assert_eq!(scrubbed["exception"], clean);
        }
        for same in
            ["Invalid token: expected x", "tokenize(x)", "user@host", "a@b", "https://h/p?q=1", "sk_live", "key=5"]
        {
            assert!(matches!(text(same), Cow::Borrowed(_)), "{same}");
        }
    }

    #[test]
    fn names_of_workers_are_no_addresses() {
        let details = r#"{"celery@ip-10-0-0-1.ec2.internal":{"owner":"bob@example.org"}}"#;
        assert_eq!(by_worker(details), r#"{"celery@ip-10-0-0-1.ec2.internal":{"owner":"<email>"}}"#);
        assert_eq!(by_worker(r#"{"w@AKIAABCDEFGHIJKLMNOP":1}"#), r#"{"w@<redacted>":1}"#);
        assert_eq!(name("celery@db.example.org"), "celery@db.example.org");
        assert_eq!(name("w AKIAABCDEFGHIJKLMNOP"), "w <redacted>");
    }

    #[test]
    fn escapes_hide_nothing() {
        for (dirty, clean) in [
            (r#"["x\nAKIAABCDEFGHIJKLMNOP"]"#, r#"["x\n<redacted>"]"#),
            (r#"["x\n123-45-6789\n"]"#, r#"["x\n<redacted>\n"]"#),
            (r#"["redis:\/\/u:p@h"]"#, r#"["redis://<redacted>@h"]"#),
            (r#"["bob\u0040x.org"]"#, r#"["<email>"]"#),
            (r#"["{\"password\": \"x\"}"]"#, r#"["{\"password\": \"<redacted>\"}"]"#),
            (r#"[{"worker":"w@host.example.com"}]"#, r#"[{"worker":"<email>"}]"#),
        ] {
            assert_eq!(event_data(dirty), clean);
        }
    }

    #[test]
    fn only_the_workers_name_may_look_like_an_address() {
        let data = r#"{"worker":"w@host.example.com","queue":"q@host.example.com"}"#;
        assert_eq!(event_data(data), r#"{"worker":"w@host.example.com","queue":"<email>"}"#);
        assert_eq!(event_data(r#"{"args":{"worker":"w@host.example.com"}}"#), r#"{"args":{"worker":"<email>"}}"#);
    }

    #[test]
    fn depth_is_bounded_without_recursion() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let scrubbed = json(&deep);
        assert_eq!(scrubbed, format!("{}\"<redacted>\"{}", "[".repeat(64), "]".repeat(64)));
    }

    #[test]
    fn text_made_to_cost_time_costs_little() {
        for part in [
            "@",
            "a@",
            "://",
            "eyJ",
            "ghp_",
            "pass",
            "password='[REDACTED] ",
            "password=\"[REDACTED]\\\"",
            "SK0",
            "-----BEGIN ",
            "bearer ",
            "\\u0040",
        ] {
            let hostile = part.repeat(60_000 / part.len());
            let quoted = serde_json::json!({ "worker": hostile, "x": [hostile] }).to_string();
            assert!(!event_data(&quoted).is_empty() && !text(&hostile).is_empty());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives_and_scrubbing_is_idempotent(dirty in "(?s).{0,80}|[a-z@:/.='\" -]{0,60}") {
            let once = text(&dirty).into_owned();
            proptest::prop_assert_eq!(&text(&once).into_owned(), &once);
            let quoted = serde_json::json!({ "x": dirty, "token": [dirty] }).to_string();
            let value: serde_json::Value = serde_json::from_str(&json(&quoted)).expect("still JSON");
            proptest::prop_assert_eq!(&value["x"], &once);
        }
    }
}
