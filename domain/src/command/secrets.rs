//! What of a command is kept encrypted and shown scrubbed (contract D29): overrides, a purge's confirm token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::record::Command;
use crate::id::CommandId;
use crate::redact;
use crate::secret::SiteKey;

/// Encrypts a JSON object of secret members under the project's data key, bound to its command.
pub fn seal(key: &SiteKey, command: CommandId, members: &str) -> String {
    STANDARD.encode(key.seal(members.as_bytes(), &command.bytes()))
}

impl Command {
    /// The secret members as agents need them. `None`: there are none, or the key is not theirs.
    pub fn open_secrets(&self, key: &SiteKey) -> Option<String> {
        let sealed = STANDARD.decode(self.sealed.as_ref()?).ok()?;
        let members = key.open(&sealed, &self.id.bytes()).ok()?;
        std::str::from_utf8(&members).ok().map(str::to_owned)
    }

    /// The secret members as people may see them.
    pub fn shown_secrets(&self, key: &SiteKey) -> Option<String> {
        self.open_secrets(key).map(|members| redact::json(&members).into_owned())
    }
}
