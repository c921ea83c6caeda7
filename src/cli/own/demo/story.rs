//! The story, step by step, short enough for one screen.

use crate::ids::DbiResourceId;

use super::fixture;
use super::stage::{Halt, Stage};
use super::trail;

pub(super) fn tell(stage: &mut Stage) -> Result<(), Halt> {
    let image = fixture::image()?;
    let bulk = fixture::bulk();
    stage.put("orders.ext4", &image)?;
    stage.put("bulk.bin", &bulk)?;
    stage.line("Blockseal: storage encryption as RDS on EBS does it. Each line behind a $ is run as it stands.")?;
    stage.command(&format!("export BLOCKSEAL_HOME={}", stage.home().display()))?;

    make_key_and_volume(stage)?;
    write_image(stage)?;
    show_a_sector(stage, &image)?;
    let speed = measure_and_compare(stage, &image, &bulk)?;
    try_another_context(stage)?;
    move_a_wrapped_key(stage)?;
    lose_the_key_and_regain_it(stage)?;
    trail::show(stage)?;
    stage.line(&format!("Everything is as it says, in {:.1} s; {speed}.", stage.running().as_secs_f64()))
}

const ATTACH: &str = "blockseal ec2 attach-volume --volume-id $VOL";
const DETACH: &str = "blockseal ec2 detach-volume --volume-id $VOL";
const OWN_CONTEXT: &str = "$DECRYPT aws:ebs:id=$VOL,aws:rds:db-id=$DB";
const READ_IMAGE: &str = "blockseal volume read $VOL --length 32M | cmp - orders.ext4";

fn make_key_and_volume(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("A customer master key, and a volume whose data key it wraps under two ids")?;
    stage.set_quietly("KEY", "blockseal kms create-key --query KeyMetadata.Arn --output text")?;
    stage.run("blockseal kms create-alias --alias-name alias/orders --target-key-id $KEY")?;
    stage.set_text("DB", DbiResourceId::random().as_str())?;
    stage.set_text(
        "MAKE",
        "blockseal ec2 create-volume --size 1 --encrypted --kms-key-id alias/orders \\\n--db-instance-resource-id $DB --query VolumeId --output text",
    )?;
    stage.set("VOL", "$MAKE")
}

fn write_image(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("Attach it: a process holds the key and serves NBD; write an ext4 image through it")?;
    stage.run(ATTACH)?;
    let report = stage.run("blockseal volume write $VOL --file orders.ext4")?.json()?;
    stage.claim(report["Bytes"] == fixture::IMAGE_BYTES && report["ThroughExporter"] == true, "32 MiB through NBD")
}

fn show_a_sector(stage: &mut Stage, image: &[u8]) -> Result<(), Halt> {
    stage.step("The same sector for a reader and on the disk")?;
    let offset = fixture::marker_offset(image)
        .ok_or_else(|| Halt::Machine("the disk image inside this program has no table".into()))?;
    let ended =
        stage.run(&format!("blockseal volume inspect $VOL --envelope --offset {offset} | grep -E 'plain|disk'"))?;
    stage.note(ended.stdout.trim_end())?;
    let shows = |name: &str| {
        let mut lines = ended.stdout.lines().filter(|line| line.trim_start().starts_with(name));
        lines.next().map(|line| line.contains("order,customer,c"))
    };
    stage.claim(
        shows("plaintext") == Some(true) && shows("on disk") == Some(false),
        "the reader sees the table, the disk has noise",
    )
}

/// Answers what speed was reached, in words.
fn measure_and_compare(stage: &mut Stage, image: &[u8], bulk: &[u8]) -> Result<String, Halt> {
    stage.step("How fast? 128 MiB in and out; then detach, attach again, and compare all of it")?;
    let written = stage.run("blockseal volume write $VOL --offset 64M --file bulk.bin")?.json()?;
    let rate = |bytes_per_second: f64| format!("{:.2} GB/s", bytes_per_second / 1e9);
    let write_rate = rate(written["BytesPerSecond"].as_f64().unwrap_or_default());
    stage.claim(written["Bytes"] == fixture::BULK_BYTES, &write_rate)?;
    let read = stage.run("blockseal volume read $VOL --offset 64M --length 128M | cmp - bulk.bin")?;
    #[expect(clippy::cast_precision_loss, reason = "128 MiB is far below 2^52")]
    let read_rate = rate(fixture::BULK_BYTES as f64 / read.took.as_secs_f64());
    stage.claim(true, &read_rate)?;
    stage.run(&format!("{DETACH} && {ATTACH}"))?;
    let digest = stage.run("blockseal volume export $VOL - | sha256sum")?.stdout;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    let expected = fixture::volume_digest(image, bulk);
    stage.claim(digest == expected, &format!("{digest}: image, zeros, noise"))?;
    Ok(format!("through NBD {write_rate} written and flushed, {read_rate} read"))
}

fn try_another_context(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("The wrapped key opens under its own encryption context and no other")?;
    stage
        .set_quietly("BLOB", "blockseal volume inspect $VOL --query Header.WrappedKey.CiphertextBlob --output text")?;
    stage.set_text("DECRYPT", "blockseal kms decrypt --query KeyId --ciphertext-blob $BLOB --encryption-context")?;
    let ended = stage.run(OWN_CONTEXT)?;
    stage.claim(ended.json()? == stage.variable("KEY"), "in any order of the pairs")?;
    stage.refused("$DECRYPT aws:ebs:id=$VOL", "InvalidCiphertextException")
}

fn move_a_wrapped_key(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("Another volume's wrapped key, put into this one's header, does not attach")?;
    stage.set("OTHER", "$MAKE")?;
    stage.run(&format!("{DETACH} && head -c 16M home/volumes/$VOL.luks > header"))?;
    stage.run("head -c 16M home/volumes/$OTHER.luks | dd of=home/volumes/$VOL.luks conv=notrunc status=none")?;
    stage.refused(ATTACH, "CustomerKeyHasBeenRevoked")?;
    let events = trail::events(stage)?;
    let last = events.iter().rev().find(|event| event["eventName"] == "Decrypt");
    if last.is_none_or(|event| event["errorCode"] != "InvalidCiphertextException") {
        return Err(Halt::NotAsItSays("the trail should have the reason: Decrypt was refused".to_owned()));
    }
    stage.run("dd if=header of=home/volumes/$VOL.luks conv=notrunc status=none")?;
    stage.run(ATTACH).map(drop)
}

fn lose_the_key_and_regain_it(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("Disable the key: what is attached goes on, what is detached stays shut")?;
    stage.run("blockseal kms disable-key --key-id $KEY")?;
    stage.run(READ_IMAGE)?;
    stage.claim(true, "goes on")?;
    stage.run(DETACH)?;
    stage.refused(ATTACH, "CustomerKeyHasBeenRevoked")?;
    stage.refused(OWN_CONTEXT, "DisabledException")?;
    stage.run(&format!("blockseal kms enable-key --key-id $KEY && {ATTACH}"))?;
    stage.run(READ_IMAGE)?;
    stage.claim(true, "all there")
}
