//! The script in a scratch database that has the parent's schema: errors of SQL show there, and its result is what the
//! parent must read as afterwards. What an online merge leaves for later is tried after that, as it would run in a transaction.

use std::collections::BTreeSet;

use sqlx::{Connection, postgres::PgConnectOptions};

use super::{places, rights::Rights, stages::Stages};
use crate::{
    Error,
    catalog::{Catalog, FactId},
    config::Migration,
    plan::{MergePlan, with_scratch},
    scratch::Scratch,
    script::Statement,
    session::{enter_script, run_migrations, run_one, run_with_rights},
};

/// What a rehearsal showed.
pub(super) struct Rehearsal {
    /// The facts that the migrations and the script bring, change or drop in the transaction.
    pub touched: BTreeSet<FactId>,
    /// The scratch database at its end.
    pub after: Catalog,
    /// What no scratch database can have, before or after.
    pub left_out: BTreeSet<FactId>,
}

/// What the parent's schema becomes through migrations. Rows that they write are not there to be seen; what they do
/// to them is known only when they run for good.
pub(crate) async fn migrated(
    parent: &PgConnectOptions,
    catalog: &Catalog,
    migrations: &[Migration],
) -> Result<Catalog, Error> {
    with_scratch(parent, async |scratch| {
        scratch.load(catalog).await?;
        let before = scratch.read().await?;
        migrate(scratch, migrations).await?;
        let after = scratch.read().await?;
        Ok(places::carry(catalog, &before, &after))
    })
    .await
}

async fn migrate(scratch: &mut Scratch, migrations: &[Migration]) -> Result<(), Error> {
    let failed = "try the branch's migrations";
    let mut transaction = scratch
        .session()?
        .begin()
        .await
        .map_err(Error::while_doing(failed))?;
    run_migrations(&mut transaction, migrations).await?;
    transaction
        .commit()
        .await
        .map_err(Error::while_doing(failed))?;
    // Migrations may have set something for the session.
    scratch.settle().await
}

pub(super) async fn rehearse(
    parent: &PgConnectOptions,
    plan: &MergePlan,
    stages: &Stages<'_>,
) -> Result<Rehearsal, Error> {
    if plan.script.statements.is_empty()
        && plan.script.pre_steps.is_empty()
        && plan.migrations.is_empty()
    {
        return Ok(Rehearsal {
            touched: BTreeSet::new(),
            after: plan.parent.catalog.clone(),
            left_out: BTreeSet::new(),
        });
    }
    let (before, after, end, left_out) = with_scratch(parent, async |scratch| {
        scratch.load(&plan.parent.catalog).await?;
        scratch.leave_out(plan.from()).await?;
        scratch.leave_out(&plan.target).await?;
        let before = scratch.read().await?;
        // As on the parent: they are committed before all else.
        for statement in &plan.script.pre_steps {
            run_one(scratch.session()?, &statement.sql).await?;
        }
        if !plan.migrations.is_empty() {
            migrate(scratch, &plan.migrations).await?;
        }
        let rights = Rights::new(plan.from(), &plan.target);
        run_script(scratch, plan, &rights, &stages.now).await?;
        let after = scratch.read().await?;
        let mut end = None;
        if !stages.later.is_empty() {
            let statements: Vec<Statement> = stages
                .later
                .iter()
                .flat_map(|one| std::iter::once(&one.statement).chain(&one.follow))
                .cloned()
                .collect();
            let rights = Rights::new(&plan.target, &plan.target);
            run_script(scratch, plan, &rights, &statements).await?;
            end = Some(scratch.read().await?);
        }
        Ok((before, after, end, scratch.left_out().clone()))
    })
    .await?;
    let end = end.as_ref().unwrap_or(&after);
    check(parent, plan, &before.diff(end), end, &left_out).await?;
    Ok(Rehearsal {
        touched: before.diff(&after).into_iter().collect(),
        after,
        left_out,
    })
}

async fn run_script(
    scratch: &mut Scratch,
    plan: &MergePlan,
    rights: &Rights<'_>,
    statements: &[Statement],
) -> Result<(), Error> {
    let left_out = scratch.left_out().clone();
    // A grant or a comment may be of something without a fact, as of a view's column.
    let cannot_run = |id: &FactId| {
        left_out.contains(id)
            || [&plan.target, plan.from()]
                .iter()
                .filter_map(|catalog| catalog.facts.get(id))
                .any(|fact| !fact.needs.is_disjoint(&left_out))
    };
    let failed = "try the script";
    let mut transaction = scratch
        .session()?
        .begin()
        .await
        .map_err(Error::while_doing(failed))?;
    enter_script(&mut transaction).await?;
    for statement in statements {
        if statement.refreshes() || statement.serves.as_ref().is_some_and(cannot_run) {
            continue;
        }
        let role = rights.of_statement(statement);
        run_with_rights(&mut transaction, role.as_deref(), &statement.sql).await?;
    }
    transaction
        .commit()
        .await
        .map_err(Error::while_doing(failed))
}

/// What the script made must be what was merged. Texts may differ until both have been parsed once more, so those that
/// do are compared again with what a scratch database makes of the merged schema.
async fn check(
    parent: &PgConnectOptions,
    plan: &MergePlan,
    touched: &[FactId],
    after: &Catalog,
    left_out: &BTreeSet<FactId>,
) -> Result<(), Error> {
    let differs = |target: &Catalog, id: &FactId| {
        target.facts.get(id).map(|fact| &fact.payload)
            != after.facts.get(id).map(|fact| &fact.payload)
    };
    let mut meant: BTreeSet<FactId> = plan.from().diff(&plan.target).into_iter().collect();
    meant.extend(touched.iter().cloned());
    meant.retain(|id| !plan.target.is_managed(id) && !left_out.contains(id));
    meant.retain(|id| differs(&plan.target, id));
    if meant.is_empty() {
        return Ok(());
    }
    let parsed = with_scratch(parent, async |scratch| {
        scratch.load(&plan.target).await?;
        scratch.read().await
    })
    .await?;
    meant.retain(|id| differs(&parsed, id));
    if meant.is_empty() {
        return Ok(());
    }
    Err(Error::Unexpected(format!(
        "the script does not make the merged schema: {}",
        listed(&meant, &parsed, after)
    )))
}

/// The first few names, with what was wanted and what came.
pub(super) fn listed<'a>(
    ids: impl IntoIterator<Item = &'a FactId>,
    wanted: &Catalog,
    found: &Catalog,
) -> String {
    const SHOWN: usize = 5;
    let text = |catalog: &Catalog, id: &FactId| {
        let payload = catalog.facts.get(id).map(|fact| &fact.payload);
        serde_json::to_string(&payload).unwrap_or_default()
    };
    let texts: Vec<String> = ids
        .into_iter()
        .take(SHOWN)
        .map(|id| {
            format!(
                "{} {id}: wanted {}, found {}",
                id.kind.as_str(),
                text(wanted, id),
                text(found, id)
            )
        })
        .collect();
    texts.join("; ")
}
