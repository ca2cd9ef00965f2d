use super::*;
use domain::agent::{AgentToken, ENROLMENT_FILE, EnrolAnswer, EnrolRequest, Enrolment, SERVER_NAME};
use domain::permit::PublicKey;
use domain::{Digest, Problem};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use x509_cert::der::DecodePem as _;
use x509_cert::request::CertReq;

/// What the cell does with a call.
enum Reply {
    Enrol,
    Refuse(&'static str),
    HangUp,
}

type Script = Box<dyn FnMut(&EnrolRequest) -> Reply + Send>;

/// A cell that does with each call what it is told, and remembers the keys that asked.
struct Cell {
    enrolment: Enrolment,
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The key of a request, as the cell takes it.
struct AgentKey(Vec<u8>);

impl AgentKey {
    fn of(request: &EnrolRequest) -> Self {
        let request = CertReq::from_pem(request.csr.as_bytes()).unwrap();
        Self(request.info.public_key.subject_public_key.as_bytes().unwrap().to_vec())
    }
}

impl PublicKeyData for AgentKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    fn make() -> (Self, Digest) {
        let key = KeyPair::generate().unwrap();
        let pin = Digest::of(&key.subject_public_key_info());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "agents");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        (Self { issuer: Issuer::new(params, key), pem }, pin)
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain =
            vec![certificate.der().clone(), CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn enrol(&self, key: &AgentKey) -> EnrolAnswer {
        let certificate = CertificateParams::default().signed_by(key, &self.issuer).unwrap();
        EnrolAnswer {
            certificate: certificate.pem(),
            ca: self.pem.clone(),
            machine: "m1".parse().unwrap(),
            permit_key: PublicKey::new([1; 32]),
        }
    }
}

impl Cell {
    async fn start(mut script: impl FnMut(&EnrolRequest) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cell = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (authority, pin) = Authority::make();
        let token = AgentToken::new([7; 32], &pin).reveal();
        let asked = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let acceptor = authority.acceptor();
            let mut script: Script = Box::new(move |request| {
                seen.lock().unwrap().push(AgentKey::of(request).0);
                script(request)
            });
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream, &acceptor, &authority, &mut script).await;
            }
        });
        Self { enrolment: Enrolment { cell, token }, asked, task }
    }

    /// One that answers the first key of its token, and no other, as cells do.
    async fn genuine() -> Self {
        let mut first = None;
        Self::start(move |request| {
            let key = AgentKey::of(request).0;
            if *first.get_or_insert_with(|| key.clone()) == key {
                Reply::Enrol
            } else {
                Reply::Refuse("agent.token-used")
            }
        })
        .await
    }

    fn leave_file(&self, dir: &StateDir) {
        std::fs::write(dir.path().join(ENROLMENT_FILE), serde_json::to_vec(&self.enrolment).unwrap())
            .unwrap();
    }

    fn asked(&self) -> Vec<Vec<u8>> {
        self.asked.lock().unwrap().clone()
    }
}

/// One call on one connection.
async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, authority: &Authority, script: &mut Script) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut read = Vec::new();
    let body = loop {
        if stream.read_buf(&mut read).await.unwrap() == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            break body.to_owned();
        }
    };
    let request: EnrolRequest = serde_json::from_str(&body).unwrap();
    let (status, answer) = match script(&request) {
        Reply::Enrol => (200, serde_json::to_string(&authority.enrol(&AgentKey::of(&request))).unwrap()),
        Reply::Refuse(code) => (403, serde_json::to_string(&Problem::new(code, "no")).unwrap()),
        Reply::HangUp => return,
    };
    let head =
        format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
    stream.write_all((head + &answer).as_bytes()).await.unwrap();
    let _ = stream.shutdown().await;
}

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let dir = StateDir::open(directory.path()).unwrap();
    (directory, dir)
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn enrol_as_left(dir: &StateDir) -> ByFile {
    let stop = CancellationToken::new();
    tokio::time::timeout(Duration::from_mins(1), enrol_by_file(dir, None, &stop)).await.unwrap()
}

#[tokio::test]
async fn an_agent_enrols_by_the_file_that_was_left_for_it_and_takes_it_away() {
    let (cell, (directory, dir)) = (Cell::genuine().await, state());
    cell.leave_file(&dir);
    enrol_as_left(&dir).await;
    assert_eq!(dir.identity().unwrap().machine, "m1".parse().unwrap());
    assert_eq!(files(directory.path()), ["cell.json"]);
    // Nothing is left to do.
    enrol_as_left(&dir).await;
    assert_eq!(cell.asked().len(), 1);
}

#[tokio::test]
async fn a_host_that_was_set_up_anew_enrols_anew() {
    let (before, now, (directory, dir)) = (Cell::genuine().await, Cell::genuine().await, state());
    before.leave_file(&dir);
    enrol_as_left(&dir).await;
    now.leave_file(&dir);
    enrol_as_left(&dir).await;
    assert_eq!(dir.identity().unwrap().cell, now.enrolment.cell.to_string());
    assert_ne!(before.asked(), now.asked());
    assert_eq!(files(directory.path()), ["cell.json"]);
}

#[tokio::test]
async fn an_agent_that_is_killed_before_the_file_is_away_asks_again_with_the_same_key() {
    let (directory, dir) = state();
    // What is there while the cell is asked: nothing of it goes before the answer is kept.
    let (at, left) = (directory.path().to_owned(), tempfile::tempdir().unwrap());
    let to = left.path().to_owned();
    let cell = Cell::start(move |_| {
        for name in files(&at) {
            std::fs::copy(at.join(&name), to.join(&name)).unwrap();
        }
        Reply::Enrol
    })
    .await;
    cell.leave_file(&dir);
    enrol_as_left(&dir).await;
    let killed = files(left.path());
    assert_eq!(killed, ["enrolling.pem", ENROLMENT_FILE]);
    for name in &killed {
        std::fs::copy(left.path().join(name), directory.path().join(name)).unwrap();
    }
    enrol_as_left(&dir).await;
    let asked = cell.asked();
    assert_eq!((asked.len(), &asked[0]), (2, &asked[1]));
    assert_eq!(files(directory.path()), ["cell.json"]);

    // The file had gone, and the key not.
    std::fs::copy(left.path().join("enrolling.pem"), directory.path().join("enrolling.pem")).unwrap();
    enrol_as_left(&dir).await;
    assert_eq!(cell.asked().len(), 2);
}

#[tokio::test]
async fn a_cell_that_is_away_or_whose_answer_is_lost_is_asked_again_with_the_same_key_after_a_pause() {
    let mut calls = 0;
    let cell = Cell::start(move |_| {
        calls += 1;
        if calls == 1 { Reply::HangUp } else { Reply::Enrol }
    })
    .await;
    let (_directory, dir) = state();
    cell.leave_file(&dir);
    let began = std::time::Instant::now();
    enrol_as_left(&dir).await;
    let asked = cell.asked();
    assert_eq!((asked.len(), &asked[0]), (2, &asked[1]));
    assert!(began.elapsed() > Duration::from_millis(800), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_agent_that_waits_for_its_cell_ends_when_it_is_told_to() {
    let stop = CancellationToken::new();
    let told = stop.clone();
    let cell = Cell::start(move |_| {
        told.cancel();
        Reply::HangUp
    })
    .await;
    let (directory, dir) = state();
    cell.leave_file(&dir);
    let waits = enrol_by_file(&dir, None, &stop);
    tokio::time::timeout(Duration::from_mins(1), waits).await.unwrap();
    assert_eq!(files(directory.path()), ["enrolling.pem", ENROLMENT_FILE]);
}

#[tokio::test]
async fn a_token_of_no_use_is_asked_with_until_there_is_another() {
    let (_directory, dir) = state();
    let next = Cell::genuine().await;
    let (file, content) = (dir.path().join(ENROLMENT_FILE), serde_json::to_vec(&next.enrolment).unwrap());
    let used = Cell::start(move |_| {
        // Somebody gives the machine a new one meanwhile.
        std::fs::write(&file, &content).unwrap();
        Reply::Refuse("agent.token-used")
    })
    .await;
    used.leave_file(&dir);
    enrol_as_left(&dir).await;
    assert_eq!(dir.identity().unwrap().cell, next.enrolment.cell.to_string());
}

#[tokio::test]
async fn an_agent_whose_token_is_of_no_use_goes_on_as_it_was_enrolled_before() {
    let (cell, (_directory, dir)) = (Cell::genuine().await, state());
    cell.leave_file(&dir);
    enrol_as_left(&dir).await;
    let before = dir.identity().unwrap();
    for code in ["agent.other-machine", "agent.token-late", "agent.token-unknown", "agent.token-used"] {
        let refuses = Cell::start(move |_| Reply::Refuse(code)).await;
        refuses.leave_file(&dir);
        assert_eq!(enrol_as_left(&dir).await, ByFile::Refused);
        assert_eq!(refuses.asked().len(), 1, "{code}");
        assert_eq!(dir.identity().unwrap().key, before.key, "{code}");
    }
    // One that will be of use is waited for, but not by whom pods wait for: the machine is no node yet.
    let mut calls = 0;
    let waits = Cell::start(move |_| {
        calls += 1;
        if calls <= 2 { Reply::Refuse("agent.not-allowed") } else { Reply::Enrol }
    })
    .await;
    waits.leave_file(&dir);
    assert_eq!(enrol_as_left(&dir).await, ByFile::Later);
    assert_eq!((waits.asked().len(), dir.identity().unwrap().key), (1, before.key));
    let stop = CancellationToken::new();
    let later = enrol_later(&dir, None, &stop);
    assert_eq!(tokio::time::timeout(Duration::from_mins(1), later).await.unwrap(), ByFile::Done);
    assert_eq!(dir.identity().unwrap().cell, waits.enrolment.cell.to_string());
}

#[tokio::test]
async fn of_two_agents_that_start_at_once_one_enrols() {
    let (cell, (_directory, dir)) = (Cell::genuine().await, state());
    cell.leave_file(&dir);
    tokio::join!(enrol_as_left(&dir), enrol_as_left(&dir));
    assert_eq!(cell.asked().len(), 1);
    assert!(dir.identity().is_ok());
}

#[tokio::test]
async fn a_file_that_is_not_written_to_its_end_is_told_without_what_is_in_it() {
    let (cell, (_directory, dir)) = (Cell::genuine().await, state());
    let token = &cell.enrolment.token;
    for text in ["", "{", &format!(r#"{{"cell":"https://a","token":["{token}"]}}"#), &format!("\"{token}\"")]
    {
        std::fs::write(dir.path().join(ENROLMENT_FILE), text).unwrap();
        let error = attempt(&dir, None).await.err().unwrap();
        assert_eq!(error.code(), "agent.enrolment-malformed");
        let told = format!("{error} {error:?} {}", error.problem());
        assert!(!told.contains(&token[4..12]), "{told}");
        assert!(error.problem().hint.is_some());
    }
    cell.leave_file(&dir);
    assert!(matches!(attempt(&dir, None).await, Ok(Tried::Settled)));
}
