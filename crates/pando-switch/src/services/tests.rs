//! The gateway's answers, byte by byte. The frames were made by a program of its own, from the RFCs.

use pando_model::network::NetworkSpec;
use proptest::prelude::*;

use super::*;
use crate::fuzz;

const ARP_ASK: &str = "ffffffffffff525400123456080600010800060400015254001234560a00020f0000000000000a00\
     0202000000000000000000000000000000000000";
const ARP_SAY: &str = "52540012345652550a0002020806000108000604000252550a0002020a0002025254001234560a00\
     020f";
const ECHO_ASK: &str = "52550a00020252540012345608004500002300004000400122ca0a00020f0a000202080066ca0007\
     000161626364656667";
const ECHO_SAY: &str = "52540012345652550a00020208004500002300004000400122ca0a0002020a00020f00006eca0007\
     000161626364656667";
const UNREACHABLE_ASK: &str = "52550a00020252540012345608004500002100004000401104890a00020fc63364010fa00009000d\
     761568656c6c6f";
const UNREACHABLE_SAY: &str = "52540012345652550a00020208004500003d00004000400122b00a0002020a00020f030033620000\
     00004500002100004000401104890a00020fc63364010fa00009000d761568656c6c6f";
const DHCP_ASK: &str = "ffffffffffff52540012345608004500011500004000401139d900000000ffffffff004400430101\
     5155010106003903f3260003000000000000000000000000000000000000525400123456z202z638\
     253633501013703010306ff";
const DHCP_SAY: &str = "52540012345652550a00020208004500013800004000401121a50a0002020a00020f004300440124\
     d51f020106003903f32600000000000000000a00020f0000000000000000525400123456z202z638\
     2536335010236040a0002023304ffffffff0104ffffff001c040a0002ff06040a0002020c0264620\
     f0473686f70ff";
const DNS_ASK: &str = "52550a000202525400123456080045000041000040004011229c0a00020f0a0002020fa00035002d\
     d919beef01000001000000000001035765620473686f70000001000100002904d0000000000000";
const DNS_SAY: &str = "52540012345652550a00020208004500005600004000401122870a0002020a00020f00350fa00042\
     b6e8beef85800001000200000000035765620473686f700000010001c00c000100010000001e0004\
     0a000210c00c000100010000001e00040a090010";
const NEIGHBOUR_ASK: &str = "3333ff00000252540012345686dd6000000000203afffd000002000000000000000000000015ff02\
     00000000000000000001ff0000028700f8c300000000fd0000020000000000000000000000020101\
     525400123456";
const NEIGHBOUR_SAY: &str = "52540012345652550a00020286dd6000000000203afffd000002000000000000000000000002fd00\
     00020000000000000000000000158800402ae0000000fd0000020000000000000000000000020201\
     52550a000202";
const ROUTER_ASK: &str = "33330000000252540012345686dd6000000000103afffe80000000000000505400fffe123456ff02\
     0000000000000000000000000002850071b5000000000101525400123456";
const ROUTER_SAY: &str = "52540012345652550a00020286dd6000000000383afffe8000000000000050550afffe000202fe80\
     000000000000505400fffe1234568600bd97400000000000000000000000010152550a0002020304\
     4080ffffffffffffffff00000000fd000002000000000000000000000000";
const ECHO6_ASK: &str = "52550a00020252540012345686dd60000000000f3a40fd000002000000000000000000000015fd00\
     00020000000000000000000000028000f4630007000161626364656667";
const ECHO6_SAY: &str = "52540012345652550a00020286dd60000000000f3a40fd000002000000000000000000000002fd00\
     00020000000000000000000000158100f3630007000161626364656667";
const TCP_ASK: &str = "52550a00020252540012345608004500002800004000400622c00a00020f0a0002020fa00035ffff\
     fffe000000005002faf08d0d0000";
const TCP_SAY: &str = "52540012345652550a00020208004500002800004000400622c00a0002020a00020f00350fa00000\
     0000ffffffff5014000087eb0000";

/// Returns the bytes of hexadecimal text, in which `zNz` stands for N zeros.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in text.split('z').enumerate() {
        if index % 2 == 1 {
            bytes.resize(bytes.len() + part.parse::<usize>().unwrap(), 0);
        } else {
            let pairs = (0..part.len()).step_by(2);
            bytes.extend(pairs.map(|at| u8::from_str_radix(&part[at..at + 2], 16).unwrap()));
        }
    }
    bytes
}

fn ask(uplink: Uplink, frame: &[u8]) -> Answer {
    ask_in(&fuzz::network(uplink), frame)
}

fn ask_in(network: &NetworkSpec, frame: &[u8]) -> Answer {
    let view = SegmentView {
        segment: &network.segments[0],
        domain: &network.domain,
        ports: &network.ports,
    };
    answer(&view, &network.ports[0], frame, Duration::ZERO)
}

/// What the gateway says to a frame from within.
fn reply(frame: &[u8]) -> Vec<u8> {
    match ask(Uplink::None, frame) {
        Answer::Reply(frame) => frame,
        other => panic!("{other:?}"),
    }
}

const DB: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A packet of the node's, sent to the gateway's MAC address.
fn packet_to(destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    from_node(GATEWAY_MAC, &packet::ipv4(DB, destination, protocol, payload))
}

fn from_node(to: MacAddress, packet: &[u8]) -> Vec<u8> {
    let mut frame = packet::frame(to, packet::IPV4, packet);
    frame[6..12].copy_from_slice(&fuzz::network(Uplink::None).ports[0].mac.0);
    frame
}

fn datagram(destination: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let pseudo = PseudoHeader::v4(DB, destination, packet::UDP, 8 + payload.len());
    packet_to(destination, packet::UDP, &packet::udp(4000, port, payload, &pseudo))
}

#[test]
fn what_the_gateway_says_is_exact() {
    for (what, ask, say) in [
        ("ARP", ARP_ASK, ARP_SAY),
        ("echo", ECHO_ASK, ECHO_SAY),
        ("net unreachable", UNREACHABLE_ASK, UNREACHABLE_SAY),
        ("DHCP", DHCP_ASK, DHCP_SAY),
        ("DNS", DNS_ASK, DNS_SAY),
        ("neighbour discovery", NEIGHBOUR_ASK, NEIGHBOUR_SAY),
        ("router discovery", ROUTER_ASK, ROUTER_SAY),
        ("echo over IPv6", ECHO6_ASK, ECHO6_SAY),
        ("a connection", TCP_ASK, TCP_SAY),
    ] {
        assert_eq!(hex(&reply(&bytes(ask))), hex(&bytes(say)), "{what}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_not_for_the_gateway_passes() {
    let node: MacAddress = "52:54:00:12:34:57".parse().unwrap();
    let packet = packet::ipv4(DB, Ipv4Addr::new(10, 0, 2, 16), packet::ICMP, &[8, 0, 0, 0]);
    assert_eq!(ask(Uplink::None, &from_node(node, &packet)), Answer::NotForMe);
    let mut other = bytes(ARP_ASK);
    other[41] = 16;
    assert_eq!(ask(Uplink::None, &other), Answer::NotForMe, "ARP for another node");
    let mut tagged = bytes(ARP_ASK);
    tagged[12..14].copy_from_slice(&[0x81, 0]);
    assert_eq!(ask(Uplink::None, &tagged), Answer::NotForMe, "a VLAN");
    let mut solicitation = bytes(NEIGHBOUR_ASK);
    solicitation[77] = 3;
    assert_eq!(ask(Uplink::None, &solicitation), Answer::NotForMe, "a wrong checksum");
}

#[test]
fn frames_from_nobody_are_dropped() {
    let malformed = Answer::Drop(DropReason::Malformed);
    assert_eq!(ask(Uplink::None, &[0xff; 13]), malformed);
    let mut spoofed = bytes(ARP_ASK);
    spoofed[6..12].copy_from_slice(&GATEWAY_MAC.0);
    assert_eq!(ask(Uplink::None, &spoofed), malformed);
    spoofed[6] = 0x53;
    assert_eq!(ask(Uplink::None, &spoofed), malformed);
}

#[test]
fn a_damaged_packet_for_the_gateway_is_no_packet() {
    let good = bytes(ECHO_ASK);
    for position in 14..good.len() {
        let mut damaged = good.clone();
        damaged[position] ^= 0x08;
        let answer = ask(Uplink::Nat, &damaged);
        assert!(matches!(answer, Answer::Drop(_)), "byte {position}: {answer:?}");
    }
}

#[test]
fn the_outside_is_reached_with_an_uplink_only() {
    let no_route = Answer::Drop(DropReason::NoRoute);
    let far = datagram(FAR, 9, b"x");
    assert_eq!(ask(Uplink::Nat, &far), Answer::ToUplink);
    assert!(matches!(ask(Uplink::None, &far), Answer::Reply(_)));
    let broadcast = Ipv4Addr::new(10, 0, 2, 255);
    assert_eq!(ask(Uplink::Nat, &datagram(broadcast, 9, b"x")), no_route);
    let multicast = Ipv4Addr::new(224, 0, 0, 251);
    assert_eq!(ask(Uplink::Nat, &datagram(multicast, 9, b"x")), no_route);
    let other_segment = datagram(Ipv4Addr::new(10, 9, 0, 16), 9, b"x");
    assert!(matches!(ask(Uplink::Nat, &other_segment), Answer::Reply(_)));
}

#[test]
fn the_name_server_outside_is_reached_with_an_uplink_only() {
    let mut request = bytes(ARP_ASK);
    request[41] = 3;
    assert_eq!(ask(Uplink::None, &request), Answer::NotForMe);
    assert!(matches!(ask(Uplink::Nat, &request), Answer::Reply(_)));
    let question = datagram(NAME_SERVER, 53, b"x");
    assert_eq!(ask(Uplink::Nat, &question), Answer::ToUplink);
}

#[test]
fn errors_are_not_answered_with_errors() {
    let no_route = Answer::Drop(DropReason::NoRoute);
    for kind in [3, 4, 5, 11, 12] {
        let frame = packet_to(FAR, packet::ICMP, &[kind, 0, 0, 0]);
        assert_eq!(ask(Uplink::None, &frame), no_route, "type {kind}");
    }
    let from_nobody = packet::ipv4(Ipv4Addr::UNSPECIFIED, FAR, packet::UDP, &[0; 8]);
    assert_eq!(ask(Uplink::None, &from_node(GATEWAY_MAC, &from_nobody)), no_route);
}

#[test]
fn answers_to_what_came_from_outside_go_outside() {
    let segment = |flags: u8| {
        let mut tcp =
            vec![0, 80, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0, 0, 0, 0, 0, 0];
        let sum = PseudoHeader::v4(DB, HERE, packet::TCP, tcp.len()).checksum(&tcp);
        packet::put_u16(&mut tcp, 16, sum);
        packet_to(HERE, packet::TCP, &tcp)
    };
    assert_eq!(ask(Uplink::Nat, &segment(0x12)), Answer::ToUplink);
    assert!(matches!(ask(Uplink::Nat, &segment(0x02)), Answer::Reply(_)));
    assert!(matches!(ask(Uplink::None, &segment(0x12)), Answer::Reply(_)));
    assert_eq!(ask(Uplink::None, &segment(0x04)), Answer::Drop(DropReason::NoRoute));
}

#[test]
fn a_port_of_the_gateway_where_nobody_listens_is_unreachable() {
    let frame = reply(&datagram(HERE, 9, b"x"));
    assert_eq!(frame[34..36], [3, 3], "type and code");
}

/// Changes a DHCP request's options and addresses, and sends it from the node.
fn dhcp(change: impl FnOnce(&mut Vec<u8>), options: &[u8]) -> Answer {
    let mut payload = bytes(DHCP_ASK).split_off(42);
    payload.truncate(240);
    change(&mut payload);
    payload.extend(options);
    payload.push(255);
    let (source, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let pseudo = PseudoHeader::v4(source, to, packet::UDP, 8 + payload.len());
    let packet = packet::ipv4(source, to, packet::UDP, &packet::udp(68, 67, &payload, &pseudo));
    ask(Uplink::Nat, &from_node(MacAddress::BROADCAST, &packet))
}

/// Returns the type of a DHCP reply, the address it gives, and where it is sent.
fn dhcp_reply(answer: Answer) -> (u8, Ipv4Addr, Ipv4Addr) {
    let Answer::Reply(frame) = answer else { panic!("{answer:?}") };
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    assert_eq!(frame[282..284], [53, 1]);
    (frame[284], address(58), address(30))
}

#[test]
fn an_address_is_given_to_its_port_only() {
    const REQUEST: [u8; 3] = [53, 1, 3];
    let wants = |last: u8| [&REQUEST[..], &[50, 4, 10, 0, 2, last]].concat();
    let (offer, ack, nak) = (2, 5, 6);
    let nothing = Ipv4Addr::UNSPECIFIED;
    let all = Ipv4Addr::BROADCAST;
    let same = |_: &mut Vec<u8>| {};
    assert_eq!(dhcp_reply(dhcp(same, &[53, 1, 1])), (offer, DB, DB));
    assert_eq!(dhcp_reply(dhcp(same, &wants(15))), (ack, DB, DB));
    assert_eq!(dhcp_reply(dhcp(same, &wants(16))), (nak, nothing, all));
    let renews = |bytes: &mut Vec<u8>| bytes[12..16].copy_from_slice(&DB.octets());
    assert_eq!(dhcp_reply(dhcp(renews, &REQUEST)), (ack, DB, DB));
    assert_eq!(dhcp_reply(dhcp(renews, &[53, 1, 8])), (ack, nothing, DB), "INFORM");
    let shouts = |bytes: &mut Vec<u8>| bytes[10] = 0x80;
    assert_eq!(dhcp_reply(dhcp(shouts, &[53, 1, 1])), (offer, DB, all));
    let another = [&wants(15)[..], &[54, 4, 10, 0, 2, 9]].concat();
    for (what, answer) in [
        ("another server", dhcp(same, &another)),
        ("RELEASE", dhcp(same, &[53, 1, 7])),
        ("DECLINE", dhcp(same, &[53, 1, 4])),
        ("another MAC address", dhcp(|bytes| bytes[33] ^= 1, &[53, 1, 1])),
        ("through a relay", dhcp(|bytes| bytes[27] = 1, &[53, 1, 1])),
        ("no message type", dhcp(same, &[])),
        ("an option past the end", dhcp(same, &[53, 9, 1])),
    ] {
        assert_eq!(answer, Answer::NotForMe, "{what}");
    }
}

/// Asks for a name; returns the code and the addresses, in order.
fn names(uplink: Uplink, name: &str, kind: u16) -> (u8, Vec<Vec<u8>>) {
    names_in(&fuzz::network(uplink), name, kind)
}

fn names_in(network: &NetworkSpec, name: &str, kind: u16) -> (u8, Vec<Vec<u8>>) {
    let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.bytes());
    }
    question.push(0);
    question.extend(kind.to_be_bytes());
    question.extend([0, 1]);
    let Answer::Reply(frame) = ask_in(network, &datagram(HERE, 53, &question)) else {
        panic!("no answer about {name}")
    };
    let message = &frame[42..];
    let mut rest = &message[question.len()..];
    let mut records = Vec::new();
    for _ in 0..u16::from_be_bytes([message[6], message[7]]) {
        let (record, next) = rest.split_at(12 + usize::from(rest[11]));
        records.push(record[12..].to_vec());
        rest = next;
    }
    assert!(rest.is_empty());
    (message[3] & 0x0f, records)
}

#[test]
fn names_are_told_own_segment_first() {
    let near = vec![10, 0, 2, 16];
    let far = vec![10, 9, 0, 16];
    for name in ["web", "WEB", "web.shop", "Web.Shop"] {
        let found = names(Uplink::None, name, 1);
        assert_eq!(found, (0, vec![near.clone(), far.clone()]), "{name}");
    }
    let (code, found) = names(Uplink::None, "db", 28);
    assert_eq!((code, found.len(), found[0][15]), (0, 1, 0x15));
    for kind in [15, 16, 255] {
        assert_eq!(names(Uplink::None, "web", kind), (0, vec![]), "type {kind}");
    }
}

#[test]
fn a_node_is_found_by_its_name_and_by_its_host_name() {
    let mut network = fuzz::network(Uplink::None);
    network.ports[2].node = "my_web".parse().unwrap();
    for name in ["my_web", "my-web", "my-web.shop", "my_web.shop"] {
        assert_eq!(names_in(&network, name, 1), (0, vec![vec![10, 0, 2, 16]]), "{name}");
    }
}

#[test]
fn addresses_are_named() {
    let shop = |node: &str| {
        let length = u8::try_from(node.len()).unwrap();
        [&[length][..], node.as_bytes(), b"\x04shop\0"].concat()
    };
    assert_eq!(names(Uplink::None, "16.2.0.10.in-addr.arpa", 12), (0, vec![shop("web")]));
    let db6 = format!("5.1.{}2.0.0.0.0.0.d.f.ip6.arpa", "0.".repeat(22));
    assert_eq!(names(Uplink::None, &db6, 12), (0, vec![shop("db")]));
    assert_eq!(names(Uplink::None, "99.2.0.10.in-addr.arpa", 12).0, 3);
    assert_eq!(names(Uplink::Nat, "99.2.0.10.in-addr.arpa", 12).0, 3);
    assert_eq!(names(Uplink::Nat, "1.1.1.1.in-addr.arpa", 12).0, 5);
}

#[test]
fn unknown_names_are_left_to_the_outside_if_there_is_one() {
    for (name, inside, outside) in [
        ("nosuch", 3, 5),
        ("nosuch.shop", 3, 3),
        ("shop", 3, 3),
        ("example.org", 3, 5),
        ("web.example.org", 3, 5),
        ("xweb", 3, 5),
    ] {
        assert_eq!(names(Uplink::None, name, 1), (inside, vec![]), "{name}");
        assert_eq!(names(Uplink::Nat, name, 1), (outside, vec![]), "{name}");
    }
}

#[test]
fn odd_questions_are_refused() {
    let code = |message: &[u8]| match ask(Uplink::None, &datagram(HERE, 53, message)) {
        Answer::Reply(frame) => Some(frame[45] & 0x0f),
        _ => None,
    };
    let header = |flags: u8, questions: u8| vec![0, 1, flags, 0, 0, questions, 0, 0, 0, 0, 0, 0];
    let with = |rest: &[u8]| [&header(1, 1)[..], rest].concat();
    assert_eq!(code(&with(&[0xc0, 12, 0, 1, 0, 1])), Some(1), "a loop");
    assert_eq!(code(&with(&[3, b'w', b'e'])), Some(1), "cut short");
    assert_eq!(code(&with(&[&[63; 64].repeat(5)[..], &[0, 0, 1, 0, 1]].concat())), Some(1));
    assert_eq!(code(&[header(1, 2), vec![0, 0, 1, 0, 1]].concat()), Some(1), "two questions");
    assert_eq!(code(&header(0x28, 0)), Some(4), "an update");
    assert_eq!(code(&with(b"\x03web\0\0\x01\0\x03")), Some(5), "another class");
    assert_eq!(code(&header(0x80, 1)), None, "an answer");
    assert_eq!(code(&[0; 11]), None);
}

#[test]
fn who_has_no_address_yet_is_told_with_all_others() {
    let (nobody, group) = ("::".parse().unwrap(), "ff02::1:ff00:2".parse().unwrap());
    let mut solicitation = bytes(NEIGHBOUR_ASK)[54..78].to_vec();
    packet::put_u16(&mut solicitation, 2, 0);
    let pseudo = PseudoHeader::v6(nobody, group, packet::ICMPV6, 24);
    let sum = pseudo.checksum(&solicitation);
    packet::put_u16(&mut solicitation, 2, sum);
    let asked = |hops| {
        let packet = packet::ipv6(nobody, group, packet::ICMPV6, hops, &solicitation);
        let mut frame = bytes(NEIGHBOUR_ASK)[..14].to_vec();
        frame.extend(packet);
        ask(Uplink::None, &frame)
    };
    let Answer::Reply(frame) = asked(255) else { panic!("no answer") };
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(frame[58], 0xa0, "not solicited");
    assert_eq!(asked(254), Answer::NotForMe, "it was forwarded");
}

#[test]
fn ipv6_does_not_leave() {
    let (db, far) = ("fd00:2::15".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let packet = packet::ipv6(db, far, packet::UDP, 64, &[0; 8]);
    let mut frame = from_node(GATEWAY_MAC, &packet);
    packet::put_u16(&mut frame, 12, packet::IPV6);
    let Answer::Reply(reply) = ask(Uplink::Nat, &frame) else { panic!("no answer") };
    assert_eq!(reply[54..56], [1, 0], "no route");
}

proptest! {
    #[test]
    fn any_frame_has_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        fuzz::services(&bytes);
    }

    #[test]
    fn any_name_has_an_answer(
        labels in proptest::collection::vec("[a-zA-Z0-9_.-]{1,63}", 1..6),
        kind in any::<u16>(),
    ) {
        let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in &labels {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.bytes());
        }
        question.push(0);
        question.extend(kind.to_be_bytes());
        question.extend([0, 1]);
        fuzz::services(&question);
    }
}
