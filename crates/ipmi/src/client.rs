//! The client of one BMC: one session, one command at a time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::command::{Command, Repeat};
use crate::error::Error;
use crate::message::{Completion, Response};
use crate::session::Session;
use crate::socket::pause;
use crate::suite::CipherSuite;
use crate::target::{Options, Target};

/// A BMC that we are logged in to.
///
/// Commands run one after the other, however many tasks ask (quirk 39). A session that the BMC has ended is opened anew, unless
/// the credentials were refused: then nothing more is sent (a lock-out may be counted). Every future may be dropped at any time.
/// Dropping the client tells the BMC to end the session, without waiting; [`Client::close`] waits.
#[derive(Debug)]
pub struct Client {
    target: Target,
    options: Options,
    state: Mutex<State>,
    logins: AtomicU32,
    commands: AtomicU64,
    bytes: AtomicU64,
}

/// What a client has cost its BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Commands answered.
    pub commands: u64,
    /// Bytes of their answers, without what the session wraps around them.
    pub bytes: u64,
}

#[derive(Debug)]
enum State {
    Open(Session),
    Closed,
    /// The BMC does not take our credentials any more.
    Refused,
}

impl Client {
    /// Logs in and takes the privilege wanted.
    pub async fn connect(target: Target, options: Options) -> Result<Self, Error> {
        let session = Session::establish(&target, &options).await?;
        Ok(Self {
            target,
            options,
            state: Mutex::new(State::Open(session)),
            logins: AtomicU32::new(1),
            commands: AtomicU64::default(),
            bytes: AtomicU64::default(),
        })
    }

    /// The BMC.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How patiently.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The suite of the session; none while there is no session.
    pub async fn suite(&self) -> Option<CipherSuite> {
        match &*self.state.lock().await {
            State::Open(session) => Some(session.suite()),
            State::Closed | State::Refused => None,
        }
    }

    /// What was asked so far.
    pub fn usage(&self) -> Usage {
        Usage { commands: self.commands.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// Ends the session, and waits for the BMC's word.
    pub async fn close(self) {
        if let State::Open(session) = self.state.into_inner() {
            session.close(&self.options).await;
        }
    }

    /// Runs a command that must succeed.
    pub(crate) async fn run<T>(&self, command: &Command<T>) -> Result<T, Error> {
        let response = self.send(command).await?;
        let name = command.name;
        match response.completion {
            Completion::OK => {
                command.decode(&response.data).map_err(|source| Error::Malformed { command: name, source })
            }
            Completion::INVALID_COMMAND => Err(Error::Unsupported { command: name }),
            Completion::PRIVILEGE => Err(Error::Forbidden { command: name }),
            completion if completion.not_yet() => Err(Error::Busy { command: name }),
            completion => Err(Error::Refused { command: name, completion }),
        }
    }

    /// Runs a command that BMCs may lack, or refuse without harm.
    pub(crate) async fn run_if_supported<T>(&self, command: &Command<T>) -> Result<Option<T>, Error> {
        match self.run(command).await {
            Err(Error::Unsupported { .. } | Error::Refused { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The answer to a command, given again while the BMC says that it is busy.
    async fn send<T>(&self, command: &Command<T>) -> Result<Response, Error> {
        let mut state = self.state.lock().await;
        let mut attempt = 1;
        loop {
            let response = self.exchange(&mut state, command).await?;
            self.commands.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(response.data.len() as u64, Ordering::Relaxed);
            let unfinished = response.completion == Completion::TIMEOUT && command.repeat == Repeat::Yes;
            if !(response.completion.not_yet() || unfinished) || attempt >= self.options.busy_attempts {
                return Ok(response);
            }
            sleep(pause(self.options.busy_pause, attempt)).await;
            attempt += 1;
        }
    }

    /// Sends within the session, or a new one where the old one is gone.
    async fn exchange<T>(&self, state: &mut State, command: &Command<T>) -> Result<Response, Error> {
        if let State::Open(session) = state
            && !session.is_stale(&self.options)
        {
            match session.exchange(command, &self.options).await {
                // The BMC has forgotten the session (it was restarted, say), or is away: a new login tells which.
                Err(Error::Timeout { .. }) => {}
                other => return other,
            }
        }
        self.reopen(state).await?.exchange(command, &self.options).await
    }

    async fn reopen<'a>(&self, state: &'a mut State) -> Result<&'a mut Session, Error> {
        if matches!(state, State::Refused) {
            return Err(Error::Unauthorized);
        }
        // Ends the old session, if the BMC still knows it.
        *state = State::Closed;
        if self.logins.fetch_add(1, Ordering::Relaxed) >= self.options.logins {
            return Err(Error::SessionLost { address: self.target.address });
        }
        match Session::establish(&self.target, &self.options).await {
            Ok(session) => {
                *state = State::Open(session);
                match state {
                    State::Open(session) => Ok(session),
                    State::Closed | State::Refused => Err(Error::Unauthorized),
                }
            }
            Err(error) => {
                if error.is_about_credentials() {
                    *state = State::Refused;
                }
                Err(error)
            }
        }
    }
}
