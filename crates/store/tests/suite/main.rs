//! One suite, run on SQLite and on PostgreSQL. A PostgreSQL that does not start fails it.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking too

mod agents;
mod bench;
mod enrolment;
mod events;
mod faults;
mod invitations;
mod machines;
mod opening;
mod plans;
mod queue;
mod secrets;
mod tokens;

use bench::Bench;
use std::pin::Pin;
use testbed::Postgres;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Each case is a test of its own on SQLite. On PostgreSQL all run in one test, so that one server serves them, each with a
/// database of its own.
macro_rules! cases {
    (both { $($module:ident: $($case:ident)*;)* } postgres { $($only:ident: $($lone:ident)*;)* }) => {
        mod on_sqlite {
            $(mod $module {
                $(#[tokio::test]
                async fn $case() {
                    crate::$module::$case(crate::Bench::sqlite().await).await;
                })*
            })*
        }

        fn cases() -> Vec<(&'static str, fn(Bench) -> Running)> {
            vec![
                $($((stringify!($module::$case), |bench| Box::pin($module::$case(bench))),)*)*
                $($((stringify!($only::$lone), |bench| Box::pin($only::$lone(bench))),)*)*
            ]
        }
    };
}

cases! {
    both {
    agents:
        a_token_lets_in_the_agent_of_its_machine_once
        an_agent_whose_first_answer_was_lost_may_ask_again_with_its_key
        a_token_that_is_late_or_unknown_or_replaced_is_refused
        a_token_is_of_no_use_on_another_machine_and_stays_for_its_own
        a_machine_whose_identity_is_not_checked_has_no_agent
        a_new_enrolment_ends_the_one_before
        a_machine_that_is_set_aside_ends_its_agent_and_what_it_said
        the_body_of_a_probe_is_asked_for_once
        registering_leaving_and_registering_anew_are_each_an_event
        silence_ends_a_registration_once_and_the_next_report_mends_it
        agents_are_spared_the_silence_of_the_cell
        what_was_left_of_a_use_lets_no_agent_in_after_it
        a_probe_of_another_host_is_refused
        a_probe_that_its_agent_says_is_another_by_now_is_forgotten_and_asked_for
        a_report_that_may_not_be_told_is_a_sign_of_life_and_kept_from_a_later_one
        each_scrub_is_one_event_however_often_it_is_told
        what_an_agent_says_of_its_problems_is_cut_in_the_log
        whose_token_it_is_is_told_before_it_is_used_and_of_one_that_nobody_made_nothing
        gpus_are_accepted_where_they_are_first_seen_and_by_people
        signing_keys_are_made_once_and_sealed
        ;
    enrolment:
        an_enrolled_machine_has_inventory_facts_and_gpus
        the_same_inventory_again_writes_only_its_time
        a_changed_inventory_is_told_with_the_values_that_differ
        an_enrolment_ends_what_the_machine_waited_for
        a_machine_that_was_never_discovered_is_not_enrolled
        a_serial_or_uuid_of_another_machine_is_refused_and_names_it
        machines_that_say_no_serial_are_not_each_others_duplicates
        machines_whose_addresses_were_exchanged_can_be_put_right
        a_gpu_in_two_machines_is_told_from_both_sides_until_one_loses_it
        a_gpu_shared_by_serial_and_uuid_is_one_conflict_a_side
        what_a_machine_showed_before_it_was_sent_back_conflicts_with_nobody
        pages_show_every_gpu_once_in_order
        many_facts_keep_their_order
        text_that_a_bmc_sends_is_stored_whatever_it_holds
        an_enrolment_that_fails_half_way_leaves_nothing
        ;
    events:
        an_event_reads_back
        no_statement_changes_an_event
        listeners_hear_of_what_was_written_and_of_nothing_else
        a_follower_misses_nothing_while_many_write
        ;
    invitations:
        a_machine_that_is_provisioned_lets_its_agent_in_once_it_is_a_node
        a_step_that_is_taken_again_finds_its_token_as_it_is
        a_token_that_was_used_stays_used_when_its_step_is_taken_again
        another_deployment_has_a_token_of_its_own
        a_token_made_by_hand_takes_the_place_of_the_machines_own
        a_machine_that_is_wiped_or_set_aside_has_no_token_any_more_and_gets_none
        ;
    machines:
        discovery_pins_the_key_and_a_second_one_changes_nothing
        another_key_than_the_one_pinned_is_refused
        what_changes_how_a_machine_is_reached_sends_it_back
        other_credentials_leave_a_machine_what_it_is_and_have_it_read_again
        a_declared_key_takes_the_place_of_the_one_seen
        what_a_step_found_under_an_older_declaration_is_not_recorded
        a_machine_deleted_and_declared_again_is_another_one
        deleting_a_machine_takes_all_of_it_and_keeps_what_happened
        waiting_keeps_its_beginning_while_the_code_stays
        that_a_service_is_held_outlives_what_is_declared_and_ends_when_that_is_said
        a_wait_ends_once
        a_changed_site_lets_machines_go_on_that_waited_for_people
        a_changed_profile_lets_machines_go_on_that_waited_for_their_firmware
        pages_show_every_machine_once_in_order
        ;
    opening:
        what_was_written_is_there_after_opening_again
        a_database_of_a_newer_version_is_refused_and_left_as_it_is
        another_key_is_recognised_before_anything_is_changed
        a_missing_key_is_not_replaced_by_a_new_one
        a_value_set_once_stays
        replicas_share_postgres_and_no_two_cells_share_a_file
        ;
    plans:
        a_plan_is_applied_as_a_whole
        a_kept_plan_reads_back_with_who_made_and_applied_it
        every_change_is_told_by_an_event
        applying_a_plan_again_changes_nothing
        a_plan_is_stale_once_what_it_starts_from_has_changed
        of_two_plans_applied_at_once_one_is_stale
        a_plan_that_was_changed_on_the_way_is_not_kept
        a_plan_that_nobody_saved_cannot_be_applied
        each_new_password_has_a_plan_of_its_own
        saving_an_applied_plan_that_no_longer_fits_changes_nothing
        old_plans_that_nobody_applied_are_forgotten_with_their_passwords
        the_same_password_again_is_no_change
        a_password_taken_from_elsewhere_is_forgotten_here
        a_plan_that_fails_half_way_leaves_nothing
        ;
    queue:
        replicas_that_claim_at_once_never_share_a_machine
        the_longest_overdue_is_claimed_first_and_no_more_than_asked_for
        what_a_dead_replica_held_is_taken_over_and_what_it_records_is_refused
        a_replica_whose_time_is_up_claims_nothing_until_it_says_that_it_lives
        what_a_replica_held_that_left_is_free_at_once
        a_machine_given_back_is_due_when_that_was_said
        a_wrong_clock_of_the_cells_host_makes_no_machine_early_or_late
        a_machine_that_is_due_knows_how_many_of_its_site_are_worked_on
        a_machine_woken_while_a_step_ran_is_due_at_once
        a_changed_declaration_or_assignment_makes_a_machine_due
        a_step_that_does_not_follow_is_refused
        a_used_machine_is_available_after_a_whole_erasure_alone
        no_statement_changes_the_record_of_an_erasure
        a_machine_set_aside_has_that_written_into_its_assignment
        a_machine_without_an_assignment_gets_one_when_it_is_set_aside
        what_a_step_does_by_an_assignment_names_who_changed_that_last
        machines_that_rest_for_want_of_a_service_are_due_and_no_others
        a_machine_that_is_handed_over_is_neither_deleted_nor_moved
        what_a_step_remembers_is_forgotten_with_the_state
        ;
    secrets:
        passwords_and_tokens_are_nowhere_in_the_database
        nothing_shows_a_secret_when_printed
        a_sealed_password_that_was_moved_does_not_open
        ;
    tokens:
        a_token_stands_for_its_name_and_role
        what_is_no_token_lets_nobody_in
        an_expired_or_revoked_token_lets_nobody_in_and_frees_its_name
        revoking_what_is_not_there_says_so
        ;
    }
    postgres {
    opening:
        a_disk_that_is_full_or_read_only_has_its_own_code
        of_replicas_with_different_keys_that_open_a_new_database_at_once_one_wins
        replicas_with_one_key_open_a_new_database_at_once
        ;
    queue:
        a_machine_of_which_something_is_being_recorded_is_claimed_by_nobody
        ;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_case_holds_on_postgres() {
    let server = Postgres::shared().await.unwrap();
    let mut failed = Vec::new();
    for (number, (case, run)) in cases().into_iter().enumerate() {
        let bench = Bench::postgres(server.clone(), &format!("case_{number}")).await;
        // A task of its own, so that one that panics does not hide the others.
        if tokio::spawn(run(bench)).await.is_err() {
            failed.push(case);
        }
    }
    assert!(failed.is_empty(), "these fail on PostgreSQL: {failed:?}");
}
