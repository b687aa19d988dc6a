//! Keys, tokens and hashes, all derived from one master secret.
//!
//! Agent tokens, API keys and project secrets follow the derivations of the agents' protocol, so that a site can
//! move over with the master secret it has. Every other key is HMAC-SHA256(master, label || 16 UUID bytes) with a
//! label of its own. Nothing here is printed: `Debug` shows the type's name only, and memory is wiped on drop.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::id::{self, ProjectId};

const PROJECT_LABEL: &[u8] = b"z4j-project-secret-v1:";
const AGENT_TOKEN_SALT: &[u8] = b"z4j-agent-token-v1";
const API_KEY_SALT: &[u8] = b"z4j-api-key-v1";
const FINGERPRINT_LABEL: &[u8] = b"thalamus-fingerprint-v1";
/// What every API key begins with.
pub const API_KEY_PREFIX: &str = "z4k_";
/// Bytes of the shortest master secret that is accepted.
pub const MASTER_BYTES_MIN: usize = 32;
const NONCE_BYTES: usize = 12;

/// A master secret of fewer than 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("master secret must have at least {MASTER_BYTES_MIN} bytes")]
pub struct WeakSecret;

/// A ciphertext that was not made with this key and context, or was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ciphertext does not open")]
pub struct CannotOpen;

macro_rules! never_printed {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )+};
}

never_printed!(MasterSecret, ProjectSecret, SiteKey, Token);

/// The site's one secret; its UTF-8 text is the key.
#[derive(Clone)]
pub struct MasterSecret(Zeroizing<Vec<u8>>);

/// What a key of the site is for. Keys of different uses have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyUse {
    /// MACs of ledger entries.
    Ledger,
    /// Page cursors.
    Cursor,
    /// Links between nodes.
    Mesh,
    /// Secrets at rest.
    Data,
}

impl KeyUse {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Ledger => b"thalamus-ledger-v1:",
            Self::Cursor => b"thalamus-cursor-v1:",
            Self::Mesh => b"thalamus-mesh-v1:",
            Self::Data => b"thalamus-data-v1:",
        }
    }
}

impl MasterSecret {
    pub fn new(text: &str) -> Result<Self, WeakSecret> {
        if text.len() < MASTER_BYTES_MIN {
            return Err(WeakSecret);
        }
        Ok(Self(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// The text of a new master secret.
    pub fn mint_text() -> Zeroizing<String> {
        random_text()
    }

    /// The secret that signs the frames of all agents of a project.
    pub fn project_secret(&self, project: ProjectId) -> ProjectSecret {
        ProjectSecret(Zeroizing::new(mac(&self.0, &[PROJECT_LABEL, &project.uuid().to_bytes_le()])))
    }

    /// What is stored of an agent's bearer token.
    pub fn agent_token_hash(&self, token: &str) -> TokenHash {
        self.salted(AGENT_TOKEN_SALT, token)
    }

    /// What is stored of an API key.
    pub fn api_key_hash(&self, key: &str) -> TokenHash {
        self.salted(API_KEY_SALT, key)
    }

    /// A key of the site; `scope` is a project's id, or nil for the site as a whole.
    pub fn site_key(&self, key_use: KeyUse, scope: ProjectId) -> SiteKey {
        SiteKey(Zeroizing::new(mac(&self.0, &[key_use.label(), &scope.bytes()])))
    }

    /// Tells two master secrets apart without giving either away.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&mac(&self.0, &[FINGERPRINT_LABEL])[..16]);
        fingerprint
    }

    fn salted(&self, salt: &[u8], token: &str) -> TokenHash {
        let key = Zeroizing::new([self.0.as_slice(), salt].concat());
        TokenHash(mac(&key, &[token.as_bytes()]))
    }
}

/// The secret shared by the brain and all agents of one project.
#[derive(Clone)]
pub struct ProjectSecret(Zeroizing<[u8; 32]>);

impl ProjectSecret {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text an agent is configured with (`Z4J_HMAC_SECRET`): padded urlsafe base64.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE.encode(self.0.as_slice()))
    }

    /// Reads an agent's `Z4J_HMAC_SECRET`, padded or not; nothing if it is shorter than 32 bytes or not urlsafe.
    pub fn decode_text(text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?);
        (bytes.len() >= 32).then_some(bytes)
    }

    /// What an agent expects before it purges a queue of this depth.
    pub fn purge_token(&self, queue: &str, depth: u64) -> String {
        let depth = depth.to_string();
        hex::encode(mac(self.0.as_slice(), &[b"purge|", queue.as_bytes(), b"|", depth.as_bytes()]))
    }
}

/// The stored hash of a token. Compared in constant time.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// A bearer token in the clear; exists only between being minted or received and being hashed.
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new agent token: 32 random bytes.
    pub fn mint_agent() -> Self {
        Self(random_text())
    }

    /// A new API key.
    pub fn mint_api_key() -> Self {
        Self(Zeroizing::new(format!("{API_KEY_PREFIX}{}", *random_text())))
    }

    /// Shows the token, which is done once, to whoever asked for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A key of the site for one use and scope.
#[derive(Clone)]
pub struct SiteKey(Zeroizing<[u8; 32]>);

impl SiteKey {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// HMAC-SHA256 over the parts, one behind the other.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        mac(self.0.as_slice(), parts)
    }

    /// Compares in constant time.
    pub fn verify(&self, parts: &[&[u8]], claimed: &[u8]) -> bool {
        equal(&self.mac(parts), claimed)
    }

    /// Encrypts with AES-256-GCM under a random nonce: nonce, ciphertext, tag. `context` is authenticated, not kept.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = id::random();
        let sealed = self
            .cipher()
            .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: context })
            .expect("a plaintext in memory is far below the cipher's limit");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Decrypts what [`SiteKey::seal`] made with the same key and context.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(CannotOpen)?;
        self.cipher()
            .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: context })
            .map(Zeroizing::new)
            .map_err(|_| CannotOpen)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

/// Compares in constant time; only the length may leak.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// 32 random bytes as 43 characters of unpadded urlsafe base64.
fn random_text() -> Zeroizing<String> {
    let mut bytes: [u8; 32] = id::random();
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes));
    bytes.zeroize();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivations_are_those_agents_know() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/fixtures/vectors.json")).expect("valid JSON");
        let text = |group: &str, member: &str| vectors[group][member].as_str().expect("text").to_owned();
        let master = MasterSecret::new(&text("project_secret_derivation", "master_utf8")).expect("long enough");
        let project = text("project_secret_derivation", "project_id").parse().expect("an id");
        let secret = master.project_secret(project);
        assert_eq!(hex::encode(secret.as_bytes()), text("project_secret_derivation", "secret_hex"));
        assert_eq!(*secret.to_text(), text("project_secret_derivation", "z4j_hmac_secret"));
        let token = text("agent_token_hash", "token");
        assert_eq!(master.agent_token_hash(&token).to_string(), text("agent_token_hash", "hash_hex"));
        let key = text("api_key_hash", "token");
        assert_eq!(master.api_key_hash(&key).to_string(), text("api_key_hash", "hash_hex"));
        for purge in vectors["purge_confirm_token"].as_array().expect("a list") {
            let depth = purge["depth"].as_u64().expect("a number");
            let token = secret.purge_token(purge["queue"].as_str().expect("text"), depth);
            assert_eq!(token, purge["token_hex"].as_str().expect("text"));
        }
    }

    #[test]
    fn site_keys_are_for_ever_and_apart() {
        let master = MasterSecret::new("0123456789abcdef0123456789abcdef-master").expect("long enough");
        let project = ProjectId::from_bytes([7; 16]);
        let keys = [KeyUse::Ledger, KeyUse::Cursor, KeyUse::Mesh, KeyUse::Data].map(|key_use| {
            assert_ne!(
                master.site_key(key_use, project).as_bytes(),
                master.site_key(key_use, ProjectId::NIL).as_bytes()
            );
            hex::encode(&master.site_key(key_use, project).as_bytes()[..8])
        });
        assert_eq!(keys, ["d4766a5a3ce6fc65", "86da65cc6beb1084", "806aae572b471317", "71a257fa39d0f388"]);
        assert_eq!(hex::encode(master.fingerprint()), "f3aa4194251f77c94a581a19e63fc193");
    }

    #[test]
    fn an_agents_secret_is_urlsafe_and_long_enough() {
        let secret = ProjectSecret::from_bytes([0xfb; 32]);
        let padded = secret.to_text();
        for text in [padded.as_str(), padded.trim_end_matches('=')] {
            assert_eq!(
                ProjectSecret::decode_text(text).as_deref().map(Vec::as_slice),
                Some(secret.as_bytes().as_slice())
            );
        }
        for bad in ["", "c2hvcnQ=", &padded.replace('-', "+")] {
            assert!(ProjectSecret::decode_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_was_sealed_opens_only_with_its_key_and_context() {
        let master = MasterSecret::new(&MasterSecret::mint_text()).expect("long enough");
        let key = master.site_key(KeyUse::Data, ProjectId::NIL);
        let sealed = key.seal(b"{\"a\":1}", b"command");
        assert_ne!(sealed, key.seal(b"{\"a\":1}", b"command"), "a nonce is never used twice");
        assert_eq!(key.open(&sealed, b"command").as_deref().map(Vec::as_slice), Ok(b"{\"a\":1}".as_slice()));
        assert!(key.open(&sealed, b"other").is_err());
        assert!(master.site_key(KeyUse::Ledger, ProjectId::NIL).open(&sealed, b"command").is_err());
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(key.open(&flipped, b"command").is_err(), "byte {at}");
        }
        assert!(key.open(&sealed[..11], b"command").is_err());
    }

    #[test]
    fn tokens_are_distinct_and_never_printed() {
        let (token, key) = (Token::mint_agent(), Token::mint_api_key());
        assert_eq!(token.expose().len(), 43);
        assert!(key.expose().starts_with(API_KEY_PREFIX) && key.expose().len() == 47);
        assert_ne!(token.expose(), Token::mint_agent().expose());
        let secret = ProjectSecret::from_bytes([1; 32]);
        let master = MasterSecret::new(&"m".repeat(32)).expect("long enough");
        let hash = master.agent_token_hash(token.expose());
        assert_eq!(
            format!("{token:?} {secret:?} {master:?} {hash:?}"),
            "Token(..) ProjectSecret(..) MasterSecret(..) TokenHash(..)"
        );
        assert_eq!(MasterSecret::new(&"m".repeat(31)).err(), Some(WeakSecret));
    }
}
