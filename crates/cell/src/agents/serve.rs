//! The calls of agents: enrol, renew, report.

use super::authority::{self, Authority, Named};
use super::pace::Pace;
use super::permits::{Signer, permits};
use super::request::AgentKey;
use crate::api::problem::{self, Refusal};
use crate::error::{CellError, coded};
use crate::gpus;
use crate::listen::Peer;
use crate::settings::AgentSettings;
use crate::world::Snapshots;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::routing::post;
use axum::{Json, Router};
use domain::agent::{
    self, AgentToken, EnrolAnswer, EnrolRequest, MOST_PREPARED, MOST_PROBLEMS, MOST_SCRUBS, RenewAnswer,
    RenewRequest, Report, ReportAnswer, ScrubRecord,
};
use domain::{Diagnose as _, Name};
use http::StatusCode;
use http::request::Parts;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::Notify;

/// How long after its end a certificate may still be renewed: a cell may be away for longer than certificates live.
const GRACE: Duration = Duration::from_hours(30 * 24);

/// A version, or a boot ID, in bytes at most.
const LONGEST_TEXT: usize = 128;

/// What the handlers share.
pub(super) struct Agents {
    pub store: Store,
    pub authority: Arc<Authority>,
    pub signer: Signer,
    pub snapshots: Snapshots,
    pub settings: AgentSettings,
    /// Silence that counts.
    pub patience: Duration,
    /// By enrolment: whoever has a certificate of an earlier one takes nothing from the agent that is there now.
    pub calls: Pace<[u8; 8]>,
    /// By machine.
    pub enrolments: Pace<Name>,
    /// Changes that reports tell of, by enrolment.
    pub changes: Pace<[u8; 8]>,
    pub urgent: Arc<Notify>,
}

type Shared = State<Arc<Agents>>;
type Answer<T> = Result<Json<T>, Refusal>;
type Body<T> = Result<Json<T>, JsonRejection>;

pub(super) fn router(agents: Agents) -> Router {
    Router::new()
        .route(agent::ENROL, post(enrol))
        .route(agent::RENEW, post(renew))
        .route(agent::REPORT, post(report))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(DefaultBodyLimit::max(agent::LARGEST_CALL))
        .with_state(Arc::new(agents))
}

/// An agent whose enrolment holds. Its certificate may have ended.
struct Enrolled {
    named: Named,
    /// The database's time.
    now: Timestamp,
}

/// An agent whose certificate lets it in.
struct Caller(Enrolled);

fn refuse(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(status, coded(code, message))
}

impl FromRequestParts<Arc<Agents>> for Enrolled {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, agents: &Arc<Agents>) -> Result<Self, Refusal> {
        let certificate = parts.extensions.get::<Peer>().and_then(|peer| peer.0.as_ref());
        let named = certificate.and_then(authority::read).ok_or_else(|| {
            refuse(
                StatusCode::UNAUTHORIZED,
                "agent.no-certificate",
                "the call comes without a certificate of an agent",
            )
        })?;
        let calls = agents.calls.take(named.enrolment.bytes(), Instant::now());
        calls.map_err(|wait| too_often(&named.machine, wait))?;
        let now = agents.store.admit_agent(&named.machine, named.enrolment).await?;
        Ok(Self { named, now })
    }
}

fn too_often(machine: &Name, wait: Duration) -> Refusal {
    let message = format!("the agent of {machine} calls too often");
    refuse(StatusCode::TOO_MANY_REQUESTS, "agent.too-often", message).retry_after(wait)
}

impl Enrolled {
    /// Refuses a certificate that ended longer ago than this.
    fn within(&self, grace: Duration) -> Result<(), Refusal> {
        let end = self.named.not_after.checked_add(grace).unwrap_or(Timestamp::MAX);
        if self.now < end {
            return Ok(());
        }
        let message = format!("the certificate of the agent of {} has ended", self.named.machine);
        let problem = coded("agent.certificate-ended", message)
            .difference(format!("valid until {}", self.named.not_after), format!("valid at {}", self.now));
        Err(Refusal::new(StatusCode::UNAUTHORIZED, problem))
    }
}

impl FromRequestParts<Arc<Agents>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, agents: &Arc<Agents>) -> Result<Self, Refusal> {
        let enrolled = Enrolled::from_request_parts(parts, agents).await?;
        enrolled.within(Duration::ZERO)?;
        Ok(Self(enrolled))
    }
}

impl From<CellError> for Refusal {
    fn from(error: CellError) -> Self {
        tracing::error!(code = error.code(), "{error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.problem())
    }
}

async fn enrol(State(agents): Shared, body: Body<EnrolRequest>) -> Answer<EnrolAnswer> {
    let Json(request) = body?;
    let unknown = |_| store::StoreError::from(store::AgentError::TokenUnknown);
    let token: AgentToken = request.token.parse().map_err(unknown)?;
    // Who has no token that is good is refused before anything is computed, and before anybody waits for a place to write.
    let machine = agents.store.agent_token(&token.digest()).await?;
    agents.enrolments.take(&machine, Instant::now()).map_err(|wait| too_often(&machine, wait))?;
    let key = key(&request.csr)?;
    let uuid = request.system_uuid.as_deref();
    let (machine, enrolment) = agents.store.enrol_agent(&token.digest(), &key.digest(), uuid).await?;
    let now = agents.store.clock().await?;
    let life = agents.settings.certificate_life;
    let certificate = agents.authority.agent(&key, &machine, enrolment, now, life)?;
    tracing::info!(%machine, "an agent is enrolled");
    Ok(Json(EnrolAnswer {
        certificate,
        ca: agents.authority.pem().to_owned(),
        machine,
        permit_key: agents.signer.key(),
    }))
}

async fn renew(State(agents): Shared, enrolled: Enrolled, body: Body<RenewRequest>) -> Answer<RenewAnswer> {
    enrolled.within(GRACE)?;
    let Json(request) = body?;
    let (named, life) = (&enrolled.named, agents.settings.certificate_life);
    let key = key(&request.csr)?;
    let certificate = agents.authority.agent(&key, &named.machine, named.enrolment, enrolled.now, life)?;
    Ok(Json(RenewAnswer { certificate }))
}

async fn report(State(agents): Shared, Caller(enrolled): Caller, body: Body<Report>) -> Answer<ReportAnswer> {
    let Json(report) = body?;
    check(&report)?;
    let Enrolled { named, now } = enrolled;
    let (who, present) = (named.enrolment.bytes(), Instant::now());
    let may_tell = agents.changes.may(who, present).is_ok();
    let reported = agents
        .store
        .record_report(&named.machine, named.enrolment, &report, agents.patience, may_tell)
        .await?;
    if reported.told {
        // Whether there was room was asked before; calls that came at once may tell of one more.
        let _ = agents.changes.take(who, present);
    }
    if reported.changed {
        agents.urgent.notify_one();
    }
    let world = agents.snapshots.get().await?;
    let seen = gpus::newly_seen(&world, &named.machine);
    if !seen.is_empty() {
        agents.store.accept_new_gpus(&named.machine, &seen).await?;
    }
    let permits = permits(&world, &named.machine, now, agents.settings.permit_life);
    Ok(Json(ReportAnswer {
        probe_wanted: reported.probe_wanted,
        kept: reported.kept,
        permits: agents.signer.sign(&permits)?,
        next_report_seconds: agents.settings.report_interval.as_secs().max(1),
    }))
}

fn key(csr: &str) -> Result<AgentKey, Refusal> {
    AgentKey::of_request(csr).map_err(|problem| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, problem))
}

/// What no agent of ours says.
fn check(report: &Report) -> Result<(), Refusal> {
    let malformed = |why: &str| {
        refuse(StatusCode::UNPROCESSABLE_ENTITY, "agent.report-malformed", format!("the report {why}"))
    };
    if report.version.len() > LONGEST_TEXT || report.boot_id.len() > LONGEST_TEXT {
        return Err(malformed("has a version or boot ID that is none"));
    }
    let lists = [
        (report.prepared.len(), MOST_PREPARED),
        (report.problems.len(), MOST_PROBLEMS),
        (report.scrubs.len(), MOST_SCRUBS),
    ];
    if lists.into_iter().any(|(length, most)| length > most) {
        return Err(malformed("lists more than an agent has to tell"));
    }
    if report.scrubs.iter().any(ScrubRecord::is_excessive) {
        return Err(malformed("tells more of a scrub than an agent does"));
    }
    if report.probe.as_ref().is_some_and(|probe| probe.is_excessive()) {
        return Err(malformed("tells of more than a host has"));
    }
    if report.probe.as_ref().is_some_and(|probe| probe.digest() != report.digest) {
        return Err(malformed("has another probe than its digest says"));
    }
    Ok(())
}
