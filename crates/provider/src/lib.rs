//! Machines. The worker asks a [`Compute`] for machines and knows nothing of what is behind it:
//!
//! - [`local`]: a directory, a Postgres cluster and an `insforge-agent` process each, for `dev`;
//! - [`ec2`]: an instance each, in production;
//! - [`sim`]: a world in memory that fails on command, for tests.
//!
//! And objects: [`SharedObjects`], which is [`s3`] everywhere, in `dev` over a folder.
//!
//! Imports the model and `cp-pg` only; `api` and `domain` never import this crate.

mod aws;
mod compute;
pub mod ec2;
pub mod local;
mod looks;
pub mod objects;
mod pace;
pub mod s3;
pub mod sim;

pub use aws::AwsAccess;
pub use compute::{
    Ailing, Ailment, Compute, LaunchSpec, Leftover, Machine, MachineRef, Power, ProviderError,
    SharedCompute,
};
pub use objects::{
    ObjectError, ObjectKey, ObjectPrefix, ObjectStream, Objects, SharedObjects, Stored,
};
pub use s3::{S3Bucket, S3Objects};
