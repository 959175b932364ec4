//! What a store must keep to, whichever database it is in. Run on SQLite by this crate's tests, on PostgreSQL by the package
//! `tests`.
#![allow(clippy::unwrap_used)] // test code, also where it is built for another package: a panic is its way to fail

mod copying;
mod journal;
mod records;
mod several;

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::Store;

/// An empty store that can be opened again and again.
#[async_trait]
pub trait Place: Send + Sync {
    /// As the only bot.
    async fn open(&self) -> Store;
    /// As one bot of several.
    async fn open_as(&self, replica: &str) -> Store;
    /// Another empty store of the same kind.
    async fn another(&self) -> Box<dyn Place>;
}

/// The name of a case, and the case.
pub type Case = (&'static str, fn(&dyn Place) -> BoxFuture<'_, ()>);

macro_rules! cases {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        /// All cases. Each wants a place of its own.
        pub const CASES: &[Case] = &[
            $($((stringify!($name), |place| Box::pin($module::$name(place))),)*)*
        ];

        /// A test for each case; `$fresh` makes a place.
        #[cfg(test)]
        macro_rules! each {
            ($fresh:ident) => {
                $($(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $name() {
                        let place = $fresh();
                        let case = $crate::store::conformance::case(stringify!($name));
                        case(&*place).await;
                    }
                )*)*
            };
        }
        #[cfg(test)]
        pub(in crate::store) use each;
    };
}

cases! {
    journal:
        events_come_back_in_order_after_the_store_was_opened_again,
        an_append_at_another_length_is_a_conflict,
        of_many_writers_at_one_length_exactly_one_wins,
        a_lease_ends_with_its_job_and_tokens_grow_for_ever,
        repairs_of_two_domains_do_not_exclude_each_other_but_a_deploy_does,
        an_event_that_cannot_be_read_is_named;
    records:
        a_fold_sees_what_is_known_and_writes_what_it_decides,
        of_a_source_only_what_matters_is_read,
        a_message_is_edited_in_place_and_nothing_wanted_is_lost,
        an_approval_is_decided_once_used_once_for_its_digest_before_it_expires,
        a_chat_event_is_claimed_once,
        values_incidents_repairs_and_trust_come_back,
        the_audit_log_cannot_be_changed,
        votes_are_counted_once_a_person_until_there_are_enough,
        an_override_counts_for_one_job_until_it_expires_and_waits_for_its_review,
        every_entry_of_the_audit_log_follows_the_one_before_it,
        an_entry_is_kept_with_what_it_is_about_or_not_at_all,
        a_nul_in_a_label_stops_nothing;
    several:
        what_a_fold_saw_is_still_true_when_it_is_written,
        of_many_decisions_exactly_one_counts,
        of_many_votes_each_counts_once_and_the_last_one_decides,
        what_many_bots_do_is_one_chain,
        tokens_of_many_takers_are_all_different,
        of_many_bots_exactly_one_takes_the_lead,
        a_leader_that_was_replaced_learns_it,
        two_bots_take_different_jobs,
        batches_are_for_any_bot_and_come_back_from_those_that_go,
        a_message_is_sent_by_one_bot,
        a_parcel_is_there_with_its_alerts_and_bounded;
    copying:
        a_copy_is_complete_and_the_same,
        a_copy_refuses_what_is_not_empty,
        a_copy_refuses_a_store_with_a_bot_that_runs,
        every_column_is_copied_or_known_not_to_be;
}

/// The case of a name.
pub fn case(name: &str) -> fn(&dyn Place) -> BoxFuture<'_, ()> {
    let found = CASES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("there is no case {name}")).1
}

/// Follows the audit log from its first entry to its head; how many entries there are.
async fn whole_chain(store: &Store) -> i64 {
    let mut checker = crate::audit::Checker::default();
    let kept = store.audit_kept(0, 1_000).await.unwrap();
    kept.iter().for_each(|entry| checker.next(entry).unwrap());
    let head = store.audit_head().await.unwrap();
    checker.finish(head.as_ref()).unwrap().number
}

/// A moment of the cases.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
