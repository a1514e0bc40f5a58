//! Asking the rows whether they allow what a plan does.

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};

use crate::{
    Error,
    apply::Rights,
    catalog::{Catalog, FactId},
    plan::{MergePlan, connect},
    report::{NeedsMigration, Warning},
    script::Probe,
    session::{PATH, count_as, run},
};

impl MergePlan {
    /// Which changes the parent's rows do not allow. Where migrations come first the answer is theirs to change: then
    /// it is a warning, and the rows are asked again between the migrations and the script.
    pub(crate) async fn ask_rows(
        &mut self,
        parent: &PgConnectOptions,
        from: &Catalog,
    ) -> Result<Vec<(FactId, NeedsMigration)>, Error> {
        if self.script.probes.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = connect(parent).await?;
        // Only looks, and not for ever: it is the parent's own database, and nothing is merged yet.
        run(
            &mut session,
            &format!(
                "SET default_transaction_read_only = on; SET search_path = {PATH}; SET row_security = off; \
                 SET session_replication_role = replica; SET lock_timeout = '10s'; SET statement_timeout = '60s'"
            ),
        )
        .await?;
        let rights = Rights::new(from, &self.target);
        let mut answers = Vec::new();
        for probe in &self.script.probes {
            let role = rights.of_probe(probe);
            // What lends the rights is made first; with them there is nothing but reading, see `count_as`.
            let begin = match role {
                Some(_) => "BEGIN READ WRITE",
                None => "BEGIN READ ONLY",
            };
            let failed = "ask the rows";
            let mut look = session
                .begin_with(begin)
                .await
                .map_err(Error::while_doing(failed))?;
            let answer = ask(&mut look, probe, role.as_deref()).await;
            look.rollback().await.map_err(Error::while_doing(failed))?;
            match answer {
                Ok(0) => {}
                Ok(rows) => answers.push((probe.id.clone(), in_the_way(probe, rows))),
                // A migration makes what the probe looks at.
                Err(_) if !self.migrations.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        let _ = session.close().await;
        if self.migrations.is_empty() {
            return Ok(answers);
        }
        let source = self.direction.source();
        self.warnings.extend(answers.into_iter().map(|(id, needs)| {
            let text = format!(
                "{}; the {source}'s migrations run first, and the rows are asked again after them",
                needs.hint
            );
            Warning::about(&id, text)
        }));
        Ok(Vec::new())
    }
}

/// How many rows stand in the way.
pub(crate) async fn ask(
    session: &mut PgConnection,
    probe: &Probe,
    role: Option<&str>,
) -> Result<i64, Error> {
    let counted = match role {
        Some(role) => count_as(session, role, &probe.sql).await,
        None => {
            sqlx::query_scalar(AssertSqlSafe(probe.sql.as_str()))
                .fetch_one(session)
                .await
        }
    };
    let doing = format!("count the rows that {} cannot keep", probe.id);
    counted.map_err(Error::while_doing(doing))
}

pub(crate) fn in_the_way(probe: &Probe, rows: i64) -> NeedsMigration {
    NeedsMigration {
        probe: Some(probe.sql.clone()),
        rows: Some(rows),
        ..NeedsMigration::new(&probe.id, probe.why.replace("{rows}", &rows.to_string()))
    }
}
