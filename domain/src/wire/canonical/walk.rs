//! The one pass: reads a document and writes its canonical form behind itself.

use std::cmp::Ordering;
use std::ops::Range;

use super::number::{self, Number, Repr};
use super::{Canonicaliser, DEPTH_MAX, Refusal, text};

/// One member of an object that is still open. Offsets fit: a document has at most [`super::SIZE_MAX`] bytes.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    /// The first eight bytes of the key, big-endian, so that their order is the keys' order.
    prefix: u64,
    key: Key,
    /// Where `"key":value` lies in the output.
    start: u32,
    end: u32,
    /// Where the value lies on the wire.
    value: u32,
    value_end: u32,
}

/// Where a key's unescaped text lies.
#[derive(Clone, Copy)]
enum Key {
    /// On the wire: it holds no escape.
    Wire(u32, u32),
    /// In the side buffer.
    Side(u32, u32),
}

impl Key {
    fn bytes<'a>(self, wire: &'a [u8], side: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Wire(from, to) => &wire[from as usize..to as usize],
            Self::Side(from, to) => &side[from as usize..to as usize],
        }
    }
}

impl Member {
    /// By key, and among equal keys by place.
    fn order(&self, other: &Self, wire: &[u8], side: &[u8]) -> Ordering {
        self.prefix
            .cmp(&other.prefix)
            .then_with(|| self.key.bytes(wire, side).cmp(other.key.bytes(wire, side)))
            .then_with(|| self.start.cmp(&other.start))
    }

    fn same_key(&self, other: &Self, wire: &[u8], side: &[u8]) -> bool {
        self.prefix == other.prefix && self.key.bytes(wire, side) == other.key.bytes(wire, side)
    }

    fn fragment(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A container that is not closed yet.
pub(super) struct Open {
    object: bool,
    /// The members so far stand in strictly rising order.
    sorted: bool,
    /// Output offset behind the opening bracket.
    start: u32,
    members: u32,
    keys: u32,
}

pub(super) struct Walk<'a> {
    text: &'a str,
    json: &'a [u8],
    at: usize,
    /// Everything before is in the output.
    copied: usize,
    /// The outermost object is left as it came, its members noted.
    keep_outermost: bool,
    work: &'a mut Canonicaliser,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: &'a str, work: &'a mut Canonicaliser) -> Self {
        Self { text, json: text.as_bytes(), at: 0, copied: 0, keep_outermost: false, work }
    }

    pub(super) fn frame(mut self) -> Result<(), Refusal> {
        self.skip_space();
        self.keep_outermost = true;
        let object = self.json.get(self.at) == Some(&b'{');
        self.document()?;
        if object { Ok(()) } else { Err(Refusal::NotAnObject) }
    }

    pub(super) fn document(mut self) -> Result<(), Refusal> {
        self.work.out.reserve(self.json.len() + 64);
        self.skip_space();
        loop {
            if !self.value()? && !self.after_value()? {
                self.flush();
                return Ok(());
            }
        }
    }

    /// Reads a value's start. True: a container was opened and its first value follows.
    fn value(&mut self) -> Result<bool, Refusal> {
        match self.json.get(self.at) {
            Some(b'"') => self.string().map(|_| false),
            Some(b'{') => self.open(true),
            Some(b'[') => self.open(false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(_) if ["NaN", "Infinity"].iter().any(|name| self.text[self.at..].starts_with(name)) => {
                Err(Refusal::NotFinite { at: self.at })
            }
            Some(_) | None => Err(self.syntax()),
        }
    }

    /// Closes what a complete value closes. True: another value follows; false: the document is complete.
    fn after_value(&mut self) -> Result<bool, Refusal> {
        loop {
            let value_end = self.at as u32;
            let end = self.here();
            self.skip_space();
            let Some(open) = self.work.open.last() else {
                return if self.at == self.json.len() { Ok(false) } else { Err(self.syntax()) };
            };
            let object = open.object;
            if object {
                let member = self.work.members.last_mut().expect("an object holds the member just read");
                (member.end, member.value_end) = (end, value_end);
            }
            match (self.json.get(self.at), object) {
                (Some(b','), _) => {
                    self.at += 1;
                    self.skip_space();
                    if object {
                        self.key()?;
                    }
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    self.close();
                }
                (Some(_) | None, _) => return Err(self.syntax()),
            }
        }
    }

    fn open(&mut self, object: bool) -> Result<bool, Refusal> {
        if self.work.open.len() == DEPTH_MAX {
            return Err(Refusal::TooDeep);
        }
        self.at += 1;
        let (start, members, keys) = (self.here(), self.work.members.len() as u32, self.work.keys.len() as u32);
        self.work.open.push(Open { object, sorted: true, start, members, keys });
        self.skip_space();
        let end = if object { b'}' } else { b']' };
        if self.json.get(self.at) == Some(&end) {
            self.at += 1;
            self.close();
            return Ok(false);
        }
        if object {
            self.key()?;
        }
        Ok(true)
    }

    fn close(&mut self) {
        let Some(open) = self.work.open.pop() else { return };
        if !open.object || (self.keep_outermost && self.work.open.is_empty()) {
            return;
        }
        if !open.sorted {
            self.flush();
            self.put_in_order(&open);
        }
        self.work.members.truncate(open.members as usize);
        self.work.keys.truncate(open.keys as usize);
    }

    /// Rewrites the object that ends the output: members by key, of equal keys the last.
    fn put_in_order(&mut self, open: &Open) {
        let Canonicaliser { out, spare, keys, members, .. } = &mut *self.work;
        let members = &mut members[open.members as usize..];
        sort(members, self.json, keys);
        spare.clear();
        for (place, member) in members.iter().enumerate() {
            if !members.get(place + 1).is_some_and(|next| next.same_key(member, self.json, keys)) {
                spare.extend_from_slice(&out[member.fragment()]);
                spare.push(b',');
            }
        }
        spare.pop();
        out.truncate(open.start as usize);
        out.extend_from_slice(spare);
        out.push(b'}');
    }

    fn key(&mut self) -> Result<(), Refusal> {
        if self.json.get(self.at) != Some(&b'"') {
            return Err(self.syntax());
        }
        let (start, from) = (self.here(), self.at + 1);
        let escaped = self.string()?;
        let inside = &self.json[from..self.at - 1];
        let key = if escaped {
            let side = self.work.keys.len() as u32;
            text::unescape(inside, &mut self.work.keys)?;
            Key::Side(side, self.work.keys.len() as u32)
        } else {
            Key::Wire(from as u32, self.at as u32 - 1)
        };
        self.skip_space();
        if self.json.get(self.at) != Some(&b':') {
            return Err(self.syntax());
        }
        self.at += 1;
        self.skip_space();
        let prefix = prefix(key.bytes(self.json, &self.work.keys));
        let value = self.at as u32;
        self.note(Member { prefix, key, start, end: start, value, value_end: value });
        Ok(())
    }

    fn note(&mut self, member: Member) {
        let Canonicaliser { keys, members, open, .. } = &mut *self.work;
        let open = open.last_mut().expect("a key is read inside an object only");
        if members.len() > open.members as usize {
            let last = &members[members.len() - 1];
            open.sorted &= last.prefix < member.prefix
                || (last.prefix == member.prefix
                    && last.key.bytes(self.json, keys) < member.key.bytes(self.json, keys));
        }
        members.push(member);
    }

    /// Reads a string. True: it holds an escape.
    fn string(&mut self) -> Result<bool, Refusal> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at = text::plain(self.json, self.at);
            match self.json.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(Refusal::Control { at: self.at }),
                None => return Err(self.syntax()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Refusal> {
        let escape = text::escape(self.json, self.at)?;
        if escape.canonical {
            self.at = escape.end;
        } else {
            self.flush();
            text::write(escape.character, &mut self.work.out);
            self.jump(escape.end);
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Refusal> {
        match number::read(self.text, self.at)? {
            Number::AsIs { end } => self.at = end,
            Number::MinusZero { end } => {
                self.flush();
                self.work.out.push(b'0');
                self.jump(end);
            }
            Number::Float { end, value } => {
                let repr = Repr::new(value);
                if &self.json[self.at..end] == repr.as_bytes() {
                    self.at = end;
                } else {
                    self.flush();
                    self.work.out.extend_from_slice(repr.as_bytes());
                    self.jump(end);
                }
            }
        }
        Ok(())
    }

    fn literal(&mut self, name: &str) -> Result<bool, Refusal> {
        if !self.json[self.at..].starts_with(name.as_bytes()) {
            return Err(self.syntax());
        }
        self.at += name.len();
        Ok(false)
    }

    fn skip_space(&mut self) {
        if self.json.get(self.at).is_some_and(|byte| *byte <= b' ') {
            self.flush();
            let spaces = self.json[self.at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
            self.jump(self.at + spaces.count());
        }
    }

    /// The output offset of the text that is read next.
    fn here(&self) -> u32 {
        (self.work.out.len() + self.at - self.copied) as u32
    }

    /// Copies the run that was read.
    fn flush(&mut self) {
        self.work.out.extend_from_slice(&self.json[self.copied..self.at]);
        self.copied = self.at;
    }

    /// Goes on at `to` without copying what lies between.
    fn jump(&mut self, to: usize) {
        (self.at, self.copied) = (to, to);
    }

    fn syntax(&self) -> Refusal {
        Refusal::Syntax { at: self.at }
    }
}

fn sort(members: &mut [Member], wire: &[u8], side: &[u8]) {
    members.sort_unstable_by(|a, b| a.order(b, wire, side));
}

fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(head)
        }
    }
}

/// A frame that was read: its outermost members, sorted, each canonical.
pub(crate) struct Signable<'w, 'c> {
    wire: &'w str,
    work: &'c mut Canonicaliser,
}

impl<'w, 'c> Signable<'w, 'c> {
    pub(super) fn new(wire: &'w str, work: &'c mut Canonicaliser) -> Self {
        let Canonicaliser { keys, members, .. } = &mut *work;
        sort(members, wire.as_bytes(), keys);
        let mut kept = 0;
        for place in 0..members.len() {
            if kept > 0 && members[place].same_key(&members[kept - 1], wire.as_bytes(), keys) {
                kept -= 1;
            }
            members[kept] = members[place];
            kept += 1;
        }
        members.truncate(kept);
        Self { wire, work }
    }

    /// Calls `visit` with each member's key and the text of its value on the wire, by key.
    pub(crate) fn each(&self, mut visit: impl FnMut(&[u8], &'w str)) {
        for member in &self.work.members {
            let key = member.key.bytes(self.wire.as_bytes(), &self.work.keys);
            visit(key, &self.wire[member.value as usize..member.value_end as usize]);
        }
    }

    /// The bytes that are signed: without the members `skip`, with the rendered members `overlay` in their place.
    /// Both are sorted by key; an overlay's key replaces a member of that name.
    pub(crate) fn signed(&mut self, skip: &[u8], overlay: &[(&[u8], &[u8])]) -> &[u8] {
        let Canonicaliser { out, spare, keys, members, .. } = &mut *self.work;
        let mut overlay = overlay.iter().peekable();
        spare.clear();
        spare.push(b'{');
        let mut put = |fragment: &[u8]| {
            spare.extend_from_slice(fragment);
            spare.push(b',');
        };
        for member in members.iter() {
            let key = member.key.bytes(self.wire.as_bytes(), keys);
            while let Some((_, fragment)) = overlay.next_if(|(name, _)| *name < key) {
                put(fragment);
            }
            if key != skip && overlay.peek().is_none_or(|(name, _)| *name != key) {
                put(&out[member.fragment()]);
            }
        }
        overlay.for_each(|(_, fragment)| put(fragment));
        spare.pop();
        spare.push(b'}');
        spare
    }
}
