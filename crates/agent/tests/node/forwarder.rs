//! What stands between the kubelet and the agent, and loses an answer.

use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Forwards what the kubelet and the agent say to each other, until the checkpoint shows a claim: what the agent says from then on is
/// kept. The checkpoint is written before the answer, so the answer never gets through.
pub(crate) struct Forwarder {
    socket: PathBuf,
    task: JoinHandle<()>,
    answered: watch::Receiver<bool>,
}

/// Which claim, and where the agent writes that it holds it.
#[derive(Clone)]
struct Lost {
    uid: String,
    checkpoint: PathBuf,
    answered: watch::Sender<bool>,
}

impl Forwarder {
    /// In place of the socket at which the agent listens, which is moved aside.
    pub(crate) fn in_place_of(socket: &Path, checkpoint: &Path, uid: &str) -> Self {
        let aside = socket.with_extension("aside");
        std::fs::rename(socket, &aside).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let (told, answered) = watch::channel(false);
        let lost = Lost { uid: uid.to_owned(), checkpoint: checkpoint.to_owned(), answered: told };
        let task = tokio::spawn(forward(listener, aside, lost));
        Self { socket: socket.to_owned(), task, answered }
    }

    /// Waits until the agent has answered about the claim.
    pub(crate) async fn until_answered(&mut self) {
        self.answered.wait_for(|answered| *answered).await.unwrap();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
        std::fs::remove_file(&self.socket).unwrap();
    }
}

async fn forward(listener: UnixListener, agent: PathBuf, lost: Lost) {
    let mut connections = JoinSet::new();
    loop {
        let (kubelet, _) = listener.accept().await.unwrap();
        let (hears, says) = kubelet.into_split();
        let (agent_says, agent_hears) = UnixStream::connect(&agent).await.unwrap().into_split();
        connections.spawn(asked(hears, agent_hears));
        connections.spawn(answered(agent_says, says, lost.clone()));
    }
}

async fn asked(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    // An error is an end, which the other side sees too.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

async fn answered(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, lost: Lost) {
    let (mut chunk, mut kept) = (vec![0; 1 << 16], Vec::new());
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let said = &chunk[..length];
        let holds = || std::fs::read_to_string(&lost.checkpoint).is_ok_and(|text| text.contains(&lost.uid));
        if kept.is_empty() && !holds() {
            if to.write_all(said).await.is_err() {
                return;
            }
            continue;
        }
        kept.extend_from_slice(said);
        // The answer names the claim by its UID, in a message that nobody compresses.
        if kept.windows(lost.uid.len()).any(|window| window == lost.uid.as_bytes()) {
            lost.answered.send_replace(true);
        }
    }
    // The kubelet is not told that the agent ended before the test has looked.
    std::future::pending::<()>().await;
}
