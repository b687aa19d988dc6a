//! The little MessagePack that stored tasks need, written by hand so that a report is packed once and its
//! bytes are copied from then on.
//!
//! Reading is total: any input yields a value or [`Malformed`], never a panic, and unknown members are skipped.

/// Bytes that are not the MessagePack we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed MessagePack")]
pub(super) struct Malformed;

pub(super) fn map(out: &mut Vec<u8>, members: u8) {
    debug_assert!(members < 16, "small maps only");
    out.push(0x80 | members);
}

pub(super) fn array(out: &mut Vec<u8>, items: usize) {
    match items {
        0..=15 => out.push(0x90 | items as u8),
        _ => {
            out.push(0xdd);
            out.extend_from_slice(&(items as u32).to_be_bytes());
        }
    }
}

pub(super) fn str(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ 0..=31 => out.push(0xa0 | length as u8),
        length @ 32..=0xff => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 0x100..=0xffff => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn bin16(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    out.extend_from_slice(&[0xc4, 16]);
    out.extend_from_slice(bytes);
}

pub(super) fn u8(out: &mut Vec<u8>, number: u8) {
    match number {
        0..=0x7f => out.push(number),
        _ => out.extend_from_slice(&[0xcc, number]),
    }
}

pub(super) fn i64(out: &mut Vec<u8>, number: i64) {
    out.push(0xd3);
    out.extend_from_slice(&number.to_be_bytes());
}

pub(super) fn bool(out: &mut Vec<u8>, yes: bool) {
    out.push(if yes { 0xc3 } else { 0xc2 });
}

/// Reads from the front of a slice.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next value.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    #[inline]
    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.number::<1>()?[0])
    }

    #[inline]
    fn length(&mut self, width: u8) -> Result<usize, Malformed> {
        Ok(match width {
            1 => usize::from(self.byte()?),
            2 => usize::from(u16::from_be_bytes(self.number()?)),
            _ => u32::from_be_bytes(self.number()?) as usize,
        })
    }

    #[inline]
    pub(super) fn map(&mut self) -> Result<usize, Malformed> {
        match self.byte()? {
            tag @ 0x80..=0x8f => Ok(usize::from(tag & 0x0f)),
            0xde => self.length(2),
            0xdf => self.length(4),
            _ => Err(Malformed),
        }
    }

    #[inline]
    pub(super) fn array(&mut self) -> Result<usize, Malformed> {
        match self.byte()? {
            tag @ 0x90..=0x9f => Ok(usize::from(tag & 0x0f)),
            0xdc => self.length(2),
            0xdd => self.length(4),
            _ => Err(Malformed),
        }
    }

    #[inline]
    pub(super) fn str(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.name()?).map_err(|_| Malformed)
    }

    /// A string's bytes, for those that are only compared.
    pub(super) fn name(&mut self) -> Result<&'a [u8], Malformed> {
        let length = match self.byte()? {
            tag @ 0xa0..=0xbf => usize::from(tag & 0x1f),
            0xd9 => self.length(1)?,
            0xda => self.length(2)?,
            0xdb => self.length(4)?,
            _ => return Err(Malformed),
        };
        self.take(length)
    }

    #[inline]
    pub(super) fn bin16(&mut self) -> Result<[u8; 16], Malformed> {
        match (self.byte()?, self.byte()?) {
            (0xc4, 16) => self.number(),
            _ => Err(Malformed),
        }
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        match self.byte()? {
            tag @ 0..=0x7f => Ok(tag),
            0xcc => self.byte(),
            _ => Err(Malformed),
        }
    }

    #[inline]
    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        match self.byte()? {
            0xd3 => Ok(i64::from_be_bytes(self.number()?)),
            _ => Err(Malformed),
        }
    }

    /// Skips one value of any kind, however deep, without recursion.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            let (bytes, values) = match self.byte()? {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
                tag @ 0x80..=0x8f => (0, 2 * usize::from(tag & 0x0f)),
                tag @ 0x90..=0x9f => (0, usize::from(tag & 0x0f)),
                tag @ 0xa0..=0xbf => (usize::from(tag & 0x1f), 0),
                0xc1 => return Err(Malformed),
                0xc4 | 0xd9 => (self.length(1)?, 0),
                0xc5 | 0xda => (self.length(2)?, 0),
                0xc6 | 0xdb => (self.length(4)?, 0),
                0xc7 => (self.length(1)? + 1, 0),
                0xc8 => (self.length(2)? + 1, 0),
                0xc9 => (self.length(4)? + 1, 0),
                0xca | 0xce | 0xd2 => (4, 0),
                0xcb | 0xcf | 0xd3 => (8, 0),
                0xcc | 0xd0 => (1, 0),
                0xcd | 0xd1 => (2, 0),
                0xd4 => (2, 0),
                0xd5 => (3, 0),
                0xd6 => (5, 0),
                0xd7 => (9, 0),
                0xd8 => (17, 0),
                0xdc => (0, self.length(2)?),
                0xdd => (0, self.length(4)?),
                0xde => (0, 2 * self.length(2)?),
                0xdf => (0, 2 * self.length(4)?),
            };
            self.take(bytes)?;
            left = left.checked_add(values).ok_or(Malformed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_messagepack_and_read_back() {
        for length in [0, 31, 32, 255, 256, 65_535, 65_536] {
            let text = "x".repeat(length);
            let mut out = Vec::new();
            str(&mut out, &text);
            assert_eq!(rmp_serde::from_slice::<String>(&out).unwrap(), text);
            assert_eq!(Reader::new(&out).str(), Ok(&*text));
        }
        for number in [i64::MIN, -1, 0, 1, i64::MAX] {
            let mut out = Vec::new();
            i64(&mut out, number);
            assert_eq!(rmp_serde::from_slice::<i64>(&out).unwrap(), number);
            assert_eq!(Reader::new(&out).i64(), Ok(number));
        }
        for number in [0, 0x7f, 0x80, 0xff] {
            let mut out = Vec::new();
            u8(&mut out, number);
            assert_eq!(rmp_serde::from_slice::<u8>(&out).unwrap(), number);
            assert_eq!(Reader::new(&out).u8(), Ok(number));
        }
    }

    #[test]
    fn any_value_is_skipped_whole_and_a_cut_one_refused() {
        let value =
            serde_json::json!({"a": [1, -7, 1.5, 70_000, null, true], "b": {"c": "x".repeat(300)}, "d": [[[]]]});
        let bytes = rmp_serde::to_vec_named(&value).unwrap();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.skip(), Ok(()));
        assert!(reader.is_done());
        for cut in 0..bytes.len() {
            assert_eq!(Reader::new(&bytes[..cut]).skip(), Err(Malformed));
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_without_allocating() {
        assert_eq!(Reader::new(&[0xdb, 0xff, 0xff, 0xff, 0xff]).str(), Err(Malformed));
        assert_eq!(Reader::new(&[0xdf, 0xff, 0xff, 0xff, 0xff]).skip(), Err(Malformed));
        let deep = [0x91; 100_000];
        assert_eq!(Reader::new(&deep).skip(), Err(Malformed));
    }
}
