//! What the agent proves itself with to a real API server.

use agent::run::api_server;
use serde_json::{Value, json};
use std::path::Path;
use testbed::ControlPlane;

/// An API server with a claim, an account of the agent's, and a user who may do the same.
async fn server_with_claim() -> ControlPlane {
    let plane = ControlPlane::options().scheduler(false).start().await.unwrap();
    let manifests = testbed::repository_root().join("manifests/agent");
    for name in ["account.yaml", "clusterrole.yaml"] {
        let path = manifests.join(name).display().to_string();
        plane.kubectl(&["apply", "-f", &path], None).await.unwrap().success().unwrap();
    }
    let user = ["create", "clusterrolebinding", "agent", "--clusterrole=bailiwick-agent", "--user=agent"];
    plane.kubectl(&user, None).await.unwrap().success().unwrap();
    plane.apply(&crate::stage::claim("claimed")).await.unwrap();
    plane
}

/// The kubeconfig of that user with another way to prove who one is.
fn kubeconfig(plane: &ControlPlane, path: &Path, user: &Value) {
    let own = std::fs::read_to_string(plane.kubeconfig_for("agent", &[]).unwrap()).unwrap();
    let mut config: Value = serde_json::from_str(&own).unwrap();
    config["users"][0]["user"] = user.clone();
    std::fs::write(path, config.to_string()).unwrap();
}

async fn token(plane: &ControlPlane) -> String {
    let create = ["create", "token", "bailiwick-agent", "--namespace=bailiwick-system"];
    plane.kubectl(&create, None).await.unwrap().success().unwrap().trim().to_owned()
}

async fn reads(path: &Path) -> Result<bool, String> {
    Ok(api_server(Some(path)).unwrap().claim("default", "claimed").await?.is_some())
}

#[tokio::test]
async fn claims_are_read_by_token_or_certificate_in_the_kubeconfig_or_in_files_beside_it() {
    use base64::Engine as _;
    let plane = server_with_claim().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let own = std::fs::read_to_string(plane.kubeconfig_for("agent", &[]).unwrap()).unwrap();
    let certificate = serde_json::from_str::<Value>(&own).unwrap()["users"][0]["user"].clone();
    for (name, key) in [("agent.crt", "client-certificate-data"), ("agent.key", "client-key-data")] {
        let data = certificate[key].as_str().unwrap();
        let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        std::fs::write(file(name), data).unwrap();
    }
    let token = token(&plane).await;
    std::fs::write(file("token"), format!("{token}\n")).unwrap();
    for user in [
        json!({ "token": token }),
        json!({ "tokenFile": "token" }),
        json!({ "tokenFile": file("token"), "token": "an old one" }),
        certificate,
        json!({ "client-certificate": "agent.crt", "client-key": "agent.key" }),
    ] {
        kubeconfig(&plane, &file("kubeconfig"), &user);
        assert_eq!(reads(&file("kubeconfig")).await, Ok(true), "{user}");
    }
    kubeconfig(&plane, &file("kubeconfig"), &json!({ "token": "somebody else's" }));
    assert!(reads(&file("kubeconfig")).await.unwrap_err().contains("401"));
}

#[tokio::test]
async fn a_token_that_is_renewed_in_its_file_is_taken_at_once() {
    let plane = server_with_claim().await;
    let folder = tempfile::tempdir().unwrap();
    let (path, token_file) = (folder.path().join("kubeconfig"), folder.path().join("token"));
    std::fs::write(&token_file, "expired").unwrap();
    kubeconfig(&plane, &path, &json!({ "tokenFile": "token" }));
    let claims = api_server(Some(&path)).unwrap();
    assert!(claims.claim("default", "claimed").await.unwrap_err().contains("401"));
    std::fs::write(&token_file, token(&plane).await).unwrap();
    assert!(claims.claim("default", "claimed").await.unwrap().is_some());
}
