//! One session: how it is made (IPMI 2.0 §13.15), and commands within it.

use tokio::time::{Instant, sleep_until};

use crate::command::{Command, Repeat};
use crate::device;
use crate::error::{Error, RAKP_4};
use crate::message::{Correlation, Request, Response};
use crate::packet::{self, PayloadType, Sealed, Window};
use crate::rakp::{
    OpenSession, OpenSessionRequest, Privilege, Rakp1, Rakp2, Rakp3, Rakp4, Reply, Status, Transcript, proven,
};
use crate::socket::{Refusal, Socket, random};
use crate::suite::{CipherSuite, Keys};
use crate::target::{Options, Target};
use crate::wire::Malformed;

/// How often a session is begun from the start when the BMC forgets it half-way.
const BEGINNINGS: u32 = 2;

/// A session that stands. Dropping it tells the BMC to forget it, without waiting for an answer.
#[derive(Debug)]
pub(crate) struct Session {
    socket: Socket,
    suite: CipherSuite,
    keys: Keys,
    /// Our name for it.
    console_id: u32,
    /// The BMC's.
    managed_id: u32,
    sent: u32,
    received: Window,
    request: u8,
    last: Instant,
    closed: bool,
}

impl Session {
    /// Makes a session with the first suite that the BMC takes. A refused user or password ends it there: the next suite
    /// would be one more failed login.
    pub(crate) async fn establish(target: &Target, options: &Options) -> Result<Self, Error> {
        target.credentials.check()?;
        // What the BMC forgot half-way may have been a login.
        let beginnings = BEGINNINGS.min(options.logins.max(1));
        for suite in &target.suites {
            let mut beginning = 1;
            loop {
                let socket = Socket::connect(target.address).await?;
                match (Handshake { socket, target, options, suite: *suite }).run().await {
                    Ok(session) => return Ok(session),
                    Err(Setback::Suite) => break,
                    Err(Setback::Forgotten(_)) if beginning < beginnings => beginning += 1,
                    Err(Setback::Forgotten(error) | Setback::Final(error)) => return Err(error),
                }
            }
        }
        let wanted: Vec<String> = target.suites.iter().map(ToString::to_string).collect();
        Err(Error::NoCipherSuite { wanted: wanted.join(", ") })
    }

    pub(crate) fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// Whether the BMC has probably ended it.
    pub(crate) fn is_stale(&self, options: &Options) -> bool {
        self.last.elapsed() >= options.idle
    }

    /// Sends a command and waits for its answer. Every datagram has a sequence number of its own, since a BMC drops one that
    /// it has seen; the answer to any of them counts.
    pub(crate) async fn exchange<T>(
        &mut self,
        command: &Command<T>,
        options: &Options,
    ) -> Result<Response, Error> {
        sleep_until(self.last + options.gap).await;
        self.request = (self.request + 1) % 64;
        let correlation = Correlation {
            netfn: command.netfn,
            command: command.number,
            lun: command.lun,
            sequence: self.request,
        };
        let message = Request { correlation, data: command.data.clone() }.encode();
        let attempts = match command.repeat {
            Repeat::Yes => options.attempts,
            Repeat::Never => 1,
        };
        // One attempt waits as long as all of them would.
        let patience = if attempts == 1 { options.attempts * (options.attempts + 1) / 2 } else { 1 };
        let options = Options { attempts, timeout: options.timeout * patience.max(1), ..*options };

        let Self { socket, keys, sent, received, managed_id, console_id, .. } = self;
        let address = socket.address();
        let seal = || {
            *sent += 1;
            let sealed = Sealed { session: *managed_id, sequence: *sent, message: message.clone() };
            Ok(sealed.encode(keys, random(address)?))
        };
        let accept = |payload: &[u8]| {
            let sealed = Sealed::decode(keys, payload).ok()?;
            let ours = sealed.session == *console_id && received.take(sealed.sequence);
            let response = Response::decode(&sealed.message).ok().filter(|_| ours)?;
            (response.correlation == correlation).then_some(response)
        };
        let outcome = socket.ask(command.name, &options, Refusal::Ignored, seal, accept).await;
        self.last = Instant::now();
        match outcome {
            Err(Error::Timeout { .. }) if command.repeat == Repeat::Never => {
                Err(Error::OutcomeUnknown { command: command.name })
            }
            other => other,
        }
    }

    /// Tells the BMC to forget the session, and waits until it has.
    pub(crate) async fn close(mut self, options: &Options) {
        // What it says does not matter: a session that is not closed ends by itself after a minute.
        let _ = self.exchange(&device::close_session(self.managed_id), options).await;
        self.closed = true;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let Ok(vector) = random(self.socket.address()) else { return };
        let command = device::close_session(self.managed_id);
        let correlation = Correlation {
            netfn: command.netfn,
            command: command.number,
            lun: command.lun,
            sequence: (self.request + 1) % 64,
        };
        let message = Request { correlation, data: command.data }.encode();
        let sealed = Sealed { session: self.managed_id, sequence: self.sent + 1, message };
        self.socket.send_now(&sealed.encode(&self.keys, vector));
    }
}

/// Why a session was not made.
enum Setback {
    /// Not with this suite.
    Suite,
    /// The BMC lost what it began; beginning anew may help.
    Forgotten(Error),
    /// Not at all.
    Final(Error),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// A session in the making.
struct Handshake<'a> {
    socket: Socket,
    target: &'a Target,
    options: &'a Options,
    suite: CipherSuite,
}

impl Handshake<'_> {
    async fn run(self) -> Result<Session, Setback> {
        let opened = self.open().await?;
        let (transcript, proof) = self.challenge(opened).await?;
        let (privilege, options) = (self.target.privilege, self.options);
        let session = self.prove(transcript, proof).await?;
        raise_privilege(session, privilege, options).await.map_err(Setback::from)
    }

    /// Open Session: suite and session ids.
    async fn open(&self) -> Result<OpenSession, Setback> {
        let [tag, id @ ..] = random::<5>(self.socket.address())?;
        // 0 would mean "no session".
        let console_session = u32::from_le_bytes(id).max(1);
        let request = OpenSessionRequest {
            tag,
            privilege: Some(self.target.privilege),
            console_session,
            algorithms: self.suite.algorithms(),
        };
        let kinds = (PayloadType::OpenSessionRequest, PayloadType::OpenSessionResponse);
        let accept = |reply: &Reply<OpenSession>| {
            reply.tag == tag && reply.outcome.map_or(true, |opened| opened.console_session == console_session)
        };
        let reply =
            self.ask("Open Session", kinds, &request.encode(), Reply::decode_open_session, accept).await?;
        let opened = reply.outcome.map_err(|status| self.refused(status))?;
        if CipherSuite::from_algorithms(opened.algorithms) != Some(self.suite) {
            // Less protection than was asked for is no session for us.
            return Err(Setback::Suite);
        }
        Ok(opened)
    }

    /// RAKP messages 1 and 2: the BMC proves that it knows the password, or we learn that ours is wrong.
    async fn challenge(&self, opened: OpenSession) -> Result<(Transcript, Vec<u8>), Setback> {
        let address = self.socket.address();
        let [tag] = random(address)?;
        let credentials = &self.target.credentials;
        let mut transcript = Transcript {
            suite: self.suite,
            console_session: opened.console_session,
            managed_session: opened.managed_session,
            console_random: random(address)?,
            managed_random: [0; 16],
            guid: [0; 16],
            role: Rakp1::role(self.target.privilege),
            username: credentials.username.clone().into_bytes(),
        };
        let request = Rakp1 {
            tag,
            managed_session: opened.managed_session,
            random: transcript.console_random,
            role: transcript.role,
            username: transcript.username.clone(),
        }
        .encode();
        let kinds = (PayloadType::Rakp1, PayloadType::Rakp2);
        let accept = |reply: &Reply<Rakp2>| {
            let ours = |message: &Rakp2| message.console_session == opened.console_session;
            reply.tag == tag && reply.outcome.as_ref().map_or(true, ours)
        };
        let mut refused_before = false;
        loop {
            let reply = self.ask("RAKP message 2", kinds, &request, Reply::decode_rakp2, accept).await;
            let message = match reply {
                // It answered once, wrongly; that it keeps silent now does not make it right.
                Err(Setback::Forgotten(_)) if refused_before => return Err(Error::Unauthorized.into()),
                other => other?.outcome.map_err(|status| self.refused(status))?,
            };
            transcript.managed_random = message.random;
            transcript.guid = message.guid;
            if proven(&message.proof, &transcript.rakp2_proof(credentials.password.as_bytes())) {
                let proof = transcript.rakp3_proof(credentials.password.as_bytes()).to_vec();
                return Ok((transcript, proof));
            }
            if refused_before {
                self.give_up(&opened);
                return Err(Error::Unauthorized.into());
            }
            // A damaged datagram looks just like a wrong password. The BMC counts no login before RAKP message 3, so asking
            // once more costs nothing.
            refused_before = true;
        }
    }

    /// Tells the BMC that it has failed to prove itself, so that it need not keep the session (§13.22).
    fn give_up(&self, opened: &OpenSession) {
        let message =
            Rakp3 { tag: 0, managed_session: opened.managed_session, proof: Err(Status::INVALID_CODE) };
        self.socket.send_now(&packet::encode_plain(PayloadType::Rakp3, &message.encode()));
    }

    /// RAKP messages 3 and 4: we prove that we know the password, and the BMC that it has the session's key.
    async fn prove(self, transcript: Transcript, proof: Vec<u8>) -> Result<Session, Setback> {
        let credentials = &self.target.credentials;
        let key = credentials.key.as_ref().map_or(credentials.password.as_bytes(), |key| key.as_slice());
        let integrity = transcript.session_integrity_key(key);
        let expected = transcript.rakp4_proof(&integrity);
        let [tag] = random(self.socket.address())?;
        let request = Rakp3 { tag, managed_session: transcript.managed_session, proof: Ok(proof) }.encode();
        let kinds = (PayloadType::Rakp3, PayloadType::Rakp4);
        let mut wrong_proof = false;
        let accept = |reply: &Reply<Rakp4>| {
            let ours = |message: &Rakp4| {
                let right = proven(&message.proof, &expected);
                wrong_proof |= !right;
                right && message.console_session == transcript.console_session
            };
            reply.tag == tag && reply.outcome.as_ref().map_or(true, ours)
        };
        let reply = match self.ask(RAKP_4, kinds, &request, Reply::decode_rakp4, accept).await {
            Err(Setback::Forgotten(_)) if wrong_proof => return Err(Error::KeyMismatch.into()),
            other => other?,
        };
        reply.outcome.map_err(|status| self.refused(status))?;
        Ok(Session {
            suite: self.suite,
            keys: Keys::derive(self.suite, &integrity),
            console_id: transcript.console_session,
            managed_id: transcript.managed_session,
            sent: 0,
            received: Window::default(),
            request: 0,
            last: Instant::now(),
            closed: false,
            socket: self.socket,
        })
    }

    /// Asks for the next message of the making. No answer means that the BMC may have forgotten what it began.
    async fn ask<T>(
        &self,
        awaited: &'static str,
        (sent, wanted): (PayloadType, PayloadType),
        payload: &[u8],
        decode: fn(&[u8]) -> Result<Reply<T>, Malformed>,
        mut accept: impl FnMut(&Reply<T>) -> bool,
    ) -> Result<Reply<T>, Setback> {
        let packet = packet::encode_plain(sent, payload);
        let take = |received: &[u8]| {
            let (kind, payload) = packet::decode_plain(received).ok()?;
            let reply = decode(payload).ok().filter(|_| kind == wanted)?;
            accept(&reply).then_some(reply)
        };
        let first = sent == PayloadType::OpenSessionRequest;
        self.socket.ask(awaited, self.options, Refusal::Final, || Ok(packet.clone()), take).await.map_err(
            |error| match error {
                Error::Timeout { .. } if !first => Setback::Forgotten(error),
                other => Setback::Final(other),
            },
        )
    }

    fn refused(&self, status: Status) -> Setback {
        let error = match status {
            status if status.is_about_algorithms() => return Setback::Suite,
            status if status.is_about_credentials() => Error::Unauthorized,
            status if status.is_about_privilege() => Error::Privilege { wanted: self.target.privilege },
            status if status.is_about_resources() => Error::SessionsExhausted,
            Status::INVALID_SESSION => return Setback::Forgotten(Error::SessionRefused { status }),
            status => Error::SessionRefused { status },
        };
        Setback::Final(error)
    }
}

/// Sessions begin at the user's level at most (§22.18).
async fn raise_privilege(
    mut session: Session,
    wanted: Privilege,
    options: &Options,
) -> Result<Session, Error> {
    let command = device::set_session_privilege(wanted);
    let response = session.exchange(&command, options).await?;
    // 0x80 to 0x82: not for this user, not on this channel.
    match response.completion.0 {
        0x00 if response.data.first().is_some_and(|level| level & 0x0f == wanted.number()) => Ok(session),
        0x00 | 0x80..=0x82 | 0xd4 => Err(Error::Privilege { wanted }),
        _ => Err(Error::Refused { command: command.name, completion: response.completion }),
    }
}
