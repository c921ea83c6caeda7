//! The volume file before judges that are not ours: cryptsetup, and Python's `cryptography`.
//!
//! Needs the packages cryptsetup-bin and python3-cryptography. A missing one fails the tests.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use blockseal::device::volume::{self, Expected, Format, NewEncryption, OpenOptions, Volume};
use blockseal::device::{BlockDevice as _, DeviceErrorKind};
use blockseal::dir::HomeDir;
use blockseal::ids::VolumeId;
use blockseal::luks2::{COPY_BYTES, DATA_OFFSET, HEADER_BYTES, KEY_BYTES, KeyDigest, WrappedKey};
use blockseal::secret::SecretBytes;
use blockseal::units::{GIB, SectorSize};
use sha2::{Digest as _, Sha256};

struct Scene {
    base: tempfile::TempDir,
    home: HomeDir,
    id: VolumeId,
    expected: Expected,
    key: SecretBytes,
}

impl Scene {
    fn new(sector_size: SectorSize) -> Self {
        let base = tempfile::tempdir().unwrap();
        let home = HomeDir::open(&base.path().join("home"), true).unwrap();
        home.make_dir("volumes").unwrap();
        let (id, key) = (VolumeId::random(), SecretBytes::random(KEY_BYTES).unwrap());
        let new = NewEncryption {
            sector_size,
            digest: KeyDigest::new(&key).unwrap(),
            wrapped_key: WrappedKey {
                blob: vec![0xb1; 184],
                key_arn: "arn:aws:kms:us-east-1:123456789012:key/0b9ae5a2-1111-4222-8333-444455556666".into(),
                encryption_context: [("aws:ebs:id".into(), id.to_string())].into(),
            },
        };
        volume::create(&home, &id, GIB, Some(new)).unwrap();
        let expected = Expected { length: GIB, format: Format::Encrypted(sector_size) };
        Self { base, home, id, expected, key }
    }

    fn open(&self) -> Volume {
        volume::open(&self.home, &self.id, self.expected, Some(&self.key), OpenOptions::default()).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.home.path_of(&volume::relative_path(&self.id, self.expected.format))
    }

    /// A file with these bytes, outside the home.
    fn aside(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.base.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn test_key(&self, key: &[u8]) -> Output {
        let key = self.aside("key", key);
        let arguments = ["open", "--test-passphrase", "--key-size", "512", "--volume-key-file"];
        run("cryptsetup", arguments.iter().map(OsStr::new).chain([key.as_os_str(), self.file().as_os_str()]))
    }
}

/// The program's answer; after 20 seconds it is ended and the status says so.
fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Output {
    let directories = ["/usr/bin", "/usr/sbin", "/sbin"];
    let path = directories.iter().map(|directory| Path::new(directory).join(program)).find(|path| path.exists());
    let path = path.unwrap_or_else(|| panic!("{program} is not installed, and this test needs it"));
    Command::new("timeout").arg("20").arg(path).args(arguments).output().unwrap()
}

fn cryptsetup(arguments: &[&str], file: &Path) -> String {
    let output = run("cryptsetup", arguments.iter().map(OsStr::new).chain([file.as_os_str()]));
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn cryptsetup_accepts_the_file_with_its_key_and_refuses_any_other() {
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let scene = Scene::new(sector_size);
        let dump = cryptsetup(&["luksDump"], &scene.file());
        for line in [
            "Epoch:         \t1".to_owned(),
            format!("Label:         \t{}", scene.id),
            "Subsystem:     \tblockseal".to_owned(),
            "cipher: aes-xts-plain64".to_owned(),
            format!("sector: {sector_size} [bytes]"),
            "0: aws-kms".to_owned(),
        ] {
            assert!(dump.contains(&line), "no line {line:?} in {dump}");
        }
        let token = cryptsetup(&["token", "export", "--token-id", "0"], &scene.file());
        assert!(token.contains(&format!("\"encryption_context\":{{\"aws:ebs:id\":\"{}\"}}", scene.id)), "{token}");
        assert_eq!(scene.test_key(scene.key.expose()).status.code(), Some(0));
        for bit in [0, 255, 256, 511] {
            let mut other = scene.key.expose().to_vec();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(scene.test_key(&other).status.code(), Some(2), "bit {bit}");
        }
    }
}

#[test]
fn luks_dump_works_while_the_volume_is_open_and_its_header_is_written() {
    let scene = Scene::new(SectorSize::B4096);
    let volume = scene.open();
    cryptsetup(&["luksDump"], &scene.file());
    volume.grow(2 * GIB).unwrap();
    let dump = cryptsetup(&["luksDump"], &scene.file());
    assert!(dump.contains("Epoch:         \t2"), "{dump}");
    let token = cryptsetup(&["token", "export", "--token-id", "0"], &scene.file());
    assert!(token.contains("\"volume_bytes\":\"2147483648\""), "{token}");
}

/// The lock that we do not hold: under an exclusive one cryptsetup waits for as long as the volume is attached.
#[test]
fn under_an_exclusive_lock_luks_dump_hangs() {
    let scene = Scene::new(SectorSize::B4096);
    let file = fs::File::open(scene.file()).unwrap();
    let _lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let arguments = ["2", "cryptsetup", "luksDump"];
    let output = Command::new("timeout").args(arguments).arg(scene.file()).output().unwrap();
    assert_eq!(output.status.code(), Some(124), "{output:?}");
}

/// A keyslot is a way in that the KMS knows nothing of. We open such a volume, keep its slots when the header is
/// written, and say that they are there.
#[test]
fn a_keyslot_that_cryptsetup_adds_is_kept_and_reported() {
    let scene = Scene::new(SectorSize::B4096);
    let (key, passphrase) = (scene.aside("key", scene.key.expose()), scene.aside("pass", b"correct horse"));
    let options = ["luksAddKey", "-q", "--key-size", "512", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    let file = scene.file();
    let paths = [OsStr::new("--volume-key-file"), key.as_os_str(), file.as_os_str(), passphrase.as_os_str()];
    let arguments = options.iter().map(OsStr::new).chain(paths);
    let output = run("cryptsetup", arguments);
    assert!(output.status.success(), "{output:?}");

    let volume = scene.open();
    assert_eq!(volume.header().unwrap().keyslots(), ["0"]);
    volume.grow(2 * GIB).unwrap();
    drop(volume);
    let grown = Expected { length: 2 * GIB, ..scene.expected };
    let verification = volume::verify(&scene.home, &scene.id, grown, Some(&scene.key)).unwrap();
    assert!(verification.problems.is_empty(), "{:?}", verification.problems);
    assert!(verification.notes.iter().any(|note| note.contains("without the KMS")), "{:?}", verification.notes);
    let pass = format!("--key-file={}", passphrase.display());
    cryptsetup(&["open", "--test-passphrase", &pass], &scene.file());
}

/// cryptsetup opens a header that was relabelled to a cipher which does nothing; we do not.
#[test]
fn a_header_that_cryptsetup_accepts_and_we_refuse() {
    let scene = Scene::new(SectorSize::B4096);
    let file = fs::OpenOptions::new().read(true).write(true).open(scene.file()).unwrap();
    let mut area = vec![0; HEADER_BYTES];
    file.read_exact_at(&mut area, 0).unwrap();
    for copy in area.chunks_exact_mut(COPY_BYTES) {
        let json = String::from_utf8(copy[4096..].to_vec()).unwrap().replace("aes-xts-plain64", "cipher_null-ecb");
        copy[4096..].copy_from_slice(json.as_bytes());
        copy[448..512].fill(0);
        let checksum = Sha256::digest(&*copy);
        copy[448..480].copy_from_slice(&checksum);
    }
    file.write_all_at(&area, 0).unwrap();
    assert!(cryptsetup(&["luksDump"], &scene.file()).contains("cipher: cipher_null-ecb"));
    let options = OpenOptions::default();
    let error = volume::open(&scene.home, &scene.id, scene.expected, Some(&scene.key), options).unwrap_err();
    assert_eq!(error.kind(), DeviceErrorKind::Refused, "{error}");
}

const DECRYPT: &str = "
import sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
path, key, sector_size, offset, length, base = sys.argv[1], open(sys.argv[2], 'rb').read(), *map(int, sys.argv[3:])
file = open(path, 'rb')
for at in range(offset, offset + length, sector_size):
    file.seek(base + at)
    # LUKS2 counts the tweak in 512-byte units at every sector size.
    tweak = (at // 512).to_bytes(16, 'little')
    decryptor = Cipher(algorithms.AES(key), modes.XTS(tweak)).decryptor()
    sys.stdout.buffer.write(decryptor.update(file.read(sector_size)) + decryptor.finalize())
";

fn decrypted_by_python(scene: &Scene, sector_size: SectorSize, offset: u64, length: u64) -> Vec<u8> {
    let (script, key) = (scene.aside("decrypt.py", DECRYPT.as_bytes()), scene.aside("key", scene.key.expose()));
    let numbers = [sector_size.bytes() as u64, offset, length, DATA_OFFSET].map(|number| number.to_string());
    let paths = [script.as_os_str(), scene.file().as_os_str(), key.as_os_str()].map(OsStr::to_owned);
    let arguments: Vec<_> = paths.into_iter().chain(numbers.into_iter().map(Into::into)).collect();
    let output = run("python3", arguments.iter().map(AsRef::as_ref));
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn python_decrypts_what_was_written_also_a_unit_inside_a_sector() {
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let scene = Scene::new(sector_size);
        let volume = scene.open();
        let mut plain = vec![0; 64 * 1024];
        // The whole range first: a unit that was never written is zeros for us and noise for Python.
        let steps: [(usize, Vec<u8>); 4] = [
            (0, (0..=252).cycle().take(64 * 1024).collect()),
            (5 * 4096 + 3 * 512, vec![0xc3; 512]),
            (9 * 4096 + 1000, b"one sentence across two units of one sector".repeat(20)),
            (12 * 4096 - 512, vec![0x3c; 1024]),
        ];
        for (offset, data) in steps {
            volume.write_at(GIB / 2 + offset as u64, &data).unwrap();
            plain[offset..offset + data.len()].copy_from_slice(&data);
        }
        volume.flush().unwrap();
        drop(volume);
        assert!(decrypted_by_python(&scene, sector_size, GIB / 2, 64 * 1024) == plain, "sectors of {sector_size}");
    }
}

#[test]
fn after_a_fill_python_reads_zeros_where_nothing_was_written() {
    let mut scene = Scene::new(SectorSize::B4096);
    // A small one: filling takes the space of the whole volume.
    let new = NewEncryption {
        sector_size: SectorSize::B4096,
        digest: KeyDigest::new(&scene.key).unwrap(),
        wrapped_key: WrappedKey { blob: vec![1], key_arn: "arn".into(), encryption_context: [].into() },
    };
    scene.id = VolumeId::random();
    scene.expected.length = 1 << 20;
    volume::create(&scene.home, &scene.id, 1 << 20, Some(new)).unwrap();
    let volume = scene.open();
    volume.write_at(7 * 512, &[5; 512]).unwrap();
    volume.flush().unwrap();
    let mut expected = vec![0; 1 << 20];
    expected[7 * 512..8 * 512].fill(5);
    assert!(decrypted_by_python(&scene, SectorSize::B4096, 0, 1 << 20) != expected, "holes are noise before");
    volume.fill(|_| ()).unwrap();
    assert!(decrypted_by_python(&scene, SectorSize::B4096, 0, 1 << 20) == expected);
}
