//! What goes over the wire, field by field (seeds/partnership.md; contract/partnership-api.md).
//! Structs that hold an API key have no `Debug`.

pub mod branch;
pub mod member_project;
pub mod operation;
pub mod organization;
pub mod project;
pub mod schema;
pub mod time;
pub mod usage;
