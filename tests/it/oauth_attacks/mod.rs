//! The attacks of RFC 9700 and RFC 6819, one test each. The first line of a test says where it is
//! described; each begins from something that works, so that the refusal means something.

mod access_tokens;
mod codes;
mod credentials;
mod foreign_forms;
mod guessing;
mod hijacking;
mod input;
mod markup;
mod permissions;
mod redirects;
mod refresh_tokens;
mod sessions;
