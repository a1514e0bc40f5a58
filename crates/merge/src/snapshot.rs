//! A database as it is at one moment: what a branch starts from, and what a merge compares.

use sqlx::PgConnection;

use crate::{
    Error,
    catalog::{self, Catalog, Hash},
    config,
};

/// The format's name and version. The length of the catalog follows, so that the rows behind it are found.
const MAGIC: &str = "cp-merge snapshot 1 ";

/// Schema and, on a database of the product, configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub catalog: Catalog,
    pub rows: Option<config::Rows>,
}

/// Reads both, inside the caller's transaction if there is one: for a branch's T0 that is the one whose snapshot is
/// exported to `pg_dump`.
///
/// # Errors
/// [`Error::Unsettled`] when the schema keeps changing meanwhile.
pub async fn snapshot(conn: &mut PgConnection) -> Result<Snapshot, Error> {
    Ok(Snapshot {
        catalog: catalog::read(conn).await?,
        rows: config::read(conn).await?,
    })
}

impl Snapshot {
    /// Of all that merges: two databases between which there is nothing to merge have one hash.
    pub fn hash(&self) -> Hash {
        let rows = self.rows.as_ref().map(config::Rows::hash);
        config::hash(&(self.catalog.hash(), rows))
    }

    /// One versioned format: a line of text with the catalog's length, the catalog, the rows as JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let catalog = self.catalog.to_bytes();
        let mut bytes = format!("{MAGIC}{}\n", catalog.len()).into_bytes();
        bytes.extend(catalog);
        bytes.extend(serde_json::to_vec(&self.rows).unwrap_or_default());
        bytes
    }

    /// # Errors
    /// [`Error::InvalidSnapshot`] when these are not bytes that [`Snapshot::to_bytes`] of this version wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |why: &str| Error::InvalidSnapshot(why.to_owned());
        let rest = bytes
            .strip_prefix(MAGIC.as_bytes())
            .ok_or_else(|| invalid("other format or version"))?;
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| invalid("it ends in its first line"))?;
        let length: usize = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| invalid("its first line has no length"))?;
        let rest = &rest[end + 1..];
        if rest.len() < length {
            return Err(invalid("it is cut off"));
        }
        let (catalog, rows) = rest.split_at(length);
        Ok(Self {
            catalog: Catalog::from_bytes(catalog)?,
            rows: serde_json::from_slice(rows).map_err(|error| invalid(&error.to_string()))?,
        })
    }
}
