//! What each fact needs, from `pg_depend`.

use sqlx::postgres::types::Oid;

use super::reader::{Reader, class};
use crate::{
    catalog::{FactId, Kind},
    error::Error,
};

/// Every edge between two objects of users, as edge between the facts that they are or are part of: the hidden rule of
/// a view is the view, the default of a column the column, the row type of a table the table.
///
/// Not an edge: from a sequence to the column that owns it. It can be there before; `owned_by` says it.
pub async fn dependencies(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<(Oid, Oid, i32, Oid, Oid, i32)> = sqlx::query_as(
        r"SELECT classid, objid, objsubid, refclassid, refobjid, refobjsubid FROM pg_catalog.pg_depend
          WHERE deptype IN ('n', 'a', 'i') AND refobjid >= 16384 AND objid >= 16384",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the dependencies"))?;
    for (class, oid, number, other_class, other_oid, other_number) in rows {
        let Some(needer) = fact(reader, class, oid, number) else {
            continue;
        };
        let Some(needed) = fact(reader, other_class, other_oid, other_number) else {
            continue;
        };
        if needer == needed || is_part_of(needed, needer) || needer.kind == Kind::Extension {
            continue;
        }
        if needer.kind == Kind::Sequence && matches!(needed.kind, Kind::Column | Kind::Table) {
            continue;
        }
        let (needer, needed) = (needer.clone(), needed.clone());
        if let Some(fact) = reader.catalog.facts.get_mut(&needer) {
            fact.needs.insert(needed);
        }
    }
    Ok(())
}

fn fact<'r>(reader: &'r Reader<'_>, class: Oid, oid: Oid, number: i32) -> Option<&'r FactId> {
    if class.0 == class::RELATION && number != 0 {
        let column = reader.columns.get(&(oid.0, i16::try_from(number).ok()?));
        return column.or_else(|| reader.objects.get(&(class.0, oid.0)));
    }
    reader.objects.get(&(class.0, oid.0))
}

/// A table does not need its columns, though its partition key does.
fn is_part_of(part: &FactId, whole: &FactId) -> bool {
    !part.part.is_empty()
        && whole.part.is_empty()
        && part.schema == whole.schema
        && part.object == whole.object
}
