//! What only a simulated Ironic does on demand.

use std::time::{Duration, Instant};

use bailiwick_ironic::{Directory, Error, Progress, Task, Wish, step};
use sim::ironic::{Delays, Effect, IronicEndpoint, NodeFault, Operation, ProvisionState as S, Verb};
use sim::{Action, Fault};

use crate::site::{Site, bring, deployed, deployment, machine, reach, task};

/// Steps until the wish holds, with a caller that is killed again and again: each step is dropped after a while that
/// differs, wherever it is then.
async fn reach_though_killed(site: &Site, task: &Task, seed: u64) {
    let deadline = Instant::now() + Duration::from_mins(2);
    let (client, directory) = (site.client(), Directory::default());
    for kills in seed.. {
        assert!(Instant::now() < deadline, "not reached in time");
        let patience = Duration::from_millis(1 << (kills % 8));
        match tokio::time::timeout(patience, step(&client, &directory, task)).await {
            Err(_) => {}
            Ok(Ok(Progress::Reached(_))) => return,
            Ok(Ok(_)) => tokio::task::yield_now().await,
            Ok(Err(error)) if error.is_passing() => tokio::task::yield_now().await,
            Ok(Err(error)) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_are_killed_all_the_time_deploy_every_machine_once() {
    let delays = Delays::uniform(Duration::from_millis(3));
    let ironic = IronicEndpoint::builder().delays(delays).start().unwrap();
    let url = ironic.url().to_owned();
    let callers = (0..24_u64).map(|seed| {
        let url = url.clone();
        tokio::spawn(async move {
            let (site, machine, deployment) = (Site::new(&url), machine(), deployment());
            reach_though_killed(&site, &task(&machine, Wish::Registered), seed).await;
            // Two replicas that both believe that the machine is theirs.
            let deploy = task(&machine, deployed(&deployment));
            tokio::join!(
                reach_though_killed(&site, &deploy, seed),
                reach_though_killed(&site, &deploy, seed + 3000)
            );
            machine.uuid
        })
    });
    let callers: Vec<_> = callers.collect();
    for caller in callers {
        let uuid = caller.await.unwrap().to_string();
        assert_eq!(ironic.deploys(&uuid), 1);
        assert_eq!(ironic.node(&uuid).unwrap().provision_state, S::Active);
    }
    assert_eq!(ironic.nodes().len(), 24);
}

#[tokio::test]
async fn though_every_answer_is_lost_nothing_is_done_twice() {
    let ironic = IronicEndpoint::builder().delays(Delays::uniform(Duration::from_millis(5))).start().unwrap();
    ironic.add_node_fault(NodeFault::new(Effect::AnswerLost));
    let (site, machine, deployment) = (Site::new(ironic.url()), machine(), deployment());
    for wish in [Wish::Registered, Wish::Inspected { after: None }, deployed(&deployment), Wish::Released] {
        let task = task(&machine, wish);
        let deadline = Instant::now() + Duration::from_mins(1);
        while let Err(error) = reach(&site, &task).await {
            assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
            assert!(Instant::now() < deadline);
        }
    }
    let uuid = machine.uuid.to_string();
    assert_eq!((ironic.deploys(&uuid), ironic.verbs(&uuid, Verb::Deleted).accepted), (1, 1));
    assert_eq!((ironic.nodes().len(), ironic.node(&uuid).unwrap().macs.len()), (1, 1));
}

#[tokio::test]
async fn a_deploy_failure_without_a_reason_is_a_failure() {
    let ironic = IronicEndpoint::builder().start().unwrap();
    let (site, machine) = (Site::new(ironic.url()), machine());
    bring(&site, &machine, Wish::Available).await;
    ironic.add_node_fault(NodeFault::fails(Operation::Deploy, None).times(1));
    let error = reach(&site, &task(&machine, deployed(&deployment()))).await.unwrap_err();
    assert_eq!(error.code(), "ironic.deploy-failed");
    bring(&site, &machine, deployed(&deployment())).await;
}

#[tokio::test]
async fn a_node_that_another_conductor_holds_is_waited_for() {
    let ironic = IronicEndpoint::builder().start().unwrap();
    let (site, machine) = (Site::new(ironic.url()), machine());
    bring(&site, &machine, Wish::Registered).await;
    ironic.add_node_fault(NodeFault::new(Effect::Locked).times(3));
    bring(&site, &machine, Wish::Available).await;
}

#[tokio::test]
async fn trouble_of_the_server_passes() {
    let ironic = IronicEndpoint::builder().start().unwrap();
    let (site, machine) = (Site::new(ironic.url()), machine());
    for status in [500, 502, 503, 504] {
        ironic.faults().add(Fault::on("**", Action::status(status, "<html>later</html>")).times(2));
        bring(&site, &machine, Wish::Registered).await;
    }
}

#[tokio::test]
async fn a_machine_from_nothing_to_active_takes_few_requests() {
    let ironic = IronicEndpoint::builder().start().unwrap();
    let (site, machine, deployment) = (Site::new(ironic.url()), machine(), deployment());
    let (client, directory) = (site.client(), Directory::default());
    for wish in [Wish::Registered, deployed(&deployment)] {
        let task = task(&machine, wish);
        while !matches!(step(&client, &directory, &task).await.unwrap(), Progress::Reached(_)) {}
    }
    assert!(ironic.requests() <= 30, "{} requests", ironic.requests());
}
