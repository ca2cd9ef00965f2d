//! Being asked to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed.
//!
//! They are listened to from the start and counted, so that none is lost between two things that wait for it.

use std::sync::LazyLock;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::errors::{Failure, Outcome};

static ASKED: LazyLock<watch::Sender<u32>> = LazyLock::new(|| watch::Sender::new(0));

/// Starts to listen. From here on, whoever runs long must wait for [`asked_to_end`] beside its work.
pub(crate) fn listen() -> Outcome {
    let open = |kind| {
        signal(kind).map_err(|error| Failure::new("runtime", format!("signals cannot be received: {error}")))
    };
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        tokio::spawn(count(open(kind)?));
    }
    Ok(())
}

async fn count(mut stream: Signal) {
    while stream.recv().await.is_some() {
        ASKED.send_modify(|asked| *asked += 1);
    }
}

/// Resolves once the user has pressed Ctrl-C or the system has asked us to end.
pub(crate) async fn asked_to_end() {
    asked(1).await;
}

/// Resolves once we were asked twice: somebody is in a hurry.
pub(crate) async fn asked_again() {
    asked(2).await;
}

async fn asked(times: u32) {
    if ASKED.subscribe().wait_for(|asked| *asked >= times).await.is_err() {
        // The sender lives as long as the program.
        std::future::pending::<()>().await;
    }
}

/// For commands that leave nothing behind wherever they stop.
pub(crate) async fn interruptible<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::select! {
        outcome = work => outcome,
        () = asked_to_end() => Err(Failure::Interrupted),
    }
}
