//! A connection whose other side has to take what is sent to it, in time.
//!
//! A caller who reads nothing costs no more memory than what is on its way, but would keep a session and its place
//! for ever. Reading has its own limits, where it is known what is read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// Fails to write once nothing was taken for a while.
#[derive(Debug)]
pub(crate) struct Patient<I> {
    io: I,
    stall_time: Duration,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<I> Patient<I> {
    pub fn new(io: I, stall_time: Duration) -> Self {
        Self { io, stall_time, deadline: None }
    }

    /// What came of a write. While it waits, so does the deadline.
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let stall_time = self.stall_time;
        let begin = || Box::pin(sleep_until(Instant::now() + stall_time));
        match self.deadline.get_or_insert_with(begin).as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        this.bounded(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(context, slices);
        this.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(context);
        this.bounded(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ended = Pin::new(&mut this.io).poll_shutdown(context);
        this.bounded(context, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const STALL: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn whoever_takes_nothing_is_given_up_and_whoever_reads_is_not() {
        let (near, mut far) = duplex(16);
        let mut near = Patient::new(near, STALL);
        let error = near.write_all(&[7; 17]).await.expect_err("the last byte does not fit");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let mut taken = [0; 16];
        far.read_exact(&mut taken).await.expect("what fitted");
        let (written, read) = tokio::join!(near.write_all(&[8; 1_000]), async {
            let mut rest = vec![0; 1_000];
            far.read_exact(&mut rest).await.map(|_| rest)
        });
        written.expect("all of it");
        assert_eq!(read.expect("all of it"), [8; 1_000]);
    }
}
