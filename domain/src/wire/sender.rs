//! Brain frames out: acks, commands, errors.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::canonical::{Refusal, canonical, write_string};
use super::envelope::Kind;
use super::seal::{Draft, Order, Sealer, write_decimal};
use super::{ID_MAX, SessionKey};
use crate::time::Timestamp;

/// Seals what the brain says in one session. Owned by the connection's writer: see [`Sender::seal`].
pub struct Sender {
    sealer: Sealer,
}

/// One thing the brain says.
#[derive(Clone, Copy, Debug)]
pub enum Outbound<'a> {
    /// The batch is durable, or will never be; the agent forgets it.
    EventBatchAck { acked_id: &'a str, received: u64, accepted: u64 },
    /// The command frame's id comes back in ack and result.
    Command { id: &'a str, body: &'a CommandBody },
    /// A fatal error makes the agent close and wait.
    Error { id: &'a str, code: &'a str, message: &'a str, fatal: bool },
}

/// A command's payload, rendered; it was checked that it can be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandBody(Bytes);

#[derive(Serialize)]
struct CommandPayload<'a> {
    action: &'a str,
    target: &'a RawValue,
    parameters: &'a RawValue,
    timeout_seconds: u32,
    issued_by: Option<&'a str>,
    delivery_claim_token: Option<&'a str>,
}

impl CommandBody {
    /// `target` and `parameters` are JSON objects. Refused when one of them cannot be signed.
    pub fn new(
        action: &str,
        target: &RawValue,
        parameters: &RawValue,
        timeout_seconds: u32,
        issued_by: Option<&str>,
        claim: Option<&str>,
    ) -> Result<Self, Refusal> {
        let payload =
            CommandPayload { action, target, parameters, timeout_seconds, issued_by, delivery_claim_token: claim };
        let json = serde_json::to_vec(&payload).expect("strings, numbers and raw JSON always serialise");
        canonical(&json).map(|payload| Self(payload.into()))
    }

    /// The rendered payload.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Sender {
    pub fn new(key: SessionKey) -> Self {
        Self { sealer: Sealer::new(key) }
    }

    /// The next frame, numbered and signed. Must be written before the next one is sealed.
    pub fn seal(&mut self, body: &Outbound<'_>, now: Timestamp) -> Bytes {
        let mut out = Vec::new();
        self.seal_into(&mut out, body, now);
        out.into()
    }

    /// Appends the next frame to `out`.
    pub fn seal_into(&mut self, out: &mut Vec<u8>, body: &Outbound<'_>, now: Timestamp) {
        match *body {
            Outbound::EventBatchAck { acked_id, received, accepted } => {
                let mut payload = Vec::with_capacity(72 + acked_id.len());
                ack_payload(&mut payload, acked_id, received, accepted);
                let id = ack_id(acked_id);
                self.write(out, Kind::EventBatchAck, &id, &payload, now);
            }
            Outbound::Command { id, body } => self.write(out, Kind::Command, id, &body.0, now),
            Outbound::Error { id, code, message, fatal } => {
                let mut payload = b"{\"code\":".to_vec();
                write_string(code, &mut payload);
                payload.extend_from_slice(if fatal { b",\"fatal\":true" } else { b",\"fatal\":false" });
                payload.extend_from_slice(b",\"message\":");
                write_string(message, &mut payload);
                payload.push(b'}');
                self.write(out, Kind::Error, id, &payload, now);
            }
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, kind: Kind, id: &str, payload: &[u8], now: Timestamp) {
        self.sealer.seal(out, Order::Canonical, Draft { kind, id, payload, wire_payload: payload }, now);
    }
}

fn ack_payload(out: &mut Vec<u8>, acked_id: &str, received: u64, accepted: u64) {
    out.extend_from_slice(b"{\"accepted\":");
    write_decimal(accepted, out);
    out.extend_from_slice(b",\"acked_id\":");
    write_string(acked_id, out);
    out.extend_from_slice(b",\"received\":");
    write_decimal(received, out);
    out.extend_from_slice(b",\"rejected\":");
    write_decimal(received.saturating_sub(accepted), out);
    out.push(b'}');
}

/// `eba_` and the batch's id, cut to what an id may have.
fn ack_id(acked_id: &str) -> String {
    let mut id = String::with_capacity(ID_MAX);
    id.push_str("eba_");
    id.extend(acked_id.chars().take(ID_MAX - 4));
    id
}
