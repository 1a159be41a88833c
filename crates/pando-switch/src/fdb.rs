//! Which stations are behind which ports of a segment: the forwarding table of a learning bridge
//! (IEEE 802.1D, 7.8 and 7.9).
//!
//! The addresses of the ports themselves are known from the beginning and cannot be taken over: a
//! machine that sends under another's address is not believed.

use std::collections::HashMap;
use std::time::Duration;

use pando_model::network::{GATEWAY_MAC, MacAddress};

use crate::limits::{PORT_STATIONS, SEGMENT_STATIONS, STATION_AGE, STATION_RENEWAL};

/// Where a station is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Station {
    /// A port's own address.
    Fixed(usize),
    /// Nobody's to learn: the gateway's.
    Gateway,
    /// Heard behind a port, last at a time.
    Heard(usize, Duration),
}

/// What became of a source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It is known to be there.
    Known,
    /// It is known to be elsewhere, and stays so.
    Spoofed,
    /// There was no room.
    Full,
}

/// The table of one segment.
#[derive(Debug, Default)]
pub struct ForwardingTable {
    stations: HashMap<MacAddress, Station>,
    /// How many are heard behind each port.
    heard: HashMap<usize, usize>,
    /// How many are heard.
    total: usize,
    /// When those too old were given up last.
    tidied: Duration,
}

impl ForwardingTable {
    /// Returns the table of a segment with these ports.
    pub fn new(ports: impl IntoIterator<Item = (MacAddress, usize)>) -> Self {
        let fixed = ports.into_iter().map(|(address, port)| (address, Station::Fixed(port)));
        let mut stations: HashMap<_, _> = fixed.collect();
        stations.insert(GATEWAY_MAC, Station::Gateway);
        Self { stations, ..Self::default() }
    }

    /// Takes note that `address` sent through `port`.
    pub fn learn(&mut self, now: Duration, address: MacAddress, port: usize) -> Learned {
        match self.stations.get_mut(&address) {
            Some(Station::Fixed(owner)) if *owner == port => Learned::Known,
            Some(Station::Fixed(_) | Station::Gateway) => Learned::Spoofed,
            Some(Station::Heard(at, since)) if *at == port => {
                if now.saturating_sub(*since) >= STATION_RENEWAL {
                    *since = now;
                }
                Learned::Known
            }
            Some(Station::Heard(..)) => {
                self.forget(address);
                self.hear(now, address, port)
            }
            None => self.hear(now, address, port),
        }
    }

    /// Returns the port behind which `address` is, if that is known.
    pub fn port_of(&self, now: Duration, address: MacAddress) -> Option<usize> {
        match self.stations.get(&address)? {
            Station::Fixed(port) => Some(*port),
            Station::Heard(port, since) => {
                (now.saturating_sub(*since) < STATION_AGE).then_some(*port)
            }
            Station::Gateway => None,
        }
    }

    /// Returns the stations that were heard and are still believed, with when, by address.
    pub fn heard(&self, now: Duration) -> Vec<(MacAddress, usize, Duration)> {
        let mut heard: Vec<_> = self
            .stations
            .iter()
            .filter_map(|(address, station)| match station {
                Station::Heard(port, since) if now.saturating_sub(*since) < STATION_AGE => {
                    Some((*address, *port, *since))
                }
                _ => None,
            })
            .collect();
        heard.sort_unstable_by_key(|(address, ..)| *address);
        heard
    }

    /// Puts back a station that [`Self::heard`] told of.
    pub fn restore(&mut self, address: MacAddress, port: usize, since: Duration) -> Learned {
        match self.stations.get(&address) {
            None => self.hear(since, address, port),
            Some(_) => Learned::Spoofed,
        }
    }

    fn hear(&mut self, now: Duration, address: MacAddress, port: usize) -> Learned {
        let is_full = |table: &Self| {
            table.total >= SEGMENT_STATIONS
                || table.heard.get(&port).is_some_and(|count| *count >= PORT_STATIONS)
        };
        // Looking through all of them for every frame would be what a flood of addresses is for.
        if is_full(self) && now.saturating_sub(self.tidied) >= STATION_RENEWAL {
            self.tidied = now;
            self.forget_old(now);
        }
        if is_full(self) {
            return Learned::Full;
        }
        self.stations.insert(address, Station::Heard(port, now));
        *self.heard.entry(port).or_default() += 1;
        self.total += 1;
        Learned::Known
    }

    fn forget(&mut self, address: MacAddress) {
        let Some(Station::Heard(port, _)) = self.stations.remove(&address) else { return };
        if let Some(count) = self.heard.get_mut(&port) {
            *count = count.saturating_sub(1);
        }
        self.total = self.total.saturating_sub(1);
    }

    fn forget_old(&mut self, now: Duration) {
        self.stations.retain(|_, station| match station {
            Station::Heard(_, since) => now.saturating_sub(*since) < STATION_AGE,
            Station::Fixed(_) | Station::Gateway => true,
        });
        self.heard.clear();
        self.total = 0;
        for station in self.stations.values() {
            if let Station::Heard(port, _) = station {
                *self.heard.entry(*port).or_default() += 1;
                self.total += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> MacAddress {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddress([0x02, 0, a, b, c, d])
    }

    fn table() -> ForwardingTable {
        ForwardingTable::new([(address(0), 0), (address(1), 1)])
    }

    #[test]
    fn a_spoofed_address_does_not_steal_another_ports_frames() {
        let mut table = table();
        assert_eq!(table.learn(Duration::ZERO, address(1), 0), Learned::Spoofed);
        assert_eq!(table.learn(Duration::ZERO, GATEWAY_MAC, 0), Learned::Spoofed);
        assert_eq!(table.port_of(Duration::ZERO, address(1)), Some(1));
        assert_eq!(table.port_of(Duration::ZERO, GATEWAY_MAC), None);
    }

    #[test]
    fn a_station_moves_and_is_forgotten_in_time() {
        let mut table = table();
        let at = Duration::from_secs;
        assert_eq!(table.learn(at(0), address(7), 0), Learned::Known);
        assert_eq!(table.port_of(at(1), address(7)), Some(0));
        assert_eq!(table.learn(at(2), address(7), 1), Learned::Known);
        assert_eq!(table.port_of(at(301), address(7)), Some(1));
        assert_eq!(table.port_of(at(302), address(7)), None);
        assert!(table.heard(at(302)).is_empty());
        assert_eq!(table.port_of(at(900), address(1)), Some(1));
    }

    #[test]
    fn a_port_that_invents_addresses_leaves_room_for_the_others() {
        let mut table = table();
        let now = Duration::ZERO;
        let full = (10..100_000).filter(|n| table.learn(now, address(*n), 0) == Learned::Full);
        assert_eq!(full.count(), 99_990 - PORT_STATIONS);
        assert_eq!(table.learn(now, address(200_000), 1), Learned::Known);
        assert_eq!(table.learn(STATION_AGE, address(200_001), 0), Learned::Known);
        assert_eq!(table.heard(STATION_AGE).len(), 1);
    }
}
