//! Taking calls: as many connections at once as there are places, and none that sends its request by the hour. Who has shown a
//! certificate has places that nobody else takes.

use crate::api::problem::Refusal;
use crate::error::coded;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use futures_util::StreamExt as _;
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait in the system's queue.
const PLACES: usize = 1024;

/// How long the head of a request may take. A connection that is kept alive but not used is ended after it too.
const HEAD: Duration = Duration::from_secs(30);

/// How long the body of a request to the API may take: the largest, of some ten thousand machines, needs 5 Mbit/s. The work that
/// it asks for may take longer, and a stream of events has no end.
const BODY: Duration = Duration::from_mins(1);

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a call with a certificate, or for one, may take in all: its body is small, and so is the work.
const CALL: Duration = Duration::from_secs(30);

/// Connections at once that have shown no certificate, those in the handshake included. One more waits until one of them goes, or
/// the oldest has had its turn and gives way: a handshake and a call take milliseconds, and who says nothing keeps nobody out.
const STRANGERS: usize = 256;

/// How long nobody has to give way.
const TURN: Duration = Duration::from_secs(1);

/// Connections at once with certificates of one caller.
const OF_ONE: usize = 8;

/// How long a call under way may go on once the cell ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Time until the next connection is taken after that failed: no file descriptor is left, say.
const PAUSE: Duration = Duration::from_millis(100);

/// How callers come in.
#[derive(Clone)]
pub(crate) enum Door {
    /// By HTTP; a proxy in front may do TLS.
    Plain(Plain),
    /// By TLS; calls carry a [`Peer`].
    Mutual(Mutual),
}

/// What plain HTTP needs.
#[derive(Clone)]
pub(crate) struct Plain {
    router: Router,
    head: Duration,
}

impl Plain {
    pub(crate) fn new(router: Router) -> Self {
        Self::within(HEAD, BODY, router)
    }

    fn within(head: Duration, body: Duration, router: Router) -> Self {
        let limit =
            move |request: Request, next: Next| next.run(request.map(|whole| read_in_time(body, whole)));
        Self { router: router.layer(axum::middleware::from_fn(limit)), head }
    }
}

/// A body that fails once it has taken too long. It is read by whoever may call, and not before.
fn read_in_time(limit: Duration, body: Body) -> Body {
    let end = tokio::time::Instant::now() + limit;
    Body::from_stream(futures_util::stream::unfold(Some(body.into_data_stream()), move |rest| async move {
        let mut rest = rest?;
        match timeout_at(end, rest.next()).await {
            Ok(chunk) => Some((chunk?.map_err(axum::BoxError::from), Some(rest))),
            Err(_) => Some((Err(TooSlow(limit).into()), None)),
        }
    }))
}

/// The body of a request did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request did not come within {0:?}")]
pub(crate) struct TooSlow(Duration);

impl TooSlow {
    /// The one that an error comes from, if it does.
    pub(crate) fn behind<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}

/// What mutual TLS needs.
#[derive(Clone)]
pub(crate) struct Mutual {
    config: Arc<ServerConfig>,
    router: Router,
    caller: fn(&CertificateDer<'_>) -> Option<Caller>,
    guests: Arc<Guests>,
}

/// Whose certificate it is, for as long as connections are counted.
pub(crate) type Caller = [u8; 8];

impl Mutual {
    /// `caller` reads whose certificate one is that the handshake has verified.
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        router: Router,
        caller: fn(&CertificateDer<'_>) -> Option<Caller>,
    ) -> Self {
        Self {
            config,
            router: router
                .layer(axum::middleware::from_fn(async |request, next| in_time(CALL, request, next).await)),
            caller,
            guests: Arc::default(),
        }
    }
}

/// Whole calls: a body that comes by the hour is one that takes too long.
async fn in_time(limit: Duration, request: Request, next: Next) -> Response {
    timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        let problem = coded("agent.too-slow", format!("the call did not end within {limit:?}"));
        Refusal::new(StatusCode::REQUEST_TIMEOUT, problem).into_response()
    })
}

/// The certificate that the caller showed in the handshake; `None` where it showed none.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub Option<CertificateDer<'static>>);

/// Who is connected by mutual TLS.
#[derive(Debug, Default)]
struct Guests {
    strangers: Mutex<Strangers>,
    freed: Notify,
    known: Mutex<HashMap<Caller, usize>>,
}

#[derive(Debug, Default)]
struct Strangers {
    last: u64,
    oldest_first: VecDeque<(u64, CancellationToken, Instant)>,
}

/// The place of a connection that has shown no certificate (yet); free when dropped.
struct Stranger {
    number: u64,
    gives_way: CancellationToken,
    guests: Arc<Guests>,
}

/// One of the places of a caller; free when dropped.
struct Guest {
    caller: Caller,
    guests: Arc<Guests>,
}

impl Guests {
    /// Waits until there is room for one more stranger.
    async fn room(&self) {
        while let Some(rest) = self.crowd(Instant::now()) {
            let _ = timeout(rest, self.freed.notified()).await;
        }
    }

    /// `None` where there is room, now that the oldest has given way if it had to; else how long until it has to.
    fn crowd(&self, now: Instant) -> Option<Duration> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.oldest_first.len() < STRANGERS {
            return None;
        }
        let (_, oldest, since) = strangers.oldest_first.front()?;
        let rest = TURN.saturating_sub(now.duration_since(*since));
        if rest.is_zero() {
            oldest.cancel();
            strangers.oldest_first.pop_front();
            return None;
        }
        Some(rest)
    }

    fn stranger(self: &Arc<Self>) -> Stranger {
        let gives_way = CancellationToken::new();
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.last += 1;
        let number = strangers.last;
        strangers.oldest_first.push_back((number, gives_way.clone(), Instant::now()));
        drop(strangers);
        Stranger { number, gives_way, guests: Arc::clone(self) }
    }

    /// `None` where this caller has all of its places already.
    fn guest(self: &Arc<Self>, caller: Caller) -> Option<Guest> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.entry(caller).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        drop(known);
        Some(Guest { caller, guests: Arc::clone(self) })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.guests.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.oldest_first.retain(|(number, ..)| *number != self.number);
        drop(strangers);
        self.guests.freed.notify_one();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut known = self.guests.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                known.remove(&self.caller);
            }
        }
    }
}

/// Serves until it is cancelled, then lets the calls under way end.
pub(crate) async fn serve(listener: TcpListener, door: Door, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(PLACES));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                // By mutual TLS the place is taken once it is known who calls.
                let place = match &door {
                    Door::Plain(_) => Arc::clone(&places).acquire_owned().await.ok(),
                    Door::Mutual(mutual) => {
                        mutual.guests.room().await;
                        None
                    }
                };
                (place, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (place, Ok((stream, _))) => {
                let (door, stop, places) = (door.clone(), stop.clone(), Arc::clone(&places));
                connections.spawn(async move {
                    match door {
                        Door::Plain(plain) => converse(stream, plain.router, plain.head, stop).await,
                        Door::Mutual(mutual) => mutual.enter(stream, places, stop).await,
                    }
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!("a connection could not be taken: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

impl Mutual {
    async fn enter(self, stream: TcpStream, places: Arc<Semaphore>, stop: CancellationToken) {
        let stranger = self.guests.stranger();
        let handshake = tokio::select! {
            () = stop.cancelled() => return,
            () = stranger.gives_way.cancelled() => return tracing::debug!("a handshake gave way to a newer one"),
            handshake = timeout(HANDSHAKE, TlsAcceptor::from(self.config).accept(stream)) => handshake,
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!("a handshake failed: {error}"),
            Err(_) => return tracing::debug!("a handshake took too long"),
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = Peer(shown.map(|certificate| certificate.clone().into_owned()));
        let caller = peer.0.as_ref().and_then(self.caller);
        let router = self.router.layer(Extension(peer));
        let Some(caller) = caller else {
            return tokio::select! {
                () = stranger.gives_way.cancelled() => tracing::debug!("a call without a certificate gave way"),
                () = converse(stream, router, HEAD, stop.clone()) => {}
            };
        };
        drop(stranger);
        let Some(_guest) = self.guests.guest(caller) else {
            return tracing::debug!("one caller has too many connections");
        };
        // Callers with certificates wait for one another alone, and not for long.
        if let Ok(Ok(_place)) = timeout(HEAD, places.acquire_owned()).await {
            converse(stream, router, HEAD, stop).await;
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    head: Duration,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended badly: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_call_whose_body_never_ends_is_answered_all_the_same() {
        let limit = |request, next| in_time(Duration::from_millis(20), request, next);
        let echo = axum::routing::post(|body: bytes::Bytes| async { body });
        let router = Router::new().route("/", echo).layer(axum::middleware::from_fn(limit));
        let never =
            Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        for (body, status) in [("whole".into(), 200), (never, 408)] {
            let request = Request::post("/").body(body).unwrap();
            let answer = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
        }
    }

    /// What a client is answered that sends this and nothing more; it waits until the cell ends the connection.
    async fn answered(sent: &str) -> String {
        let short = Duration::from_millis(50);
        let echo = async |body: Result<axum::Json<String>, axum::extract::rejection::JsonRejection>| {
            body.map_err(Refusal::from)
        };
        let plain = Plain::within(short, short, Router::new().route("/", axum::routing::post(echo)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Door::Plain(plain), stop.clone()));
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let ended = timeout(Duration::from_secs(20), client.read_to_string(&mut answer)).await;
        ended.expect("the connection is held for as long as the client likes").unwrap();
        stop.cancel();
        serving.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_sends_the_head_or_the_body_of_a_request_by_the_hour_is_not_waited_for() {
        let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 6\r\n";
        assert_eq!(answered(head).await, "");
        let slow = answered(&format!("{head}\r\n\"hal")).await;
        assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("api.too-slow"), "{slow}");
        let whole = answered(&format!("{head}\r\n\"half\"")).await;
        assert!(whole.starts_with("HTTP/1.1 200 ") && whole.ends_with("\"half\""), "{whole}");
    }

    #[test]
    fn of_too_many_strangers_the_oldest_gives_way_once_it_has_had_its_turn() {
        let guests = Arc::<Guests>::default();
        let mut inside: Vec<_> = (0..STRANGERS).map(|_| guests.stranger()).collect();
        let now = Instant::now();
        assert!(guests.crowd(now).is_some_and(|rest| rest <= TURN));
        assert!(inside.iter().all(|stranger| !stranger.gives_way.is_cancelled()));
        assert_eq!(guests.crowd(now + TURN), None);
        assert!(inside[0].gives_way.is_cancelled());
        assert!(inside[1..].iter().all(|stranger| !stranger.gives_way.is_cancelled()));
        inside.truncate(2);
        assert_eq!(guests.strangers.lock().unwrap().oldest_first.len(), 1);
    }

    #[tokio::test]
    async fn a_stranger_that_goes_makes_room_at_once() {
        let guests = Arc::<Guests>::default();
        let mut inside: Vec<_> = (0..STRANGERS).map(|_| guests.stranger()).collect();
        drop(inside.pop());
        timeout(TURN / 2, guests.room()).await.unwrap();
    }

    #[test]
    fn one_caller_has_so_many_places_and_takes_none_of_anothers() {
        let guests = Arc::<Guests>::default();
        let inside: Vec<_> = (0..OF_ONE).map(|_| guests.guest([1; 8]).unwrap()).collect();
        assert!(guests.guest([1; 8]).is_none());
        assert!(guests.guest([2; 8]).is_some());
        drop(inside);
        assert!(guests.guest([1; 8]).is_some());
        assert!(guests.known.lock().unwrap().is_empty());
    }
}
