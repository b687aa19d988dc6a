//! Which names say that their value is a secret.

/// Whole names, in lower case and without separators.
const WHOLE: [&str; 20] = [
    "auth",
    "cardnumber",
    "cookies",
    "creditcard",
    "creditcardnumber",
    "cvc",
    "cvv",
    "jwt",
    "passwordconfirmation",
    "passwordhash",
    "passwords",
    "pwd",
    "secrets",
    "sessionid",
    "socialsecurity",
    "socialsecuritynumber",
    "ssn",
    "accesskeyid",
    "awsaccesskeyid",
    "apikeys",
];

/// Ends of names, so that `db_password` and `stripeApiKey` count and `last_password_reset` does not.
const ENDS: [&str; 14] = [
    "accesskey",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "encryptionkey",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "secretkey",
    "token",
];

/// A longer name is not looked at and its value not shown.
const KEY_BYTES_MAX: usize = 256;

/// Whether the value of a member, argument or header with this name is a secret.
pub fn is_secret_key(key: &str) -> bool {
    if key.len() > KEY_BYTES_MAX {
        return true;
    }
    let (mut plain, mut len) = ([0; KEY_BYTES_MAX], 0);
    for byte in key.bytes().filter(u8::is_ascii_alphanumeric) {
        plain[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    let plain = &plain[..len];
    // Most names are told apart from all of these by their length or last letter.
    let is_end = |end: &&str| plain.last() == end.as_bytes().last() && plain.ends_with(end.as_bytes());
    WHOLE.iter().any(|whole| plain == whole.as_bytes()) || ENDS.iter().any(is_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for secret in
            ["password", "DB_PASSWORD", "clientSecret", "x-api-key", "api_key", "Set-Cookie", "id_token", "ssn", "auth"]
        {
            assert!(is_secret_key(secret), "{secret}");
        }
        for plain in ["", "last_password_reset", "author", "tokenizer", "key", "root_task_id", "cookies_enabled"] {
            assert!(!is_secret_key(plain), "{plain}");
        }
        assert!(is_secret_key(&"x".repeat(257)));
    }
}
