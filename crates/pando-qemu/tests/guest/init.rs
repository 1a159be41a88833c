//! Process 1 of the spike's Linux guest: a static program that answers lines on the guest channel.
//! The spike compiles it; it has no dependencies, so that nothing else has to be right first.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn reboot(command: c_int) -> c_int;
}

const FINIT_MODULE: c_long = 313;
const O_DIRECT: i32 = 0o40000;
const REBOOT: c_int = 0x0123_4567;
const POWER_OFF: c_int = 0x4321_fedc;
/// Bytes of memory that `fill` and `sum` work on.
const ARENA: usize = 4 << 20;
const SECTOR: usize = 4096;

#[repr(align(4096))]
struct Sector([u8; SECTOR]);

fn main() {
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        std::fs::create_dir_all(target).unwrap();
        let [kind, target] = [kind, target].map(|text| CString::new(text).unwrap());
        // SAFETY: all strings live through the call.
        unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    }
    load_modules();
    let port = OpenOptions::new().read(true).write(true).open(find_port()).unwrap();
    let mut arena = vec![0u8; ARENA];
    for line in BufReader::new(port.try_clone().unwrap()).lines() {
        let answer = answer(&line.unwrap(), &mut arena);
        writeln!(&port, "{answer}").unwrap();
    }
}

fn load_modules() {
    let Ok(entries) = std::fs::read_dir("/modules") else { return };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let file = File::open(&path).unwrap();
        // SAFETY: the descriptor is open, the parameters are an empty string.
        let loaded = unsafe { syscall(FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) };
        let error = std::io::Error::last_os_error();
        assert_eq!(loaded, 0, "{}: {error}", path.display());
    }
}

fn find_port() -> PathBuf {
    loop {
        for entry in std::fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == "pando.0" {
                return PathBuf::from("/dev").join(entry.file_name());
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn answer(line: &str, arena: &mut [u8]) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |index: usize| words[index].parse::<usize>().unwrap();
    match words[0] {
        "boot-id" => {
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().into()
        }
        "cpus" => busy_cpus().to_string(),
        "fill" => {
            arena[number(1)..][..number(2)].fill(u8::try_from(number(3)).unwrap());
            "ok".into()
        }
        "sum" => {
            let fnv =
                |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            format!("{:016x}", arena.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
        }
        "bytes" => format!("{:?}", &arena[number(1)..][..number(2)]),
        "disk-write" => {
            let sector = Sector([u8::try_from(number(2)).unwrap(); SECTOR]);
            let disk = disk();
            disk.write_all_at(&sector.0, number(1) as u64).unwrap();
            disk.sync_all().unwrap();
            "ok".into()
        }
        // So many MiB and one sector of a byte.
        "fill-disk" => {
            let sector = Sector([u8::try_from(number(2)).unwrap(); SECTOR]);
            let disk = disk();
            for mib in 1..=number(1) {
                disk.write_all_at(&sector.0, (mib as u64) << 20).unwrap();
            }
            "ok".into()
        }
        "disk-read" => {
            let mut sector = Sector([0; SECTOR]);
            disk().read_exact_at(&mut sector.0, number(1) as u64).unwrap();
            format!("{:?}", &sector.0[..4])
        }
        "carrier" => carrier(words[1]),
        "logged" => {
            let text = kernel_log();
            text.matches(&words[1..].join(" ")).count().to_string()
        }
        "reseeds" => ["acpi", "platform"]
            .iter()
            .any(|bus| std::fs::exists(format!("/sys/bus/{bus}/drivers/vmgenid")).unwrap())
            .to_string(),
        "reboot" => {
            // SAFETY: it does not return, and nothing is mounted that could be damaged.
            unsafe { reboot(REBOOT) };
            "no".into()
        }
        "power-off" => {
            // SAFETY: as above.
            unsafe { reboot(POWER_OFF) };
            "no".into()
        }
        "panic" => {
            std::fs::write("/proc/sysrq-trigger", "c").unwrap();
            "no".into()
        }
        other => format!("unknown: {other}"),
    }
}

/// Brings the network interface up, and waits until its link is as wanted.
fn carrier(wanted: &str) -> String {
    std::fs::write("/sys/class/net/eth0/flags", "0x1003").unwrap();
    let mut is = String::new();
    for _ in 0..2000 {
        is = std::fs::read_to_string("/sys/class/net/eth0/carrier").unwrap();
        if is.trim() == wanted {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    is.trim().to_owned()
}

fn disk() -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(O_DIRECT).open("/dev/vda").unwrap()
}

/// Keeps as many threads busy as there are CPUs, and returns on how many CPUs they ran.
fn busy_cpus() -> u32 {
    const GETCPU: c_long = 309;
    static SEEN: AtomicU64 = AtomicU64::new(0);
    SEEN.store(0, Ordering::SeqCst);
    let threads = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let mut cpu = 0u32;
                    let none = std::ptr::null::<c_void>();
                    // SAFETY: `cpu` is where the number goes; the other outputs are not wanted.
                    unsafe { syscall(GETCPU, &raw mut cpu, none, none) };
                    SEEN.fetch_or(1 << cpu, Ordering::SeqCst);
                }
            });
        }
    });
    SEEN.load(Ordering::SeqCst).count_ones()
}

/// All messages in the kernel's log.
fn kernel_log() -> String {
    const O_NONBLOCK: i32 = 0o4000;
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").unwrap();
    let mut text = String::new();
    let mut record = [0; 8192];
    while let Ok(count) = std::io::Read::read(&mut &file, &mut record) {
        text.push_str(&String::from_utf8_lossy(&record[..count]));
    }
    text
}
