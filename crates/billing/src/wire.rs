//! Forms that many of Stripe's answers share.

use std::collections::HashMap;

use cp_model::OrganizationId;
use serde::Deserialize;

use crate::ORGANIZATION;

/// One page of a list, the newest first.
#[derive(Deserialize)]
pub(crate) struct Page<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

/// What a list holds; the last one's id is where the next page begins.
pub(crate) trait Listed {
    fn id(&self) -> &str;
}

/// Another thing, by its id or in full ("expanded").
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Reference<Id> {
    Id(Id),
    Expanded { id: Id },
}

impl<Id> Reference<Id> {
    pub fn into_id(self) -> Id {
        match self {
            Self::Id(id) | Self::Expanded { id } => id,
        }
    }
}

/// What we noted on a thing.
#[derive(Deserialize, Default)]
#[serde(transparent)]
pub(crate) struct Metadata(HashMap<String, String>);

impl Metadata {
    pub fn organization(&self) -> Option<OrganizationId> {
        self.0.get(ORGANIZATION)?.parse().ok()
    }
}
