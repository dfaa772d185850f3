//! What every engine has to do: deploy, update under load, tell why a release does not work, start again what ends, take over
//! what runs on, outlive the death of the server at every record, roll back, keep logs.
//!
//! The tests are those of the engine of our own, which are written without it in mind. On another engine they run once
//! more, for the real thing: a new engine is one more line at the end of this file. One that replaces releases by itself has
//! those of them that ask the API alone.

/// Makes a module of tests for an engine.
macro_rules! conformance {
    // What asks the API alone, for engines that replace releases by themselves.
    (orchestrator: $engine:expr) => {
        conformance! { $engine =>
            deploy: [
                an_image_is_deployed_and_serves_at_the_tenants_url,
                the_next_release_takes_over_at_the_same_url,
                tenants_have_urls_images_and_histories_of_their_own,
            ],
            failing: [
                an_application_that_ends_is_told_with_its_last_lines,
                an_application_ended_by_a_signal_is_told_with_its_number,
                an_unhealthy_answer_is_told_with_its_status,
                no_answer_at_all_is_a_time_out,
                an_image_that_is_not_whole_any_more_is_told_and_changes_nothing,
                the_server_holds_the_deadline,
                an_aborted_deployment_leaves_the_old_release,
            ],
            records: [
                of_an_orchestrator,
                of_an_orchestrator_that_gives_up,
            ],
            release_command: [
                it_runs_in_the_new_image_before_anything_is_started,
                its_failure_is_told_with_its_last_lines_and_changes_nothing,
                one_that_never_ends_is_ended_by_the_deadline_or_an_abort,
            ],
            rollback: [
                a_rollback_restores_image_and_environment,
            ],
            secrets: [
                a_rollback_restores_old_values_but_those_that_others_rotate,
                they_outlive_the_server,
            ],
            services: [
                a_secret_in_a_value_is_put_in_at_the_start_and_shown_nowhere,
                they_start_behind_what_they_depend_on_and_find_each_other,
                requests_go_by_host_and_path,
                what_has_not_changed_runs_on_through_deployments_restarts_and_rollbacks,
                a_server_of_an_orchestrator_dies_at_every_record,
            ],
            supervision: [
                an_instance_that_ends_is_started_again_at_the_same_url,
                a_crash_loop_hurts_neither_the_server_nor_the_next_release,
            ],
            logs: [
                logs_are_listed_filtered_and_followed,
                a_long_line_stays_whole,
            ],
            adoption: [
                after_a_kill_the_same_processes_serve_on,
                sigterm_leaves_the_release_to_the_next_server,
                a_log_has_no_gap_between_two_servers,
            ],
            resources: [
                a_release_that_needs_more_memory_than_allowed_is_undone_with_the_reason,
            ],
        }
    };
    ($engine:expr) => {
        conformance! { $engine =>
            checks: [
                a_command_inside_the_instance_decides,
                a_command_may_say_that_an_instance_cannot_be_helped,
                nothing_that_a_check_starts_outlives_it,
                the_check_of_the_image_is_used_where_it_is_asked_for,
            ],
            clash: [
                a_port_that_another_program_has_is_not_given_out,
                the_answer_of_another_program_is_not_taken_for_that_of_an_instance,
            ],
            deploy: [
                an_image_is_deployed_and_serves_at_the_tenants_url,
                the_next_release_takes_over_at_the_same_url,
                tenants_have_urls_images_and_histories_of_their_own,
            ],
            failing: [
                an_application_that_ends_is_told_with_its_last_lines,
                an_application_ended_by_a_signal_is_told_with_its_number,
                a_wrong_port_is_recognised_before_the_time_is_over,
                an_unhealthy_answer_is_told_with_its_status,
                no_answer_at_all_is_a_time_out,
                an_image_that_is_not_whole_any_more_is_told_and_changes_nothing,
                the_server_holds_the_deadline,
                a_working_directory_that_is_a_file_is_told_by_its_path_in_the_image,
                a_failed_recreate_brings_the_old_release_back,
                an_aborted_deployment_leaves_the_old_release,
            ],
            strategies: [
                rolling_replaces_one_instance_after_the_other_and_no_request_fails,
                a_batch_that_dies_while_it_is_watched_brings_all_old_instances_back,
                an_instance_that_ends_is_replaced_and_the_others_serve,
                blue_green_switches_at_once_and_returns_to_the_very_instances,
                a_good_canary_goes_through_its_steps_by_itself,
                a_line_of_the_log_can_speak_against_a_canary,
            ],
            load: [
                twenty_deployments_under_load_fail_no_request,
            ],
            records: [
                rolling_with_a_release_command,
                recreate_that_fails,
                canary_that_fails,
                blue_green,
            ],
            instance_deaths: [
                of_blue_green,
            ],
            release_command: [
                it_runs_in_the_new_image_before_anything_is_started,
                its_failure_is_told_with_its_last_lines_and_changes_nothing,
                one_that_never_ends_is_ended_by_the_deadline_or_an_abort,
            ],
            rollback: [
                a_rollback_restores_image_and_environment,
            ],
            secrets: [
                a_rollback_restores_old_values_but_those_that_others_rotate,
            ],
            services: [
                a_job_that_has_ended_keeps_nobody_from_anything,
                a_secret_in_a_value_is_put_in_at_the_start_and_shown_nowhere,
                they_start_behind_what_they_depend_on_and_find_each_other,
                requests_go_by_host_and_path,
                a_connection_to_a_database_outlives_a_deployment_that_does_not_change_it,
                a_release_command_finds_what_the_application_depends_on,
                one_fails_and_all_return,
                what_has_not_changed_runs_on_through_deployments_restarts_and_rollbacks,
                rolling_dies_at_every_record,
            ],
            real_database: [
                it_keeps_what_it_was_told,
            ],
            volumes: [
                what_is_written_outlives_instances_releases_and_the_server,
                a_failure_brings_the_old_one_back_with_its_data,
                an_application_with_a_volume_is_replaced_and_comes_back,
                a_volume_changes_its_service,
                rolling_dies_at_every_record,
                recreate_dies_at_every_record,
                a_volume_begins_with_what_the_image_has_there,
                a_path_that_the_image_does_not_have_is_made_also_in_a_root_that_is_closed,
                a_volume_is_removed_by_request_when_nothing_has_it,
                volumes_of_a_deleted_tenant_stay_until_somebody_removes_them,
                a_job_may_have_a_volume,
                what_runs_on_and_depends_on_it_is_asked_too,
                where_the_old_one_cannot_read_its_data_any_more_the_new_one_stands_in,
            ],
            supervision: [
                an_instance_that_ends_is_started_again_at_the_same_url,
                an_instance_that_gets_sick_is_replaced,
                a_crash_loop_hurts_neither_the_server_nor_the_next_release,
            ],
            logs: [
                logs_are_listed_filtered_and_followed,
                a_long_line_stays_whole,
            ],
            adoption: [
                after_a_kill_the_same_processes_serve_on,
                sigterm_leaves_the_release_to_the_next_server,
                a_log_has_no_gap_between_two_servers,
                a_log_goes_on_in_a_data_folder_that_was_renamed,
                a_copied_data_folder_ends_nothing_of_the_original,
                what_a_half_done_deployment_has_started_is_ended_and_what_was_live_is_kept,
                an_instance_that_ended_meanwhile_is_started_again,
                whoever_asks_while_the_release_is_started_again_waits_for_it,
                no_more_instances_are_taken_over_than_the_release_has,
            ],
            life: [
                sigint_ends_it_in_order_and_leaves_no_instance,
                an_orderly_end_undoes_a_running_rollout,
            ],
            resources: [
                a_release_that_needs_more_memory_than_allowed_is_undone_with_the_reason,
            ],
        }
    };
    ($engine:expr => $($area:ident: [$($case:ident,)*],)*) => {
        $(mod $area {
            $(#[test]
            fn $case() {
                let engine = $engine;
                engine.run(crate::$area::$case);
            })*
        })*
    };
}

mod real_docker {
    conformance!(crate::engine::Engine::docker());
}

mod external {
    conformance!(orchestrator: crate::engine::Engine::external());
}
