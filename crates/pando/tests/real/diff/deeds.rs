//! What is done in the machine, and what is to be found for it. Each line is a command of its own,
//! so that changes belong to one; `{1..3}` in what is found stands for three changes.

/// What is there before.
pub const BEFORE: &[&str] = &[
    "cd /srv; for f in longer given given-1 given-2 touched old-name tool mode-1 mode-2 mode-3; do \
     echo $f >$f; done; for n in 1 2 3 4 5; do echo $n >gone-$n; done; echo A >rewritten; \
     ln -s /srv/gone-1 link; ln -s /srv/gone-2 link-gone; mkdir -p tree/deep empty; \
     echo leaf >tree/deep/leaf",
    "printf 'A=1\\nB=1\\n' >>/etc/environment; echo old >/etc/old.conf; echo app >/etc/app.conf",
    "dpkg -i /srv/pando-test-c-1.0.deb /srv/pando-test-d-1.0.deb",
    "useradd --no-create-home bob; useradd --no-create-home carl; groupadd staffers",
    "printf '[Service]\\nExecStart=/bin/sleep 8888\\n' >/etc/systemd/system/doze.service; \
     systemctl daemon-reload; systemctl start doze.service",
    "cat >/srv/listen <<'END'\nuse IO::Socket::INET;\n\
     my @all = map { IO::Socket::INET->new(Listen => 1, LocalPort => $_) or die } @ARGV;\n\
     sleep 9999;\nEND\n\
     setsid perl /srv/listen 7070 </dev/null >/dev/null 2>&1 & \
     until grep -q :1B9E /proc/net/tcp; do sleep 0.05; done",
    "setsid sleep 6666 </dev/null >/dev/null 2>&1 &",
    "cd /; su postgres -c 'createdb shop'; su postgres -c \"psql -q shop -c 'create table users (id \
     int primary key, name text not null); insert into users select i, i::text from \
     generate_series(1, 100) i; create table big (n int); insert into big select \
     generate_series(1, 20000); create table doomed (x int)'\"",
    "sqlite3 /srv/a.db 'pragma journal_mode=wal; create table items (a int, b text); insert into \
     items values (1, 2); create table trash (x)'",
];

/// What is done, and what is to be found for it.
pub const DEEDS: &[(&str, &[&str])] = &[
    ("for n in $(seq 10); do echo $n >/srv/many-$n; done", &["added files:/srv/many-{1..10}"]),
    ("echo 2 >>/srv/longer", &["changed files:/srv/longer"]),
    ("echo B >/srv/rewritten", &["changed files:/srv/rewritten"]),
    (
        "rm /srv/gone-1 /srv/gone-2 /srv/gone-3 /srv/gone-4 /srv/gone-5",
        &["removed files:/srv/gone-{1..5}"],
    ),
    ("chmod 4755 /srv/tool", &["mode files:/srv/tool"]),
    ("chmod 600 /srv/mode-1 /srv/mode-2 /srv/mode-3", &["mode files:/srv/mode-{1..3}"]),
    (
        "chown daemon:daemon /srv/given /srv/given-1 /srv/given-2",
        &["owner files:/srv/given", "owner files:/srv/given-{1..2}"],
    ),
    (
        "ln -sfn /srv/longer /srv/link; ln -s /srv/longer /srv/link-new; rm /srv/link-gone",
        &["changed files:/srv/link", "added files:/srv/link-new", "removed files:/srv/link-gone"],
    ),
    ("mv /srv/tree /srv/wood", &["moved files:/srv/tree"]),
    ("mv /srv/old-name /srv/new-name", &["moved files:/srv/old-name"]),
    ("mkdir /srv/dir-1 /srv/dir-2 /srv/dir-3", &["added files:/srv/dir-{1..3}"]),
    ("rmdir /srv/empty", &["removed files:/srv/empty"]),
    ("mkdir /srv/big; cd /srv/big; for n in $(seq 40); do : >$n; done", &["added files:/srv/big"]),
    ("touch /srv/touched; echo x >/var/cache/x; echo x >/run/x; echo x >/var/lib/apt/x", &[]),
    ("echo 'set -o vi' >>/etc/profile", &["changed config:/etc/profile"]),
    (
        "for n in 1 2 3 4 5; do echo $n >/etc/conf-$n; done; rm /etc/old.conf",
        &["added config:/etc/conf-{1..5}", "removed config:/etc/old.conf"],
    ),
    ("chmod 600 /etc/app.conf", &["mode config:/etc/app.conf"]),
    ("dpkg -i /srv/pando-test-a-1.0.deb", &["added packages:pando-test-a"]),
    ("dpkg -i /srv/pando-test-b-1.0.deb", &["added packages:pando-test-b"]),
    ("dpkg -i /srv/pando-test-c-2.0.deb", &["changed packages:pando-test-c"]),
    ("dpkg --purge pando-test-d", &["removed packages:pando-test-d"]),
    ("useradd --no-create-home --shell /bin/sh eva", &["added users:eva"]),
    ("userdel carl", &["removed users:carl"]),
    ("groupadd crew", &["added users:group crew"]),
    ("usermod --append --groups staffers bob", &["changed users:group staffers"]),
    ("usermod --shell /bin/false bob", &["changed users:bob"]),
    (
        "sed -i 's/^A=1/A=2/; /^B=/d' /etc/environment; echo FLAVOUR=sweet >>/etc/environment",
        &[
            "changed env:login:A",
            "removed env:login:B",
            "added env:login:FLAVOUR",
            "changed config:/etc/environment",
        ],
    ),
    (
        "printf '[Service]\\nExecStart=/bin/sleep 7777\\n[Install]\\nWantedBy=multi-user.target\\n' \
         >/etc/systemd/system/nap.service; systemctl daemon-reload; systemctl enable --now nap.service",
        &[
            "added config:/etc/systemd/system/nap.service",
            "added config:/etc/systemd/system/multi-user.target.wants/nap.service",
            "changed services:nap.service",
            "added processes:/bin/sleep 7777",
        ],
    ),
    (
        "systemctl stop doze.service",
        &["changed services:doze.service", "removed processes:/bin/sleep 8888"],
    ),
    (
        "printf '[Service]\\nExecStart=/bin/false\\n' >/etc/systemd/system/bad.service; \
         systemctl daemon-reload; systemctl start bad.service; \
         until systemctl is-failed -q bad.service; do sleep 0.05; done",
        &["added config:/etc/systemd/system/bad.service", "changed services:bad.service"],
    ),
    (
        "printf '[Timer]\\nOnActiveSec=1d\\nUnit=nap.service\\n' >/etc/systemd/system/tick.timer; \
         systemctl daemon-reload; systemctl start tick.timer",
        &["added config:/etc/systemd/system/tick.timer", "changed services:tick.timer"],
    ),
    (
        "for n in 1 2 3 4 5; do setsid sleep 111$n </dev/null >/dev/null 2>&1 & done",
        &["added processes:sleep 111{1..5}"],
    ),
    ("pkill -f '^sleep 6666'", &["removed processes:sleep 6666"]),
    (
        "setsid perl /srv/listen 8081 8082 8083 8084 </dev/null >/dev/null 2>&1 & \
         until grep -q :1F94 /proc/net/tcp; do sleep 0.05; done",
        &[
            "added ports:tcp 0.0.0.0:808{1..4}",
            "added processes:perl /srv/listen 8081 8082 8083 8084",
        ],
    ),
    (
        "pkill -f '^perl /srv/listen 7070'; while grep -q :1B9E /proc/net/tcp; do sleep 0.05; done",
        &["removed ports:tcp 0.0.0.0:7070", "removed processes:perl /srv/listen 7070"],
    ),
    (
        "echo '<3>planted: one' >/dev/kmsg; echo '<4>planted: two' >/dev/kmsg; \
         echo '<6>planted: noise' >/dev/kmsg",
        &["added kernel:#* planted: one", "added kernel:#* planted: two"],
    ),
    (
        "sysctl -w net.ipv4.tcp_sack=0 net.core.somaxconn=1000",
        &[
            "changed network:setting net.ipv4.tcp_sack",
            "changed network:setting net.core.somaxconn",
        ],
    ),
    (
        "ip addr add 127.0.9.9/32 dev lo; ip link set lo mtu 60000",
        &["added network:address 127.0.9.9/32", "changed network:link lo"],
    ),
    ("hostname elsewhere", &["changed network:hostname"]),
    (
        "echo 'nameserver 192.0.2.1' >/etc/resolv.conf",
        &["* network:resolver", "* config:/etc/resolv.conf"],
    ),
    (
        "sqlite3 /srv/a.db 'alter table items add column c int; create index by_a on items (a)'",
        &["added database:/srv/a.db items column c", "added database:/srv/a.db items index by_a"],
    ),
    (
        "sqlite3 /srv/a.db 'insert into items values (3, 4, 5)'",
        &["changed database:/srv/a.db items rows"],
    ),
    (
        "sqlite3 /srv/a.db 'create table fresh (x); drop table trash'",
        &["added database:/srv/a.db fresh", "removed database:/srv/a.db trash"],
    ),
    (
        "sqlite3 /srv/b.db 'create table only (x)'",
        &["added database:/srv/b.db", "added files:/srv/b.db"],
    ),
    (
        "cd /; su postgres -c \"psql -q shop -c 'alter table users add column email text; create \
         index by_name on users (name)'\"",
        &[
            "added database:postgresql:5432/shop public.users column email",
            "added database:postgresql:5432/shop public.users index by_name",
        ],
    ),
    (
        "cd /; su postgres -c \"psql -q shop -c 'update users set name = 7 where id = 3'\"",
        &["changed database:postgresql:5432/shop public.users rows"],
    ),
    (
        "cd /; su postgres -c \"psql -q shop -c 'create table orders (id int); drop table doomed'\"",
        &[
            "added database:postgresql:5432/shop public.orders",
            "removed database:postgresql:5432/shop public.doomed",
        ],
    ),
    ("cd /; su postgres -c 'createdb stock'", &["added database:postgresql:5432/stock"]),
];
