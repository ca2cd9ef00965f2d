//! From available to in service: the instance, the image, the token, the certificate, the node.

use super::case::Case;
use crate::agents::Inviter;
use crate::base_cluster::{BaseCluster, is_decided};
use crate::error::coded;
use crate::join::{self, Token, node, request};
use crate::provision::{Deployment, Wait};
use crate::trouble::Trouble;
use domain::base_cluster::{BaseClusterSpec, Join};
use domain::instance::Approval;
use domain::lifecycle::MachineState;
use domain::{Goal, Instance, Kind, Outcome, Problem, Spec};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use store::MachineRecord;
use uuid::Uuid;

/// After so many failed deployments people are asked.
const DEPLOYMENTS: u32 = 3;

/// How long until the cluster is looked at again for a machine that boots.
const BOOTING: Duration = Duration::from_secs(2);

/// How often a node in service is looked at.
const WATCH: Duration = Duration::from_mins(5);

impl Case<'_> {
    /// Available → provisioning: from here on the machine belongs to a base cluster. The instance is stored before anything is
    /// asked of anybody, so that whatever is asked twice is known to be the same.
    pub(crate) async fn assign(&self) -> Result<Outcome, Trouble> {
        let Goal::Serve(cluster) = &self.goal else { return Ok(Outcome::Done) };
        if let Some(Spec::BaseCluster(spec)) =
            self.life.store.declaration(Kind::BaseCluster, cluster).await?.map(|declared| declared.spec)
        {
            self.service()?.accepts(&spec.image)?;
        }
        self.compliance().await?;
        let instance = Instance {
            id: Uuid::new_v4(),
            base_cluster: cluster.clone(),
            zone: self.zone().cloned(),
            since: self.now,
            token_made: None,
            deployed: None,
            approved: None,
            failures: 0,
            node_uid: None,
        };
        let data = json!({ "instance": instance.id, "baseCluster": cluster });
        self.advance(MachineState::Provisioning, |advance| {
            advance.instance = Some(Some(instance));
            advance.data = data;
        })
        .await
    }

    /// Provisioning → verifying: the image is on, and the machine has its certificate.
    pub(crate) async fn deploy(&self) -> Result<Outcome, Trouble> {
        let instance = self.instance()?;
        let name = &instance.base_cluster;
        let (spec, cluster) = self.needed_cluster(instance).await?;
        cluster.prepare(&spec).await?;
        let token = Token::of(&self.life.store, instance);
        if instance.token_made.is_none() {
            self.refuse_taken_name(&cluster).await?;
            let made = Instance { token_made: Some(self.now), ..instance.clone() };
            self.note(Some(&made), "machine.token-made", &json!({ "id": token.id, "baseCluster": name }))
                .await?;
            return Ok(Outcome::Advance(MachineState::Provisioning));
        }
        let until = self.token_until(instance, &spec);
        if instance.approved.is_none() {
            cluster.refuse_wrong_clock(&self.life.store).await?;
            self.keep_token(instance, &spec, &cluster, &token, until).await?;
        }
        if let Some(outcome) = self.run_image(instance, &spec, &cluster, &token).await? {
            return Ok(outcome);
        }
        if instance.deployed.is_none() {
            let running = Instance { deployed: Some(self.now), ..instance.clone() };
            self.note(Some(&running), "machine.deployed", &json!({ "instance": instance.id })).await?;
            return Ok(Outcome::Advance(MachineState::Provisioning));
        }
        self.join(instance, &spec, &cluster, &token, until).await
    }

    /// The machine has as long as its token lives from when its image runs. Until then the token is renewed, at half of its life,
    /// so that no outage of a provisioning service ends it.
    fn token_until(&self, instance: &Instance, spec: &BaseClusterSpec) -> Timestamp {
        let life = SignedDuration::from_mins(i64::from(spec.token_minutes));
        let after = |from: Timestamp| from.saturating_add(life).unwrap_or(Timestamp::MAX);
        if let Some(deployed) = instance.deployed {
            return after(deployed);
        }
        let kept = Kept::of(self.record).filter(|kept| kept.token == instance.id).map(|kept| kept.until);
        kept.filter(|until| until.duration_since(self.now) > life / 2).unwrap_or_else(|| after(self.now))
    }

    /// The token is in the base cluster, and its agent's is good. They are written when the end changes: the machine is looked at many
    /// times.
    async fn keep_token(
        &self,
        instance: &Instance,
        spec: &BaseClusterSpec,
        cluster: &BaseCluster,
        token: &Token,
        until: Timestamp,
    ) -> Result<(), Trouble> {
        let inviter = self.inviter(spec);
        let kept = Kept { token: instance.id, until, agent: inviter.is_some() };
        if until <= self.now || Kept::of(self.record) == Some(kept) {
            return Ok(());
        }
        cluster.ensure_token(self.machine(), token, until).await?;
        if let Some(inviter) = inviter {
            inviter.invite(&self.life.store, self.machine(), self.guard, instance).await?;
        }
        let work = serde_json::to_value(kept).ok();
        Ok(self.life.store.remember(self.machine(), self.guard, work.as_ref()).await?)
    }

    /// Who lets the machine's agent in, where it is given what it enrols with: no token is made that nobody gets.
    fn inviter(&self, spec: &BaseClusterSpec) -> Option<&Inviter> {
        self.life.inviter.as_ref().filter(|_| join::enrols_agent(&spec.join))
    }

    /// `None` once the image runs.
    async fn run_image(
        &self,
        instance: &Instance,
        spec: &BaseClusterSpec,
        cluster: &BaseCluster,
        token: &Token,
    ) -> Result<Option<Outcome>, Trouble> {
        let provisioner = self.service()?;
        let enrolment = self.inviter(spec).map(|inviter| inviter.file(&self.life.store, instance));
        let guest = join::Guest {
            machine: self.machine(),
            cluster: &instance.base_cluster,
            spec,
            token,
            ca: &cluster.ca,
            enrolment: enrolment.as_deref().map(String::as_str),
        };
        let user_data = join::render(&guest).map_err(|problem| Trouble::Lasting(*problem))?;
        let deployment = Deployment {
            instance: instance.id,
            image: spec.image.clone(),
            user_data,
            meta_data: json!({ "bailiwick": { "cell": self.life.cell, "base-cluster": instance.base_cluster } }),
        };
        let account = self.account().await?;
        let progress = match provisioner.deploy(&self.subject(&account), &deployment).await {
            Err(Trouble::Passing(problem)) if problem.code == "ironic.deploy-failed" => {
                return self.deploy_anew(instance, cluster, token, problem).await.map(Some);
            }
            progress => progress?,
        };
        Ok(self.go_on(progress).await?.err())
    }

    /// A deployment that failed is given up, and another one begun with a token of its own; after some, people are asked.
    async fn deploy_anew(
        &self,
        instance: &Instance,
        cluster: &BaseCluster,
        token: &Token,
        problem: Problem,
    ) -> Result<Outcome, Trouble> {
        cluster.forget_token(token).await?;
        if instance.failures + 1 >= DEPLOYMENTS {
            let problem = problem.hint(format!(
                "{DEPLOYMENTS} deployments failed; mend the cause, then `bailiwick release {0}` and provision it again",
                self.machine()
            ));
            return Err(Trouble::Lasting(problem));
        }
        let next = Instance {
            id: Uuid::new_v4(),
            since: self.now,
            token_made: None,
            deployed: None,
            approved: None,
            failures: instance.failures + 1,
            ..instance.clone()
        };
        let data = json!({ "problem": problem, "instance": instance.id, "next": next.id });
        self.note(Some(&next), "machine.deployment-failed", &data).await?;
        Err(Trouble::Passing(problem))
    }

    /// A node of this name that is not ours is not replaced; one that is left over from this machine goes.
    async fn refuse_taken_name(&self, cluster: &BaseCluster) -> Result<(), Trouble> {
        let Some(found) = cluster.node(self.machine()).await? else { return Ok(()) };
        let label = found
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("node-restriction.kubernetes.io/machine"));
        if label.is_some_and(|label| label == self.machine().as_str()) {
            return cluster.delete_node(self.machine()).await;
        }
        let message = format!("the base cluster has a Node/{} that is not this machine", self.machine());
        Err(Trouble::Passing(coded("node.name-taken", message)))
    }

    async fn join(
        &self,
        instance: &Instance,
        spec: &BaseClusterSpec,
        cluster: &BaseCluster,
        token: &Token,
        until: Timestamp,
    ) -> Result<Outcome, Trouble> {
        let waits = async |what: &str| {
            if instance.approved.is_none() && until <= self.now {
                let minutes = spec.token_minutes;
                let message = format!("Machine/{} did not join within {minutes} min", self.machine());
                return self.deploy_anew(instance, cluster, token, coded("join.token-late", message)).await;
            }
            let wait = Wait { what: what.to_owned(), poll: BOOTING, usual: Duration::from_mins(5) };
            Err(self.under_way(&wait))
        };
        // RKE2 signs the certificate itself: there is no request to approve, and verification is the gate.
        if !matches!(spec.join, Join::Rke2) {
            match self.approve(instance, cluster, token, until).await? {
                Approved::Before => {}
                Approved::Now => return Ok(Outcome::Advance(MachineState::Provisioning)),
                Approved::Denied(problem) => return self.quarantine(*problem).await,
                Approved::NotAsked => return waits("the machine boots and asks for its certificate").await,
            }
        }
        let node = cluster.node(self.machine()).await?;
        if node.is_none() {
            return waits("the kubelet registers its node").await;
        }
        cluster.forget_token(token).await?;
        self.advance(MachineState::Verifying, |_| {}).await
    }

    /// Looks through what is asked for with the machine's token.
    async fn approve(
        &self,
        instance: &Instance,
        cluster: &BaseCluster,
        token: &Token,
        until: Timestamp,
    ) -> Result<Approved, Trouble> {
        let requests = cluster.requests().await?;
        let user = token.user();
        let ours = requests.iter().filter(|asked| asked.spec.username.as_deref() == Some(&user));
        // What is approved already comes first: after a crash before it was recorded, it is the one.
        let mut ours: Vec<_> = ours.collect();
        ours.sort_by_key(|asked| !is_decided(asked));
        let mut approved = instance.approved.clone();
        for asked in ours {
            let expected = request::Expected {
                machine: self.machine(),
                state: self.record.state,
                token,
                until,
                approved: approved.as_ref(),
                now: self.now,
            };
            match request::decide(asked, &expected) {
                request::Decision::NotOurs => {}
                request::Decision::Approve(key) => {
                    let message =
                        format!("Machine/{} is being provisioned and asks for its own name", self.machine());
                    cluster.answer(asked, true, "BailiwickMachine", &message).await?;
                    let request = asked.metadata.name.clone().unwrap_or_default();
                    approved.get_or_insert(Approval { request, key, at: self.now });
                }
                request::Decision::Deny(problem) => {
                    cluster.answer(asked, false, "BailiwickDenied", &problem.message).await?;
                    cluster.forget_token(token).await?;
                    // Somebody has a certificate already: its node is found and deleted when the machine is wiped.
                    if let (None, Some(approval)) = (&instance.approved, approved) {
                        let data = json!({ "request": approval.request, "key": approval.key });
                        let next = Instance { approved: Some(approval), ..instance.clone() };
                        self.note(Some(&next), "machine.certificate-approved", &data).await?;
                    }
                    return Ok(Approved::Denied(problem));
                }
            }
        }
        match (&instance.approved, approved) {
            (Some(_), _) => Ok(Approved::Before),
            (None, Some(approval)) => {
                let data = json!({ "request": approval.request, "key": approval.key });
                let next = Instance { approved: Some(approval), ..instance.clone() };
                self.note(Some(&next), "machine.certificate-approved", &data).await?;
                // Used once.
                cluster.forget_token(token).await?;
                Ok(Approved::Now)
            }
            (None, None) => Ok(Approved::NotAsked),
        }
    }

    /// What is still asked for with a token that was used: the API server takes it for some seconds after it was deleted.
    async fn token_in_wrong_hands(
        &self,
        instance: &Instance,
        cluster: &BaseCluster,
    ) -> Result<Option<Box<Problem>>, Trouble> {
        let token = Token::of(&self.life.store, instance);
        let user = token.user();
        let requests = cluster.requests().await?;
        let open = requests.iter().filter(|asked| !is_decided(asked));
        for asked in open.filter(|asked| asked.spec.username.as_deref() == Some(&user)) {
            let expected = request::Expected {
                machine: self.machine(),
                state: self.record.state,
                token: &token,
                until: self.now,
                approved: instance.approved.as_ref(),
                now: self.now,
            };
            if let request::Decision::Deny(problem) = request::decide(asked, &expected) {
                cluster.answer(asked, false, "BailiwickDenied", &problem.message).await?;
                return Ok(Some(problem));
            }
        }
        Ok(None)
    }

    /// Verifying → in service: the node is the machine, and is given its labels.
    pub(crate) async fn verify(&self) -> Result<Outcome, Trouble> {
        let instance = self.instance()?;
        let (cluster, found) = self.found_node(instance).await?;
        if let Some(problem) = self.token_in_wrong_hands(instance, &cluster).await? {
            return self.quarantine(*problem).await;
        }
        let Some(found) = found else {
            let message = format!("Node/{} has gone before it was verified", self.machine());
            return Err(Trouble::Passing(coded("node.missing", message)));
        };
        let expected = self.expected(instance);
        if let Some(problem) = expected.differences(&found).into_iter().next() {
            return self.quarantine(problem).await;
        }
        if !node::is_ready(&found) {
            let message = format!("Node/{} is not Ready yet", self.machine());
            return Err(Trouble::UnderWay(coded("node.not-ready", message), BOOTING));
        }
        if let Some(patch) = expected.admission(&found) {
            cluster.patch_node(self.machine(), &patch).await?;
        }
        let uid = found.metadata.uid.clone();
        let verified = Instance { node_uid: uid.clone(), ..instance.clone() };
        self.advance(MachineState::InService, |advance| {
            advance.instance = Some(Some(verified));
            advance.data = json!({ "node": uid, "labels": expected.labels() });
        })
        .await
    }

    /// In service: the node is there, is still the one that was verified, and gets its renewed certificate.
    pub(crate) async fn watch(&self) -> Result<Outcome, Trouble> {
        let instance = self.instance()?;
        let (cluster, found) = self.found_node(instance).await?;
        if let Some(problem) = self.token_in_wrong_hands(instance, &cluster).await? {
            return self.quarantine(*problem).await;
        }
        let Some(found) = found else {
            let message = format!("Node/{} is not in the base cluster any more", self.machine());
            return Err(Trouble::Passing(coded("node.missing", message)));
        };
        let expected = self.expected(instance);
        if let Some(problem) = expected.differences(&found).into_iter().next() {
            return self.quarantine(problem).await;
        }
        if found.metadata.uid != instance.node_uid || node::is_unverified(&found) {
            let message =
                format!("Node/{} was deleted and registered anew since it was verified", self.machine());
            return self.quarantine(coded("node.replaced", message)).await;
        }
        if let Some(patch) = expected.admission(&found) {
            cluster.patch_node(self.machine(), &patch).await?;
        }
        for asked in cluster.requests().await?.iter().filter(|asked| !is_decided(asked)) {
            if request::is_renewal(asked, self.machine()) {
                cluster
                    .answer(asked, true, "BailiwickRenewal", "the verified node renews its certificate")
                    .await?;
            }
        }
        if let Some(waiting) = &self.record.waiting
            && waiting.problem.code.starts_with("node.")
        {
            self.life.store.clear_waiting(self.machine(), self.guard).await?;
        }
        Ok(Outcome::Done)
    }

    async fn found_node(
        &self,
        instance: &Instance,
    ) -> Result<(std::sync::Arc<BaseCluster>, Option<Node>), Trouble> {
        let (_, cluster) = self.needed_cluster(instance).await?;
        let found = cluster.node(self.machine()).await?;
        Ok((cluster, found))
    }

    fn expected<'s>(&'s self, instance: &'s Instance) -> node::Expected<'s> {
        node::Expected {
            machine: self.machine(),
            spec: &self.spec,
            site: &self.site,
            zone: self.zone(),
            uuid: self.record.uuid.as_deref(),
            instance,
        }
    }
}

/// How often a node in service is looked at.
pub(crate) fn watch_again() -> Duration {
    WATCH
}

/// The token that is in the base cluster, as a deployment remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Of which instance.
    token: Uuid,
    /// When it ends.
    until: Timestamp,
    /// Whether the machine's agent has a token too.
    agent: bool,
}

impl Kept {
    fn of(record: &MachineRecord) -> Option<Self> {
        record.work.as_ref().and_then(|work| Self::deserialize(work).ok())
    }
}

enum Approved {
    /// In an earlier step.
    Before,
    /// In this one.
    Now,
    /// Nothing was asked for yet.
    NotAsked,
    /// What was asked for is not the machine's.
    Denied(Box<Problem>),
}
