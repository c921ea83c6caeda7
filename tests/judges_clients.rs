//! An attached volume, used by NBD clients that are not ours.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::harness::{both, succeed, tool};
use crate::scene::Scene;

const GIB: u64 = 1 << 30;

/// qemu-io ends with 0 whatever happens, unless a pattern differs; so what it says is looked at too.
fn qemu_io(uri: &str, commands: &[&str]) -> String {
    let script = commands.iter().flat_map(|command| ["-c", command]);
    let output = tool("qemu-io").args(["-f", "raw", "-d", "unmap"]).args(script).arg(uri).output().unwrap();
    let said = both(&output);
    assert!(output.status.success() && !said.contains("failed") && !said.contains("error"), "{commands:?}: {said}");
    said
}

#[test]
fn qemu_reads_back_what_it_wrote_zeroed_and_discarded() {
    let scene = Scene::new();
    let uri = scene.attach();
    qemu_io(
        &uri,
        &[
            "read -P 0 0 1M",
            "write -P 0xab 0 1M",
            "write -z -u 256k 256k",
            "write -z 600k 100k",
            "discard 768k 128k",
            "write -f -P 0xcd 950001 3",
            "read -P 0xab 0 256k",
            "read -P 0 256k 256k",
            "read -P 0xab 512k 88k",
            "read -P 0 600k 100k",
            "read -P 0xab 700k 68k",
            "read -P 0 768k 128k",
            "read -P 0xcd 950001 3",
            "read -P 0xab 950004 100",
            "aio_write -P 0x31 2M 4M",
            "aio_write -P 0x32 8M 4M",
            "aio_flush",
            "read -P 0x31 2M 4M",
            "read -P 0x32 8M 4M",
            "flush",
        ],
    );
    // The twin: the same client notices a byte that is not there.
    let twin = tool("qemu-io").args(["-f", "raw", "-c", "read -P 0xac 0 512"]).arg(&uri).output().unwrap();
    assert!(both(&twin).contains("Pattern verification failed"), "{}", both(&twin));

    let info: Value =
        serde_json::from_slice(&succeed(tool("qemu-img").args(["info", "--output=json", "-f", "raw"]).arg(&uri)))
            .unwrap();
    assert_eq!(info["virtual-size"], GIB);
    let size = succeed(tool("nbdinfo").args(["--size"]).arg(&uri));
    assert_eq!(String::from_utf8(size).unwrap().trim(), GIB.to_string());
    let about: Value = serde_json::from_slice(&succeed(tool("nbdinfo").arg("--json").arg(&uri))).unwrap();
    let export = &about["exports"][0];
    assert_eq!(export["export-name"], scene.volume.as_str());
    for ability in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn"] {
        assert_eq!(export[ability], true, "{ability} in {about}");
    }
    assert_eq!(export["is_read_only"], false);
    assert_eq!(export["block_size_preferred"], 4096);
    let list = String::from_utf8(succeed(tool("nbdinfo").arg("--list").arg(&uri))).unwrap();
    assert!(list.contains(&scene.volume), "{list}");
    scene.detach();
}

/// An image with data, holes and zeros that are stored as such.
fn write_image(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let mut state = 1u64;
    let mut piece = vec![0; 1 << 20];
    for index in 0..GIB >> 20 {
        match index % 8 {
            5 => piece.fill(0),
            6 => {
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Current(1 << 20)).unwrap();
                continue;
            }
            _ => {
                for word in piece.chunks_exact_mut(8) {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    word.copy_from_slice(&state.to_le_bytes());
                }
            }
        }
        file.write_all(&piece).unwrap();
    }
    file.set_len(GIB).unwrap();
}

#[test]
fn an_image_of_a_gibibyte_is_the_same_after_going_in_and_out() {
    let scene = Scene::fast();
    let (image, copy) = (scene.home.scratch().join("image"), scene.home.scratch().join("copy"));
    write_image(&image);
    let uri = scene.attach();
    succeed(tool("nbdcopy").arg("--flush").arg(&image).arg(&uri));
    succeed(tool("nbdcopy").arg(&uri).arg(&copy));
    succeed(tool("cmp").arg(&image).arg(&copy));
    fs::remove_file(&copy).unwrap();
    // Another client, and a fresh attachment.
    scene.detach();
    scene.attach();
    succeed(tool("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]).arg(&image).arg(&uri));
    succeed(tool("qemu-img").args(["convert", "-f", "raw", "-O", "raw"]).arg(&uri).arg(&copy));
    succeed(tool("cmp").arg(&image).arg(&copy));
    // The twin: one changed byte, and the comparison says so.
    qemu_io(&uri, &["write -P 0x5a 777777 1", "flush"]);
    let compared = tool("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]).arg(&image).arg(&uri).output().unwrap();
    assert_eq!(compared.status.code(), Some(1), "{}", both(&compared));
    scene.detach();
}

#[test]
fn fio_verifies_random_reads_and_writes_of_every_size() {
    let scene = Scene::fast();
    let uri = scene.attach();
    let mut fio = tool("fio");
    fio.args([
        "--name=mixed",
        "--ioengine=nbd",
        "--rw=randrw",
        "--bsrange=512-64k",
        "--blockalign=512",
        "--iodepth=16",
    ]);
    fio.args(["--verify=sha256", "--do_verify=1", "--verify_fatal=1", "--randseed=7", "--fsync=64"]);
    fio.arg(if crate::harness::full() { "--size=1G" } else { "--size=64M" }).arg(format!("--uri={uri}"));
    // fio leaves files of its state in the folder that it runs in.
    let output = fio.current_dir(scene.home.scratch()).output().unwrap();
    assert!(output.status.success() && !both(&output).contains("verify:"), "{}", both(&output));
    scene.detach();
}
