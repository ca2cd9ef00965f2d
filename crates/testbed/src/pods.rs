//! What tests ask of a cluster again and again: objects, and what pods on real nodes see.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{ControlPlane, Error, Node};

/// Generous: the machine may be compiling at the same time.
const PATIENCE: Duration = Duration::from_mins(2);
const AGAIN: Duration = Duration::from_millis(200);

impl ControlPlane {
    /// Applies an object as the administrator.
    pub async fn apply(&self, object: &Value) -> Result<(), Error> {
        let apply = ["apply", "--server-side", "--filename=-"];
        self.kubectl(&apply, Some(&object.to_string())).await?.success()?;
        Ok(())
    }

    /// An object, of the namespace `default` if it is in one; `null` where there is none.
    pub async fn object(&self, kind: &str, name: &str) -> Result<Value, Error> {
        let of_kind = match kind {
            "node" => "/api/v1/nodes",
            "pod" => "/api/v1/namespaces/default/pods",
            "resourceclaim" => "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims",
            "resourceslice" => "/apis/resource.k8s.io/v1/resourceslices",
            _ => return self.object_by_kubectl(kind, name).await,
        };
        self.get(&format!("{of_kind}/{name}")).await
    }

    async fn object_by_kubectl(&self, kind: &str, name: &str) -> Result<Value, Error> {
        let answer = self.kubectl(&["get", kind, name, "--ignore-not-found", "--output=json"], None).await?;
        Ok(serde_json::from_str(&answer.success()?).unwrap_or_default())
    }

    /// Waits until an object is so, and gives it. The error tells how it was last, and its events.
    pub async fn until(
        &self,
        kind: &str,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Error> {
        let start = Instant::now();
        loop {
            let found = self.object(kind, name).await?;
            if wanted(&found) {
                return Ok(found);
            }
            if start.elapsed() > PATIENCE {
                let events = self.events(name).await?.join("\n");
                return Err(Error::Never {
                    what: format!("{kind} {name}"),
                    last: format!("{found:#}\n{events}"),
                });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Waits until an event about the object of this name says so, and gives its message.
    pub async fn until_told(&self, name: &str, what: &str) -> Result<String, Error> {
        let start = Instant::now();
        loop {
            let events = self.events(name).await?;
            if let Some(event) = events.iter().find(|event| event.contains(what)) {
                return Ok(event.clone());
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::Never { what: format!("`{what}` about {name}"), last: events.join("\n") });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The messages of all events about objects of this name.
    async fn events(&self, name: &str) -> Result<Vec<String>, Error> {
        let about = format!("fieldSelector=involvedObject.name={name}");
        let list = self.get(&format!("/api/v1/namespaces/default/events?{about}")).await?;
        let message = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
        Ok(list["items"].as_array().into_iter().flatten().map(message).collect())
    }
}

impl Node {
    /// What the container `main` of a pod of the namespace `default` printed, once its last line is `end`.
    pub async fn output(&self, pod: &Value) -> Result<Vec<String>, Error> {
        let metadata = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        let (name, uid) = (metadata("name"), metadata("uid"));
        let log = self.pod_logs_dir().join(format!("default_{name}_{uid}/main/0.log"));
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            // `TIME stdout F LINE`
            let lines = text.lines().filter_map(|line| Some(line.splitn(4, ' ').nth(3)?.to_owned()));
            let lines: Vec<_> = lines.collect();
            if lines.last().is_some_and(|line| line == "end") {
                return Ok(lines);
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::Never { what: format!("the output of pod {name}"), last: text });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Makes character devices like `/dev/null` with the names of NVIDIA's: `nvidiactl`, and one for each GPU.
pub fn make_gpu_files(directory: &Path, gpus: usize) -> Result<(), Error> {
    for name in (0..gpus).map(|minor| format!("nvidia{minor}")).chain(["nvidiactl".to_owned()]) {
        let path = directory.join(name);
        let made = Command::new("mknod").arg(&path).args(["c", "1", "3"]).output();
        let made = made.map_err(|source| Error::Spawn { program: "mknod".to_owned(), source })?;
        if !made.status.success() {
            return Err(Error::Command {
                command: format!("mknod {}", path.display()),
                status: made.status.to_string(),
                stderr: String::from_utf8_lossy(&made.stderr).into_owned(),
            });
        }
    }
    Ok(())
}
