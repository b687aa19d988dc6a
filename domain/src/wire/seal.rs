//! Numbering and signing of outgoing frames, for both sides.
//!
//! A frame gets its sequence number and signature when it is written to the socket, in write order: the peer drops
//! a connection whose numbers do not rise. So there is one sealer per direction, owned by the writer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::canonical::write_string;
use super::envelope::Kind;
use super::scratch::{self, Scratch};
use super::{SessionKey, VERSION};
use crate::id;
use crate::time::Timestamp;

/// In which order the members stand on the wire.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// The canonical text with the signature in front.
    Canonical,
    /// As the real agents write.
    Agent,
}

/// What is signed, apart from what the session adds.
#[derive(Clone, Copy)]
pub(super) struct Draft<'a> {
    pub(super) kind: Kind,
    pub(super) id: &'a str,
    /// Canonical.
    pub(super) payload: &'a [u8],
    /// The payload's text on the wire.
    pub(super) wire_payload: &'a [u8],
}

/// Numbers and signs one direction of one session.
pub(super) struct Sealer {
    key: SessionKey,
    seq: u64,
    /// Random once; with the sequence number behind it no nonce repeats.
    nonce_prefix: [u8; 8],
}

impl Sealer {
    pub(super) fn new(key: SessionKey) -> Self {
        Self { key, seq: 0, nonce_prefix: id::random() }
    }

    /// Appends the next frame to `out`.
    pub(super) fn seal(&mut self, out: &mut Vec<u8>, order: Order, draft: Draft<'_>, now: Timestamp) {
        self.seq += 1;
        let nonce = self.nonce();
        scratch::with(|scratch| {
            let Scratch { signed, stamp, .. } = scratch;
            let cuts = self.signed(signed, &draft, &nonce, stamp.text(now));
            let mut hmac = [0; 64];
            hex::encode_to_slice(self.key.sign(signed), &mut hmac).expect("64 digits hold 32 bytes");
            match order {
                Order::Canonical => cuts.write_canonical(signed, &hmac, out),
                Order::Agent => cuts.write_as_agent(signed, &hmac, &draft, out),
            }
        });
    }

    fn nonce(&self) -> [u8; 22] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.nonce_prefix);
        bytes[8..].copy_from_slice(&self.seq.to_be_bytes());
        let mut text = [0; 22];
        URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).expect("22 characters hold 16 bytes");
        text
    }

    /// Renders the bytes that are signed: the members by key, the session's identity among them.
    fn signed(&self, signed: &mut Vec<u8>, draft: &Draft<'_>, nonce: &[u8; 22], ts: &str) -> Cuts {
        let [agent, project, session] = self.key.identity();
        signed.clear();
        signed.push(b'{');
        signed.extend_from_slice(agent);
        signed.push(b',');
        let id = signed.len();
        signed.extend_from_slice(b"\"id\":");
        write_string(draft.id, signed);
        let nonce_at = signed.len() + 1;
        signed.extend_from_slice(b",\"nonce\":\"");
        signed.extend_from_slice(nonce);
        signed.extend_from_slice(b"\",");
        let payload = signed.len();
        signed.extend_from_slice(b"\"payload\":");
        signed.extend_from_slice(draft.payload);
        signed.push(b',');
        let project_at = signed.len();
        signed.extend_from_slice(project);
        signed.push(b',');
        let seq = signed.len();
        signed.extend_from_slice(b"\"seq\":");
        write_decimal(self.seq, signed);
        signed.push(b',');
        let session_at = signed.len();
        signed.extend_from_slice(session);
        signed.push(b',');
        let ts_at = signed.len();
        signed.extend_from_slice(b"\"ts\":\"");
        signed.extend_from_slice(ts.as_bytes());
        signed.extend_from_slice(b"\",");
        let kind = signed.len();
        signed.extend_from_slice(b"\"type\":\"");
        signed.extend_from_slice(draft.kind.as_str().as_bytes());
        signed.extend_from_slice(b"\",");
        let version = signed.len();
        signed.extend_from_slice(&[b'"', b'v', b'"', b':', b'0' + VERSION, b'}']);
        Cuts { id, nonce: nonce_at, payload, project: project_at, seq, session: session_at, ts: ts_at, kind, version }
    }
}

/// Where the members of the signed text begin; each ends with its comma.
struct Cuts {
    id: usize,
    nonce: usize,
    payload: usize,
    project: usize,
    seq: usize,
    session: usize,
    ts: usize,
    kind: usize,
    version: usize,
}

impl Cuts {
    fn write_canonical(&self, signed: &[u8], hmac: &[u8; 64], out: &mut Vec<u8>) {
        let parts: [&[u8]; 6] = [
            b"{\"hmac\":\"",
            hmac,
            b"\",",
            &signed[self.id..self.project],
            &signed[self.seq..self.session],
            &signed[self.ts..],
        ];
        write(&parts, out);
    }

    fn write_as_agent(&self, signed: &[u8], hmac: &[u8; 64], draft: &Draft<'_>, out: &mut Vec<u8>) {
        let parts: [&[u8]; 12] = [
            b"{",
            &signed[self.version..signed.len() - 1],
            b",",
            &signed[self.id..self.nonce],
            &signed[self.ts..self.kind],
            &signed[self.nonce..self.payload],
            &signed[self.seq..self.session],
            b"\"hmac\":\"",
            hmac,
            b"\",",
            &signed[self.kind..self.version],
            b"\"payload\":",
        ];
        out.reserve_exact(parts.iter().map(|part| part.len()).sum::<usize>() + draft.wire_payload.len() + 1);
        write(&parts, out);
        write(&[draft.wire_payload, b"}"], out);
    }
}

fn write(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.reserve_exact(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends a number in decimal.
pub(super) fn write_decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    let mut rest = number;
    loop {
        from -= 1;
        digits[from] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}
