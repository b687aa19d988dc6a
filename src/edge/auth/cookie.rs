//! The two cookies of a browser session (REST section 1.2).
//!
//! The session cookie holds 256 random bits of which only the hash is stored. The CSRF token is derived from
//! it, so that it needs no storage and fits exactly one session.

use std::borrow::Cow;

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::AppendHeaders;
use axum_extra::extract::cookie::Cookie;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cql::accounts::login::SecretHash;
use sha2::{Digest, Sha256};

use super::SESSION_SECS;
use crate::edge::app::App;

pub const CSRF_HEADER: &str = "x-csrf-token";
const CSRF_LABEL: &[u8] = b"thalamus-csrf-v1:";

/// Over https the names carry `__Host-`, which browsers accept only with Secure, for this host and path `/`.
fn names(app: &App) -> (&'static str, &'static str) {
    if app.config.public_url.is_https() {
        ("__Host-z4j_session", "__Host-z4j_csrf")
    } else {
        ("z4j_session", "z4j_csrf")
    }
}

pub fn mint_secret() -> String {
    URL_SAFE_NO_PAD.encode(domain::id::random::<32>())
}

pub fn secret_hash(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

pub fn csrf_token(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::new().chain_update(CSRF_LABEL).chain_update(secret).finalize())
}

/// The session secret a request carries.
pub fn session_secret(app: &App, headers: &HeaderMap) -> Option<String> {
    value(headers, names(app).0).filter(|secret| !secret.is_empty())
}

/// The value of a cookie; of several with this name the last one counts. A browser sends every cookie of the site, so
/// the others are not even parsed, and ours has no escapes as we wrote it.
fn value(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = texts.flat_map(|text| text.split(';')).filter_map(|pair| {
        let (key, value) = pair.split_once('=').filter(|(key, _)| key.trim() == name)?;
        if !value.contains('%') {
            return Some(Cow::Borrowed(value.trim()));
        }
        let cookie = Cookie::parse_encoded(pair).ok()?;
        debug_assert_eq!(cookie.name(), key.trim());
        Some(Cow::Owned(cookie.value().to_owned()))
    });
    values.next_back().map(Cow::into_owned)
}

/// Whether the CSRF header fits the session cookie.
pub fn csrf_fits(app: &App, headers: &HeaderMap) -> bool {
    let (Some(secret), Some(claimed)) = (session_secret(app, headers), headers.get(CSRF_HEADER)) else {
        return false;
    };
    domain::secret::equal(csrf_token(&secret).as_bytes(), claimed.as_bytes())
}

/// Both cookies, as headers.
pub type SetCookies = AppendHeaders<[(HeaderName, String); 2]>;

/// Both cookies of a new session.
pub fn issue(app: &App, secret: &str) -> SetCookies {
    set(app, secret, &csrf_token(secret), SESSION_SECS)
}

/// Takes both cookies away.
pub fn clear(app: &App) -> SetCookies {
    set(app, "", "", 0)
}

/// Scripts read the CSRF cookie to send it back in a header; the session cookie they never see.
fn set(app: &App, secret: &str, csrf: &str, max_age: i64) -> SetCookies {
    let (session_name, csrf_name) = names(app);
    let secure = if app.config.public_url.is_https() { "; Secure" } else { "" };
    AppendHeaders([
        (SET_COOKIE, format!("{session_name}={secret}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")),
        (SET_COOKIE, format!("{csrf_name}={csrf}; Path=/; Max-Age={max_age}; SameSite=Strict{secure}")),
    ])
}

#[cfg(test)]
mod tests {
    use axum_extra::extract::CookieJar;

    use super::*;

    /// What a jar of all cookies holds under a name is what looking for that name alone finds.
    #[test]
    fn a_cookie_is_found_as_in_a_jar_of_all() {
        const PAIRS: [&str; 14] =
            ["", "a", "a=", "a=1", " a = x ", "ab=2", "b=3", "=a", "a=\"q\"", "a=%26", "a=%", "a=%ff", "a=b=c", "A=4"];
        let headers = |texts: &[&str]| -> HeaderMap {
            texts.iter().map(|text| (COOKIE, text.parse().expect("a header"))).collect()
        };
        for (first, second, third) in
            PAIRS.iter().flat_map(|one| PAIRS.iter().flat_map(move |two| PAIRS.map(|three| (one, two, three))))
        {
            let together = format!("{first};{second}; {third}");
            for headers in [headers(&[&together]), headers(&[&format!("{first};{second}"), third])] {
                let held = CookieJar::from_headers(&headers).get("a").map(|cookie| cookie.value().to_owned());
                assert_eq!(value(&headers, "a"), held, "{headers:?}");
            }
        }
    }
}
