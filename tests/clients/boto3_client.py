#!/usr/bin/python3
"""Drives the endpoint as code that talks to AWS does: with boto3, told nothing but the endpoint's address.

Where it has a choice it checks what other stand-ins get wrong: a flipped bit, the number of bytes, the context, a grant's
constraint, what a disabled key stops and what it does not.
"""

import base64
import datetime
import json
import sys

import boto3
import botocore.config
import botocore.exceptions

ENDPOINT = sys.argv[1]


def client(service, key="AKIAIOSFODNN7EXAMPLE", secret="any", token=None, region="us-east-1"):
    config = botocore.config.Config(retries={"max_attempts": 1})
    return boto3.client(service, endpoint_url=ENDPOINT, region_name=region, config=config,
                        aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token)


def refused(code, call, status=None, **arguments):
    """The error of a call that must be refused with `code`."""
    try:
        answer = call(**arguments)
    except botocore.exceptions.ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{found} instead of {code}: {error}"
        assert status in (None, error.response["ResponseMetadata"]["HTTPStatusCode"]), error.response
        assert error.response["ResponseMetadata"]["RequestId"], error.response
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} was expected, and the answer is {answer}")


def keys():
    kms = client("kms")
    metadata = kms.create_key(Description="for a test", Tags=[{"TagKey": "team", "TagValue": "a"}])["KeyMetadata"]
    key, arn = metadata["KeyId"], metadata["Arn"]
    age = datetime.datetime.now(datetime.timezone.utc) - metadata["CreationDate"]
    assert abs(age.total_seconds()) < 60, metadata
    kms.create_alias(AliasName="alias/app", TargetKeyId=key)
    assert kms.describe_key(KeyId="alias/app")["KeyMetadata"]["Arn"] == arn
    assert refused("NotFoundException", kms.describe_key, KeyId="alias/none")

    context = {"purpose": "test", "ünïcode": "ja"}
    sealed = kms.encrypt(KeyId="alias/app", Plaintext=b"a secret word", EncryptionContext=context)
    blob = sealed["CiphertextBlob"]
    assert b"secret word" not in blob
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=context)
    assert (opened["Plaintext"], opened["KeyId"]) == (b"a secret word", arn)
    flipped = bytearray(blob)
    flipped[len(flipped) // 2] ^= 1
    refused("InvalidCiphertextException", kms.decrypt, 400, CiphertextBlob=bytes(flipped), EncryptionContext=context)
    refused("InvalidCiphertextException", kms.decrypt, 400, CiphertextBlob=blob)
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    refused("IncorrectKeyException", kms.decrypt, 400, CiphertextBlob=blob, EncryptionContext=context, KeyId=other)
    moved = kms.re_encrypt(CiphertextBlob=blob, SourceEncryptionContext=context, DestinationKeyId=other)
    assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"])["Plaintext"] == b"a secret word"

    assert len(kms.generate_data_key(KeyId=key, NumberOfBytes=64)["Plaintext"]) == 64
    assert "Plaintext" not in kms.generate_data_key_without_plaintext(KeyId=key, KeySpec="AES_256")
    assert len(kms.generate_random(NumberOfBytes=17)["Plaintext"]) == 17

    kms.disable_key(KeyId=key)
    assert refused("DisabledException", kms.decrypt, 400, CiphertextBlob=blob, EncryptionContext=context) == f"{arn} is disabled."
    kms.enable_key(KeyId=key)
    for _ in range(5):
        kms.create_key()
    pages = kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2})
    assert len([entry for page in pages for entry in page["Keys"]]) == 7
    policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    assert policy["Statement"][0]["Action"] == "kms:*"
    deletion = kms.schedule_key_deletion(KeyId=other, PendingWindowInDays=7)["DeletionDate"]
    left = deletion - datetime.datetime.now(datetime.timezone.utc)
    assert 6.9 < left.total_seconds() / 86400 < 7.1, deletion
    return arn


def grants(arn):
    kms, iam = client("kms"), client("iam")
    user = iam.create_user(UserName="grantee")["User"]["Arn"]
    made = iam.create_access_key(UserName="grantee")["AccessKey"]
    theirs = client("kms", made["AccessKeyId"], made["SecretAccessKey"])
    assert client("sts", made["AccessKeyId"], made["SecretAccessKey"]).get_caller_identity()["Arn"] == user
    message = refused("AccessDeniedException", theirs.describe_key, 400, KeyId=arn)
    assert f"User: {user} is not authorized to perform: kms:DescribeKey" in message, message
    kms.create_grant(KeyId=arn, GranteePrincipal=user, Operations=["Encrypt", "Decrypt"],
                     Constraints={"EncryptionContextSubset": {"aws:ebs:id": "vol-1"}})
    context = {"aws:ebs:id": "vol-1", "more": "x"}
    blob = theirs.encrypt(KeyId=arn, Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
    assert theirs.decrypt(CiphertextBlob=blob, EncryptionContext=context)["Plaintext"] == b"x"
    refused("AccessDeniedException", theirs.encrypt, 400, KeyId=arn, Plaintext=b"x", EncryptionContext={"aws:ebs:id": "vol-2"})
    refused("AccessDeniedException", theirs.encrypt, 400, KeyId=arn, Plaintext=b"x")
    refused("InvalidSignatureException", client("kms", made["AccessKeyId"], "wrong").list_keys, 400)
    grant = kms.list_grants(KeyId=arn)["Grants"][0]
    assert grant["Constraints"] == {"EncryptionContextSubset": {"aws:ebs:id": "vol-1"}}
    assert isinstance(grant["CreationDate"], datetime.datetime)


def principals():
    iam, sts = client("iam"), client("sts")
    trust = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}}
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(trust), Tags=[{"Key": "team", "Value": "a"}])["Role"]
    assert role["AssumeRolePolicyDocument"] == trust, role
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:ListKeys", "Resource": "*"}]}
    iam.put_role_policy(RoleName="reader", PolicyName="list", PolicyDocument=json.dumps(policy))
    assert iam.get_role_policy(RoleName="reader", PolicyName="list")["PolicyDocument"] == policy
    assert iam.list_role_policies(RoleName="reader")["PolicyNames"] == ["list"]
    refused("NoSuchEntity", iam.get_role, 404, RoleName="nobody")
    refused("EntityAlreadyExists", iam.create_role, 409, RoleName="reader", AssumeRolePolicyDocument=json.dumps(trust))
    refused("AccessDenied", sts.assume_role, 403, RoleArn=role["Arn"], RoleSessionName="root-may-not")
    iam.create_user(UserName="operator")
    may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role["Arn"]}]}
    iam.put_user_policy(UserName="operator", PolicyName="assume", PolicyDocument=json.dumps(may))
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    session = client("sts", key["AccessKeyId"], key["SecretAccessKey"]).assume_role(RoleArn=role["Arn"], RoleSessionName="me")
    assert session["AssumedRoleUser"]["Arn"] == "arn:aws:sts::123456789012:assumed-role/reader/me"
    made = session["Credentials"]
    assert made["Expiration"] > datetime.datetime.now(datetime.timezone.utc)
    as_reader = [made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]]
    client("kms", *as_reader).list_keys()
    refused("AccessDeniedException", client("kms", *as_reader).create_key, 400)
    refused("UnrecognizedClientException", client("kms", *as_reader[:2]).list_keys, 400)
    assert client("sts", "444455556666").get_caller_identity()["Arn"] == "arn:aws:iam::444455556666:root"
    # A presigned URL is good for its bearer, and only as it was signed.
    url = client("sts", *as_reader).generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
    assert b"assumed-role/reader/me" in fetch(url)[1]
    assert fetch(url.replace("GetCallerIdentity", "GetSessionToken"))[0] == 403


def fetch(url):
    import urllib.error
    import urllib.request
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def volumes(arn):
    ec2, kms = client("ec2"), client("kms")
    made = ec2.create_volume(Size=1, AvailabilityZone="us-east-1a", Encrypted=True, KmsKeyId="alias/app", VolumeType="gp3",
                             TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "a <b> & c"}]}])
    volume = made["VolumeId"]
    assert (made["State"], made["KmsKeyId"], made["Iops"]) == ("creating", arn, 3000), made
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume])
    shown = ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": ["a*"]}])["Volumes"]
    assert [(found["VolumeId"], found["State"], found["Attachments"]) for found in shown] == [(volume, "available", [])]
    assert shown[0]["Tags"] == [{"Key": "Name", "Value": "a <b> & c"}]
    assert refused("DryRunOperation", ec2.delete_volume, 412, VolumeId=volume, DryRun=True)
    refused("InvalidVolume.NotFound", ec2.delete_volume, 400, VolumeId="vol-00000000000000000")
    refused("UnsupportedOperation", ec2.create_snapshot, 501, VolumeId=volume)

    attached = ec2.attach_volume(VolumeId=volume, Device="/dev/sdf", InstanceId=instances(ec2))
    assert attached["State"] in ("attaching", "attached"), attached
    # What is attached goes on without the key, and what is not does not begin without it.
    kms.disable_key(KeyId=arn)
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"][0]["State"] == "attached"
    ec2.detach_volume(VolumeId=volume)
    refused("CustomerKeyHasBeenRevoked", ec2.attach_volume, VolumeId=volume, Device="/dev/sdf", InstanceId=attached["InstanceId"])
    kms.enable_key(KeyId=arn)
    ec2.delete_volume(VolumeId=volume)
    refused("InvalidVolume.NotFound", ec2.describe_volumes, VolumeIds=[volume])
    return volume


def instances(ec2):
    """An instance, and what is known of where it stands."""
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert zones[0]["ZoneName"] == "us-east-1a" and zones[0]["State"] == "available", zones
    regions = ec2.describe_regions(RegionNames=["eu-west-1"])["Regions"]
    assert [(region["RegionName"], region["Endpoint"]) for region in regions] == [("eu-west-1", "ec2.eu-west-1.amazonaws.com")]
    made = ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[made], WaiterConfig={"Delay": 1})
    found = [instance["InstanceId"] for page in ec2.get_paginator("describe_instances").paginate()
             for reservation in page["Reservations"] for instance in reservation["Instances"]]
    assert found == [made], found
    return made


def launches(arn):
    """A launch whose root volume's key cannot be used fails as in real life: not when it is asked for, but soon after."""
    ec2, kms = client("ec2"), client("kms")
    mapping = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1, "Encrypted": True, "KmsKeyId": arn}}]
    wanted = {"ImageId": "ami-12345678", "MinCount": 1, "MaxCount": 1, "BlockDeviceMappings": mapping}
    good = ec2.run_instances(**wanted)["Instances"][0]["InstanceId"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[good], WaiterConfig={"Delay": 1})
    shown = ec2.describe_instances(InstanceIds=[good])["Reservations"][0]["Instances"][0]
    assert shown["BlockDeviceMappings"][0]["DeviceName"] == "/dev/xvda", shown
    assert isinstance(shown["LaunchTime"], datetime.datetime)
    kms.disable_key(KeyId=arn)
    bad = ec2.run_instances(**wanted)["Instances"][0]
    assert bad["State"]["Name"] == "pending", bad
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[bad["InstanceId"]], WaiterConfig={"Delay": 1})
    shown = ec2.describe_instances(InstanceIds=[bad["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert shown["StateReason"]["Code"] == "Client.InvalidKMSKey.InvalidState", shown
    kms.enable_key(KeyId=arn)
    ended = ec2.terminate_instances(InstanceIds=[good])["TerminatingInstances"]
    assert ended[0]["InstanceId"] == good and ended[0]["PreviousState"]["Name"] == "running", ended


def records(volume):
    trail = client("cloudtrail")
    pages = trail.get_paginator("lookup_events").paginate(LookupAttributes=[{"AttributeKey": "ResourceName", "AttributeValue": volume}])
    events = [event for page in pages for event in page["Events"]]
    assert {event["EventName"] for event in events} >= {"CreateVolume", "AttachVolume", "DetachVolume"}, events
    assert all(isinstance(event["EventTime"], datetime.datetime) for event in events)
    found = trail.lookup_events(LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "GenerateDataKeyWithoutPlaintext"}])
    uses = [json.loads(event["CloudTrailEvent"]) for event in found["Events"]]
    contexts = [use["requestParameters"].get("encryptionContext") for use in uses]
    assert {"aws:ebs:id": volume} in contexts, contexts
    own = next(use for use in uses if use["requestParameters"].get("encryptionContext") == {"aws:ebs:id": volume})
    assert own["userIdentity"]["invokedBy"], own


arn = keys()
grants(arn)
principals()
records(volumes(arn))
launches(arn)
print("boto3", boto3.__version__)
