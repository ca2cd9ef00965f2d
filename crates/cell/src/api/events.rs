//! What happened, as pages and as a stream.

use super::access::Caller;
use super::problem::Refusal;
use super::types::{After, EventItem, Page};
use super::{Answer, Api, Shared};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use domain::principal::Permission;
use futures_util::Stream;
use http::HeaderMap;
use std::convert::Infallible;
use std::sync::Arc;
use store::Store;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Events read at once while streaming.
const BATCH: u32 = 500;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(events)).routes(routes!(watch))
}

impl From<store::Event> for EventItem {
    fn from(event: store::Event) -> Self {
        let store::Event { id, at, kind, subject, actor, data } = event;
        Self { id, at, kind, subject, actor, data }
    }
}

/// Events, oldest first.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(After), responses((status = 200, body = Page<EventItem>)))]
async fn events(
    State(api): Shared,
    caller: Caller,
    after: Result<Query<After>, QueryRejection>,
) -> Answer<Page<EventItem>> {
    caller.needs(Permission::Audit)?;
    let Query(After { after, limit }) = after?;
    let limit = limit.unwrap_or(500);
    if !(1..=1000).contains(&limit) {
        return Err(Refusal::bad_request(format!("limit is {limit}; it must be 1 to 1000")));
    }
    let from = start(&api.store, after.as_deref()).await?;
    let items: Vec<EventItem> =
        api.store.events(from, limit).await?.into_iter().map(EventItem::from).collect();
    let next = items.last().filter(|_| items.len() == limit as usize).map(|event| event.id.to_string());
    Ok(Json(Page { items, next }))
}

async fn start(store: &Store, after: Option<&str>) -> Result<i64, Refusal> {
    match after {
        None => Ok(0),
        Some("latest") => Ok(store.last_event().await?),
        Some(id) => id.parse().map_err(|_| {
            Refusal::bad_request(format!("after is {id:?}; it must be an event's id or `latest`"))
        }),
    }
}

/// Events as they happen (server-sent events: `id`, `event` = kind, `data` = the event). `Last-Event-ID` takes a stream up again.
#[utoipa::path(get, path = "/api/v1/watch", tag = "events", params(After),
    responses((status = 200, content_type = "text/event-stream", body = EventItem)))]
async fn watch(
    State(api): Shared,
    caller: Caller,
    headers: HeaderMap,
    after: Result<Query<After>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    caller.needs(Permission::Audit)?;
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut last = start(&api.store, resumed.or(after?.0.after).as_deref()).await?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut changed = api.store.changed();
        loop {
            changed.mark_unchanged();
            let Ok(events) = api.store.events(last, BATCH).await else { return };
            let whole = events.len() < BATCH as usize;
            for event in events {
                last = event.id;
                let item = EventItem::from(event);
                let Ok(message) = Event::default().id(item.id.to_string()).event(&item.kind).json_data(&item)
                else {
                    return;
                };
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            if whole {
                tokio::select! {
                    () = api.stop.cancelled() => return,
                    () = sender.closed() => return,
                    changes = changed.changed() => if changes.is_err() { return },
                }
            }
        }
    });
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()))
}
