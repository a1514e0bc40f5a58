//! From four snapshots to a plan: what a merge would do to the parent, and what stands in its way. Changes nothing.
//!
//! The story of [`plan`]:
//! 1. Both databases are read as they are now.
//! 2. Configuration is decided ([`config::merge`]). Where the branch ran migrations of its own, the rest is planned
//!    from what the parent will be after them, tried out in a scratch database.
//! 3. Schema is decided ([`three_way`]) and written down ([`script`]).
//! 4. The parent's rows are asked whether they allow it, read-only.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Error, Snapshot, after_migrations,
    apply::migrated,
    catalog::{Catalog, FactId, Hash, Kind},
    config::{self, LEDGER, Migration, Rows, Write},
    definitions::{Definitions, Describer},
    parallel::both,
    render,
    report::{Change, Conflict, DiffResult, NeedsMigration, Rename, Warning},
    scratch::Scratch,
    script::{self, Script, Statement},
    snapshot,
    three_way::{self, Action, Aligned, Direction, Names, Resolutions, Sides},
};

/// Both sides as they were when the branch was made.
#[derive(Clone, Debug, Default)]
pub struct Bases {
    pub parent: Snapshot,
    /// Read right after the copy: a copy has other ids, and a few texts read differently.
    pub branch: Snapshot,
}

/// What a merge does. [`crate::apply`] does it if [`is_clean`](Self::is_clean). Of a rebase
/// ([`crate::plan_rebase`]), what is said here of the parent holds for the branch.
#[derive(Clone, Debug)]
pub struct MergePlan {
    pub direction: Direction,
    /// Without those that are conflicts or need a migration.
    pub changes: Vec<Change>,
    pub conflicts: Vec<Conflict>,
    pub needs_migration: Vec<NeedsMigration>,
    pub renames: Vec<Rename>,
    pub warnings: Vec<Warning>,
    /// Resolutions that name nothing which is in conflict.
    pub unused_resolutions: Vec<String>,
    /// The branch's migrations that the parent lacks; they run first.
    pub migrations: Vec<Migration>,
    /// From the parent after those migrations to the merged schema.
    pub script: Script,
    /// Statements for configuration rows, with the number of the change that they serve.
    pub writes: Vec<(usize, Vec<Write>)>,
    /// The tables that these write, as `schema.table`.
    pub(crate) written: BTreeSet<String>,
    /// Of the parent that this was planned for ([`Snapshot::hash`]).
    pub parent_hash: Hash,
    pub(crate) parent: Snapshot,
    /// The parent after the migrations; none without any.
    pub(crate) migrated: Option<Catalog>,
    /// What the parent should read as.
    pub(crate) target: Catalog,
    pub(crate) expected_rows: Option<Rows>,
    /// What the first changes stand for, in their order; configuration has none.
    ids: Vec<FactId>,
    /// The number of the change that brings a fact along.
    owners: BTreeMap<FactId, usize>,
}

/// Plans a merge of `branch` into `parent`. Both are read; neither is changed, but `parent`'s server may hold a
/// scratch database meanwhile.
///
/// # Errors
/// [`Error::Database`], [`Error::Unsettled`]. Conflicts are no errors.
pub async fn plan(
    parent: &PgConnectOptions,
    branch: &PgConnectOptions,
    bases: &Bases,
    resolutions: &Resolutions,
) -> Result<MergePlan, Error> {
    let bases = (&bases.parent, &bases.branch);
    let Planned { plan, source, .. } =
        planned(parent, read(branch), bases, resolutions, Direction::Merge).await?;
    // It takes a while to free a large catalog, for which nobody has to wait.
    tokio::task::spawn_blocking(move || drop(source));
    Ok(plan)
}

/// A plan, and what a rebase has to know beyond it.
pub(crate) struct Planned {
    pub plan: MergePlan,
    /// Whose changes were planned, as it was read.
    pub source: Snapshot,
    /// What all sides call things. Empty for a merge, as is the next one.
    pub names: Names,
    /// Final names of what the source has and the target will not have like it.
    pub lacks: BTreeSet<FactId>,
}

/// Plans to bring the changes of `branch` to `parent`, whatever people call the two (`direction`).
pub(crate) async fn planned(
    parent: &PgConnectOptions,
    branch: impl Future<Output = Result<Snapshot, Error>>,
    bases: (&Snapshot, &Snapshot),
    resolutions: &Resolutions,
    direction: Direction,
) -> Result<Planned, Error> {
    let (parent_now, branch_now) = tokio::try_join!(read(parent), branch)?;
    let rows = merge_rows(bases, &parent_now, &branch_now, resolutions, direction);
    let migrated = match rows.migrations.as_slice() {
        [] => None,
        migrations => Some(migrated(parent, &parent_now.catalog, migrations).await?),
    };
    let from = migrated.as_ref().unwrap_or(&parent_now.catalog);

    let (parent_t0, branch_t0) = after_migrations::onto_migrations(
        &bases.0.catalog,
        &parent_now.catalog,
        migrated.as_ref(),
        &bases.1.catalog,
        &branch_now.catalog,
    );
    let sides = Sides {
        parent_t0: &parent_t0,
        parent: from,
        branch_t0: &branch_t0,
        branch: &branch_now.catalog,
        direction,
    };
    let aligned = three_way::align(&sides, resolutions, parent).await?;
    let (parent_hash, (merge, script)) = both(
        || parent_now.hash(),
        || {
            let merge = three_way::decide(&aligned, resolutions);
            // Where texts were brought into one form, those of the parent too: else they would seem to differ.
            let as_read = matches!(aligned.parent, Cow::Borrowed(_));
            let script = if merge.renames.is_empty() && as_read {
                script::script(from, &merge.target, &[])
            } else {
                script::script_replayed(from, &aligned.parent, &merge.target, &merge.renames)
            };
            (merge, script)
        },
    );

    let describer = Describer {
        names: Names::new(&aligned),
        sides: [
            &bases.0.catalog,
            &parent_now.catalog,
            &bases.1.catalog,
            &branch_now.catalog,
        ],
        compared: sides,
    };
    let lacks = match direction {
        Direction::Merge => BTreeSet::new(),
        Direction::Rebase => lacks(&aligned, &merge.target),
    };
    let mut plan = MergePlan {
        direction,
        changes: Vec::new(),
        conflicts: merge
            .conflicts
            .into_iter()
            .map(|conflict| {
                let definitions = describer.obstacle(&conflict.id);
                Conflict::new(conflict, definitions, direction)
            })
            .collect(),
        needs_migration: Vec::new(),
        renames: merge.detected.iter().map(Rename::from).collect(),
        warnings: script.warnings.iter().map(Warning::from).collect(),
        unused_resolutions: merge
            .unused_resolutions
            .into_iter()
            .filter(|name| !rows.used.contains(name))
            .collect(),
        migrations: rows.migrations.clone(),
        writes: Vec::new(),
        written: BTreeSet::new(),
        parent_hash,
        expected_rows: parent_now.rows.as_ref().map(|_| rows.expected.clone()),
        ids: merge
            .changes
            .iter()
            .map(|change| change.id.clone())
            .collect(),
        owners: owners(&merge.changes),
        target: merge.target,
        script,
        migrated: None,
        parent: Snapshot::default(),
    };
    plan.changes = merge
        .changes
        .iter()
        .map(|change| Change {
            schema: change.id.schema.clone(),
            object: change.id.name(),
            kind: change.id.kind.as_str().to_owned(),
            action: change.action,
            sql: String::new(),
            definitions: describer.change(&change.facts[0], change.action),
        })
        .collect();
    plan.add_sql();
    let blocked = merge.blocked.iter().chain(&plan.script.blocked);
    let mut needs: Vec<(FactId, NeedsMigration)> = blocked
        .map(|blocked| (blocked.id.clone(), NeedsMigration::from(blocked)))
        .collect();
    needs.extend(plan.ask_rows(parent, from).await?);
    plan.block(needs, &describer);
    plan.tell_unmodelled(&sides);
    plan.add_rows(rows);
    let names = match direction {
        Direction::Merge => Names::default(),
        Direction::Rebase => {
            let [parent_t0, parent, branch_t0, branch] = describer.sides;
            let read = Sides {
                parent_t0,
                parent,
                branch_t0,
                branch,
                direction,
            };
            Names::new(&Aligned::by_name(&read, resolutions))
        }
    };
    plan.parent = parent_now;
    plan.migrated = migrated;
    Ok(Planned {
        plan,
        source: branch_now,
        names,
        lacks,
    })
}

fn lacks(aligned: &Aligned<'_>, target: &Catalog) -> BTreeSet<FactId> {
    let facts = aligned.branch.facts.iter();
    facts
        .filter(|(id, fact)| {
            let there = target.facts.get(id);
            there.is_none_or(|there| there.payload != fact.payload)
        })
        .map(|(id, _)| id.clone())
        .collect()
}

/// In a task of its own, so that both sides are read on two cores. It ends with this future.
async fn read(database: &PgConnectOptions) -> Result<Snapshot, Error> {
    let mut session = connect(database).await?;
    let reading = AbortOnDropHandle::new(tokio::spawn(async move {
        let snapshot = snapshot(&mut session).await;
        let _ = session.close().await;
        snapshot
    }));
    match reading.await {
        Ok(snapshot) => snapshot,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

pub(crate) async fn connect(database: &PgConnectOptions) -> Result<PgConnection, Error> {
    // Texts of users belong into no log of ours.
    let options = database.clone().disable_statement_logging();
    // See `apply`: nothing prepared is used again.
    options
        .statement_cache_capacity(0)
        .connect()
        .await
        .map_err(Error::while_doing("connect"))
}

/// Nothing to merge unless both sides are databases of the product.
fn merge_rows(
    bases: (&Snapshot, &Snapshot),
    parent: &Snapshot,
    branch: &Snapshot,
    resolutions: &Resolutions,
    direction: Direction,
) -> config::Merged {
    let all = (&bases.0.rows, &parent.rows, &bases.1.rows, &branch.rows);
    match all {
        (Some(parent_t0), Some(parent), Some(branch_t0), Some(branch)) => {
            let sides = config::Sides {
                parent_t0,
                parent,
                branch_t0,
                branch,
                direction,
            };
            config::merge(&sides, resolutions)
        }
        _ => config::Merged {
            expected: parent.rows.clone().unwrap_or_default(),
            ..config::Merged::default()
        },
    }
}

/// Runs with a scratch database, which is gone afterwards.
pub(crate) async fn with_scratch<T>(
    on: &PgConnectOptions,
    work: impl AsyncFnOnce(&mut Scratch) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut scratch = Scratch::create(on).await?;
    let result = work(&mut scratch).await;
    let dropped = scratch.drop().await;
    let result = result?;
    dropped?;
    Ok(result)
}

impl MergePlan {
    /// Nothing stands in the way. (There may be nothing to do, too.)
    pub fn is_clean(&self) -> bool {
        self.conflicts.is_empty() && self.needs_migration.is_empty()
    }

    /// The parent has all of it already.
    pub fn is_empty(&self) -> bool {
        self.is_clean()
            && self.changes.is_empty()
            && self.migrations.is_empty()
            && self.script.pre_steps.is_empty()
            && self.script.statements.is_empty()
            && self.writes.is_empty()
    }

    /// For the platform API.
    pub fn diff(&self) -> DiffResult {
        DiffResult::new(
            &self.changes,
            &self.conflicts,
            &self.needs_migration,
            &self.renames,
            &self.warnings,
            self.rendered_sql(),
        )
    }

    /// The plan as a migration file.
    pub fn rendered_sql(&self) -> String {
        render::sql(self)
    }

    /// What the script starts from.
    pub(crate) fn from(&self) -> &Catalog {
        self.migrated.as_ref().unwrap_or(&self.parent.catalog)
    }

    /// The change that a statement belongs to.
    pub(crate) fn change_of(&self, statement: &Statement) -> Option<&Change> {
        let index = self.index_of(statement.serves.as_ref()?)?;
        self.changes.get(index)
    }

    /// The change that brings a fact along: its own, or that of what it belongs to.
    fn index_of(&self, id: &FactId) -> Option<usize> {
        if let Some(index) = self.owners.get(id) {
            return Some(*index);
        }
        if let Some(subject) = id.subject() {
            return self.index_of(&subject);
        }
        if id.part.is_empty() && id.kind != Kind::Rls {
            return None;
        }
        // A part of something that is added or dropped as a whole.
        [
            Kind::Table,
            Kind::View,
            Kind::MaterializedView,
            Kind::Domain,
        ]
        .iter()
        .find_map(|kind| {
            self.owners
                .get(&FactId::object(*kind, &id.schema, &id.object))
        })
        .copied()
    }

    fn add_sql(&mut self) {
        let mut texts: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for statement in self.script.pre_steps.iter().chain(&self.script.statements) {
            if let Some(index) = statement.serves.as_ref().and_then(|id| self.index_of(id)) {
                texts
                    .entry(index)
                    .or_default()
                    .push(format!("{};", statement.sql));
            }
        }
        for (index, texts) in texts {
            self.changes[index].sql = texts.join("\n");
        }
    }

    /// Takes what needs a migration out of the changes, under the name of the change.
    fn block(&mut self, needs: Vec<(FactId, NeedsMigration)>, describer: &Describer<'_>) {
        let sides = &describer.compared;
        let mut gone = BTreeSet::new();
        let mut named = BTreeSet::new();
        for (id, mut item) in needs {
            let index = self.index_of(&id);
            let id = index.map_or(id, |index| self.ids[index].clone());
            gone.extend(index);
            if !named.insert(id.clone()) {
                continue;
            }
            let hash = |catalog: &Catalog| {
                let fact = catalog.facts.get(&id);
                fact.map(|fact| fact.payload.hash()).unwrap_or_default()
            };
            item.schema.clone_from(&id.schema);
            item.object = id.name();
            id.kind.as_str().clone_into(&mut item.kind);
            item.parent_t0_hash = hash(sides.parent_t0);
            let (mut parent_now, mut branch_now) = (hash(sides.parent), hash(sides.branch));
            if self.direction == Direction::Rebase {
                std::mem::swap(&mut parent_now, &mut branch_now);
            }
            (item.parent_now_hash, item.branch_now_hash) = (parent_now, branch_now);
            item.definitions = describer.obstacle(&id);
            self.needs_migration.push(item);
        }
        for index in gone.into_iter().rev() {
            self.changes.remove(index);
            self.ids.remove(index);
            self.owners.retain(|_, owner| *owner != index);
            for owner in self.owners.values_mut() {
                if *owner > index {
                    *owner -= 1;
                }
            }
        }
    }

    /// Objects of users that no kind covers do not merge. Where the branch made some, people should know.
    fn tell_unmodelled(&mut self, sides: &Sides<'_>) {
        for name in &sides.branch.unmodelled {
            if !sides.branch_t0.unmodelled.contains(name) {
                self.warnings.push(Warning {
                    schema: String::new(),
                    object: name.clone(),
                    kind: "other".to_owned(),
                    text: format!(
                        "made on the {}, and of a kind that a merge does not carry",
                        self.direction.source()
                    ),
                });
            }
        }
    }

    fn add_rows(&mut self, rows: config::Merged) {
        for migration in &rows.migrations {
            self.written.insert(LEDGER.to_owned());
            let text = migration.text();
            self.changes.push(Change {
                schema: "system".to_owned(),
                object: migration.object(),
                kind: "migration".to_owned(),
                action: Action::Add,
                definitions: Definitions::of(self.direction, |place| {
                    (place == 3).then(|| text.clone())
                }),
                sql: text,
            });
        }
        for change in rows.changes {
            let texts: Vec<String> = change.writes.iter().map(Write::shown).collect();
            self.writes.push((self.changes.len(), change.writes));
            self.written.insert(change.table);
            self.changes.push(Change {
                schema: change.schema,
                object: change.object,
                kind: change.kind.to_owned(),
                action: change.action,
                sql: texts.join("\n"),
                definitions: change.definitions,
            });
        }
        let direction = self.direction;
        let conflicts = rows.conflicts.into_iter();
        self.conflicts
            .extend(conflicts.map(|conflict| Conflict::of_row(conflict, direction)));
        self.warnings
            .extend(rows.notes.into_iter().map(Warning::from));
    }
}

fn owners(changes: &[three_way::Change]) -> BTreeMap<FactId, usize> {
    let mut owners = BTreeMap::new();
    for (index, change) in changes.iter().enumerate() {
        owners.insert(change.id.clone(), index);
        for fact in &change.facts {
            owners.entry(fact.clone()).or_insert(index);
        }
    }
    owners
}
