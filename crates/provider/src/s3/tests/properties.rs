//! What holds for every content and every sequence of calls.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};
use tokio::runtime::Runtime;

use super::*;

/// Sizes where parts begin and end, and others.
fn sizes() -> impl Strategy<Value = usize> {
    let part = PART;
    prop_oneof![
        Just(0),
        0..part,
        (1..6_usize).prop_flat_map(move |parts| (parts * part - 2)..=(parts * part + 2)),
        0..6 * part,
    ]
}

/// A source that gives its bytes in pieces of any size.
struct Trickle {
    content: Vec<u8>,
    pieces: Vec<usize>,
    at: usize,
    turn: usize,
}

impl tokio::io::AsyncRead for Trickle {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.get_mut();
        this.turn += 1;
        // Now and then there is nothing yet.
        if this.turn.is_multiple_of(3) {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        let piece = this.pieces[this.turn % this.pieces.len()];
        let left = this.content.len() - this.at;
        let size = piece.min(left).min(buf.remaining());
        buf.put_slice(&this.content[this.at..this.at + size]);
        this.at += size;
        std::task::Poll::Ready(Ok(()))
    }
}

#[derive(Debug, Clone)]
enum Call {
    Put(usize, usize, u32),
    Get(usize),
    Delete(usize),
    List(usize),
    DeletePrefix(usize),
}

const NAMES: [&str; 7] = ["a/1", "a/1/2", "a/10", "a/11/x", "b/1", "b.c/1", "a-/1"];
const PREFIXES: [&str; 5] = ["a", "a/1", "b", "b.c", "c"];

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let name = 0..NAMES.len();
    let prefix = 0..PREFIXES.len();
    let call = prop_oneof![
        4 => (name.clone(), sizes(), any::<u32>()).prop_map(|(n, size, seed)| Call::Put(n, size, seed)),
        3 => name.clone().prop_map(Call::Get),
        1 => name.prop_map(Call::Delete),
        2 => prefix.clone().prop_map(Call::List),
        1 => prefix.prop_map(Call::DeletePrefix),
    ];
    vec(call, 1..30)
}

#[test]
fn every_content_comes_back_as_it_was() {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(Rig::start());
    let strategy = (sizes(), any::<u32>(), vec(1..3 * PART, 1..5));
    proptest!(ProptestConfig::with_cases(120), |((size, seed, pieces) in strategy)| {
        let name = under("round").attempt().unwrap().to_string();
        let bytes = content(size, seed);
        let mut source = Trickle { content: bytes.clone(), pieces, at: 0, turn: 0 };
        let stored = runtime.block_on(rig.objects.put(REGION, &key(&name), &mut source)).unwrap();
        prop_assert_eq!(stored, Stored { size: size as u64, crc32: crc32fast::hash(&bytes) });
        prop_assert!(runtime.block_on(rig.get(&name, &stored)).unwrap() == bytes);
        let head = runtime.block_on(rig.objects.head(REGION, &key(&name))).unwrap().unwrap();
        prop_assert_eq!((head.size, head.crc32), (stored.size, Some(stored.crc32)));
    });
    assert_eq!(runtime.block_on(rig.abort_all()), 0);
}

#[test]
fn every_sequence_of_calls_ends_as_in_a_map() {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(Rig::start());
    proptest!(ProptestConfig::with_cases(60), |(calls in calls())| {
        runtime.block_on(async {
            for prefix in ["a", "b", "b.c", "a-"] {
                rig.objects.delete_prefix(REGION, &under(prefix)).await.unwrap();
            }
            let mut model = BTreeMap::new();
            for call in calls {
                check(&rig, &mut model, call).await?;
            }
            TestCaseResult::Ok(())
        })?;
    });
}

async fn check(
    rig: &Rig,
    model: &mut BTreeMap<&'static str, (Stored, Vec<u8>)>,
    call: Call,
) -> TestCaseResult {
    match call {
        Call::Put(name, size, seed) => {
            let (name, bytes) = (NAMES[name], content(size, seed));
            let put = rig.put(name, &bytes).await;
            if model.contains_key(name) {
                prop_assert_eq!(put, Err(ObjectError::Exists));
            } else {
                model.insert(name, (put.unwrap(), bytes));
            }
        }
        Call::Get(name) => {
            let name = NAMES[name];
            if let Some((stored, bytes)) = model.get(name) {
                prop_assert!(rig.get(name, stored).await.unwrap() == *bytes);
            } else {
                let nothing = Stored { size: 0, crc32: 0 };
                prop_assert_eq!(rig.get(name, &nothing).await, Err(ObjectError::NotFound));
                prop_assert_eq!(rig.objects.head(REGION, &key(name)).await, Ok(None));
            }
        }
        Call::Delete(name) => {
            let deleted = rig.objects.delete(REGION, &key(NAMES[name])).await;
            prop_assert_eq!(deleted, Ok(()));
            model.remove(NAMES[name]);
        }
        Call::List(prefix) => {
            let begin = format!("{}/", PREFIXES[prefix]);
            let expected: Vec<_> = model
                .keys()
                .filter(|name| name.starts_with(&begin))
                .collect();
            let names = rig.names(PREFIXES[prefix]).await;
            prop_assert!(names.iter().eq(expected), "{:?}", names);
        }
        Call::DeletePrefix(prefix) => {
            let begin = format!("{}/", PREFIXES[prefix]);
            let before = model.len();
            model.retain(|name, _| !name.starts_with(&begin));
            let deleted = rig
                .objects
                .delete_prefix(REGION, &under(PREFIXES[prefix]))
                .await;
            prop_assert_eq!(deleted, Ok((before - model.len()) as u64));
        }
    }
    Ok(())
}
