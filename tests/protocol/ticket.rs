//! Tickets: golden ones, round trips, and what copying and pasting does to them.

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends")]

use proptest::prelude::*;
use relay::protocol::{
    Digest, Pin, RelayAddr, Sealed, ShareSecret, SwarmKey, Ticket, TicketError, TicketKind,
    check_name, fit_name,
    limits::{
        HOST_BYTES_MAX, TICKET_CHARS_MAX, TICKET_NAME_BYTES_MAX, TICKET_RELAYS_MAX,
        TICKET_TEXT_BYTES_MAX,
    },
};

fn ticket(relay: &str, size_bytes: u64, name: &str) -> Ticket {
    let key = SwarmKey { id: Digest([0xab; 32]), size_bytes, chunk_size_log2: 18 };
    Ticket::new(relay.parse().unwrap(), key, name).unwrap()
}

fn samples() -> [(&'static str, Ticket); 10] {
    let sealed = Some(Sealed { secret: ShareSecret([0xcd; 16]), plain: Digest([0xef; 32]) });
    let movie = || ticket("relay.example.org:7440", 100 << 20, "movie.mkv");
    let more =
        ["[2001:db8::1]:7440", "192.0.2.1:1", "localhost:9"].map(|text| text.parse().unwrap());
    [
        ("name", ticket("relay.example.org:7440", 100 << 20, "movie.mkv")),
        ("ipv4", ticket("192.0.2.1:1", 0, "empty")),
        ("ipv6", ticket("[2001:db8::1]:65535", 1, "Käse 🧀.txt")),
        ("nameless", ticket("localhost:7440", 1 << 36, "")),
        (
            "executable",
            ticket("relay.example.org:7440", 100 << 20, "movie.mkv")
                .with_kind(TicketKind::Executable),
        ),
        ("bundle", ticket("relay.example.org:7440", 5, "docs").with_kind(TicketKind::Bundle)),
        ("sealed", movie().with_sealed(sealed.clone())),
        ("pinned", movie().with_pin(Some(Pin([0x12; 16])))),
        ("relays", movie().with_more_relays(more.to_vec()).unwrap()),
        (
            "all",
            movie()
                .with_sealed(sealed)
                .with_pin(Some(Pin([0x12; 16])))
                .with_more_relays(more.to_vec())
                .unwrap()
                .with_kind(TicketKind::Executable),
        ),
    ]
}

#[test]
fn every_ticket_has_the_golden_text() {
    let text: String =
        samples().iter().map(|(name, ticket)| format!("{name} {ticket}\n")).collect();
    assert_eq!(text, include_str!("../golden/tickets.txt"), "is now:\n{text}");
}

#[test]
fn golden_tickets_are_read() {
    for (line, (name, ticket)) in include_str!("../golden/tickets.txt").lines().zip(samples()) {
        let text = line.strip_prefix(name).unwrap();
        assert_eq!(text.parse(), Ok(ticket));
    }
}

#[test]
fn a_ticket_survives_mail_programs_and_sentences() {
    let (_, ticket) = &samples()[0];
    let text = ticket.to_string();
    let broken: String = text
        .as_bytes()
        .chunks(20)
        .map(|part| str::from_utf8(part).unwrap())
        .collect::<Vec<_>>()
        .join("\r\n  ");
    for pasted in [
        text.to_uppercase(),
        format!("  {text}\n"),
        format!("\"{text}\"."),
        format!("<{text}>,"),
        format!("\u{feff}{text}\u{200b}"),
        format!("> {}", broken.replace("\r\n  ", "\r\n> ")),
        format!(" >> > {}\n", broken.replace("\r\n  ", "\n>> >")),
        format!("| {}", broken.replace("\r\n  ", "\n| ")),
        broken,
    ] {
        assert_eq!(pasted.parse().as_ref(), Ok(ticket), "{pasted:?}");
    }
}

#[test]
fn what_is_no_ticket_is_told_apart_from_a_damaged_one() {
    let text = samples()[0].1.to_string();
    for (pasted, part) in [
        ("", "not a ticket"),
        ("relay", "not a ticket"),
        ("http://example.org", "not a ticket"),
        ("relay.example.org:7440", "not a ticket"),
        (&format!("relay2{}", &text[6..]), "damaged"),
        (&format!("relay3{}", &text[6..]), "version 3, this program reads versions 1 and 2"),
        (&text[..text.len() - 1], "damaged"),
        (&text[..7], "damaged"),
        (&format!("{text}a"), "damaged"),
        (&text.replacen(&text[20..21], "0", 1), "'0'"),
        (&"relay1a".repeat(TICKET_CHARS_MAX), "longer than"),
        (&" ".repeat(TICKET_TEXT_BYTES_MAX + 1), "longer than"),
    ] {
        let error = pasted.parse::<Ticket>().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_ticket_says_whether_its_file_may_be_executed_and_is_no_longer_otherwise() {
    for (_, plain) in samples() {
        let plain = plain.with_kind(TicketKind::File);
        let executable = plain.clone().with_kind(TicketKind::Executable);
        let (long, short) = (executable.to_string(), plain.to_string());
        assert!(long.len() > short.len() && long != short);
        assert_eq!(long.parse(), Ok(executable.clone()));
        assert_eq!(short.parse::<Ticket>().map(|ticket| ticket.kind), Ok(TicketKind::File));
        assert_eq!(executable.with_kind(TicketKind::File), plain);
    }
}

#[test]
fn names_and_keys_have_limits() {
    let (_, ticket) = &samples()[0];
    let named = |len: usize| Ticket::new(ticket.relay.clone(), ticket.key, "x".repeat(len));
    let longest = named(TICKET_NAME_BYTES_MAX).unwrap();
    assert_eq!(longest.to_string().parse(), Ok(longest));
    assert_eq!(
        named(TICKET_NAME_BYTES_MAX + 1),
        Err(TicketError::NameTooLong(TICKET_NAME_BYTES_MAX + 1))
    );
    let key = SwarmKey { size_bytes: u64::MAX, ..ticket.key };
    assert!(matches!(Ticket::new(ticket.relay.clone(), key, "x"), Err(TicketError::Key(_))));
}

#[test]
fn what_only_the_second_version_can_say_makes_a_ticket_of_that_version() {
    for (name, ticket) in samples() {
        let is_of_2 = ["sealed", "pinned", "relays", "all"].contains(&name);
        let word = if is_of_2 { "relay2" } else { "relay1" };
        assert!(ticket.to_string().starts_with(word), "{name}");
        assert_eq!(ticket.plain() == ticket.key.id, ticket.sealed.is_none(), "{name}");
        assert_eq!(ticket.relays().next(), Some(&ticket.relay));
    }
}

#[test]
fn nothing_of_a_ticket_that_opens_a_file_is_printed_for_debugging() {
    let (_, ticket) = samples().into_iter().find(|(name, _)| *name == "all").unwrap();
    let text = format!("{ticket:?}");
    assert!(!text.contains("205") && !text.contains("cd"), "{text}");
    assert!(
        text.contains("movie.mkv") && text.contains("efef"),
        "it is a ticket all the same: {text}"
    );
}

/// What the second version encodes, as anybody may write it.
fn body_of_2(relays: &[&str], key: SwarmKey, name: &str, marks: &[u8]) -> Vec<u8> {
    let sealed = Some(([1u8; 16], Digest([2; 32])));
    let body = (relays.to_vec(), [0u8; 16], key, name, sealed);
    [&postcard::to_stdvec(&body).unwrap(), marks].concat()
}

#[test]
fn tickets_that_no_honest_program_writes_are_refused_with_the_reason() {
    let key = SwarmKey { id: Digest([0xab; 32]), size_bytes: 5, chunk_size_log2: 18 };
    let relay = "localhost:1";
    let read = |body: Vec<u8>| Ticket::decode(&body, true).map_err(|error| error.to_string());
    // The positive control.
    let ticket = read(body_of_2(&[relay], key, "name", &[])).unwrap();
    assert_eq!((ticket.pin, ticket.sealed.is_some(), ticket.key), (None, true, key));
    let marked = |marks: &[u8]| read(body_of_2(&[relay; TICKET_RELAYS_MAX], key, "name", marks));
    assert_eq!(marked(&[1]).unwrap().kind, TicketKind::Executable);
    assert_eq!(marked(&[2]).unwrap().kind, TicketKind::Bundle);
    let whole = body_of_2(&[relay], key, "name", &[]);
    let too_small = SwarmKey { chunk_size_log2: 9, ..key };
    let too_large = SwarmKey { size_bytes: u64::MAX, ..key };
    for (body, part) in [
        (body_of_2(&[], key, "name", &[]), "names 0 relays"),
        (body_of_2(&[relay; 5], key, "name", &[]), "names 5 relays, and a ticket names 1 to 4"),
        (body_of_2(&["nonsense"], key, "name", &[]), "names no relay"),
        (body_of_2(&[relay, "http://x"], key, "name", &[]), "names no relay"),
        (body_of_2(&[relay], too_small, "name", &[]), "names no file that can be"),
        (body_of_2(&[relay], too_large, "name", &[]), "names no file that can be"),
        (body_of_2(&[relay], key, &"x".repeat(256), &[]), "256 bytes"),
        (body_of_2(&[relay], key, "name", &[3]), "newer program"),
        (body_of_2(&[relay], key, "name", &[1, 0]), "newer program"),
        (whole[..whole.len() - 1].to_vec(), "damaged"),
        (Vec::new(), "damaged"),
    ] {
        let error = read(body).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
    let (_, ticket) = &samples()[0];
    let more = vec![ticket.relay.clone(); TICKET_RELAYS_MAX];
    let error = ticket.clone().with_more_relays(more).unwrap_err();
    assert_eq!(error, TicketError::RelayCount(5));
}

#[test]
fn the_longest_ticket_can_be_read() {
    let host = format!("{}.{}", "a".repeat(126), "b".repeat(126));
    assert_eq!(host.len(), HOST_BYTES_MAX);
    let relay = RelayAddr::new(&host, 65535).unwrap();
    let key = SwarmKey { id: Digest([7; 32]), size_bytes: 1 << 42, chunk_size_log2: 24 };
    let ticket = Ticket::new(relay.clone(), key, "x".repeat(TICKET_NAME_BYTES_MAX)).unwrap();
    let sealed = Sealed { secret: ShareSecret([9; 16]), plain: Digest([8; 32]) };
    let ticket = ticket.with_more_relays(vec![relay; TICKET_RELAYS_MAX - 1]).unwrap();
    let ticket = ticket
        .with_sealed(Some(sealed))
        .with_pin(Some(Pin([1; 16])))
        .with_kind(TicketKind::Executable);
    let text = ticket.to_string();
    assert!(text.len() <= TICKET_CHARS_MAX, "{}", text.len());
    assert_eq!(text.parse(), Ok(ticket));
}

/// Without a percent sign, which names that were altered have.
fn name_part() -> impl Strategy<Value = Vec<u8>> {
    let text = "[^%/\u{0}]|[a .-]|\u{200c}|\u{200d}|\u{fe0f}|\u{20e3}|\u{94d}|é|.part|日|❤";
    prop_oneof![text.prop_map(String::into_bytes), (0x80u8..).prop_map(|byte| vec![byte])]
}

prop_compose! {
    fn any_ticket()(
        id in any::<[u8; 32]>(),
        chunk_size_log2 in 10u8..=24,
        size in any::<u64>(),
        port in 1u16..,
        host in "[a-z0-9]{1,63}(\\.[a-z0-9_-]{1,63}){0,2}",
        name in "\\PC{0,63}",
        seal in prop::option::of(any::<([u8; 16], [u8; 32])>()),
        pin in prop::option::of(any::<[u8; 16]>()),
        more in 0usize..4,
    ) -> Ticket {
        let size_bytes = size % (1 << (18 + chunk_size_log2));
        let key = SwarmKey { id: Digest(id), size_bytes, chunk_size_log2 };
        let relay = RelayAddr::new(&host, port).unwrap();
        let sealed = seal.map(|(secret, plain)| {
            Sealed { secret: ShareSecret(secret), plain: Digest(plain) }
        });
        let pin = pin.map(Pin).filter(|&pin| pin != Pin([0; 16]));
        let ticket = Ticket::new(relay.clone(), key, name).unwrap().with_sealed(sealed);
        ticket.with_pin(pin).with_more_relays(vec![relay; more]).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_ticket_is_read_as_it_was_written(ticket in any_ticket()) {
        prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }

    #[test]
    fn every_file_has_a_name_that_a_get_takes_and_two_never_have_one(
        one in prop::collection::vec(name_part(), 1..9),
        two in prop::collection::vec(name_part(), 1..9),
        times in 1usize..40,
    ) {
        let (one, two) = (one.concat().repeat(times), two.concat().repeat(times));
        let ((fit, fault), (other, _)) = (fit_name(&one), fit_name(&two));
        prop_assert_eq!(check_name(&fit), Ok(()), "{:?}", fit);
        prop_assert_eq!(fault.is_none(), fit.as_bytes() == one);
        prop_assert_eq!(fit == other, one == two);
        prop_assert_eq!(fit_name(fit.as_bytes()), (fit, None));
    }

    #[test]
    fn one_changed_character_is_noticed(
        ticket in any_ticket(),
        at in any::<prop::sample::Index>(),
        with in "[a-z2-7]",
    ) {
        let text = ticket.to_string();
        let at = 6 + at.index(text.len() - 6);
        let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        prop_assume!(changed != text);
        prop_assert!(changed.parse::<Ticket>().is_err());
    }

    #[test]
    fn no_text_makes_it_panic(text in "(relay[12])?.{0,300}") {
        prop_assert!(text.parse::<Ticket>().is_err());
    }
}
