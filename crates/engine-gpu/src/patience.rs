//! Answers in time, whatever is asked.

use crate::GpuError;
use std::{
    any::Any,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

/// What `work` gives, done on a thread of its own.
///
/// # Errors
/// [`GpuError::Silent`] after `limit`: the thread is left to itself, for nothing can end it. [`GpuError::BrokeOff`] if it panics.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, GpuError> {
    let (tell, told) = mpsc::channel();
    let thread = thread::Builder::new().name("gpu".into()).spawn(move || {
        // Whoever asked may be gone.
        let _ = tell.send(work());
    });
    let thread = thread.map_err(|error| GpuError::BrokeOff(error.to_string()))?;
    match told.recv_timeout(limit) {
        Ok(done) => Ok(done),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(GpuError::Silent(limit)),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let why = thread.join().err().map(|panic| said(&*panic));
            Err(GpuError::BrokeOff(why.unwrap_or_default()))
        }
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").into()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What comes of `future`, on this thread. Those of drivers are done when they are made.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn whoever_hangs_or_breaks_off_is_named() {
        assert_eq!(within(LONG, || 7), Ok(7));
        let (never, asked) = mpsc::channel::<()>();
        let short = Duration::from_millis(10);
        let hung = within(short, move || asked.recv().is_ok());
        assert_eq!(hung, Err(GpuError::Silent(short)));
        drop(never);
        let broken = within(LONG, || -> u32 { panic!("no {}", "driver") });
        assert_eq!(broken, Err(GpuError::BrokeOff("no driver".into())));
    }

    #[test]
    fn a_future_that_is_not_done_is_waited_for() {
        let mut asked = 0;
        let late = std::future::poll_fn(|context| {
            asked += 1;
            context.waker().wake_by_ref();
            if asked < 3 { Poll::Pending } else { Poll::Ready(asked) }
        });
        assert_eq!(wait(late), 3);
    }
}
