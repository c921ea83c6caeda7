//! The story, step by step.

use crate::ids::DbiResourceId;

use super::fixture;
use super::stage::{Halt, Stage, say};
use super::trail;

pub(super) fn tell(stage: &mut Stage) -> Result<(), Halt> {
    let image = fixture::image()?;
    let bulk = fixture::bulk();
    stage.put("orders.ext4", &image)?;
    stage.put("bulk.bin", &bulk)?;
    say("Blockseal demo: storage encryption as RDS on EBS does it, on this machine, with real bytes.")?;
    say("Each line behind a $ is run as it stands.\n")?;
    stage.note(&format!("export BLOCKSEAL_HOME={}", stage.home().display()))?;

    make_key_and_volume(stage)?;
    write_image(stage, &image)?;
    let speed = measure(stage)?;
    compare_everything(stage, &image, &bulk)?;
    try_other_contexts(stage)?;
    move_a_wrapped_key(stage)?;
    lose_the_key_and_regain_it(stage)?;
    trail::show(stage)?;

    say(&format!(
        "\nEverything is as it says, in {:.1} s. Through NBD, encrypted:\n{speed}.",
        stage.running().as_secs_f64()
    ))
}

fn make_key_and_volume(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("A customer master key and a name for it")?;
    stage.assign(
        "KEY",
        "blockseal kms create-key --description 'orders database' \\\n--query KeyMetadata.Arn --output text",
    )?;
    stage.run("blockseal kms create-alias --alias-name alias/orders --target-key-id $KEY")?;

    stage.step("An encrypted volume of a database: its data key is wrapped under both ids")?;
    stage.assign("DB", &format!("echo {}", DbiResourceId::random()))?;
    stage.assign(
        "VOLUME",
        "blockseal ec2 create-volume --size 1 --encrypted --kms-key-id alias/orders \\\n--db-instance-resource-id $DB --query VolumeId --output text",
    )?;

    stage.step("Attach it: a grant, Decrypt through it, a process that holds the key and serves NBD")?;
    let ended = stage.run("blockseal ec2 attach-volume --volume-id $VOLUME --query NbdUri --output text")?;
    stage.note(ended.stdout.trim_end())
}

fn write_image(stage: &mut Stage, image: &[u8]) -> Result<(), Halt> {
    stage.step("Write a real disk image through NBD: an ext4 file system with a table of orders")?;
    let ended = stage.run("blockseal volume write --volume-id $VOLUME --file orders.ext4")?;
    let report = ended.json()?;
    stage.claim(
        report["Bytes"] == fixture::IMAGE_BYTES && report["ThroughExporter"] == true,
        &format!("{} bytes written through the exporter", report["Bytes"]),
    )?;

    stage.step("The same sector for a reader and on the disk")?;
    let offset = fixture::marker_offset(image)
        .ok_or_else(|| Halt::Machine("the disk image inside this program has no table".into()))?;
    let ended = stage.run(&format!("blockseal volume inspect --volume-id $VOLUME --envelope --offset {offset}"))?;
    stage.note(ended.stdout.trim_end())?;
    let plain = ended.stdout.contains("order,customer,c");
    stage.claim(plain, "the reader sees the table")?;
    let count = |file: &str| format!("head -c 48M {file} | grep -aoF 'order,customer,card' | wc -l");
    let in_image = stage.run(&count("orders.ext4"))?;
    let on_disk = stage.run(&count("home/volumes/$VOLUME.luks"))?;
    let (in_image, on_disk) = (in_image.stdout.trim().to_owned(), on_disk.stdout.trim().to_owned());
    stage.claim(
        in_image == "1" && on_disk == "0",
        &format!("the table's first words are {in_image} time in the image, {on_disk} times in the volume's file"),
    )
}

/// Writes and reads 128 MiB; what was reached, in words.
fn measure(stage: &mut Stage) -> Result<String, Halt> {
    stage.step("How fast? 128 MiB of noise in and out again")?;
    let written = stage.run("blockseal volume write --volume-id $VOLUME --offset 64M --file bulk.bin")?.json()?;
    let read = stage.run("blockseal volume read --volume-id $VOLUME --offset 64M --length 128M | cmp - bulk.bin")?;
    let rate = |bytes_per_second: f64| format!("{:.2} GB/s", bytes_per_second / 1e9);
    let write_rate = rate(written["BytesPerSecond"].as_f64().unwrap_or_default());
    #[expect(clippy::cast_precision_loss, reason = "128 MiB is far below 2^52")]
    let read_rate = rate(fixture::BULK_BYTES as f64 / read.took.as_secs_f64());
    let speed = format!("{write_rate} written (flush included), {read_rate} read and compared");
    stage.claim(written["Bytes"] == fixture::BULK_BYTES, &speed)?;
    Ok(speed)
}

fn compare_everything(stage: &mut Stage, image: &[u8], bulk: &[u8]) -> Result<(), Halt> {
    stage.step("Detach, attach again, compare all of it")?;
    stage.run("blockseal ec2 detach-volume --volume-id $VOLUME --query State --output text")?;
    stage.run("blockseal ec2 attach-volume --volume-id $VOLUME --query State --output text")?;
    let digest = stage.run("blockseal volume export --volume-id $VOLUME --file - | sha256sum")?;
    let expected = fixture::volume_digest(image, bulk);
    stage.note(digest.stdout.trim_end())?;
    stage.claim(
        digest.stdout.split_whitespace().next() == Some(&expected),
        "SHA-256 of the whole volume is that of image, zeros and noise",
    )
}

fn try_other_contexts(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("The wrapped key opens under its own encryption context and no other")?;
    stage.assign(
        "BLOB",
        "blockseal volume inspect --volume-id $VOLUME \\\n--query Header.WrappedKey.CiphertextBlob --output text",
    )?;
    let decrypt = |context: &str| {
        format!(
            "blockseal kms decrypt --ciphertext-blob $BLOB --query KeyId --output text \\\n--encryption-context {context}"
        )
    };
    let ended = stage.run(&decrypt("aws:ebs:id=$VOLUME,aws:rds:db-id=$DB"))?;
    stage.claim(ended.stdout.trim() == stage.variable("KEY"), "its own context, in any order: accepted")?;
    stage.refused(&decrypt("aws:ebs:id=$VOLUME"), "InvalidCiphertextException")?;
    stage.refused(&decrypt("aws:rds:db-id=$DB,aws:ebs:id=vol-0123456789abcdef0"), "InvalidCiphertextException")
}

fn move_a_wrapped_key(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("Another volume's wrapped key, put into this one's header, does not attach")?;
    stage.assign(
        "OTHER",
        "blockseal ec2 create-volume --size 1 --encrypted --kms-key-id alias/orders \\\n--db-instance-resource-id $DB --query VolumeId --output text",
    )?;
    stage.run("blockseal ec2 detach-volume --volume-id $VOLUME --query State --output text")?;
    stage.run("head -c 16M home/volumes/$VOLUME.luks > own-header")?;
    stage.run(
        "dd if=home/volumes/$OTHER.luks of=home/volumes/$VOLUME.luks \\\nbs=16M count=1 conv=notrunc status=none",
    )?;
    stage.refused("blockseal ec2 attach-volume --volume-id $VOLUME", "CustomerKeyHasBeenRevoked")?;
    let events = trail::events(stage)?;
    let last = events.iter().rev().find(|event| event["eventName"] == "Decrypt");
    stage.claim(
        last.is_some_and(|event| event["errorCode"] == "InvalidCiphertextException"),
        "the trail has the reason: Decrypt was refused with InvalidCiphertextException",
    )?;
    stage.run("dd if=own-header of=home/volumes/$VOLUME.luks bs=16M conv=notrunc status=none")?;
    stage.run("blockseal ec2 attach-volume --volume-id $VOLUME --query State --output text").map(drop)
}

fn lose_the_key_and_regain_it(stage: &mut Stage) -> Result<(), Halt> {
    stage.step("Disable the key: what is attached goes on, what is detached stays shut")?;
    stage.run("blockseal kms disable-key --key-id $KEY")?;
    let differences = stage.run("blockseal volume read --volume-id $VOLUME --length 32M | cmp - orders.ext4")?;
    stage.claim(differences.stdout.is_empty(), "attached: reads go on, the key is in the exporter's memory")?;
    stage.run("blockseal ec2 detach-volume --volume-id $VOLUME --query State --output text")?;
    stage.refused("blockseal ec2 attach-volume --volume-id $VOLUME", "CustomerKeyHasBeenRevoked")?;
    stage.refused(
        "blockseal kms decrypt --ciphertext-blob $BLOB \\\n--encryption-context aws:ebs:id=$VOLUME,aws:rds:db-id=$DB",
        "DisabledException",
    )?;
    stage.run("blockseal kms enable-key --key-id $KEY")?;
    stage.run("blockseal ec2 attach-volume --volume-id $VOLUME --query State --output text")?;
    stage.run("blockseal volume read --volume-id $VOLUME --length 32M | cmp - orders.ext4")?;
    stage.claim(true, "enabled again: attached, and every byte of the image is there")?;
    stage.run("blockseal ec2 detach-volume --volume-id $VOLUME --query State --output text").map(drop)
}
