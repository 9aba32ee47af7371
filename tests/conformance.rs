//! One suite over every transport, on every driver that works here: a transport that passes can
//! take another's place. Tests nothing above the transport.

mod conformance_suite;

/// All cases for one transport.
macro_rules! conforms {
    ($transport:ident, $kind:path, $($case:ident),+ $(,)?) => {
        mod $transport {
            use crate::conformance_suite::{self, cases};
            $(
                #[test]
                fn $case() {
                    cases::$case(&$kind);
                }
            )+
        }
    };
}

/// The suite; one line per transport.
macro_rules! suite {
    ($($transport:ident: $kind:path),+ $(,)?) => {
        $(conforms!(
            $transport,
            $kind,
            messages_come_once_and_in_order,
            prompt_messages_come_once_and_the_newest_progress_comes,
            a_message_never_waits_behind_data_not_yet_given_to_the_kernel,
            chunks_of_every_length_come_byte_exact,
            a_send_may_begin_at_any_frame,
            every_send_begins_and_finishes_in_the_order_in_which_it_was_pushed,
            no_frame_is_begun_beyond_what_is_allowed_and_messages_are,
            who_does_not_read_takes_nothing_more_and_loses_nothing,
            what_is_cancelled_before_it_began_never_comes_and_is_not_heard_of,
            what_is_cut_off_under_way_comes_as_far_as_was_said,
            withdrawn_bytes_are_free_at_once_though_nobody_reads,
            what_was_all_sent_is_pinned_no_longer,
            the_end_comes_after_everything_before_it,
            one_direction_may_end_before_the_other,
            both_directions_flow_at_once,
        );)+
    };
}

suite!(
    tcp: conformance_suite::tcp::KIND,
    udp_control: conformance_suite::datagrams::UDP_CONTROL,
    udp_data: conformance_suite::datagrams::UDP_DATA,
    quic: conformance_suite::datagrams::QUIC,
);
