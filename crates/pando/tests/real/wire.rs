//! What real guests send, and what becomes of it on the way: addresses from the switch, frames in a
//! capture, and each impairment as the receiver sees it.

use serde_json::Value;

use crate::support::{Base, Home, until};

const PAIR: &str = "name: pair
image: databases
network: {name: lan, subnet: 10.9.0.0/24}
nodes:
  - {name: a, memory: 256 MiB, ip: 10.9.0.11}
  - {name: b, memory: 256 MiB, ip: 10.9.0.12}
";

/// Prints the number of each datagram that comes, and the time in milliseconds.
const LISTEN: &str = r#"
use IO::Socket::INET; use Time::HiRes qw(time); $| = 1;
my $socket = IO::Socket::INET->new(LocalPort => 7000, Proto => "udp") or die;
print "ready\n";
while (defined $socket->recv(my $data, 2000)) { printf "%d %d\n", unpack("N", $data), time * 1000 }
"#;

/// Bytes of a datagram, and of the frame that it is in.
const DATAGRAM: u64 = 1000;
const FRAME: u64 = DATAGRAM + 42;

/// Number of the protocol, in the header of IPv4.
const UDP: u8 = 17;

struct Pair<'a> {
    home: &'a Home,
}

/// A datagram as it came: its number, and when.
#[derive(Debug, Clone, Copy)]
struct Heard {
    number: u64,
    ms: u64,
}

impl Pair<'_> {
    fn start(home: &Home) -> Pair<'_> {
        home.define(PAIR);
        home.ok(&["cluster", "start", "pair"]);
        let pair = Pair { home };
        pair.sh("b", &format!("cat >/root/listen <<'END'{LISTEN}END"));
        pair.sh("b", "perl /root/listen >/dev/shm/heard 2>&1 </dev/null &");
        until("it listens", || (!pair.sh("b", "cat /dev/shm/heard").is_empty()).then_some(()));
        pair
    }

    fn sh(&self, node: &str, line: &str) -> String {
        self.home.sh(&format!("pair/{node}"), line)
    }

    /// Sends `count` numbered datagrams from a to b, so many milliseconds apart, while the frames are
    /// impaired so; returns those that came, in their order, and what the switch counted.
    fn send(&self, impairment: &[&str], count: u64, every_ms: u64) -> (Vec<Heard>, Value) {
        let lines = || self.sh("b", "cat /dev/shm/heard").lines().count();
        let before = lines();
        let impair = ["net", "impair", "pair", "a", "b", "--seed", "1"];
        self.home.ok(&[&impair, impairment].concat());
        let link = self.link();
        self.sh(
            "a",
            &format!(
                "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(PeerAddr => \"10.9.0.12\", \
                 PeerPort => 7000, Proto => \"udp\"); for my $n (1..{count}) {{ \
                 $s->send(pack(\"Na*\", $n, \"x\" x ({DATAGRAM} - 4))); \
                 select(undef, undef, undef, {every_ms} / 1000) }}'"
            ),
        );
        let counted = until("all frames have met their fate", || {
            let now = self.link();
            (now["sent"].as_u64() >= Some(link["sent"].as_u64()? + count) && now["held"] == 0)
                .then_some(now)
        });
        self.home.ok(&["net", "heal-all", "pair"]);
        // The receiver has heard what was delivered before this.
        let mut settled = lines();
        until("the receiver is done", || {
            let now = lines();
            (std::mem::replace(&mut settled, now) == now).then_some(())
        });
        let heard = self.sh("b", "cat /dev/shm/heard");
        let heard = heard.lines().skip(before).map(|line| {
            let (number, ms) = line.split_once(' ').unwrap();
            Heard { number: number.parse().unwrap(), ms: ms.parse().unwrap() }
        });
        (heard.collect(), counted)
    }

    fn link(&self) -> Value {
        let all = self.home.ok(&["net", "faults", "pair", "--links"]);
        let links = all["links"].as_array().unwrap();
        links.iter().find(|link| link["from"] == "a" && link["to"] == "b").unwrap().clone()
    }
}

fn span_ms(heard: &[Heard]) -> u64 {
    heard.last().unwrap().ms - heard[0].ms
}

fn out_of_order(heard: &[Heard]) -> usize {
    heard.windows(2).filter(|pair| pair[0].number > pair[1].number).count()
}

/// The frames of a capture file: a header, and another before each of them.
fn frames(pcap: &[u8]) -> Vec<&[u8]> {
    const FILE: usize = 24;
    const RECORD: usize = 16;
    let (mut rest, mut frames) = (&pcap[FILE..], Vec::new());
    while let Some((record, after)) = rest.split_at_checked(RECORD) {
        let bytes = u32::from_le_bytes(record[8..12].try_into().unwrap());
        let (frame, next) = after.split_at(bytes as usize);
        frames.push(frame);
        rest = next;
    }
    frames
}

#[test]
fn guests_meet_a_real_network() {
    let home = Home::on(Base::Databases);
    let pair = Pair::start(&home);

    // An address, from a client of the guest's own.
    pair.sh("a", "ip address flush dev eth0; udhcpc -i eth0 -n -q -t 20 >/dev/shm/lease 2>&1");
    let lease = pair.sh("a", "cat /dev/shm/lease; ip -4 -o address show dev eth0");
    assert!(lease.contains("10.9.0.11 obtained from 10.9.0.1"), "{lease}");
    assert!(lease.contains("inet 10.9.0.11/24"), "{lease}");
    assert!(pair.sh("a", "getent hosts b").starts_with("10.9.0.12"));

    // What a capture holds is what was sent, once; and a rollback does not take it away.
    home.ok(&["commit", "pair", "-t", "before"]);
    home.ok(&["net", "capture", "pair", "start"]);
    pair.sh("a", "bash -c 'printf a-word-from-a >/dev/udp/10.9.0.12/9'");
    home.ok(&["net", "capture", "pair", "stop"]);
    let file = home.path().with_extension("pcap");
    let read = || {
        home.ok(&["net", "capture", "pair", "read", "--write", file.to_str().unwrap()]);
        std::fs::read(&file).unwrap()
    };
    let pcap = read();
    home.ok(&["rollback", "pair", "before"]);
    assert_eq!(read(), pcap);
    let word = b"a-word-from-a";
    // The other end says over ICMP that nobody hears this, and repeats it.
    let spoken =
        |frame: &&[u8]| frame[23] == UDP && frame.windows(word.len()).any(|bytes| bytes == word);
    let found: Vec<_> = frames(&pcap).into_iter().filter(spoken).collect();
    let [frame] = found.as_slice() else { panic!("{} frames", found.len()) };
    assert_eq!((&frame[26..30], &frame[30..34]), (&[10, 9, 0, 11][..], &[10, 9, 0, 12][..]));

    let (heard, _) = pair.send(&["--rate-kbit", "500"], 40, 20);
    assert_eq!(heard.len(), 40, "they fit into its queue, or come slower than it");
    let least = 39 * FRAME * 8 / 500;
    assert!(span_ms(&heard) + 50 > least, "{} ms, and not {least}", span_ms(&heard));

    let (heard, link) = pair.send(&["--latency-ms", "100", "--jitter-ms", "80"], 40, 5);
    assert_eq!(heard.len(), 40);
    assert!(out_of_order(&heard) > 0, "delays that differ by more than what is between frames");
    assert!(link["delayed"].as_u64() >= Some(40), "{link}");

    let (heard, link) = pair.send(&["--latency-ms", "100", "--reorder-pct", "25"], 40, 5);
    assert_eq!(heard.len(), 40);
    assert!(out_of_order(&heard) > 0 && link["reordered"].as_u64() > Some(0), "{link}");

    let (heard, link) = pair.send(&["--corrupt-pct", "100"], 40, 2);
    assert!(heard.is_empty(), "a checksum that is wrong for all to see: {heard:?}");
    assert!(link["corrupted"].as_u64() >= Some(40), "{link}");

    let (heard, link) = pair.send(&["--loss-pct", "40", "--loss-burst", "8"], 200, 2);
    let arrived: std::collections::BTreeSet<u64> = heard.iter().map(|heard| heard.number).collect();
    let lost: Vec<u64> = (1..=200).filter(|number| !arrived.contains(number)).collect();
    let bursts = 1 + lost.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    println!("{} lost in {bursts} bursts", lost.len());
    assert!(lost.len() > 2 * bursts && !heard.is_empty(), "{lost:?} {link}");

    home.ok(&["cluster", "destroy", "pair", "--remove-overlays"]);
    home.assert_nothing_left();
}
