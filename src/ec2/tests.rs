//! What a crash can leave, state by state, and the protections with their twins.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::lease::Lease;
use super::table::{self, AttachmentRow, State, VolumeRow};
use super::*;
use crate::gate::{Call, ServiceError, run_steps};
use crate::iam::Principal;
use crate::ids::{InstanceId, VolumeId};
use crate::kms;
use crate::store::Home;
use crate::twin::{Protection, without};

pub(super) struct Scene {
    _base: tempfile::TempDir,
    pub(super) home: Home,
}

impl Scene {
    pub(super) fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("home")).unwrap();
        Self { _base: base, home }
    }

    pub(super) fn call(&self) -> Call<'_> {
        Call::direct(&self.home, Principal::Root("123456789012".parse().unwrap()), "us-east-1".parse().unwrap())
    }

    pub(super) fn encrypted_volume(&self) -> VolumeId {
        let request = CreateVolumeRequest { size: Some(1), encrypted: Some(true), ..CreateVolumeRequest::default() };
        create_volume(&self.call(), request).unwrap().volume_id.parse().unwrap()
    }

    pub(super) fn row(&self, id: &VolumeId) -> Option<VolumeRow> {
        self.home.read(|tx| table::volume(tx, id)).unwrap()
    }

    /// Puts a volume that is at rest into the state in which a crash would have left it.
    fn leave_in(&self, id: &VolumeId, state: State) {
        self.home.write(|tx| table::set_state(tx, id, state)).unwrap();
    }

    fn leave_attachment(&self, id: &VolumeId, state: &str, grant_id: Option<String>) -> AttachmentRow {
        let attachment = AttachmentRow {
            volume: id.clone(),
            instance: self.home.write(table::this_instance).unwrap(),
            device: "/dev/sdf".to_owned(),
            state: state.to_owned(),
            attached_at: self.home.now().unwrap(),
            grant_name: "the-grant".to_owned(),
            grant_id,
            exporter: None,
            delete_on_termination: false,
        };
        self.home.write(|tx| table::put_attachment(tx, &attachment)).unwrap();
        self.leave_in(id, State::InUse);
        attachment
    }

    fn grants(&self, id: &VolumeId) -> usize {
        let key_id = self.row(id).unwrap().encryption.unwrap().key_arn;
        kms::list_grants(&self.call(), kms::ListGrantsRequest { key_id, ..Default::default() }).unwrap().grants.len()
    }

    fn grant(&self, id: &VolumeId, instance: &InstanceId) -> String {
        let row = self.row(id).unwrap();
        let key_arn = row.encryption.as_ref().unwrap().key_arn.clone();
        keys::grant(&self.call(), &row, &key_arn, instance, "the-grant").unwrap().id
    }

    fn file(&self, id: &VolumeId) -> File {
        let path = self.home.dir().path_of(&format!("volumes/{id}.luks"));
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.home.dir().path_of("volumes")).unwrap().count()
    }
}

#[test]
fn a_volume_that_was_being_made_is_taken_away() {
    let scene = Scene::new();
    let id = scene.encrypted_volume();
    scene.leave_in(&id, State::Creating);
    std::fs::write(scene.home.dir().path_of(&format!("volumes/{id}.luks.new")), "half").unwrap();
    without(Protection::Repair, || repair(&scene.home).unwrap());
    assert!(scene.row(&id).is_some(), "nobody else takes it away");
    repair(&scene.home).unwrap();
    assert_eq!((scene.row(&id), scene.files()), (None, 0));
    assert!(take_notices(&scene.home).unwrap()[0].contains("was being made"));
    assert!(take_notices(&scene.home).unwrap().is_empty(), "told once");
}

/// Without the lease a look from another process would take a volume away while it is being made.
#[test]
fn a_volume_that_is_being_made_is_left_alone() {
    let scene = Scene::new();
    let id = scene.encrypted_volume();
    scene.leave_in(&id, State::Creating);
    let maker = Lease::take(&scene.home, &id).unwrap();
    repair(&scene.home).unwrap();
    assert_eq!(scene.row(&id).unwrap().state, State::Creating);
    without(Protection::Lease, || repair(&scene.home).unwrap());
    assert_eq!(scene.row(&id), None, "the twin takes it away under its maker's hands");
    drop(maker);
}

/// Another command looks between the preparation and the commit, which is where it destroyed volumes once their maker had
/// let go of the lease too early.
#[test]
fn a_volume_is_its_makers_until_it_is_committed() {
    let scene = Scene::new();
    let make = || {
        let call = scene.call();
        let request = CreateVolumeRequest { size: Some(1), ..CreateVolumeRequest::default() };
        run_steps(
            &call,
            &record::CREATE_VOLUME,
            record::create_request(&request),
            |draft| {
                let prepared = create::prepare(&call, &request, None, draft)?;
                repair(&scene.home)?;
                Ok(prepared)
            },
            |step, prepared| create::commit(step, prepared),
        )
    };
    make().unwrap();
    assert_eq!(scene.files(), 1);
    without(Protection::LeaseToCommit, make).unwrap_err();
    assert_eq!(scene.files(), 1, "the twin lost its volume");
    assert_eq!(describe_volumes(&scene.call(), DescribeVolumesRequest::default()).unwrap().volumes.len(), 1);
}

#[test]
fn a_deletion_that_was_cut_short_is_finished() {
    let scene = Scene::new();
    let id = scene.encrypted_volume();
    drop(open(&scene.call(), id.as_str(), Access::Write).unwrap());
    assert_eq!(scene.files(), 2, "the volume and its latch");
    // Cut short between the two.
    std::fs::remove_file(scene.home.dir().path_of(&format!("volumes/{id}.luks"))).unwrap();
    scene.leave_in(&id, State::Deleting);
    repair(&scene.home).unwrap();
    assert_eq!((scene.row(&id), scene.files()), (None, 0));
}

/// Killed before the grant, between grant and note of it, and after: never does a grant stay behind.
#[test]
fn an_attachment_that_was_cut_short_leaves_no_grant() {
    for (granted, noted) in [(false, false), (true, false), (true, true)] {
        let scene = Scene::new();
        let id = scene.encrypted_volume();
        let instance = scene.home.write(table::this_instance).unwrap();
        let grant = granted.then(|| scene.grant(&id, &instance));
        scene.leave_attachment(&id, "attaching", grant.filter(|_| noted));
        assert_eq!(scene.grants(&id), usize::from(granted));
        without(Protection::Repair, || repair(&scene.home).unwrap());
        assert_eq!(scene.grants(&id), usize::from(granted), "nobody else retires it");
        repair(&scene.home).unwrap();
        assert_eq!((scene.row(&id).unwrap().state, scene.grants(&id)), (State::Available, 0));
        assert!(take_notices(&scene.home).unwrap().is_empty(), "the attach itself failed and said so");
    }
}

#[test]
fn an_attachment_stands_while_its_file_is_held_and_falls_with_it() {
    let scene = Scene::new();
    let id = scene.encrypted_volume();
    let held = open(&scene.call(), id.as_str(), Access::Write).unwrap();
    scene.leave_attachment(&id, "attached", None);
    repair(&scene.home).unwrap();
    assert_eq!(scene.row(&id).unwrap().state, State::InUse);
    drop(held);
    repair(&scene.home).unwrap();
    assert_eq!(scene.row(&id).unwrap().state, State::Available);
    assert!(take_notices(&scene.home).unwrap()[0].contains("ended without a detach"));
}

/// The token's own context would open a wrapped key wherever it was put; the volume's does not.
#[test]
fn a_wrapped_key_moved_into_another_header_does_not_open() {
    let scene = Scene::new();
    let (one, other) = (scene.encrypted_volume(), scene.encrypted_volume());
    let written = open(&scene.call(), one.as_str(), Access::Write).unwrap();
    written.device().write_at(0, b"belongs to one").unwrap();
    drop(written);
    let mut header = vec![0; 1 << 20];
    scene.file(&other).read_exact_at(&mut header, 0).unwrap();
    scene.file(&one).write_all_at(&header, 0).unwrap();

    let refused = open(&scene.call(), one.as_str(), Access::Read).unwrap_err();
    assert_eq!(refused.code(), "InvalidCiphertextException");
    let opened = without(Protection::OwnContext, || open(&scene.call(), one.as_str(), Access::Read)).unwrap();
    let mut noise = [0; 14];
    opened.device().read_at(0, &mut noise).unwrap();
    assert_ne!(&noise, b"belongs to one", "the twin serves the volume under the wrong key");
}

/// Every operation refuses another account's principal before it looks for the volume. Without the check he may do
/// whatever the owner may.
#[test]
fn principals_of_other_accounts_may_nothing() {
    let scene = Scene::new();
    let foreign = Principal::Root("210987654321".parse().unwrap());
    let call = scene.call().by(foreign);
    let attempts = |id: &VolumeId| -> Vec<(&str, Result<(), ServiceError>)> {
        let volume_id = id.to_string();
        let create = CreateVolumeRequest { size: Some(1), ..CreateVolumeRequest::default() };
        let attach = AttachVolumeRequest { volume_id: volume_id.clone(), dry_run: Some(true), ..Default::default() };
        let detach = DetachVolumeRequest { volume_id: volume_id.clone(), dry_run: Some(true), ..Default::default() };
        let delete = DeleteVolumeRequest { volume_id: volume_id.clone(), ..Default::default() };
        vec![
            ("create", create_volume(&call, create).map(drop)),
            ("describe", describe_volumes(&call, DescribeVolumesRequest::default()).map(drop)),
            ("attach", attach_volume(&call, attach).map(drop)),
            ("detach", detach_volume(&call, detach).map(drop)),
            ("inspect", inspect(&call, &volume_id).map(drop)),
            ("open", open(&call, &volume_id, Access::Write).map(drop)),
            ("verify", verify(&call, &volume_id, &mut |_| ()).map(drop)),
            ("delete", delete_volume(&call, delete).map(drop)),
        ]
    };
    let id = scene.encrypted_volume();
    for (what, outcome) in attempts(&id) {
        assert_eq!(outcome.unwrap_err().code(), "UnauthorizedOperation", "{what}");
    }
    assert_eq!((scene.row(&id).map(|row| row.state), scene.files()), (Some(State::Available), 1));
    for (what, outcome) in without(Protection::Policy, || attempts(&id)) {
        match what {
            // Here the twin gets as far as the answer to a dry run, or to what the volume's state allows.
            "attach" => assert_eq!(outcome.unwrap_err().code(), "DryRunOperation"),
            "detach" => assert_eq!(outcome.unwrap_err().code(), "IncorrectState"),
            _ => outcome.unwrap_or_else(|error| panic!("{what}: {error}")),
        }
    }
    assert_eq!(scene.row(&id), None, "the twin lost its volume to a stranger");
}

/// The digest stops a key that KMS gave for another volume's blob, whatever the token says.
#[test]
fn a_refusal_by_kms_is_the_callers_to_see() {
    let scene = Scene::new();
    let id = scene.encrypted_volume();
    let foreign =
        Call::direct(&scene.home, Principal::Root("210987654321".parse().unwrap()), "us-east-1".parse().unwrap());
    let error = open(&foreign, id.as_str(), Access::Read).unwrap_err();
    assert_eq!(error.code(), "InvalidVolume.NotFound", "another account's volume does not exist");
}

/// What `volume verify` says of the volume.
fn problems(scene: &Scene, id: &VolumeId) -> Vec<String> {
    verify(&scene.call(), id.as_str(), &mut |_| ()).unwrap().problems
}

#[test]
fn a_manifest_key_is_that_of_the_volumes_data_key_and_goes_with_the_last_of_its_lineage() {
    let scene = Scene::new();
    let (one, other) = (scene.encrypted_volume(), scene.encrypted_volume());
    let lineage = |id: &VolumeId| scene.home.read(|tx| table::lineage_of(tx, id)).unwrap();
    assert_ne!(lineage(&one).unwrap().id, lineage(&other).unwrap().id);
    assert_eq!(problems(&scene, &one), Vec::<String>::new());

    let others = lineage(&other).unwrap().manifest_key(&scene.home).unwrap();
    let planted = lineage::Lineage::begin(&scene.home, &others).unwrap();
    let put = |sealed: &[u8], id: &str| {
        let update = "UPDATE lineages SET manifest_key = ?1 WHERE id = ?2";
        scene.home.write(|tx| tx.execute(update, rusqlite::params![sealed, id]).map_err(ServiceError::from)).unwrap();
    };
    let first = lineage(&one).unwrap();
    put(&planted.sealed, &first.id);
    assert!(problems(&scene, &one)[0].contains("manifest key does not open"));
    let keys = without(Protection::KeyDerivation, || problems(&scene, &other));
    assert!(keys[0].contains("is not that of the volume's data key"), "{keys:?}");
    put(&first.sealed, &first.id);
    assert_eq!(problems(&scene, &one), Vec::<String>::new());

    let share = "UPDATE volumes SET lineage = ?1 WHERE id = ?2";
    scene.home.write(|tx| tx.execute(share, [first.id.as_str(), other.as_str()]).map_err(ServiceError::from)).unwrap();
    let delete = |id: &VolumeId| {
        let request = DeleteVolumeRequest { volume_id: id.to_string(), ..DeleteVolumeRequest::default() };
        delete_volume(&scene.call(), request).unwrap();
    };
    delete(&one);
    assert_eq!(lineage(&other), Some(first.clone()), "the other volume is still of it");
    delete(&other);
    let left = "SELECT count(*) FROM lineages WHERE id = ?1";
    let left: i64 =
        scene.home.read(|tx| tx.query_row(left, [&first.id], |row| row.get(0)).map_err(ServiceError::from)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn nothing_is_left_of_a_volume_whose_file_cannot_be_made() {
    let scene = Scene::new();
    let volumes = scene.home.dir().path_of("volumes");
    std::fs::remove_dir(&volumes).unwrap();
    std::fs::write(&volumes, "in the way").unwrap();
    let request =
        CreateVolumeRequest { size: Some(1), client_token: Some("again".to_owned()), ..CreateVolumeRequest::default() };
    let error = create_volume(&scene.call(), request.clone()).unwrap_err();
    assert!(matches!(error, ServiceError::Machine(_)), "{error}");
    std::fs::remove_file(&volumes).unwrap();
    std::fs::create_dir(&volumes).unwrap();
    let listed = describe_volumes(&scene.call(), DescribeVolumesRequest::default()).unwrap();
    assert!(listed.volumes.is_empty());
    create_volume(&scene.call(), request).unwrap();
    let listed = describe_volumes(&scene.call(), DescribeVolumesRequest::default()).unwrap();
    assert_eq!(listed.volumes.len(), 1, "the token is free again after a failure of this machine");
}

/// An instance as its launch, or its end, left it when it was killed, with one volume attached.
fn left_instance(scene: &Scene, state: instance::InstanceState) -> (InstanceId, VolumeId) {
    let volume = scene.encrypted_volume();
    let id = InstanceId::random();
    let row = instance::InstanceRow {
        id: id.clone(),
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        zone: "us-east-1a".to_owned(),
        reservation: "r-12345678".to_owned(),
        launch_index: 0,
        image_id: "ami-12345678".to_owned(),
        instance_type: "m1.small".to_owned(),
        key_name: None,
        ebs_optimized: false,
        client_token: String::new(),
        state,
        reason: None,
        transition_reason: String::new(),
        launched: scene.home.now().unwrap(),
        due: None,
    };
    let grant = scene.grant(&volume, &id);
    let attachment = AttachmentRow {
        instance: id.clone(),
        delete_on_termination: true,
        ..scene.leave_attachment(&volume, "attaching", Some(grant))
    };
    scene
        .home
        .write(|tx| {
            table::remove_attachment(tx, &volume)?;
            table::put_attachment(tx, &attachment)?;
            instance::insert(tx, &row, &[])
        })
        .unwrap();
    (id, volume)
}

#[test]
fn a_launch_that_was_cut_short_is_taken_back_and_an_end_finished() {
    for (state, left) in
        [(instance::InstanceState::Pending, None), (instance::InstanceState::ShuttingDown, Some("terminated"))]
    {
        let scene = Scene::new();
        let (id, volume) = left_instance(&scene, state);
        let key_id = scene.row(&volume).unwrap().encryption.unwrap().key_arn;
        let shown = || {
            let shown = describe_instances(&scene.call(), DescribeInstancesRequest::default()).unwrap().reservations;
            shown.first().map(|one| one.instances[0].state.name.clone())
        };
        assert_eq!(without(Protection::Repair, shown).as_deref(), Some(state.name()), "nobody else is at it");
        // Whoever is at it is not disturbed, and the volumes' own repair leaves them to him.
        let lease = Lease::take(&scene.home, &id).unwrap();
        repair(&scene.home).unwrap();
        assert_eq!(scene.row(&volume).unwrap().state, State::InUse);
        drop(lease);
        assert_eq!(shown().as_deref(), left);
        assert_eq!((scene.row(&volume), scene.files()), (None, 0));
        let request = kms::ListGrantsRequest { key_id, ..Default::default() };
        assert!(kms::list_grants(&scene.call(), request).unwrap().grants.is_empty());
        let told = take_notices(&scene.home).unwrap();
        assert_eq!(told.iter().filter(|text| text.contains("was being launched")).count(), usize::from(left.is_none()));
    }
}

/// Without the lease another command would take an instance away while it is being launched.
#[test]
fn an_instance_is_its_launchers_until_it_is_committed() {
    let scene = Scene::new();
    let (id, volume) = left_instance(&scene, instance::InstanceState::Pending);
    let launcher = Lease::take(&scene.home, &id).unwrap();
    without(Protection::Lease, || repair(&scene.home).unwrap());
    assert_eq!(scene.row(&volume), None, "the twin takes it away under its launcher's hands");
    drop(launcher);
}
