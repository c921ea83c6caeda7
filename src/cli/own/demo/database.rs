//! The story of a database: PostgreSQL on the kernel device of an encrypted volume. Needs root, FUSE, loop devices, and
//! Debian's `postgresql` with `postgresql-contrib`.

use super::stage::{Halt, Stage};

const ATTACH: &str =
    "blockseal ec2 attach-volume --volume-id $VOL --attach-as fuse-loop --query KernelDevice --output text";
const DETACH: &str = "blockseal ec2 detach-volume --volume-id $VOL";
const START: &str = "$AS $PG/pg_ctl -D $AT/pg -l $AT/log -w start";
const STOP: &str = "$AS $PG/pg_ctl -D $AT/pg -m fast -w stop";
// The server's last files are closed a moment after pg_ctl has seen it end.
const UNMOUNT: &str = "timeout 20 sh -c 'until umount $AT; do sleep 0.2; done'";
const SUM: &str = "$PG/psql -Atc 'SELECT count(*), sum(abalance), sum(hashtext(a::text)) FROM pgbench_accounts a'";

pub(super) fn tell(stage: &mut Stage) -> Result<(), Halt> {
    stage.line("Blockseal: a database on an encrypted volume. Each line behind a $ is run as it stands.")?;
    stage.command(&format!("export BLOCKSEAL_HOME={}", stage.home().display()))?;
    set_the_stage(stage)?;
    make_a_file_system(stage)?;
    run_a_database(stage)?;
    look_for_plaintext(stage)?;
    detach_and_come_back(stage)?;
    stage.line(&format!("Everything is as it says, in {:.1} s.", stage.running().as_secs_f64()))
}

fn set_the_stage(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("PostgreSQL, a user for it, and a place that this user can reach")?;
    stage.set("PG", "ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1")?;
    if stage.variable("PG").is_empty() {
        return Err(Halt::Machine("there is no PostgreSQL: apt-get install postgresql postgresql-contrib".into()));
    }
    // Whatever happens, nothing stays mounted.
    stage.at_end("$AS $PG/pg_ctl -D $AT/pg -m immediate -w stop; umount $AT || umount --lazy $AT; rmdir $AT");
    stage.set("AT", "mktemp -d /var/tmp/blockseal-demo-XXXXXX")?;
    stage.set_text("AS", "setpriv --reuid nobody --regid nogroup --clear-groups env -C $AT")?;
    stage.set_text("PGHOST", "$AT")?;
    stage.set_text("PGUSER", "demo")?;
    stage.set_text("PGDATABASE", "postgres")
}

fn make_a_file_system(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("A volume, attached as a device of this machine's kernel, and a file system on it")?;
    stage.set_quietly("KEY", "blockseal kms create-key --query KeyMetadata.Arn --output text")?;
    stage.set(
        "VOL",
        "blockseal ec2 create-volume --size 2 --encrypted --kms-key-id $KEY \\\n--query VolumeId --output text",
    )?;
    stage.set("DEV", ATTACH)?;
    stage.run("mkfs.ext4 -q $DEV && mount $DEV $AT && chown nobody:nogroup $AT").map(drop)
}

fn run_a_database(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("A database with checksums, its benchmark, and a secret")?;
    stage.run("$AS $PG/initdb -D $AT/pg -U demo --data-checksums")?;
    stage
        .run("printf \"listen_addresses=''\\nunix_socket_directories='%s'\\n\" $AT | $AS tee -a pg/postgresql.conf")?;
    stage.run(START)?;
    stage.run("$PG/pgbench -i -q -s 5")?;
    let bench = stage.run("$PG/pgbench -n -c 4 -T 5")?;
    let tps = bench.stdout.lines().find(|line| line.starts_with("tps")).unwrap_or_default().to_owned();
    stage.claim(!tps.is_empty(), &tps)?;
    stage.run(
        "$PG/psql -qc \"CREATE TABLE cards AS SELECT 'CARDNUMBER-'||n AS card FROM generate_series(1,9999) n\" -c CHECKPOINT",
    )?;
    stage.set("BEFORE", SUM)
}

fn look_for_plaintext(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("The database's pages on the device, and in the volume's file below it")?;
    stage.run("grep -q CARDNUMBER-4711 $DEV")?;
    stage.claim(true, "on the device")?;
    let hits = stage.run("grep -c CARDNUMBER- home/volumes/$VOL.luks || true")?;
    stage.claim(hits.stdout.trim() == "0", "0 hits in the file")
}

fn detach_and_come_back(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("Not while it is mounted; then stop, detach, attach again, check every page and compare")?;
    stage.run(STOP)?;
    stage.refused(DETACH, "IncorrectState")?;
    stage.run(&format!("{UNMOUNT} && {DETACH}"))?;
    let hits = stage.run("grep -c CARDNUMBER- home/volumes/$VOL.luks || true")?;
    stage.claim(hits.stdout.trim() == "0", "still 0")?;
    stage.set("DEV", ATTACH)?;
    stage.run("fsck.ext4 -fn $DEV && mount $DEV $AT")?;
    let checked = stage.run("$AS $PG/pg_checksums -D $AT/pg --check")?;
    stage.claim(
        checked.stdout.lines().any(|line| line.split_whitespace().eq("Bad checksums: 0".split(' '))),
        "all good",
    )?;
    stage.run(START)?;
    stage.run("$PG/pg_amcheck --install-missing --heapallindexed postgres")?;
    let after = stage.run(SUM)?;
    stage.claim(after.stdout.trim() == stage.variable("BEFORE"), "every account as it was")?;
    stage.run(&format!("{STOP} && {UNMOUNT} && {DETACH}")).map(drop)
}
