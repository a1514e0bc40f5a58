//! What the kinds have in common: their words in SQL, their order, the names that they share.

use super::side::Side;
use crate::catalog::{FactId, Kind, Payload};

pub const fn is_code(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Function | Kind::Procedure | Kind::Aggregate | Kind::Sequence
    )
}

pub const fn is_relation(kind: Kind) -> bool {
    matches!(kind, Kind::Table | Kind::View | Kind::MaterializedView)
}

/// The word of CREATE, ALTER, DROP and COMMENT.
pub const fn keyword(kind: Kind) -> &'static str {
    match kind {
        Kind::Schema => "SCHEMA",
        Kind::Extension => "EXTENSION",
        Kind::Collation => "COLLATION",
        Kind::Enum | Kind::Composite | Kind::Range => "TYPE",
        Kind::Domain => "DOMAIN",
        Kind::Sequence => "SEQUENCE",
        Kind::Function => "FUNCTION",
        Kind::Procedure => "PROCEDURE",
        Kind::Aggregate => "AGGREGATE",
        Kind::Table => "TABLE",
        Kind::Column => "COLUMN",
        Kind::Constraint => "CONSTRAINT",
        Kind::Index => "INDEX",
        Kind::View => "VIEW",
        Kind::MaterializedView => "MATERIALIZED VIEW",
        Kind::Rule => "RULE",
        Kind::Statistics => "STATISTICS",
        Kind::Trigger => "TRIGGER",
        Kind::Policy => "POLICY",
        Kind::Publication => "PUBLICATION",
        Kind::EventTrigger => "EVENT TRIGGER",
        Kind::Rls | Kind::Owner | Kind::Grant | Kind::DefaultPrivilege | Kind::Comment => "",
    }
}

/// The order of the making phase, where dependencies leave it open.
pub mod order {
    pub const SCHEMA: u16 = 0;
    pub const EXTENSION: u16 = 1;
    pub const TYPE: u16 = 2;
    pub const SEQUENCE: u16 = 3;
    pub const ROUTINE: u16 = 4;
    pub const TABLE: u16 = 5;
    pub const COLUMN: u16 = 6;
    pub const ATTACH: u16 = 7;
    pub const DEFAULT: u16 = 8;
    pub const CHECK: u16 = 9;
    pub const KEY: u16 = 10;
    pub const INDEX: u16 = 11;
    pub const FOREIGN_KEY: u16 = 12;
    pub const VIEW: u16 = 13;
    pub const MATERIALIZED_VIEW: u16 = 14;
    pub const RULE: u16 = 15;
    pub const TRIGGER: u16 = 16;
    pub const POLICY: u16 = 17;
    pub const RLS: u16 = 18;
    pub const OWNER: u16 = 19;
    pub const OWNED_BY: u16 = 20;
    pub const REVOKE: u16 = 21;
    pub const GRANT: u16 = 22;
    pub const DEFAULT_PRIVILEGE: u16 = 23;
    pub const COMMENT: u16 = 24;
    pub const PUBLICATION: u16 = 25;
    pub const EVENT_TRIGGER: u16 = 26;
    pub const REFRESH: u16 = 27;
}

/// Drops run in the reverse order, foreign keys first.
pub fn drop_order(side: &Side<'_>, id: &FactId) -> u16 {
    if let Some(Payload::Constraint { kind: 'f', .. }) = side.payload(id) {
        return 1;
    }
    2 + match id.kind {
        Kind::EventTrigger => 0,
        Kind::Publication => 1,
        Kind::Policy => 2,
        Kind::Trigger => 3,
        Kind::Rule => 4,
        Kind::MaterializedView => 5,
        Kind::View => 6,
        Kind::Statistics => 7,
        Kind::Index => 8,
        Kind::Constraint => 9,
        Kind::Column => 10,
        Kind::Table => 11,
        Kind::Aggregate => 12,
        Kind::Function | Kind::Procedure => 13,
        Kind::Sequence => 14,
        Kind::Extension => 16,
        Kind::Schema => 17,
        _ => 15,
    }
}
