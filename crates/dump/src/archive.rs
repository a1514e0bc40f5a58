//! The first bytes of an archive in pg_dump's custom format (`src/bin/pg_dump/pg_backup_archiver.c`, `ReadHead`).
//!
//! An archive cannot be asked what is in it before it has been read, but its head says who can read it and how many
//! entries follow.

use crate::error::Error;

const MAGIC: &[u8] = b"PGDMP";
const CUSTOM: u8 = 1;

/// A head is some 150 bytes; the names of databases and versions in it are short.
pub(crate) const LONGEST_HEAD: usize = 16 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The first major version of pg_restore that reads this.
    pub(crate) readable_since: u32,
    /// How many objects, rows of tables and grants the archive lists.
    pub(crate) entries: u64,
}

/// `None` while more bytes are needed.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let looks_right = bytes.iter().zip(MAGIC).all(|(is, should)| is == should);
    if !looks_right {
        return Err(Error::Archive("it does not begin like one"));
    }
    let mut reader = Reader {
        bytes,
        at: MAGIC.len(),
        int_size: 4,
    };
    match read(&mut reader) {
        None if bytes.len() > LONGEST_HEAD => Err(Error::Archive("its head is unreadable")),
        None => Ok(None),
        Some(head) => head.map(Some),
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Result<Head, Error>> {
    let version = (reader.byte()?, reader.byte()?);
    let _revision = reader.byte()?;
    let readable_since = match version {
        (1, ..12) => return Some(Err(Error::Archive("its format is of a release before 9"))),
        (1, 12..=14) => 12,
        (1, 15) => 16,
        (1, 16) => 17,
        _ => return Some(Err(Error::Archive("its format is newer than we know"))),
    };
    reader.int_size = usize::from(reader.byte()?);
    let _offset_size = reader.byte()?;
    if reader.byte()? != CUSTOM {
        return Some(Err(Error::Archive("it is not in the custom format")));
    }
    if !(1..=8).contains(&reader.int_size) {
        return Some(Err(Error::Archive("its head is unreadable")));
    }
    // The compression, as a level or (since 1.15) as an algorithm.
    if version.1 >= 15 {
        reader.byte()?;
    } else {
        reader.int()?;
    }
    // The time it was made: seconds to years, and whether that was summer time.
    for _ in 0..7 {
        reader.int()?;
    }
    // The database, the server's version, pg_dump's version.
    for _ in 0..3 {
        reader.skip_text()?;
    }
    let entries = u64::try_from(reader.int()?).unwrap_or_default();
    Some(Ok(Head {
        readable_since,
        entries,
    }))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    int_size: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte
    }

    /// A sign, then the lowest byte first.
    fn int(&mut self) -> Option<i64> {
        let negative = self.byte()? != 0;
        let mut value = 0;
        for place in 0..self.int_size {
            value |= i64::from(self.byte()?).checked_shl(u32::try_from(8 * place).ok()?)?;
        }
        Some(if negative { -value } else { value })
    }

    /// Its length, then its bytes; a length below zero is no text.
    fn skip_text(&mut self) -> Option<()> {
        let length = self.int()?;
        self.at = self.at.checked_add(usize::try_from(length).unwrap_or(0))?;
        (self.at <= self.bytes.len()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pg_dump -Fc` of a database `a` by 15.18.
    const HEAD: &[u8] = b"PGDMP\x01\x0e\x00\x04\x08\x01\
        \x01\x01\x00\x00\x00\
        \x00\x07\x00\x00\x00\x00\x08\x00\x00\x00\x00\x03\x00\x00\x00\
        \x00\x16\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x7e\x00\x00\x00\x00\x00\x00\x00\x00\
        \x00\x01\x00\x00\x00a\x00\x05\x00\x00\x0015.18\x00\x05\x00\x00\x0015.18\
        \x00\x02\x01\x00\x00";

    #[test]
    fn a_head_is_read_as_soon_as_it_is_there() {
        let whole = Head {
            readable_since: 12,
            entries: 258,
        };
        for length in 0..HEAD.len() {
            assert_eq!(head(&HEAD[..length]).unwrap(), None, "{length}");
        }
        assert_eq!(head(HEAD).unwrap(), Some(whole));
    }

    #[test]
    fn other_bytes_are_refused() {
        for other in [&b"-- PostgreSQL database dump"[..], b"\x1f\x8b", b"PGDMX"] {
            assert!(matches!(head(other), Err(Error::Archive(_))));
        }
        let mut newer = HEAD.to_vec();
        newer[6] = 99;
        assert!(head(&newer).is_err());
        let mut endless = HEAD.to_vec();
        endless.resize(2 * LONGEST_HEAD, 0);
        endless[51..56].copy_from_slice(&[0, 255, 255, 255, 0]);
        assert!(matches!(head(&endless), Err(Error::Archive(_))));
    }
}
