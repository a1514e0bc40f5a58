//! What is sent about branches.

use chrono::{DateTime, Utc};
use cp_domain::{BranchRequest, MergeOptions, Resolutions};
use cp_model::{BranchMode, FieldError, MergeDirection, MergeSide};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

use crate::body::RequestBody;
use crate::params::{one_of, switch};
use crate::problem::Problem;
use crate::wire::schema;

/// The body of the creation of a branch.
#[derive(Deserialize, ToSchema)]
pub struct CreateBranchRequest {
    /// Unique among the project's branches, whatever the case of its letters.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[a-zA-Z0-9][a-zA-Z0-9-]*$",
        example = "feat-coupons"
    )]
    name: String,
    #[schema(schema_with = schema::branch_mode)]
    mode: String,
    /// When it shall be deleted by itself. Partners are told a day before, by the event `branch.expiring`.
    #[schema(format = DateTime, example = "2027-01-31T00:00:00Z")]
    expires_at: Option<String>,
}

impl RequestBody for CreateBranchRequest {}

impl CreateBranchRequest {
    pub fn read(self) -> Result<BranchRequest, Problem> {
        let mode = one_of("mode", &self.mode, BranchMode::ALL, BranchMode::as_str)?;
        let expires_at = self.expires_at.as_deref().map(|text| {
            DateTime::parse_from_rfc3339(text)
                .map(|at| at.with_timezone(&Utc))
                .map_err(|_| {
                    FieldError::new(
                        "expires_at",
                        "must be a time as in 2027-01-31T00:00:00Z (RFC 3339)",
                    )
                })
        });
        Ok(BranchRequest {
            name: self.name,
            mode,
            expires_at: expires_at.transpose()?,
        })
    }
}

/// The body of a merge.
#[derive(Default, Deserialize, ToSchema)]
pub struct MergeRequest {
    /// Which side wins, by the conflict's whole name, schema and all.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>, example = json!({"public.users.email": "branch"}))]
    resolutions: BTreeMap<String, String>,
    /// For a parent with big tables: what would lock them for long is done after the merge's own transaction, while
    /// they are written to. Foreign keys and checks are proved, indexes built then; the answer tells which, and what
    /// could not be done. Of a merge only.
    #[schema(example = false)]
    online: Option<bool>,
}

impl RequestBody for MergeRequest {
    fn when_absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl MergeRequest {
    /// What is asked for, but for a dry run.
    pub fn read(self, direction: MergeDirection) -> Result<MergeOptions, Problem> {
        let online = self.online.unwrap_or(false);
        if online && direction == MergeDirection::Rebase {
            return Err(FieldError::new("online", "is for merges only").into());
        }
        Ok(MergeOptions {
            direction,
            resolutions: self.resolutions()?,
            online,
        })
    }

    fn resolutions(self) -> Result<Resolutions, Problem> {
        let sides = [MergeSide::Branch, MergeSide::Parent];
        let name = |side| match side {
            MergeSide::Branch => "branch",
            MergeSide::Parent => "parent",
        };
        let read = |(object, side): (String, String)| {
            Ok((object, one_of("resolutions", &side, &sides, name)?))
        };
        self.resolutions.into_iter().map(read).collect()
    }
}

/// The query of a merge.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MergeQuery {
    /// `true`: only tell what a merge would do. Nothing is changed, whatever the branch's state.
    #[serde(rename = "dryRun")]
    #[param(required = false, nullable = false, example = "true")]
    dry_run: Option<String>,
}

impl MergeQuery {
    pub fn is_dry_run(&self) -> Result<bool, Problem> {
        Ok(switch("dryRun", self.dry_run.as_deref())?)
    }
}
