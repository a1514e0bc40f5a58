//! Roles, which belong to the server and which no dump of a database carries (contract, 5.2).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    database::{Database, quote_identifier},
    error::Error,
};

/// A role of the user's own making. Its password is not here, and no copy gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub name: String,
    pub inherit: bool,
    pub bypass_rls: bool,
    /// Roles that it is a member of, if they are made along with it or are the release's.
    pub member_of: Vec<String>,
}

/// Whoever has the database's password can make more; they are kept with each copy.
const MOST_ROLES: usize = 1_000;

/// The release's own roles, with the attributes that a restored database counts on.
const OF_THE_RELEASE: &str = "
    DO $$
    DECLARE role text;
    BEGIN
        FOREACH role IN ARRAY ARRAY['anon', 'authenticated', 'project_admin'] LOOP
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role);
            END IF;
        END LOOP;
        IF NOT (SELECT rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = 'project_admin') THEN
            ALTER ROLE project_admin BYPASSRLS;
        END IF;
    END $$";

/// Makes the roles of [`Exported::roles`](crate::Exported::roles) that the server lacks, without the right to log in and none
/// as a superuser: grants and owners can then be restored, and nobody enters a branch with a login of its parent.
pub async fn make_roles(database: &Database, roles: &[Role]) -> Result<(), Error> {
    if roles.is_empty() {
        return Ok(());
    }
    let mut connection = database.maintenance().connect().await?;
    let mut statements = "BEGIN; ".to_owned();
    for role in roles {
        let name = quote_identifier(&role.name);
        let inherit = if role.inherit { "INHERIT" } else { "NOINHERIT" };
        let bypass = if role.bypass_rls {
            "BYPASSRLS"
        } else {
            "NOBYPASSRLS"
        };
        let known: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
                .bind(&role.name)
                .fetch_one(&mut connection)
                .await
                .map_err(Error::sql("look for a role"))?;
        if !known {
            // Writing to a String cannot fail.
            let _ = write!(
                statements,
                "CREATE ROLE {name} NOLOGIN {inherit} {bypass}; "
            );
        }
    }
    for role in roles {
        for group in &role.member_of {
            let _ = write!(
                statements,
                "GRANT {} TO {}; ",
                quote_identifier(group),
                quote_identifier(&role.name)
            );
        }
    }
    statements.push_str("COMMIT");
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&mut connection)
        .await
        .map_err(Error::sql("make the roles"))?;
    Ok(())
}

pub(crate) async fn make_the_releases(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::raw_sql(OF_THE_RELEASE)
        .execute(connection)
        .await
        .map_err(Error::sql("make the release's roles"))?;
    Ok(())
}

/// The roles that objects of this database name as owner, grantee or in a policy, and what those are members of; but not the
/// server's first superuser (OID 10: each server has its own), its predefined roles, and the release's.
pub(crate) async fn named_in(connection: &mut PgConnection) -> Result<Vec<Role>, Error> {
    let rows: Vec<(String, bool, bool, Vec<String>)> = sqlx::query_as(
        "WITH RECURSIVE named (oid) AS (
             SELECT refobjid FROM pg_shdepend
             WHERE refclassid = 'pg_authid'::regclass
               AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
             UNION
             SELECT m.roleid FROM pg_auth_members m JOIN named n ON n.oid = m.member
         ), ours (oid) AS (
             SELECT r.oid FROM named JOIN pg_roles r USING (oid)
             WHERE r.oid <> 10 AND r.rolname !~ '^pg_'
               AND r.rolname NOT IN ('anon', 'authenticated', 'project_admin')
         )
         SELECT r.rolname::text, r.rolinherit, r.rolbypassrls, ARRAY(
                    SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                    WHERE m.member = r.oid AND g.oid <> 10 ORDER BY 1)
         FROM ours JOIN pg_roles r USING (oid) ORDER BY 1 LIMIT $1",
    )
    .bind(i64::try_from(MOST_ROLES + 1).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await
    .map_err(Error::sql("list the roles"))?;
    if rows.len() > MOST_ROLES {
        let what = "the server's roles".to_owned();
        return Err(Error::TooMuch { what });
    }
    let roles = rows
        .into_iter()
        .map(|(name, inherit, bypass_rls, member_of)| Role {
            name,
            inherit,
            bypass_rls,
            member_of,
        });
    Ok(roles.collect())
}
