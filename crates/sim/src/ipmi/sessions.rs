//! The BMC's side of a session: how it is made (IPMI 2.0 §13.15), and commands within it.

use std::collections::BTreeMap;

use ipmi::CipherSuite;
use ipmi::message::{Completion, Request, Response};
use ipmi::packet::{self, PayloadType, Sealed, Window};
use ipmi::rakp::{
    OpenSession, OpenSessionRequest, Rakp1, Rakp2, Rakp3, Rakp4, Reply, Status, Transcript, proven,
};
use ipmi::suite::Keys;

use super::machine::IpmiMachine;

/// Sessions that may be in the making at the same time.
const UNFINISHED: usize = 8;

/// Sessions by the BMC's name for them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<u32, Session>,
    last: u32,
}

#[derive(Debug)]
struct Session {
    transcript: Transcript,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Opened,
    Challenged,
    Active { keys: Keys, sent: u32, received: Window },
}

impl Sessions {
    pub(super) fn active(&self) -> usize {
        self.by_id.values().filter(|session| matches!(session.stage, Stage::Active { .. })).count()
    }

    pub(super) fn suite(&self) -> Option<CipherSuite> {
        let active = self.by_id.values().find(|session| matches!(session.stage, Stage::Active { .. }))?;
        Some(active.transcript.suite)
    }

    /// The answer to an RMCP+ packet.
    pub(super) fn answer(&mut self, machine: &mut IpmiMachine, packet: &[u8]) -> Option<Vec<u8>> {
        let id = Sealed::claimed_session(packet)?;
        if id != 0 {
            return self.command(machine, id, packet);
        }
        let (kind, payload) = packet::decode_plain(packet).ok()?;
        let (kind, payload) = match kind {
            PayloadType::OpenSessionRequest => {
                let reply = self.open(machine, &OpenSessionRequest::decode(payload).ok()?);
                (PayloadType::OpenSessionResponse, reply.encode())
            }
            PayloadType::Rakp1 => {
                (PayloadType::Rakp2, self.challenge(machine, &Rakp1::decode(payload).ok()?).encode())
            }
            PayloadType::Rakp3 => {
                (PayloadType::Rakp4, self.prove(machine, &Rakp3::decode(payload).ok()?)?.encode())
            }
            _ => return None,
        };
        Some(packet::encode_plain(kind, &payload))
    }

    fn open(&mut self, machine: &mut IpmiMachine, request: &OpenSessionRequest) -> Reply<OpenSession> {
        machine.counters.openings += 1;
        let tag = request.tag;
        let suite =
            CipherSuite::from_algorithms(request.algorithms).filter(|suite| machine.suites.contains(suite));
        let Some(suite) = suite else { return Reply { tag, outcome: Err(Status::NO_CIPHER_SUITE) } };
        if self.active() >= machine.session_limit {
            return Reply { tag, outcome: Err(Status::INSUFFICIENT_RESOURCES) };
        }
        self.make_room();
        self.last = self.last.wrapping_add(1).max(1);
        let transcript = Transcript {
            suite,
            console_session: request.console_session,
            managed_session: self.last,
            console_random: [0; 16],
            managed_random: random(),
            guid: machine.guid,
            role: 0,
            username: Vec::new(),
        };
        self.by_id.insert(self.last, Session { transcript, stage: Stage::Opened });
        let outcome = Ok(OpenSession {
            console_session: request.console_session,
            managed_session: self.last,
            algorithms: suite.algorithms(),
        });
        Reply { tag, outcome }
    }

    /// Forgets the oldest of what was begun and never finished.
    fn make_room(&mut self) {
        let unfinished = |session: &Session| !matches!(session.stage, Stage::Active { .. });
        if self.by_id.values().filter(|session| unfinished(session)).count() >= UNFINISHED {
            let oldest = self.by_id.iter().find(|(_, session)| unfinished(session)).map(|(id, _)| *id);
            oldest.and_then(|id| self.by_id.remove(&id));
        }
    }

    fn challenge(&mut self, machine: &mut IpmiMachine, message: &Rakp1) -> Reply<Rakp2> {
        let tag = message.tag;
        let refuse = |status| Reply { tag, outcome: Err(status) };
        // An old message must not unmake a session that stands.
        let begun = |session: &&mut Session| !matches!(session.stage, Stage::Active { .. });
        let Some(session) = self.by_id.get_mut(&message.managed_session).filter(begun) else {
            return refuse(Status::INVALID_SESSION);
        };
        if message.username != machine.username.as_bytes() {
            machine.counters.failed_logins += 1;
            return refuse(Status::UNAUTHORIZED_NAME);
        }
        if message.role & 0x0f > machine.privilege.number() {
            return refuse(Status::UNAUTHORIZED_ROLE);
        }
        let transcript = &mut session.transcript;
        transcript.console_random = message.random;
        transcript.role = message.role;
        transcript.username.clone_from(&message.username);
        session.stage = Stage::Challenged;
        let outcome = Ok(Rakp2 {
            console_session: transcript.console_session,
            random: transcript.managed_random,
            guid: transcript.guid,
            proof: transcript.rakp2_proof(machine.password.as_bytes()).to_vec(),
        });
        Reply { tag, outcome }
    }

    fn prove(&mut self, machine: &mut IpmiMachine, message: &Rakp3) -> Option<Reply<Rakp4>> {
        let tag = message.tag;
        let id = message.managed_session;
        let Some(session) = self.by_id.get_mut(&id) else {
            return Some(Reply { tag, outcome: Err(Status::INVALID_SESSION) });
        };
        let Ok(proof) = &message.proof else {
            // The console gives up; nobody waits for an answer.
            self.by_id.remove(&id);
            return None;
        };
        let transcript = &session.transcript;
        if !proven(proof, &transcript.rakp3_proof(machine.password.as_bytes())) {
            machine.counters.failed_logins += 1;
            self.by_id.remove(&id);
            return Some(Reply { tag, outcome: Err(Status::INVALID_CODE) });
        }
        let key = machine.key.as_deref().unwrap_or(machine.password.as_bytes());
        let integrity = transcript.session_integrity_key(key);
        let outcome = Ok(Rakp4 {
            console_session: transcript.console_session,
            proof: transcript.rakp4_proof(&integrity).to_vec(),
        });
        // The message may come twice: its answer was lost.
        if !matches!(session.stage, Stage::Active { .. }) {
            machine.counters.logins += 1;
            let keys = Keys::derive(transcript.suite, &integrity);
            session.stage = Stage::Active { keys, sent: 0, received: Window::default() };
        }
        Some(Reply { tag, outcome })
    }

    fn command(&mut self, machine: &mut IpmiMachine, id: u32, packet: &[u8]) -> Option<Vec<u8>> {
        let session = self.by_id.get_mut(&id)?;
        let Stage::Active { keys, sent, received } = &mut session.stage else { return None };
        let sealed = Sealed::decode(keys, packet).ok().filter(|sealed| received.take(sealed.sequence))?;
        let request = Request::decode(&sealed.message).ok()?;
        let (completion, data) = machine.execute(&request);
        let message = Response { correlation: request.correlation, completion, data }.encode();
        *sent += 1;
        let answer = Sealed { session: session.transcript.console_session, sequence: *sent, message };
        let answer = answer.encode(keys, random());
        let closes =
            (request.correlation.netfn, request.correlation.command) == (ipmi::message::NetFn::App, 0x3c);
        if closes && completion == Completion::OK {
            self.by_id.remove(&id);
        }
        Some(answer)
    }
}

/// Random enough for a simulator, and never an error.
fn random() -> [u8; 16] {
    *uuid::Uuid::new_v4().as_bytes()
}
