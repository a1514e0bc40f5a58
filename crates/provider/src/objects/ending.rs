//! Content whose end is not yet its success.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// `content`, whose end is told only when `verdict` is in favour; its error comes in place of the
/// end otherwise.
///
/// For the output of programs: one that dies in the middle closes its output as one does that is
/// done, and half a dump would be stored for a whole one.
///
/// ```ignore
/// let mut dump = ending_with(stdout, async move {
///     let status = pg_dump.wait().await?;
///     if status.success() { Ok(()) } else { Err(io::Error::other(format!("pg_dump: {status}"))) }
/// });
/// let stored = objects.put(region, &key, &mut dump).await?;
/// ```
pub fn ending_with<R, F>(content: R, verdict: F) -> impl AsyncRead + Unpin + Send
where
    R: AsyncRead + Unpin + Send,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    Ending {
        content,
        verdict: Some(Box::pin(verdict)),
    }
}

type Verdict = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Ending<R> {
    content: R,
    /// None once it was in favour.
    verdict: Option<Verdict>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Ending<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buf.filled().len(), buf.remaining());
        ready!(Pin::new(&mut this.content).poll_read(cx, buf))?;
        if buf.filled().len() > before || room == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(verdict) = &mut this.verdict else {
            return Poll::Ready(Ok(()));
        };
        let said = ready!(verdict.as_mut().poll(cx));
        // It stays so for whoever asks again.
        this.verdict = said.is_err().then(|| -> Verdict {
            Box::pin(async { Err(io::Error::other("the content ended badly")) })
        });
        Poll::Ready(said)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn the_end_waits_for_the_verdict() {
        let (say, hear) = tokio::sync::oneshot::channel::<bool>();
        let mut content = ending_with(&b"dump"[..], async move {
            match hear.await {
                Ok(true) => Ok(()),
                _ => Err(io::Error::other("exit status 1")),
            }
        });
        let mut four = [0; 4];
        content.read_exact(&mut four).await.unwrap();
        // No room to read into is no end.
        assert_eq!(content.read(&mut []).await.unwrap(), 0);
        say.send(true).unwrap();
        assert_eq!(content.read(&mut four).await.unwrap(), 0);
        assert_eq!(content.read(&mut four).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_bad_verdict_comes_in_place_of_the_end() {
        let verdict = async { Err(io::Error::other("exit status 1")) };
        let mut content = ending_with(&b"half a dump"[..], verdict);
        let mut all = Vec::new();
        let error = content.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.to_string(), "exit status 1");
        assert_eq!(all, b"half a dump");
        assert!(content.read_to_end(&mut all).await.is_err());
    }
}
