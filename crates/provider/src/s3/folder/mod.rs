//! An S3 server over a folder, for `dev` and tests: what speaks S3 in production speaks it here,
//! so there is one path.
//!
//! ```text
//! <root>/lock                              held by the one server of this folder
//! <root>/<bucket>/objects/<sha256 of key>.json   what an object is: the only truth
//! <root>/<bucket>/data/<id>/<file>              its content, a file per part
//! ```
//!
//! An object exists from the moment that its `.json` is renamed into place, after its content was
//! synced; data that no `.json` names is rubbish and is swept at the start. Uploads in progress
//! live in memory: their clients are in this process, so they end with it.
//!
//! It does what [`S3Objects`](super::S3Objects) needs, as S3 does it, and refuses what it cannot
//! check: checksums other than CRC-32, keys of the customer, delimiters.

mod content;
mod disk;
mod multipart;
mod shelf;
mod verbs;

use std::{
    error::Error,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cp_pg::Durability;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::Service,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use s3s::{S3Error, S3Result, auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{AwsAccess, local::lock};
use content::Draft;
use disk::Disk;
use shelf::Shelf;

/// S3's own limit for every part but the last.
const MIN_PART_SIZE: u64 = 5 * 1024 * 1024;

/// How long requests in progress may take when the server stops.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the folder's lock is waited for: a server that is just stopping holds it a little.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// A running server. Dropped without [`FolderServer::stop`], it takes no more connections and ends
/// a little later.
pub struct FolderServer {
    endpoint: String,
    access: AwsAccess,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl FolderServer {
    /// Serves `root`, which is made when it is not there, on a loopback address; port 0 takes a
    /// free one. Whoever may use it is told by [`FolderServer::access`] only: its keys are made
    /// anew at each start, and URLs that were presigned before do not work any more.
    /// [`Durability::Fast`] is for tests.
    ///
    /// Fails when the address is taken or not on loopback (the protocol is plain HTTP), and with
    /// [`io::ErrorKind::TimedOut`] when another process serves the folder.
    pub async fn start(
        root: &Path,
        listen: SocketAddr,
        durability: Durability,
    ) -> io::Result<Self> {
        if !listen.ip().is_loopback() {
            let text = format!("{listen} is not on loopback: the object server speaks plain HTTP");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let listener = TcpListener::bind(listen).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (access_key, secret_key) = ("folder", secret());
        let access = AwsAccess::fixed(&endpoint, access_key, &secret_key);

        let (store, lock) = open(root, durability, MIN_PART_SIZE).await?;
        let mut service = S3ServiceBuilder::new(store);
        service.set_auth(SimpleAuth::from_single(access_key, secret_key));
        let service = service.build();
        let stop = CancellationToken::new();
        let serving = tokio::spawn({
            let stop = stop.clone();
            async move {
                serve(listener, service, stop).await;
                drop(lock);
            }
        });
        Ok(Self {
            endpoint,
            access,
            stop,
            serving,
        })
    }

    /// `http://127.0.0.1:…`
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn access(&self) -> AwsAccess {
        self.access.clone()
    }

    /// Takes no more requests, waits a few seconds for those in progress, and frees the folder.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.serving).await {
            tracing::warn!(%error, "the object server ended badly");
        }
    }
}

impl Drop for FolderServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What answers requests.
pub(super) struct Store {
    shelf: Arc<Shelf>,
}

impl Store {
    /// Changes something where it holds nobody up, and to its end, also when the client goes away
    /// meanwhile and this is dropped.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Shelf) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let shelf = self.shelf.clone();
        tokio::task::spawn_blocking(move || change(&shelf))
            .await
            .map_err(S3Error::internal_error)?
    }

    /// A new id and the folder of its data.
    fn draft(&self, bucket: &str) -> S3Result<(String, Draft)> {
        self.shelf.bucket(bucket, |_| Ok(()))?;
        let id = Uuid::new_v4().simple().to_string();
        let draft = Draft::begin(self.shelf.data(bucket, &id));
        Ok((id, draft.map_err(S3Error::internal_error)?))
    }
}

fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// The store of a folder, and the lock that must outlive it.
pub(super) async fn open(
    root: &Path,
    durability: Durability,
    min_part: u64,
) -> io::Result<(Store, lock::FileLock)> {
    let root = PathBuf::from(root);
    tokio::fs::create_dir_all(&root).await?;
    let lock = lock::wait(&root.join("lock"), LOCK_WAIT).await?;
    let store = tokio::task::spawn_blocking(move || Shelf::open(root, Disk(durability), min_part));
    let shelf = Arc::new(store.await.map_err(io::Error::other)??);
    Ok((Store { shelf }, lock))
}

/// Serves every connection until `stop`.
pub(super) async fn serve<S, B>(listener: TcpListener, service: S, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    // Whoever is still at it when patience ends is cut off by this token.
    let cut = CancellationToken::new();
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "the object server could not take a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
        http.http1().timer(TokioTimer::new());
        let connection = http
            .serve_connection(TokioIo::new(socket), service.clone())
            .into_owned();
        let connection = graceful.watch(connection);
        let cut = cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to the object server broke");
                },
                () = cut.cancelled() => {}
            }
        });
    }
    drop(listener);
    if timeout(PATIENCE, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests to the object server were cut off");
    }
    cut.cancel();
}
