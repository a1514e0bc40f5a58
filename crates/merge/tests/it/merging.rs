//! A parent and its branch, with what a test does to them.

use std::sync::Mutex;

use cp_merge::{
    Applied, ApplyOptions, Bases, Choice, Error, MergePlan, RebasePlan, Resolutions, Snapshot,
    apply, apply_rebase, plan, plan_rebase, snapshot,
};

use crate::database::Database;

pub struct Pair {
    pub parent: Database,
    pub branch: Database,
    pub bases: Bases,
}

impl Pair {
    /// A branch as the platform makes it: dumped and restored.
    pub async fn new(base: &str) -> Self {
        let parent = Database::empty().await;
        parent.psql(base).await;
        let branch = parent.dump_copy().await;
        Self::of(parent, branch).await
    }

    /// A branch with the same ids, which costs less.
    pub async fn quick(base: &str) -> Self {
        let parent = Database::empty().await;
        parent.psql(base).await;
        let branch = parent.template_copy().await;
        Self::of(parent, branch).await
    }

    pub async fn of(parent: Database, branch: Database) -> Self {
        let bases = Bases {
            parent: snapshot(&mut parent.connect().await).await.unwrap(),
            branch: snapshot(&mut branch.connect().await).await.unwrap(),
        };
        Self {
            parent,
            branch,
            bases,
        }
    }

    pub async fn plan(&self) -> MergePlan {
        self.resolve(&[]).await
    }

    pub async fn resolve(&self, resolutions: &[(&str, Choice)]) -> MergePlan {
        let resolutions: Resolutions = resolutions
            .iter()
            .map(|(name, choice)| ((*name).to_owned(), *choice))
            .collect();
        plan(
            &self.parent.options(),
            &self.branch.options(),
            &self.bases,
            &resolutions,
        )
        .await
        .unwrap()
    }

    pub async fn apply(&self, plan: &MergePlan) -> Applied {
        self.try_apply(plan)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", plan.rendered_sql()))
    }

    pub async fn try_apply(&self, plan: &MergePlan) -> Result<Applied, Error> {
        apply(&self.parent.options(), plan, &ApplyOptions::default()).await
    }

    pub async fn apply_online(&self, plan: &MergePlan) -> Applied {
        apply(&self.parent.options(), plan, &online())
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", plan.rendered_sql()))
    }

    /// Plans, applies, and expects that nothing is left to merge.
    pub async fn merge(&self) -> MergePlan {
        let plan = self.plan().await;
        assert!(plan.is_clean(), "{}", plan.rendered_sql());
        self.apply(&plan).await;
        let again = self.plan().await;
        assert!(again.is_empty(), "{}", again.rendered_sql());
        plan
    }
}

impl Pair {
    pub async fn plan_rebase(&self, resolutions: &[(&str, Choice)]) -> RebasePlan {
        let resolutions: Resolutions = resolutions
            .iter()
            .map(|(name, choice)| ((*name).to_owned(), *choice))
            .collect();
        let parent = snapshot(&mut self.parent.connect().await).await.unwrap();
        plan_rebase(&parent, &self.branch.options(), &self.bases, &resolutions)
            .await
            .unwrap()
    }

    /// Applies it and moves the bases, as the platform does.
    pub async fn apply_rebase(&mut self, plan: &RebasePlan) {
        let parent = snapshot(&mut self.parent.connect().await).await.unwrap();
        let kept = Mutex::new(None);
        let keep = async |base: &Snapshot| {
            *kept.lock().unwrap() = Some(base.clone());
            Ok::<(), std::convert::Infallible>(())
        };
        apply_rebase(&self.branch.options(), plan, &ApplyOptions::default(), keep)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", plan.plan.rendered_sql()));
        self.bases = Bases {
            parent,
            branch: kept.into_inner().unwrap().unwrap(),
        };
    }

    pub async fn rebase(&mut self) -> RebasePlan {
        let plan = self.plan_rebase(&[]).await;
        assert!(plan.is_clean(), "{}", plan.plan.rendered_sql());
        self.apply_rebase(&plan).await;
        plan
    }
}

pub fn online() -> ApplyOptions {
    ApplyOptions {
        online: true,
        ..ApplyOptions::default()
    }
}

/// `action type name`, as they are listed.
pub fn changes(plan: &MergePlan) -> Vec<String> {
    plan.changes
        .iter()
        .map(|change| {
            format!(
                "{} {} {}",
                change.action.as_str(),
                change.kind,
                change.name()
            )
        })
        .collect()
}

pub fn conflicts(plan: &MergePlan) -> Vec<String> {
    plan.conflicts
        .iter()
        .map(|conflict| format!("{} {}", conflict.kind, conflict.name()))
        .collect()
}

pub fn warnings(plan: &MergePlan) -> Vec<String> {
    plan.warnings
        .iter()
        .map(|warning| format!("{} {}: {}", warning.kind, warning.name(), warning.text))
        .collect()
}
