//! A database of its own on the parent's server, to try things out: filled from a catalog, without rows.

use std::collections::BTreeSet;

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::{
    Error,
    apply::Rights,
    catalog::{self, Catalog, FactId, Kind},
    script,
    session::{run, run_all, run_all_with_rights, settle_for_scripts},
};

/// Names carry the time of their making, so that what a killed process left behind can be told from what is in use.
const PREFIX: &str = "insforge_scratch_";
/// In seconds. No merge takes that long.
const ABANDONED: i64 = 3600;

/// `pg_cron` can be made only in the one database that `cron.database_name` names (project-backend 5.3).
const ONLY_IN_ITS_DATABASE: &str = "pg_cron";

/// Dropped with [`Scratch::drop`]; where that was not reached (an error, a cancelled future), in the background.
pub struct Scratch {
    name: String,
    /// Of the database beside which it was made.
    on: PgConnectOptions,
    session: Option<PgConnection>,
    left_out: BTreeSet<FactId>,
}

impl Scratch {
    /// Empty, with the encoding and locale of the database in `on`, whose role must be a superuser.
    pub async fn create(on: &PgConnectOptions) -> Result<Self, Error> {
        let mut admin = connect(on).await?;
        sweep(&mut admin).await?;
        let (name, create) = new_database(&mut admin).await?;
        // Before it is made, so that it is cleared away if this future is cancelled meanwhile.
        let mut scratch = Self {
            name,
            on: on.clone(),
            session: None,
            left_out: BTreeSet::new(),
        };
        let created = run(&mut admin, &create).await;
        let _ = admin.close().await;
        created?;
        let mut session = connect(&on.clone().database(&scratch.name)).await?;
        // What a branch's migrations run as; a right on the database is part of no catalog.
        run(
            &mut session,
            &format!(
                "DO $$ BEGIN IF pg_catalog.to_regrole('project_admin') IS NOT NULL THEN \
                 GRANT CREATE ON DATABASE {} TO project_admin; END IF; END $$",
                scratch.name
            ),
        )
        .await?;
        scratch.session = Some(session);
        scratch.settle().await?;
        Ok(scratch)
    }

    /// The settings of scripts, also after something else has set its own.
    pub(crate) async fn settle(&mut self) -> Result<(), Error> {
        let session = self.session()?;
        settle_for_scripts(session).await?;
        run(session, "SET client_min_messages = warning").await
    }

    /// Makes everything that the catalog has, the product's own objects too. What cannot be made here is
    /// [`left_out`](Self::left_out).
    pub async fn load(&mut self, catalog: &Catalog) -> Result<(), Error> {
        let session = self.session()?;
        let empty = catalog::read(session).await?;
        let missing = extensions_that_cannot_be_made(session, catalog).await?;
        self.left_out = dependents(catalog, missing);
        let catalog = without(catalog, &self.left_out);
        let mut script = script::script(&empty, &catalog, &[]);
        // There are no rows to fill them with, and perhaps no rights.
        script.statements.retain(|statement| !statement.refreshes());
        let session = self.session()?;
        run_all(session, &script.pre_steps).await?;
        let mut rest = script.statements.as_slice();
        let rights = Rights::new(&empty, &catalog);
        while let Some(first) = rest.first() {
            let role = |statement| rights.of_statement(statement);
            let lent = role(first);
            let alike = rest.iter().take_while(|s| role(s) == lent).count();
            let (part, others) = rest.split_at(alike);
            match lent {
                None => run_all(session, part).await?,
                Some(role) => run_all_with_rights(session, &role, part).await?,
            }
            rest = others;
        }
        Ok(())
    }

    /// Counts what of another catalog cannot be made here among what is left out.
    pub(crate) async fn leave_out(&mut self, catalog: &Catalog) -> Result<(), Error> {
        let missing = extensions_that_cannot_be_made(self.session()?, catalog).await?;
        self.left_out.extend(dependents(catalog, missing));
        Ok(())
    }

    /// The facts of the loaded catalog that need an extension which this database cannot have.
    pub fn left_out(&self) -> &BTreeSet<FactId> {
        &self.left_out
    }

    /// SQL text, one statement or several, with the settings of scripts.
    pub async fn run(&mut self, sql: &str) -> Result<(), Error> {
        run(self.session()?, sql).await
    }

    pub async fn read(&mut self) -> Result<Catalog, Error> {
        catalog::read(self.session()?).await
    }

    /// Ends it. An error says that the database is still there.
    pub async fn drop(mut self) -> Result<(), Error> {
        if let Some(session) = self.session.take() {
            let _ = session.close().await;
        }
        let name = std::mem::take(&mut self.name);
        drop_database(&self.on, &name).await
    }

    pub(crate) fn session(&mut self) -> Result<&mut PgConnection, Error> {
        // Only `drop` takes it away, and that consumes the whole.
        self.session
            .as_mut()
            .ok_or_else(|| Error::Unexpected("the scratch database is gone".to_owned()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let (on, name) = (self.on.clone(), std::mem::take(&mut self.name));
        // Outside of a runtime the next `create` clears it away.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = drop_database(&on, &name).await {
                    tracing::warn!(database = name, %error, "a scratch database is left behind");
                }
            });
        }
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    // Scripts are long, and some are secret: none belongs into a log.
    let options = options.clone().disable_statement_logging();
    // Nothing prepared is used again: what a migration prepares under the same name would be run in its place.
    options
        .statement_cache_capacity(0)
        .connect()
        .await
        .map_err(Error::while_doing("connect"))
}

/// Drops what was left behind.
async fn sweep(admin: &mut PgConnection) -> Result<(), Error> {
    let abandoned: Vec<String> = sqlx::query_scalar(
        "SELECT datname::text FROM pg_catalog.pg_database d
         WHERE datname ~ ('^' || $1 || '[0-9]{1,15}_[0-9a-f]{32}$')
           AND pg_catalog.split_part(pg_catalog.substr(datname, pg_catalog.length($1) + 1), '_', 1)::bigint
               < extract(epoch FROM pg_catalog.now()) - $2
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid)",
    )
    .bind(PREFIX)
    .bind(ABANDONED)
    .fetch_all(&mut *admin)
    .await
    .map_err(Error::while_doing("look for abandoned scratch databases"))?;
    for name in abandoned {
        // Somebody else may be clearing it away, too.
        let _ = run(admin, &format!("DROP DATABASE IF EXISTS {name}")).await;
    }
    Ok(())
}

/// The name of a new one, and the statement that makes it.
async fn new_database(admin: &mut PgConnection) -> Result<(String, String), Error> {
    let (now, like): (i64, String) = sqlx::query_as(
        "SELECT extract(epoch FROM pg_catalog.now())::bigint,
                pg_catalog.format('ENCODING %L LC_COLLATE %L LC_CTYPE %L',
                    pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype)
                || CASE datlocprovider
                     WHEN 'i' THEN pg_catalog.format(' LOCALE_PROVIDER icu ICU_LOCALE %L', coalesce(
                         pg_catalog.to_jsonb(d) ->> 'daticulocale', pg_catalog.to_jsonb(d) ->> 'datlocale'))
                     WHEN 'b' THEN pg_catalog.format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L',
                         pg_catalog.to_jsonb(d) ->> 'datlocale')
                     ELSE '' END
         FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()",
    )
    .fetch_one(&mut *admin)
    .await
    .map_err(Error::while_doing("make a scratch database"))?;
    let name = format!("{PREFIX}{now}_{}", Uuid::new_v4().simple());
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 {like}");
    Ok((name, create))
}

async fn drop_database(on: &PgConnectOptions, name: &str) -> Result<(), Error> {
    let mut admin = connect(on).await?;
    let outcome = run(
        &mut admin,
        &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
    )
    .await;
    let _ = admin.close().await;
    outcome
}

async fn extensions_that_cannot_be_made(
    session: &mut PgConnection,
    catalog: &Catalog,
) -> Result<BTreeSet<FactId>, Error> {
    let available: Vec<String> =
        sqlx::query_scalar("SELECT name::text FROM pg_catalog.pg_available_extensions")
            .fetch_all(session)
            .await
            .map_err(Error::while_doing("read the available extensions"))?;
    Ok(catalog
        .facts
        .keys()
        .filter(|id| id.kind == Kind::Extension)
        .filter(|id| id.object == ONLY_IN_ITS_DATABASE || !available.contains(&id.object))
        .cloned()
        .collect())
}

/// Facts, and all that needs them.
fn dependents(catalog: &Catalog, missing: BTreeSet<FactId>) -> BTreeSet<FactId> {
    let mut gone = missing;
    if gone.is_empty() {
        return gone;
    }
    loop {
        let more: Vec<FactId> = catalog
            .facts
            .iter()
            .filter(|(id, _)| !gone.contains(id))
            .filter(|(id, fact)| {
                let about_gone = id.subject().is_some_and(|subject| gone.contains(&subject));
                about_gone || !fact.needs.is_disjoint(&gone)
            })
            .map(|(id, _)| id.clone())
            .collect();
        if more.is_empty() {
            return gone;
        }
        gone.extend(more);
    }
}

fn without(catalog: &Catalog, gone: &BTreeSet<FactId>) -> Catalog {
    let mut catalog = catalog.clone();
    catalog.facts.retain(|id, _| !gone.contains(id));
    catalog
}
