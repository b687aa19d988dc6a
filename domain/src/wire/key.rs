//! A session's keyed signature: the key schedule is paid once, every frame clones the keyed state.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::canonical::write_string;
use crate::id::{AgentId, ProjectId};

/// The members that are signed but not on the wire, by key.
pub(crate) const OVERLAY: [&[u8]; 3] = [b"agent_id", b"project_id", b"session_id"];

/// The secret and the identity that sign both directions of one session. Clones share one copy.
#[derive(Clone)]
pub struct SessionKey(Arc<Keyed>);

struct Keyed {
    mac: Hmac<Sha256>,
    /// `"agent_id":"..."`, `"project_id":"..."` and `"session_id":"..."`, rendered.
    identity: [Box<[u8]>; 3],
}

impl SessionKey {
    /// `session` is the session id of hello_ack, or the session nonce of a long-poll agent.
    pub fn new(secret: &[u8], agent: AgentId, project: ProjectId, session: &str) -> Self {
        let mac = Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        let mut session_member = b"\"session_id\":".to_vec();
        write_string(session, &mut session_member);
        let identity = [
            format!("\"agent_id\":\"{agent}\"").into_bytes().into_boxed_slice(),
            format!("\"project_id\":\"{project}\"").into_bytes().into_boxed_slice(),
            session_member.into_boxed_slice(),
        ];
        Self(Arc::new(Keyed { mac, identity }))
    }

    pub(crate) fn identity(&self) -> [&[u8]; 3] {
        self.0.identity.each_ref().map(|fragment| &**fragment)
    }

    /// The signature of canonical bytes.
    pub(crate) fn sign(&self, signed: &[u8]) -> [u8; 32] {
        let mut mac = self.0.mac.clone();
        mac.update(signed);
        mac.finalize().into_bytes().into()
    }

    /// Compares in constant time; only lower-case hexadecimal is a signature.
    pub(crate) fn verify(&self, signed: &[u8], hex: &str) -> bool {
        let mut claimed = [0; 32];
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) || hex::decode_to_slice(hex, &mut claimed).is_err() {
            return false;
        }
        let mut mac = self.0.mac.clone();
        mac.update(signed);
        mac.verify_slice(&claimed).is_ok()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}
