//! What a modification that was cut short leaves, state by state; and the loss of a key, with its twin.

use super::lease::Lease;
use super::modification::{self, Form, ModificationState};
use super::tests::Scene;
use super::*;
use crate::device::volume;
use crate::gate::{Call, ServiceError};
use crate::ids::VolumeId;
use crate::kms;
use crate::store;
use crate::twin::{Protection, without};
use crate::units::GIB;

/// How far a command came that was to make a volume of 1 GiB one of 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    /// It had said that it was about to.
    Announced,
    /// Its file was longer, and nothing said so yet.
    Longer,
    /// Its file had grown.
    Grown,
}

impl Scene {
    fn leave_modification(&self, id: &VolumeId, cut: Cut) {
        let row = self.row(id).unwrap();
        let to = Form { size: 2, ..Form::of(&row) };
        self.home.write(|tx| modification::begin(tx, &row, &to, store::clock(tx)?.now(), "the-request")).unwrap();
        match cut {
            Cut::Announced => {}
            Cut::Longer => {
                let path = self.home.dir().path_of(&format!("volumes/{id}.luks"));
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_len((16 << 20) + 2 * GIB).unwrap();
            }
            Cut::Grown => volume::grow(self.home.dir(), id, disk::expected(&row), 2 * GIB).unwrap(),
        }
    }

    /// Size that the records have, size that the file has, and whether it opens as the records describe it.
    fn sizes(&self, id: &VolumeId) -> (i64, u64, bool) {
        let row = self.row(id).unwrap();
        let header = disk::header(&self.home, &row).unwrap();
        let opened = open(&self.call(), id.as_str(), Access::Read);
        (row.size, header.length() / GIB, opened.is_ok())
    }

    fn state_of_modification(&self, id: &VolumeId) -> Option<ModificationState> {
        self.home.read(|tx| modification::last_of(tx, id)).unwrap().map(|last| last.state)
    }
}

#[test]
fn a_modification_that_was_cut_short_takes_effect() {
    for cut in [Cut::Announced, Cut::Longer, Cut::Grown] {
        let scene = Scene::new();
        let id = scene.encrypted_volume();
        scene.leave_modification(&id, cut);
        // The twin: nobody finishes it. A file that has grown is then not the one that the records describe.
        without(Protection::Repair, || {
            repair(&scene.home).unwrap();
            assert_eq!(scene.sizes(&id), (1, if cut == Cut::Grown { 2 } else { 1 }, cut != Cut::Grown), "{cut:?}");
        });
        assert_eq!(scene.state_of_modification(&id), Some(ModificationState::Modifying));
        repair(&scene.home).unwrap();
        assert_eq!(scene.sizes(&id), (2, 2, true), "{cut:?}");
        assert_eq!(scene.state_of_modification(&id), Some(ModificationState::Optimizing));
        assert!(take_notices(&scene.home).unwrap()[0].contains("was being modified"));
        let told = events::list(&scene.home, &events::Wanted::default()).unwrap();
        assert_eq!(told.last().unwrap().told["detail"]["request-id"], "the-request");
    }
}

#[test]
fn a_modification_that_goes_on_is_left_alone() {
    let scene = Scene::new();
    let id = scene.encrypted_volume();
    scene.leave_modification(&id, Cut::Grown);
    let maker = Lease::take(&scene.home, &id).unwrap();
    repair(&scene.home).unwrap();
    assert_eq!(scene.state_of_modification(&id), Some(ModificationState::Modifying));
    without(Protection::Lease, || repair(&scene.home).unwrap());
    assert_eq!(scene.state_of_modification(&id), Some(ModificationState::Optimizing), "the twin does another's work");
    drop(maker);
}

/// A file that cannot grow keeps nobody from other volumes.
#[test]
fn a_modification_that_cannot_be_finished_waits() {
    let scene = Scene::new();
    let (id, other) = (scene.encrypted_volume(), scene.encrypted_volume());
    scene.leave_modification(&id, Cut::Announced);
    let path = scene.home.dir().path_of(&format!("volumes/{id}.luks"));
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    repair(&scene.home).unwrap();
    assert_eq!(scene.state_of_modification(&id), Some(ModificationState::Modifying));
    delete_volume(&scene.call(), DeleteVolumeRequest { volume_id: other.to_string(), dry_run: None }).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    repair(&scene.home).unwrap();
    assert_eq!(scene.sizes(&id), (2, 2, true));
}

/// The next attach under a key that cannot be used is refused; the twin, in which KMS does not look at the key's state, attaches.
/// Nothing is started: a copy of the state in memory is attached to.
#[test]
fn an_attach_is_refused_for_the_keys_state_and_nothing_else() {
    let scene = Scene::new();
    let key = kms::create_key(&scene.call(), kms::CreateKeyRequest::default()).unwrap().key_metadata.arn;
    let request = CreateVolumeRequest {
        size: Some(1),
        encrypted: Some(true),
        kms_key_id: Some(key.clone()),
        ..CreateVolumeRequest::default()
    };
    let volume_id = create_volume(&scene.call(), request).unwrap().volume_id;
    let attach = || -> Result<(), ServiceError> {
        let scratch = scene.home.scratch_copy().unwrap();
        kms::RootKey::lend(&scene.home, &scratch).unwrap();
        let call = Call { home: &scratch, ..scene.call() };
        let request = AttachVolumeRequest { volume_id: volume_id.clone(), ..AttachVolumeRequest::default() };
        attach_volume(&call, request).map(drop)
    };
    attach().unwrap();
    kms::disable_key(&scene.call(), serde_json::from_value(serde_json::json!({"KeyId": key})).unwrap()).unwrap();
    assert_eq!(attach().unwrap_err().code(), "CustomerKeyHasBeenRevoked");
    without(Protection::KeyState, || attach().unwrap());
}
