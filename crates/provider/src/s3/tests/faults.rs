//! Each fault at each request, once and for ever: whatever is answered is true, and nothing stays
//! behind that a sweep does not find.

use tokio::sync::Semaphore;

use super::{
    chaos::{Fault, Verb},
    *,
};

/// What the rig is asked under faults, and the requests that this makes.
#[derive(Debug, Clone, Copy)]
enum Deed {
    PutSmall,
    PutBig,
    Get,
    Head,
    Delete,
    DeletePrefix,
    List,
    AbortLeftovers,
}

impl Deed {
    const ALL: [(Self, &'static [Verb]); 8] = [
        (Self::PutSmall, &[Verb::Put]),
        (Self::PutBig, &[Verb::Begin, Verb::Part, Verb::Complete]),
        (Self::Get, &[Verb::Get]),
        (Self::Head, &[Verb::Head]),
        (Self::Delete, &[Verb::Delete]),
        (
            Self::DeletePrefix,
            &[Verb::ListUploads, Verb::Abort, Verb::List, Verb::DeleteMany],
        ),
        (Self::List, &[Verb::List]),
        (Self::AbortLeftovers, &[Verb::ListUploads, Verb::Abort]),
    ];
}

const ONCE: u32 = 1;
const FOR_EVER: u32 = u32::MAX;

/// What was there before the deed.
struct Before {
    stored: Stored,
    bytes: Vec<u8>,
}

async fn prepare(rig: &Rig, deed: Deed) -> Before {
    let bytes = content(3 * PART + 7, 1);
    let mut stored = Stored { size: 0, crc32: 0 };
    if !matches!(deed, Deed::PutSmall | Deed::PutBig | Deed::AbortLeftovers) {
        stored = rig.put("t/old", &bytes).await.unwrap();
        rig.put("t/old2", b"x").await.unwrap();
    }
    if matches!(deed, Deed::DeletePrefix | Deed::AbortLeftovers) {
        rig.leave_upload("t/left").await;
    }
    Before { stored, bytes }
}

/// Does it and checks that what was answered is true. Answers `ok`, or why not.
async fn attempt(rig: &Rig, deed: Deed, before: &Before) -> Result<(), ObjectError> {
    let later = Utc::now() + TimeDelta::hours(1);
    match deed {
        Deed::PutSmall | Deed::PutBig => {
            let size = if matches!(deed, Deed::PutBig) {
                5 * PART + 1
            } else {
                100
            };
            let bytes = content(size, 2);
            let put = rig.put("t/new", &bytes).await;
            rig.chaos.calm();
            // All of it, or nothing.
            let whole = Stored {
                size: size as u64,
                crc32: crc32fast::hash(&bytes),
            };
            match rig.get("t/new", put.as_ref().unwrap_or(&whole)).await {
                Ok(found) => assert!(found == bytes),
                Err(error) => assert_eq!((error, put.is_err()), (ObjectError::NotFound, true)),
            }
            put.map(|_| ())
        }
        Deed::Get => {
            let got = rig.get("t/old", &before.stored).await?;
            assert!(got == before.bytes, "a damaged read was told as good");
            Ok(())
        }
        Deed::Head => {
            let head = rig.objects.head(REGION, &key("t/old")).await?.unwrap();
            assert_eq!(head.size, before.stored.size);
            assert!(head.crc32.is_none_or(|crc32| crc32 == before.stored.crc32));
            Ok(())
        }
        Deed::Delete => {
            rig.objects.delete(REGION, &key("t/old")).await?;
            rig.chaos.calm();
            assert_eq!(rig.names("t").await, ["t/old2"]);
            Ok(())
        }
        Deed::DeletePrefix => {
            rig.objects.delete_prefix(REGION, &under("t")).await?;
            rig.chaos.calm();
            assert!(rig.names("t").await.is_empty());
            assert_eq!(rig.abort_all().await, 0);
            Ok(())
        }
        Deed::List => {
            let page = rig.objects.list(REGION, &under("t"), None).await?;
            let names: Vec<_> = page
                .objects
                .iter()
                .map(|found| found.key.as_str())
                .collect();
            assert_eq!((names, page.next), (vec!["t/old", "t/old2"], None));
            Ok(())
        }
        Deed::AbortLeftovers => {
            rig.objects.abort_leftovers(REGION, later).await?;
            rig.chaos.calm();
            assert_eq!(rig.abort_all().await, 0);
            Ok(())
        }
    }
}

/// Over TLS no bit changes. A store may still give or take damaged content, and that is noticed by
/// checksums; a changed bit in XML is whatever it is.
fn makes_sense(verb: Verb, fault: Fault) -> bool {
    fault != Fault::FlipAnswer || verb == Verb::Get
}

/// Whether the deed may fail although the fault struck once. Damaged content: with all bytes there
/// is nothing to resume, but whoever reads again gets it. A damaged request is refused.
fn may_fail_once(verb: Verb, fault: Fault) -> bool {
    (verb == Verb::Get && fault == Fault::FlipAnswer) || fault == Fault::FlipRequest
}

/// How many cells are tried at a time.
static ROOM: Semaphore = Semaphore::const_new(16);

async fn cell(deed: Deed, verb: Verb, fault: Fault, times: u32) -> String {
    if !makes_sense(verb, fault) {
        return "-".to_owned();
    }
    let _room = ROOM.acquire().await.unwrap();
    let rig = Rig::start().await;
    let before = prepare(&rig, deed).await;
    rig.chaos.strike(verb, fault, times);
    let outcome = attempt(&rig, deed, &before).await;
    let struck = rig.chaos.struck();
    rig.chaos.calm();
    assert!(struck > 0, "{deed:?}, {verb:?}, {fault:?}: never struck");
    if times == ONCE && !may_fail_once(verb, fault) {
        assert_eq!(outcome, Ok(()), "{deed:?}, {verb:?}, {fault:?}, once");
    }

    // A sweep leaves nothing, not even a file. (A put that was given up aborts by itself, meanwhile.)
    rig.abort_all().await;
    rig.objects
        .delete_prefix(REGION, &under("t"))
        .await
        .unwrap();
    assert_eq!(
        rig.data(),
        Vec::<PathBuf>::new(),
        "{deed:?}, {verb:?}, {fault:?}"
    );
    match outcome {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error:?}").split('(').next().unwrap().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_request_ends_right() {
    let mut cells = Vec::new();
    for (deed, verbs) in Deed::ALL {
        for verb in verbs {
            for fault in Fault::ALL {
                cells.push(tokio::spawn(async move {
                    let once = cell(deed, *verb, fault, ONCE).await;
                    let for_ever = cell(deed, *verb, fault, FOR_EVER).await;
                    let (deed, verb, fault) = (
                        format!("{deed:?}"),
                        format!("{verb:?}"),
                        format!("{fault:?}"),
                    );
                    format!("{deed:15} {verb:12} {fault:12} {once:10} {for_ever}")
                }));
            }
        }
    }
    println!("deed            request      fault        once       for ever");
    for cell in cells {
        println!("{}", cell.await.unwrap());
    }
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_is_not_repeated_blindly() {
    let rig = Rig::start().await;
    rig.chaos.strike(Verb::Complete, Fault::ResetAfter, ONCE);
    let bytes = content(3 * PART, 1);
    let stored = rig.put("t/new", &bytes).await.unwrap();
    assert!(rig.get("t/new", &stored).await.unwrap() == bytes);
    assert_eq!(
        (rig.chaos.calls(Verb::Complete), rig.chaos.calls(Verb::Head)),
        (1, 1)
    );
}

#[tokio::test]
async fn a_read_that_breaks_again_and_again_goes_on_from_where_it_is() {
    let rig = Rig::start().await;
    let bytes = content(40 * PART, 1);
    let stored = rig.put("t/big", &bytes).await.unwrap();
    // Each time it gets half of what is left, which is more often than attempts are granted.
    rig.chaos.strike(Verb::Get, Fault::CutShort, 8);
    assert!(rig.get("t/big", &stored).await.unwrap() == bytes);
    assert_eq!(rig.chaos.struck(), 8);
}

#[tokio::test]
async fn the_end_of_a_damaged_object_is_never_handed_out() {
    let rig = Rig::start().await;
    let bytes = content(10 * PART, 1);
    let stored = rig.put("t/old", &bytes).await.unwrap();
    rig.chaos.strike(Verb::Get, Fault::FlipAnswer, FOR_EVER);
    let mut pieces = rig
        .objects
        .get(REGION, &key("t/old"), &stored)
        .await
        .unwrap();
    let mut size = 0;
    let error = loop {
        match pieces.try_next().await {
            Ok(Some(piece)) => size += piece.len(),
            Ok(None) => panic!("the end was told"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ObjectError::Corrupt(_)), "{error}");
    assert!(size < bytes.len());
    assert_eq!(pieces.try_next().await, Ok(None));
}

#[tokio::test]
async fn a_region_that_is_down_leaves_the_others_alone() {
    let rig = Rig::start().await;
    let mut both = buckets();
    let mut west = both[&REGION].clone();
    // Nobody listens on the port of a listener that is gone.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    west.endpoint = Some(format!("http://{}", gone.local_addr().unwrap()));
    drop(gone);
    both.insert(Region::UsWest, west);
    let objects = S3Objects::tuned(&rig.access, both, &impatient());
    let down = async {
        for _ in 0..30 {
            let name = key("t/1");
            let put = objects.put(Region::UsWest, &name, &mut &b"x"[..]).await;
            assert!(matches!(put, Err(ObjectError::Transient(_))));
        }
    };
    let up = async {
        for n in 0..30 {
            // It still has its retries.
            rig.chaos.strike(Verb::Put, Fault::ErrorBefore, ONCE);
            let name = key(&format!("t/{n}"));
            objects.put(REGION, &name, &mut &b"x"[..]).await.unwrap();
        }
    };
    tokio::join!(down, up);
}
