//! Changes of accounts, and of what a bootable machine has: virtual media, boot override, settings, clock; restarts of its BMC.

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::accounts::{Role, Who};
use crate::behaviour::{Behaviour, BootResource, TaskLocation};
use crate::bmc::Bmc;
use crate::boot;
use crate::bootable::BootPaths;
use crate::handler::{Answer, Refusal};
use crate::machine::TASKS;
use crate::media;
use crate::messages;
use crate::settings;

const INSERT: &str = "/Actions/VirtualMedia.InsertMedia";
const EJECT: &str = "/Actions/VirtualMedia.EjectMedia";
const RESTART: &str = "/Actions/Manager.Reset";

/// Why this client may not do this, if it may not: a password that must be changed first (quirk 4), or a role without the privilege.
pub(crate) fn forbidden(
    bmc: &Bmc,
    behaviour: &Behaviour,
    who: &Who,
    method: &Method,
    path: &str,
) -> Option<Value> {
    let accounts = bmc.tree().accounts_path();
    let account = accounts.and_then(|accounts| path.strip_prefix(accounts));
    let own = account.and_then(|rest| rest.strip_prefix('/')) == Some(who.id.as_str());
    if behaviour.password_change_required && !who.changed && !own {
        return Some(messages::password_change_required(&bmc.username()));
    }
    let needed = match *method {
        Method::GET | Method::HEAD => Role::ReadOnly,
        Method::PATCH if own => Role::ReadOnly,
        Method::DELETE if path.starts_with(bmc.tree().sessions_path()) => Role::ReadOnly,
        _ if account.is_some() => Role::Administrator,
        _ => Role::Operator,
    };
    (who.role < needed).then(messages::insufficient_privilege)
}

/// Whether a POST to this path is one of these.
pub(crate) fn takes(bmc: &Bmc, path: &str) -> bool {
    if bmc.tree().accounts_path() == Some(path) {
        return true;
    }
    let Some(paths) = bmc.tree().boot_paths() else { return false };
    path.strip_suffix(RESTART) == Some(&paths.manager)
        || slot_of(paths, path, INSERT).or_else(|| slot_of(paths, path, EJECT)).is_some()
}

/// Answers a POST that [`takes`] has said yes to; `body` is what was sent, if anything was.
pub(crate) fn post(bmc: &Bmc, behaviour: &Behaviour, path: &str, body: Option<&Value>) -> Answer {
    let empty = json!({});
    let given = body.unwrap_or(&empty);
    if bmc.tree().accounts_path() == Some(path) {
        let created = bmc.access.accounts(|accounts| accounts.create(given, behaviour.accounts));
        return answer(created, |id| {
            let account = format!("{path}/{id}");
            let value = bmc.resource(&account).unwrap_or_default();
            Answer::json(StatusCode::CREATED, &value).with(header::LOCATION, account)
        });
    }
    let Some(paths) = bmc.tree().boot_paths() else { return not_found(path) };
    if path.strip_suffix(RESTART) == Some(&paths.manager) {
        return match given["ResetType"].as_str().unwrap_or("GracefulRestart") {
            "ForceRestart" | "GracefulRestart" => Answer::new(StatusCode::NO_CONTENT, "").then_restart(),
            other => {
                let refused = messages::parameter_not_supported(other, "ResetType");
                Answer::json(StatusCode::BAD_REQUEST, &refused)
            }
        };
    }
    if behaviour.virtual_media.patch_only {
        return not_found(path);
    }
    let style = &behaviour.virtual_media;
    let (slot, change) = if let Some(slot) = slot_of(paths, path, INSERT) {
        (slot, media::insert(given, style))
    } else if let Some(slot) = slot_of(paths, path, EJECT) {
        let refused = style.eject_needs_body && body.is_none();
        (slot, if refused { Err(messages::malformed()) } else { Ok(media::Change::Eject) })
    } else {
        return not_found(path);
    };
    answer(change.map_err(bad_request), |change| {
        bmc.change_media(slot, change);
        Answer::new(StatusCode::NO_CONTENT, "")
    })
}

fn answer<T>(outcome: Result<T, Refusal>, done: impl FnOnce(T) -> Answer) -> Answer {
    match outcome {
        Ok(value) => done(value),
        Err((status, body)) => Answer::json(status, &body),
    }
}

fn bad_request(body: Value) -> Refusal {
    (StatusCode::BAD_REQUEST, body)
}

/// Answers a DELETE of an account; `None` where it is of something else.
pub(crate) fn delete(bmc: &Bmc, behaviour: &Behaviour, path: &str) -> Option<Answer> {
    let id = account_of(bmc, path)?;
    let deleted = bmc.access.accounts(|accounts| accounts.delete(id, behaviour.accounts));
    Some(answer(deleted, |()| Answer::new(StatusCode::NO_CONTENT, "")))
}

/// The id of the account at this path.
fn account_of<'a>(bmc: &Bmc, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(bmc.tree().accounts_path()?)?.strip_prefix('/')
}

fn slot_of<'a>(paths: &'a BootPaths, path: &str, action: &str) -> Option<&'a str> {
    let slot = path.strip_suffix(action)?;
    paths.media.iter().map(String::as_str).find(|known| *known == slot)
}

fn not_found(path: &str) -> Answer {
    Answer::json(StatusCode::NOT_FOUND, &messages::not_found(path))
}

/// Answers a PATCH of these resources; `None` where it is an ordinary one, to be merged.
pub(crate) fn patch(bmc: &Bmc, behaviour: &Behaviour, path: &str, body: &Value) -> Option<Answer> {
    if let Some(id) = account_of(bmc, path) {
        let changed = bmc.access.accounts(|accounts| accounts.patch(id, body, behaviour.accounts));
        return Some(answer(changed, |()| shown(bmc, path)));
    }
    let paths = bmc.tree().boot_paths()?;
    if let Some(slot) = paths.media.iter().find(|slot| *slot == path) {
        let change = media::patch(body, &behaviour.virtual_media).map_err(bad_request);
        return Some(answer(change, |change| {
            bmc.change_media(slot, change);
            shown(bmc, path)
        }));
    }
    if path == paths.bios_settings {
        return Some(set_bios(bmc, behaviour, paths, body));
    }
    let checked = if path == paths.bios {
        let refused =
            body.get("Attributes").map(|_| bad_request(messages::property_not_writable("Attributes")));
        refused.map_or(Ok(()), Err)
    } else if path == paths.system {
        check_system(bmc, behaviour, path, body)
    } else if path == paths.system_settings {
        check_settings(bmc, behaviour, path, body)
    } else if path == paths.manager {
        set_clock(bmc, body)
    } else {
        return None;
    };
    checked.err().map(|(status, body)| Answer::json(status, &body))
}

/// Takes BIOS attributes for the next reset.
fn set_bios(bmc: &Bmc, behaviour: &Behaviour, paths: &BootPaths, body: &Value) -> Answer {
    let known = bmc.resource(&paths.bios).map(|mut bios| bios["Attributes"].take()).unwrap_or_default();
    let style = behaviour.settings;
    let attributes = settings::attributes(body, &known, style).map_err(bad_request);
    answer(attributes, |attributes| {
        let Some(task) = bmc.settings.change(attributes, style) else {
            return shown(bmc, &paths.bios_settings);
        };
        let accepted = Answer::new(StatusCode::ACCEPTED, "");
        match style.tasks.unwrap_or_default().location {
            TaskLocation::Given => accepted.with(header::LOCATION, format!("{TASKS}/{task}")),
            TaskLocation::Empty => accepted.with(header::LOCATION, ""),
            TaskLocation::Absent => accepted,
        }
    })
}

fn check_system(bmc: &Bmc, behaviour: &Behaviour, path: &str, body: &Value) -> Result<(), Refusal> {
    let Some(change) = body.get("Boot") else { return Ok(()) };
    if behaviour.boot.resource == BootResource::Settings {
        return Err((StatusCode::BAD_REQUEST, messages::property_not_writable("Boot")));
    }
    check_boot(bmc, behaviour, path, change)
}

fn check_settings(bmc: &Bmc, behaviour: &Behaviour, path: &str, body: &Value) -> Result<(), Refusal> {
    let Some(change) = body.get("Boot") else { return Ok(()) };
    if behaviour.boot.resource == BootResource::SystemNotSettings {
        return Err((StatusCode::BAD_REQUEST, messages::property_not_writable("Boot")));
    }
    if behaviour.settings.apply_time_required && body.get("@Redfish.SettingsApplyTime").is_none() {
        let refused = messages::property_missing("@Redfish.SettingsApplyTime");
        return Err((StatusCode::BAD_REQUEST, refused));
    }
    check_boot(bmc, behaviour, path, change)
}

fn check_boot(bmc: &Bmc, behaviour: &Behaviour, path: &str, change: &Value) -> Result<(), Refusal> {
    let now = bmc.resource(path).map(|mut value| value["Boot"].take()).unwrap_or_default();
    boot::check(change, &now, &behaviour.boot).map_err(|refused| (StatusCode::BAD_REQUEST, refused))
}

/// A manager's `DateTime` is what its clock is set to; it is shown as the clock goes on.
fn set_clock(bmc: &Bmc, body: &Value) -> Result<(), Refusal> {
    let Some(time) = body.get("DateTime") else { return Ok(()) };
    let parsed = time.as_str().and_then(|text| text.parse().ok());
    let time = parsed
        .ok_or_else(|| (StatusCode::BAD_REQUEST, messages::property_value("DateTime", &time.to_string())))?;
    bmc.clock.set(time);
    Ok(())
}

fn shown(bmc: &Bmc, path: &str) -> Answer {
    match bmc.resource(path) {
        Some(value) => Answer::json(StatusCode::OK, &value),
        None => not_found(path),
    }
}

/// What `Allow` says of this resource, where clients go by it: sushy patches virtual media only where PATCH is in it.
pub(crate) fn allow(bmc: &Bmc, behaviour: &Behaviour, path: &str) -> Option<&'static str> {
    let slot = bmc.tree().boot_paths()?.media.iter().any(|slot| slot == path);
    (slot && behaviour.virtual_media.patch_only).then_some("GET, HEAD, PATCH")
}
