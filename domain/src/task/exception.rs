//! `Type: message` out of what six engines send (contract D12).
//!
//! Celery sends the class name beside a message that is plain text from the signal and Python's `repr` of the
//! exception from the broker; RQ sends the whole traceback; the others send `Type: message`.

use std::borrow::Cow;

use super::body::{self, Body, Member};
use crate::engine::Engine;

/// The exception and the traceback of one failed attempt, from the reports of its event.
pub(super) fn exception(engine: Engine, bodies: &[Body<'_>]) -> (Option<String>, Option<String>) {
    let first = |member: for<'a> fn(&Body<'a>) -> Option<Cow<'a, str>>| bodies.iter().find_map(member);
    let kind = first(|body| body::text(body.get(Member::Exception)));
    let traceback = first(|body| body::text(body.get(Member::Traceback))).map(Cow::into_owned);
    match engine {
        Engine::Celery => (celery(kind.as_deref(), bodies), traceback),
        Engine::Rq => match kind {
            Some(whole) if whole.contains('\n') => (last_line(&whole), traceback.or_else(|| Some(whole.into_owned()))),
            whole => (whole.map(Cow::into_owned), traceback),
        },
        Engine::Dramatiq | Engine::Huey | Engine::Arq | Engine::Taskiq => {
            let reason = || first(|body| body::text(body.get(Member::Reason)));
            (kind.or_else(reason).map(Cow::into_owned), traceback)
        }
    }
}

fn celery(kind: Option<&str>, bodies: &[Body<'_>]) -> Option<String> {
    let message = |raw: fn(&Body<'_>) -> Option<String>| bodies.iter().find_map(raw);
    // A message from the signal is plain; one from the broker is a repr. Both may have been heard.
    let plain = message(|body| {
        let text = body::text(body.get(Member::ExceptionMessage))?;
        body::text(body.get(Member::Worker)).is_none().then(|| text.into_owned())
    });
    let any = message(|body| body::text(body.get(Member::ExceptionMessage)).map(Cow::into_owned));
    let reason = message(|body| body::text(body.get(Member::Reason)).map(Cow::into_owned));
    match (kind, plain.or(any)) {
        (Some(kind), Some(message)) => Some(join(kind, &message)),
        (Some(kind), None) => Some(kind.to_owned()),
        (None, message) => message.or(reason).map(|message| from_repr(&message).unwrap_or(message)),
    }
}

/// Joins a class name and a message that may already contain the name, as repr or as text.
fn join(kind: &str, message: &str) -> String {
    let short = kind.rsplit('.').next().unwrap_or(kind);
    match message.strip_prefix(short).or_else(|| message.strip_prefix(kind)) {
        Some("") => kind.to_owned(),
        Some(rest) if rest.starts_with(": ") => format!("{kind}{rest}"),
        Some(rest) => match arguments(rest) {
            Some(text) if text.is_empty() => kind.to_owned(),
            Some(text) => format!("{kind}: {text}"),
            None => format!("{kind}: {message}"),
        },
        None => format!("{kind}: {message}"),
    }
}

/// `Type: message` from a bare repr such as `RuntimeError('flaky')`.
fn from_repr(repr: &str) -> Option<String> {
    let open = repr.find('(')?;
    let kind = &repr[..open];
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    if kind.is_empty() || !kind.chars().all(is_name) {
        return None;
    }
    let text = arguments(&repr[open..])?;
    Some(if text.is_empty() { kind.to_owned() } else { format!("{kind}: {text}") })
}

/// What `str(exception)` shows for the arguments of its repr: one string loses its quotes, one other value
/// stands as it is, several keep their parentheses.
fn arguments(rest: &str) -> Option<String> {
    let inner = rest.strip_prefix('(')?.strip_suffix(')')?;
    // Python before 3.7 left a comma behind a single argument.
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    match literal(inner) {
        Some((text, "")) => Some(text),
        Some((_, _)) => Some(format!("({inner})")),
        None => Some(inner.to_owned()),
    }
}

/// Reads one Python string literal; returns its text and what stands behind it.
fn literal(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((out, &text[at + 1..]));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let (_, escape) = chars.next()?;
        match escape {
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            '\\' | '\'' | '"' => out.push(escape),
            'x' | 'u' | 'U' => {
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let mut code = 0_u32;
                for _ in 0..digits {
                    code = code << 4 | chars.next()?.1.to_digit(16)?;
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => out.extend(['\\', other]),
        }
    }
    None
}

/// The last line of a traceback that names the exception; a message of several lines is kept whole.
fn last_line(traceback: &str) -> Option<String> {
    let lines: Vec<&str> = traceback.trim_end().lines().collect();
    // Frames are indented, so the message begins at the line after the last indented one.
    let frames_end = lines.iter().rposition(|line| line.starts_with("  ") || line.starts_with("Traceback "));
    let first = frames_end.map_or(0, |end| end + 1);
    let message = lines.get(first..).filter(|lines| !lines.is_empty())?.join("\n");
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(engine: Engine, bodies: &[&str]) -> (Option<String>, Option<String>) {
        let bodies: Vec<Body<'_>> = bodies.iter().map(|json| Body::read(json)).collect();
        exception(engine, &bodies)
    }

    #[test]
    fn celery_joins_class_and_message() {
        for (kind, message, wanted) in [
            ("ValueError", "ValueError('bad')", "ValueError: bad"),
            ("ValueError", r#"ValueError("bad value {'k': 0}")"#, "ValueError: bad value {'k': 0}"),
            ("ValueError", "ValueError()", "ValueError"),
            ("ValueError", "ValueError('a', 2)", "ValueError: ('a', 2)"),
            ("ValueError", "ValueError(7)", "ValueError: 7"),
            ("ValueError", r"ValueError('l1\nl2 \'q\' \xe9 \u20ac')", "ValueError: l1\nl2 'q' é €"),
            ("ValueError", "bad", "ValueError: bad"),
            ("ValueError", "ValueError: bad", "ValueError: bad"),
            ("app.errors.Oops", "Oops('x')", "app.errors.Oops: x"),
            ("ValueError", "ValueError('cut", "ValueError: ValueError('cut"),
            ("ValueError", "[REDACTED]", "ValueError: [REDACTED]"),
        ] {
            let body = serde_json::json!({"exception": kind, "exception_message": message, "worker": "w"}).to_string();
            assert_eq!(of(Engine::Celery, &[&body]).0.as_deref(), Some(wanted));
        }
    }

    #[test]
    fn celerys_plain_message_beats_the_repr() {
        let broker = r#"{"exception":"E","exception_message":"E('a', 'b')","worker":"w1@vm","traceback":"T"}"#;
        let signal = r#"{"exception":"E","exception_message":"a and b","worker":null}"#;
        let wanted = (Some("E: a and b".to_owned()), Some("T".to_owned()));
        assert_eq!(of(Engine::Celery, &[broker, signal]), wanted);
        assert_eq!(of(Engine::Celery, &[signal, broker]), wanted);
    }

    #[test]
    fn celerys_retry_reason_is_read_as_a_repr() {
        assert_eq!(
            of(Engine::Celery, &[r#"{"reason":"RuntimeError('flaky')"}"#]).0.as_deref(),
            Some("RuntimeError: flaky")
        );
    }

    #[test]
    fn rqs_traceback_yields_its_last_line() {
        let traceback =
            "Traceback (most recent call last):\n  File \"a.py\", line 2, in bad\n    raise X\nValueError: bad x\n";
        let body = serde_json::json!({ "exception": traceback }).to_string();
        let (exception, whole) = of(Engine::Rq, &[&body]);
        assert_eq!(exception.as_deref(), Some("ValueError: bad x"));
        assert_eq!(whole.as_deref(), Some(traceback));
        assert_eq!(of(Engine::Rq, &[r#"{"exception":"[REDACTED]"}"#]), (Some("[REDACTED]".to_owned()), None));
    }

    #[test]
    fn the_others_send_it_joined() {
        for engine in [Engine::Dramatiq, Engine::Huey, Engine::Taskiq] {
            assert_eq!(of(engine, &[r#"{"exception":"ValueError: bad"}"#]).0.as_deref(), Some("ValueError: bad"));
        }
        assert_eq!(of(Engine::Arq, &["{}"]), (None, None));
    }
}
